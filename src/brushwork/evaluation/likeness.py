"""Identity and prompt adherence: how near a picture is to the references, and to the words that it was asked for.

Shapes in this file:  N pictures   R references   P prompts   D width of a vector; all vectors have length 1
"""

import torch
from torch import Tensor


def likeness(pictures: Tensor, references: Tensor) -> Tensor:
    """(N, D), (R, D) -> (N,): mean cosine to the references, as DINO and CLIP-I of arXiv:2208.12242, sec. 4.2"""
    return pictures @ references.mean(dim=0)


def ceiling(references: Tensor) -> float:
    """How near the references are to one another, each to all but itself: no picture can be expected to be nearer.

    (R, D) -> mean cosine over all pairs of different references
    """
    count = len(references)
    if count < 2:
        raise ValueError("a likeness among references needs two of them")
    total = references.sum(dim=0).square().sum() - references.square().sum()
    return float(total / (count * (count - 1)))


def way(pictures: Tensor, references: Tensor, *, start: Tensor) -> Tensor:
    """How far each picture has come from what the base draws to the references, along the straight line between the
    means of both: 0 is the base, 1 the mean of the references.

    What a place or a camera does to a vector lies mostly across that line: it measures the subject, where a plain
    cosine measures the scenes that the references happen to show (the directions of arXiv:2108.00946, sec. 3.2).

    Args:
        start: what the base drew for the same prompts.

    (N, D), (R, D), (N, D) -> (N,)
    """
    begin = start.mean(dim=0)
    line = references.mean(dim=0) - begin
    return (pictures - begin) @ line / line.square().sum().clamp(min=1e-6)


def way_among_references(references: Tensor, *, start: Tensor) -> float:
    """How far each reference has come towards the others, in the mean: as far as can be expected of a new picture."""
    found = []
    for left_out in range(len(references)):
        others = torch.cat([references[:left_out], references[left_out + 1 :]])
        found.append(float(way(references[left_out : left_out + 1], others, start=start)[0]))
    return sum(found) / len(found)


def scaled(values: Tensor, *, floor: Tensor | float, ceiling: float) -> Tensor:
    """0 at the floor, 1 at the ceiling, and between them in proportion; 0 where the ceiling is no higher."""
    span = torch.as_tensor(ceiling - floor)
    return torch.where(span > 1e-6, (values - floor) / span.clamp(min=1e-6), 0.0).clamp(0, 1)


def adherence(pictures: Tensor, texts: Tensor, own: Tensor) -> Tensor:
    """How much nearer a picture is to its own prompt than to the others, by the cosine of CLIPScore (2104.08718).

    What all prompts have in common, the subject above all, and a picture that suits any words, count for nothing.

    Args:
        own: the position of each picture's prompt.

    (N, D), (P, D), (N,) -> (N,)
    """
    cosines = pictures @ texts.T  # (N, P)
    mine = cosines.gather(1, own[:, None])[:, 0]
    if len(texts) == 1:
        return mine
    others = (cosines.sum(dim=1) - mine) / (len(texts) - 1)
    return mine - others
