"""Variety: how much pictures differ in what they show and in how they are composed.

Shapes in this file:  N pictures   D width of a vector   W draws of the bootstrap
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

SIDE, BLOCKS, DIRECTIONS = 64, 8, 6
"""A picture is seen as 64 x 64 pixels in 8 x 8 blocks, each with the strength of its edges in six directions."""


def layout(picture: Image.Image) -> Tensor:
    """-> (8 * 8 * 6,) of length 1: where edges run in which direction, and so pose and composition without colour.

    Histograms of oriented gradients (Dalal and Triggs, 2005), of a small grey picture; a picture without edges is 0.
    """
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255
    down, across = np.gradient(grey)
    strength = np.hypot(down, across)
    direction = ((np.arctan2(down, across) % np.pi) / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    block = SIDE // BLOCKS
    histograms: npt.NDArray[np.float64] = np.zeros((BLOCKS, BLOCKS, DIRECTIONS))
    rows, columns = np.indices(grey.shape) // block
    np.add.at(histograms, (rows, columns, direction), strength)
    flat = torch.from_numpy(np.sqrt(histograms).reshape(-1)).float()
    length = flat.norm()
    return flat / length if length > 1e-6 else flat


def layouts(pictures: Sequence[Image.Image]) -> Tensor:
    """-> (N, 384)"""
    return torch.stack([layout(picture) for picture in pictures])


def distances(vectors: Tensor) -> Tensor:
    """(N, D) of length 1 -> (N, N): 1 - cosine, and 0 between a picture and itself"""
    found = 1 - vectors @ vectors.T
    return found.clamp(min=0).fill_diagonal_(0)


def mean_distance(between: Tensor, counts: Tensor, *, alike: Tensor | None = None) -> Tensor:
    """The mean distance over pairs of different pictures, each counted as often as it was drawn.

    A picture that is drawn twice is no pair with itself: it would look like a model that repeats itself.

    Args:
        alike: (N, N), where a pair counts: two pictures of one prompt. None: all pairs.

    (N, N), (W, N) -> (W,); not a number where a draw holds no pair
    """
    pairs = torch.ones_like(between) if alike is None else alike.to(between.dtype)
    pairs = pairs - torch.diag(torch.diagonal(pairs))
    total = torch.einsum("wi,ij,wj->w", counts, between * pairs, counts)
    number = torch.einsum("wi,ij,wj->w", counts, pairs, counts)
    return total / torch.where(number > 0, number, torch.nan)


def vendi(vectors: Tensor) -> float:
    """How many different pictures there are in effect: 1 where all are the same, N where no two are alike.

    The exponential of the entropy of the eigenvalues of K / N, K the cosines: eq. 1, arXiv:2210.02410.
    """
    kernel = (vectors @ vectors.T).double()
    eigenvalues = torch.linalg.eigvalsh(kernel / len(vectors)).clamp(min=0)
    eigenvalues = eigenvalues / eigenvalues.sum()
    entropy = -torch.special.xlogy(eigenvalues, eigenvalues).sum()
    return float(entropy.exp())
