"""A film as it comes from a camera: shots of frames that differ little, not all of the lead, some of them spoiled."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from brushwork.atomic import written_beside
from brushwork.film.captions import caption
from brushwork.film.frames import Size, draw_with_box, truth_of
from brushwork.film.scene import LEAD, Scene, cast_without_lead, imagine
from brushwork.film.spoil import SPOILS, Spoil, dissolve, spoil
from brushwork.records import write_rows

FRAMES_PER_SECOND = 12
_WHOLE_SHOT: tuple[Spoil, ...] = ("letterbox", "low resolution", "compression", "noise", "dark")
"""What in a real film lasts as long as the shot does."""


@dataclass(frozen=True)
class FilmFrame:
    """One frame of the film, before it is drawn.

    Args:
        shot: frames of one shot show the same scene a moment later: near-duplicates of each other.
        twin: frames with the same number are so close in time that a set needs only one of them.
        spoils: what happens to it, in this order.
        dissolves_into: the scene that it goes over into, and how much of 256 is seen of that one.
    """

    number: int
    shot: int
    twin: int
    scene: Scene
    spoils: tuple[Spoil, ...] = ()
    dissolves_into: tuple[Scene, int] | None = field(default=None)

    @property
    def is_good(self) -> bool:
        """Whether it shows the lead, unspoiled: what a curator should keep, once for each twin."""
        return self.scene.character == LEAD and not self.spoils and self.dissolves_into is None


def shoot(seed: int, num_frames: int, *, lead: float = 0.5, spoiled: float = 0.3) -> Iterator[FilmFrame]:
    """The frames of a film in their order.

    Args:
        lead: share of the shots that show the lead; the others show somebody else.
        spoiled: about how many of the frames are spoiled.
    """
    number, shot, twin = 0, 0, 0
    while number < num_frames:
        draw = random.Random(f"film/shots/{seed}/{shot}")
        scene = _scene_of(seed, shot, draw, lead=lead)
        length = draw.randint(4, 20)
        whole = (draw.choice(_WHOLE_SHOT),) if draw.random() < 0.4 * spoiled else ()
        after = _scene_of(seed, shot + 1, random.Random(f"film/shots/{seed}/{shot + 1}"), lead=lead)
        fades = draw.random() < 0.25 * spoiled
        for index in range(min(length, num_frames - number)):
            single = (draw.choice(SPOILS),) if not whole and draw.random() < 0.6 * spoiled else ()
            fading = 64 + 64 * (index - length + 3) if fades and index >= length - 3 else 0
            if index and index % 6 == 0:  # half a second
                twin += 1
            yield FilmFrame(
                number=number,
                shot=shot,
                twin=twin,
                scene=replace(scene, moment=index / FRAMES_PER_SECOND),
                spoils=whole + single,
                dissolves_into=(after, fading) if fading else None,
            )
            number += 1
        shot, twin = shot + 1, twin + 1


def _scene_of(seed: int, shot: int, draw: random.Random, *, lead: float) -> Scene:
    is_lead = draw.random() < lead
    return imagine(
        draw.getrandbits(48) + seed + shot, characters=(LEAD,) if is_lead else cast_without_lead(), style="flat"
    )


def draw_film_frame(frame: FilmFrame, size: Size = 128) -> tuple[Image.Image, dict[str, Any]]:
    """The picture and its whole truth, as a JSON object."""
    image, box = draw_with_box(frame.scene, size)
    if frame.dissolves_into is not None:
        scene, share = frame.dissolves_into
        image = dissolve(image, draw_with_box(scene, size)[0], share)
    done = []
    for kind in frame.spoils:
        image, truth = spoil(image, kind, seed=frame.number, box=box)
        done.append(truth)
    if frame.dissolves_into is not None:
        done.append({"kind": "dissolve", "share": frame.dissolves_into[1]})
    return image, {
        "frame": frame.number,
        "shot": frame.shot,
        "twin": frame.twin,
        "good": frame.is_good,
        "spoiled": done,
        **truth_of(frame.scene, box, size, words=caption(frame.scene)),
    }


def draw_film(
    folder: Path, num_frames: int, size: Size = 128, *, seed: int = 0, lead: float = 0.5, spoiled: float = 0.3
) -> None:
    """Write a film's frames as frame_000000.png and so on, without captions, and their truth to truth.jsonl."""
    rows = []
    for frame in shoot(seed, num_frames, lead=lead, spoiled=spoiled):
        image, truth = draw_film_frame(frame, size)
        name = f"frame_{frame.number:06d}.png"
        with written_beside(folder / name) as partial:
            image.save(partial, format="PNG")
        rows.append({"file": name, **truth})
    write_rows(folder / "truth.jsonl", rows)
