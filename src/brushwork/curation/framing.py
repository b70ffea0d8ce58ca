"""How much of the subject a frame shows, from the boxes that a detector finds: closed forms, no network.

A picture's pixels are counted from its upper left corner, so what stands lower has the larger `bottom`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from brushwork.config.schema import CurationConfig
from brushwork.curation.rules import Reason
from brushwork.vision.detections import Detected
from brushwork.vision.detector import Box, Seen

Shot = Literal["portrait", "half body", "full body"]
SHOTS: tuple[Shot, ...] = get_args(Shot)

EDGE = 0.015
"""A box that comes so near to a border, as a share of the side, goes on beyond it."""
HEAD_AND_SHOULDERS = 1.25
"""What is cut by the lower border and not so many times as tall as wide is head and shoulders."""
FACE_OF_PORTRAIT, FACE_OF_HALF = 1 / 4, 1 / 9
"""Of the picture's height, a face has at least so much. A body is 7.5 heads tall, and a face is 0.8 of a head: it has
0.8 / 7.5 = 1/9 of a picture that a whole body fills, and more than 1/4 where no more than three heads fit."""


@dataclass(frozen=True)
class Framing:
    """What a frame shows of the subject.

    Args:
        share: of the picture's pixels, the subject's box.
        hidden: of that box, what boxes of things before it take.
        is_cut: whether it goes on beyond one side of the picture.
    """

    shot: Shot
    share: float
    hidden: float
    is_cut: bool

    def against(self, curation: CurationConfig) -> list[Reason]:
        """What speaks against the frame."""
        found = []
        if self.hidden > curation.max_hidden:
            found.append(
                Reason(
                    "occluded",
                    f"hidden: things before the {curation.subject} take {self.hidden:.0%} of its box "
                    f"(curation.max_hidden {100 * curation.max_hidden:g}%)",
                )
            )
        if self.is_cut and not curation.keep_cut:
            found.append(
                Reason("cut_off", f"cut off: the {curation.subject} goes on beyond one side (curation.keep_cut)")
            )
        return found


def framing(detected: Detected, subjects: frozenset[str]) -> Framing | None:
    """Of the largest subject of a picture; None where none is found.

    Args:
        subjects: the labels that are the subject.
    """
    own = [seen for seen in detected.things if seen.label in subjects and seen.box.area > 0]
    if not own:
        return None
    subject = max(own, key=lambda seen: seen.box.area)
    others = [seen for seen in detected.things if seen is not subject]
    width, height = detected.width, detected.height
    by_face = any(word in subject.label.lower() for word in ("face", "head"))
    shot = shot_of_face(subject.box, height) if by_face else shot_of_body(subject.box, height)
    left, right = subject.box.left <= EDGE * width, subject.box.right >= (1 - EDGE) * width
    return Framing(
        shot=shot,
        share=subject.box.area / (width * height),
        hidden=hidden_share(subject.box, others),
        is_cut=left != right,
    )


def shot_of_body(box: Box, height: int) -> Shot:
    """Where the feet are seen it is a full body; else the box's form tells how much of it is there."""
    if box.bottom < (1 - EDGE) * height:
        return "full body"
    return "half body" if box.bottom - box.top >= HEAD_AND_SHOULDERS * (box.right - box.left) else "portrait"


def shot_of_face(box: Box, height: int) -> Shot:
    """By the share of the height that the face has."""
    share = (box.bottom - box.top) / height
    return "portrait" if share >= FACE_OF_PORTRAIT else "half body" if share >= FACE_OF_HALF else "full body"


def hidden_share(box: Box, others: Sequence[Seen]) -> float:
    """Of a box, the share that things before it take, each pixel once.

    On one ground, what is nearer to the camera stands lower in the picture. A thing whose box lies within the
    subject's is worn or held, and hides nothing.
    """
    before = [
        clipped
        for _, _, other in others
        if other.bottom > box.bottom and (clipped := _common(box, other)) is not None
    ]
    edges_x = sorted({side for each in before for side in (each.left, each.right)})
    edges_y = sorted({side for each in before for side in (each.top, each.bottom)})
    hidden = 0.0
    for left, right in pairwise(edges_x):
        for top, bottom in pairwise(edges_y):
            if any(b.left <= left and right <= b.right and b.top <= top and bottom <= b.bottom for b in before):
                hidden += (right - left) * (bottom - top)
    return hidden / box.area


def _common(one: Box, two: Box) -> Box | None:
    """What two boxes share."""
    found = Box(
        max(one.left, two.left), max(one.top, two.top), min(one.right, two.right), min(one.bottom, two.bottom)
    )
    return found if found.left < found.right and found.top < found.bottom else None
