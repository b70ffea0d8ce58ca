"""What kind of frame each is, for quotas: by its caption or its name, by a detector, or by an encoder.

Shapes in this file:  N frames   W words
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from brushwork.curation.framing import SHOTS, Framing, Shot
from brushwork.curation.likeness import nearest_words
from brushwork.data.layout import PictureFile
from brushwork.errors import UserError
from brushwork.vision.encoder import Encoder

_SHOT_WORDS: Mapping[Shot, re.Pattern[str]] = {
    "portrait": re.compile(r"\b(portrait|close[- ]?up|head ?shot)", re.IGNORECASE),
    "half body": re.compile(r"\b(half|upper|medium|cowboy)\b", re.IGNORECASE),
    "full body": re.compile(r"\b(full|whole|wide)\b", re.IGNORECASE),
}


def shot_of(words: str) -> Shot | None:
    """The shot that some words mean: `a full body shot` -> `full body`."""
    return next((shot for shot in SHOTS if _SHOT_WORDS[shot].search(words)), None)


def need_text(words: Sequence[str], encoder: Encoder, *, has_detector: bool) -> None:
    """Words that only an encoder could find want one that reads.

    Raises:
        UserError: it does not.
    """
    if words and not encoder.has_text and not (has_detector and all(shot_of(each) for each in words)):
        raise UserError(
            f"curation.quotas compares frames with words, and {encoder.name} reads none.",
            fix="name a CLIP or SigLIP with --encoder, leave the quotas out, or name a --detector for portraits, "
            "half and full bodies",
        )


def kinds_of(
    words: Sequence[str],
    pictures: Mapping[str, PictureFile],
    names: Sequence[str],
    *,
    framings: Mapping[str, Framing] | None,
    encoder: Encoder,
    vectors: Tensor,
) -> dict[str, str]:
    """The kind of each frame that has one, as the words of its quota.

    Args:
        names: N frames; what is said of them first is their caption or name, then what a detector found.
        framings: what a detector found, None without one. With one, shots are its business alone.
        vectors: (N, D) of these frames.
    """
    told = {name: kind for name in names if (kind := _said(name, pictures[name].caption, words)) is not None}
    by_shot = {shot: each for each in words if (shot := shot_of(each)) is not None}
    if framings is not None:
        for name, framed in framings.items():
            if framed.shot in by_shot:
                told.setdefault(name, by_shot[framed.shot])
        words = [each for each in words if shot_of(each) is None]
    left = [place for place, name in enumerate(names) if name not in told]
    if words and left:
        nearest = nearest_words(vectors[left], encoder.embed_texts(list(words))).tolist()
        told |= {names[place]: words[which] for place, which in zip(left, nearest, strict=True)}
    return told


def _said(name: str, caption: str | None, words: Sequence[str]) -> str | None:
    """The kind that a caption or the path of a frame names, where it is only one."""
    texts = [re.sub(r"[^\w]|_", " ", text or "").casefold() for text in (caption, name)]
    for text in texts:
        found = [each for each in words if re.search(rf"\b{_core(each)}\b", " ".join(text.split()))]
        if len(found) == 1:
            return found[0]
    return None


def _core(words: str) -> str:
    """`a full body shot` -> `full body`, as a pattern."""
    plain = re.sub(r"[^\w]|_", " ", words).casefold().split()
    kept = [word for word in plain if word not in ("a", "an", "the", "shot")] or plain
    return r"\ ".join(map(re.escape, kept))
