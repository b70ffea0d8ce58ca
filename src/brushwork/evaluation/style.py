"""Style: colours, contrast and the grain of edges, whatever a picture shows; and how far from the references' it is.

Shapes in this file:  N pictures   R references   S statistics
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

SIDE = 128
"""Pictures are looked at in this size, whatever size they have: grain is measured against the whole picture."""

OCTAVES = 4

_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_TO_OPPONENT = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
_DARKEST = 1 / 255

NAMES = (
    *(f"{what} of {channel}" for what in ("mean", "deviation") for channel in ("light", "yellow-blue", "red-green")),
    *(f"edges of light, octave {octave}" for octave in range(1, OCTAVES + 1)),
    *(f"edges of colour, octave {octave}" for octave in range(1, OCTAVES + 1)),
    "flat share",
)


def statistics(picture: Image.Image) -> Tensor:
    """-> (S,): mean and deviation of three opponent colours (Reinhard et al. 2001, Color Transfer between Images),
    the energy of edges in four octaves (as Portilla and Simoncelli 2000 sum up a texture), and flat paint."""
    opponent = _opponent(picture)
    values = [*opponent.mean(axis=(0, 1)), *opponent.std(axis=(0, 1))]
    values += _energies(opponent[..., :1]) + _energies(opponent[..., 1:])
    down, across = np.gradient(opponent[..., 0])
    values.append(float((np.hypot(down, across) < 0.01).mean()))
    return torch.tensor(values, dtype=torch.float64)


def distance(pictures: Tensor, references: Tensor) -> Tensor:
    """How many deviations of the references a picture is away, over all statistics: (N, S), (R, S) -> (N,)

    Each deviation is shrunk towards the mean of all (on a scale of its own, the spread over pictures and references
    together): a handful of references say little about any single statistic.
    """
    together = torch.cat([pictures, references]).std(dim=0, correction=0).clamp(min=1e-6)
    own, others = references / together, pictures / together
    count = len(references)
    variance = own.var(dim=0, correction=1) if count > 1 else torch.ones_like(own[0])
    shrunk = (count * variance + SHRINKAGE * variance.mean()) / (count + SHRINKAGE)
    away = (others - own.mean(dim=0)).square() / shrunk.clamp(min=1e-6)
    return away.mean(dim=1).sqrt()


SHRINKAGE = 4.0
"""The mean deviation counts as much as so many references."""


def among_references(references: Tensor) -> float:
    """The same distance from each reference to the others, in the mean: what counts as the style itself."""
    count = len(references)
    if count < 3:
        raise ValueError("a spread of style needs three references")
    found = []
    for left_out in range(count):
        others = torch.cat([references[:left_out], references[left_out + 1 :]])
        found.append(float(distance(references[left_out : left_out + 1], others)[0]))
    return sum(found) / count


def all_statistics(pictures: Sequence[Image.Image]) -> Tensor:
    """-> (N, S)"""
    return torch.stack([statistics(picture) for picture in pictures])


def _opponent(picture: Image.Image) -> npt.NDArray[np.float64]:
    """(SIDE, SIDE, 3): light, yellow-blue, red-green, of the logarithms of what the eye's cones take up"""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255
    cones = np.log10(np.maximum(pixels @ _TO_LMS.T, _DARKEST))
    return np.asarray(cones @ _TO_OPPONENT.T)


def _energies(channels: npt.NDArray[np.float64]) -> list[float]:
    """Per octave, the logarithm of the mean square of what is lost when it is made half as fine."""
    found = []
    for _ in range(OCTAVES):
        height, width, depth = channels.shape
        coarse = channels.reshape(height // 2, 2, width // 2, 2, depth).mean(axis=(1, 3))
        lost = channels - coarse.repeat(2, axis=0).repeat(2, axis=1)
        found.append(float(np.log10(np.mean(lost**2) + 1e-6)))
        channels = coarse
    return found
