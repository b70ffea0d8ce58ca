"""Copying: how near a picture is to the training picture that it is nearest to, by what it shows and pixel by pixel.

How near is too near, the held-out references say: they show the same subject and were never trained on. What is
nearer to a training picture than nearly all of them is a copy. And who has learned the subject draws pictures that
are as often nearest to a reference as to a training picture, where there are as many of both; who has learned the
pictures leans to these.

Shapes in this file:  N pictures   T training pictures   R references   D width of a vector   C numbers of a picture
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 32
SHIFT = 3
"""Small pictures are compared at 32 x 32 pixels, shifted by up to three of them either way, and mirrored."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The training picture that each picture is nearest to.

    Args:
        similarity: (N,), 1 is the same.
        which: (N,), its position.
    """

    similarity: Tensor
    which: Tensor


def nearest(similarities: Tensor) -> Nearest:
    """(N, T) -> for each picture the largest, as copies are searched for in arXiv:2212.03860"""
    similarity, which = similarities.max(dim=1)
    return Nearest(similarity, which)


def by_content(pictures: Tensor, others: Tensor) -> Tensor:
    """(N, D), (T, D) of length 1 -> (N, T): cosines"""
    return pictures @ others.T


def by_pixels(pictures: Tensor, others: Tensor) -> Tensor:
    """(N, 3, 32, 32), (T, 3, 32, 32) -> (N, T): the largest correlation over all shifts and both hands.

    The distance between pixels finds what a model has learned by heart (arXiv:2301.13188, sec. 4.2); a correlation
    is the same without regard to brightness and contrast. Where a picture is shifted, what both show is compared.
    """
    best = torch.full((len(pictures), len(others)), -1.0)
    for mine, theirs in _overlaps(pictures, others):
        best = torch.maximum(best, _unit(mine) @ _unit(theirs).T)
    return best


def leaning(training: Tensor, references: Tensor) -> Tensor:
    """How likely each picture is nearer to one of k training pictures than to one of k references, both drawn at
    random, k the smaller of their numbers: 1/2 where it was learned from neither.

    The test for copies of arXiv:2004.05675, with as many pictures on both sides.

    (N, T), (N, R) -> (N,)
    """
    count = min(training.shape[1], references.shape[1])
    mine, theirs = (each.double().sort(dim=1, descending=True).values for each in (training, references))
    weights, others = _largest_of(mine.shape[1], count), _largest_of(theirs.shape[1], count)
    found = []
    for near, far in zip(mine, theirs, strict=True):  # one by one: all at once would be N T R numbers
        wins = (near[:, None] > far).double() + (near[:, None] == far).double() / 2
        found.append(weights @ wins @ others)
    return torch.stack(found)


def _largest_of(total: int, count: int) -> Tensor:
    """The chance of each of `total` sorted values to be the largest of `count` that are drawn."""
    chances = [math.comb(total - 1 - place, count - 1) / math.comb(total, count) for place in range(total)]
    return torch.tensor(chances, dtype=torch.float64)


def small(picture: Image.Image) -> Tensor:
    """(3, 32, 32) in [0, 1]: the picture without what no memory of it would keep"""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def all_small(pictures: Sequence[Image.Image]) -> Tensor:
    """-> (N, 3, 32, 32)"""
    return torch.stack([small(picture) for picture in pictures])


def limit(references: Tensor, *, quantile: float) -> float:
    """How near is too near: nearer than this share of the held-out references is to any training picture. (R,) ->"""
    return float(torch.quantile(references.double(), quantile, interpolation="higher"))


def _overlaps(pictures: Tensor, training: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What both show, for every shift and both hands."""
    for mirrored in (False, True):
        other = training.flip(-1) if mirrored else training
        for down in range(-SHIFT, SHIFT + 1):
            for across in range(-SHIFT, SHIFT + 1):
                mine = pictures[..., _part(down), :][..., _part(across)]
                yield mine, other[..., _part(-down), :][..., _part(-across)]


def _part(shift: int) -> slice:
    return slice(max(0, shift), SIDE + min(0, shift))


def _unit(pictures: Tensor) -> Tensor:
    """(N, 3, h, w) -> (N, C) of mean 0 and length 1; one colour all over is 0"""
    flat = pictures.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1, eps=1e-3)
