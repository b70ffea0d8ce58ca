"""Frames that dissolve from one shot into the next, told by the frames before and after them.

A dissolve is a mixture: w A + (1 - w) B of a frame A before it and a frame B after it. The weight for which that
comes nearest is least squares, and what it leaves over tells whether the frame is one.

Only numpy and Pillow are needed. Shapes in this file:  N frames of a sequence   P numbers of a small copy
F frame, those before and those after: 1 + 2 R   B frames at a time
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Numbers = npt.NDArray[np.float64]

SIDE = 16
"""Small copies are so many pixels wide and high: what moves a little between two frames stays in its pixel."""
NUM_BYTES = SIDE * SIDE * 3
REACH = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""So many frames before and after are looked at: one second at 24 frames a second."""
LEAST_WEIGHT = 0.12
"""Where less than this is seen of one of the two, it is hardly seen."""
LEAST_DIFFERENCE = 0.08
"""Deviation, of 1, between two frames that are different shots..."""
MOST_CORRELATION = 0.7
"""... and how alike the two may be: above it they are one picture in other light, or moved."""
LEAST_CONTRAST = 0.04
"""Black and other even frames are no shots: a fade is told by how dark it is."""
AT_ONCE = 256


def small_copy(picture: Image.Image) -> str:
    """The picture at 16 x 16 pixels, as text that can be kept."""
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=4.0)
    return base64.b64encode(small.tobytes()).decode("ascii")


@dataclass(frozen=True)
class Mixture:
    """How well a frame is one before it laid over one after it.

    Args:
        explained: of what the frame differs from its nearest neighbour, so much is gone, from 0 to 1.
        weight: how much of it the one before is.
        before: its place in the sequence; so is `after`.
    """

    explained: float
    weight: float
    before: int
    after: int


def in_sequences(names: Sequence[str]) -> list[list[str]]:
    """Names folder by folder, as a person would order them: frame_9 before frame_10."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    return [sorted(some, key=_by_number) for some in folders.values()]


def _by_number(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def mixtures(copies: Mapping[str, str]) -> dict[str, tuple[float, float, str, str]]:
    """Of each frame that is a mixture at all: how well explained, the weight of the one before, and both names.

    Args:
        copies: small copies by name; each folder of names is a sequence of its own.
    """
    found = {}
    for names in in_sequences(list(copies)):
        data = b"".join(base64.b64decode(copies[name]) for name in names)
        frames = np.frombuffer(data, dtype=np.uint8).reshape(len(names), NUM_BYTES) / 255
        for name, mixed in zip(names, find_mixtures(frames), strict=True):
            if mixed is not None:
                found[name] = (mixed.explained, mixed.weight, names[mixed.before], names[mixed.after])
    return found


def find_mixtures(frames: Numbers) -> list[Mixture | None]:
    """(N, P) in the order of time -> the best mixture of each; None where no two neighbours are different shots"""
    found: list[Mixture | None] = []
    for start in range(0, len(frames), AT_ONCE):
        found += _of_block(frames, np.arange(start, min(start + AT_ONCE, len(frames))))
    return found


def _of_block(frames: Numbers, places: npt.NDArray[np.int64]) -> list[Mixture | None]:
    """The frames at some places."""
    steps = np.array(REACH)
    first, last = max(0, places[0] - steps.max()), min(len(frames), places[-1] + steps.max() + 1)
    some = frames[first:last]
    means = some.mean(axis=1)
    products = some @ some.T / some.shape[1]
    where = np.concatenate([places[:, None], places[:, None] - steps, places[:, None] + steps], axis=1)  # (B, F)
    there = (where >= 0) & (where < len(frames))
    rows = where.clip(first, last - 1) - first
    gram = products[rows[:, :, None], rows[:, None]]  # (B, F, F)
    squares = products.diagonal()[rows]  # (B, F)
    apart = np.maximum(squares[:, :, None] + squares[:, None] - 2 * gram, 0)  # mean squared differences
    covariance = gram - means[rows][:, :, None] * means[rows][:, None]
    deviation = np.sqrt(np.maximum(squares - means[rows] ** 2, 0))
    r = len(REACH)
    before, after = slice(1, r + 1), slice(r + 1, 2 * r + 1)
    of_before, of_after, between = (
        apart[:, 0, before],
        apart[:, 0, after],
        apart[:, before, after],
    )  # (B, R), (B, R, R)
    # The w for which |f - w a - (1 - w) b|^2 is least, and what is left of it.
    weight = (of_after[:, None] - of_before[:, :, None] + between) / np.maximum(2 * between, 1e-12)
    left = np.maximum(of_after[:, None] - weight**2 * between, 0)
    nearest = np.where(there, apart[:, 0], np.inf)[:, 1:].min(axis=1)
    explained = 1 - left / np.maximum(nearest, 1e-9)[:, None, None]
    alike = covariance[:, before, after] / np.maximum(
        deviation[:, before, None] * deviation[:, None, after], LEAST_CONTRAST**2
    )
    shots = there & (deviation >= LEAST_CONTRAST)
    counts = (
        (shots[:, before, None] & shots[:, None, after])
        & (between >= LEAST_DIFFERENCE**2)
        & (alike <= MOST_CORRELATION)
        & (np.abs(weight - 0.5) <= 0.5 - LEAST_WEIGHT)
    )
    explained = np.where(counts, explained, 0)
    best = explained.reshape(len(places), -1).argmax(axis=1)
    pairs = [divmod(int(pair), r) for pair in best]
    return [
        Mixture(value, float(weight[row, a, b]), int(where[row, 1 + a]), int(where[row, 1 + r + b]))
        if (value := float(explained[row, a, b])) > 0
        else None
        for row, (a, b) in enumerate(pairs)
    ]
