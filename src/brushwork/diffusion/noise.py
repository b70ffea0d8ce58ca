"""The noise that is mixed into the latents.

Drawing and mixing are apart: what is random follows from generators alone, what depends on the picture (adaptive
offset) is done where the picture is.

Shapes in this file:  B batch   C channels of the latents   H, W their size
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from brushwork.config.schema import LossConfig

Source = Callable[[str], torch.Generator]
"""A generator for each purpose."""


@dataclass(frozen=True)
class Noise:
    """What a batch's noise is made of, float32; None is a part that the settings do not ask for."""

    white: Tensor  # (B, C, H, W)
    offset: Tensor | None = None  # (B, C, 1, 1), of deviation 1
    offset_strength: Tensor | None = None  # (B, 1, 1, 1)
    coarse: Tensor | None = None  # (B, C, H, W): multires noise
    perturbation: Tensor | None = None  # (B, C, H, W): shown to the network, never asked of it

    def to(self, device: torch.device) -> "Noise":
        """The same noise on `device`."""
        parts = {name: part for name, part in vars(self).items() if part is not None}
        return Noise(**{name: part.to(device, non_blocking=True) for name, part in parts.items()})


def draw(shape: Sequence[int], *, loss: LossConfig, source: Source) -> Noise:
    """Draw all parts for latents of `shape` (B, C, H, W), on the device of the generators."""
    batch, channels = shape[:2]
    generator = source("noise")
    white = white_noise(shape, generator)
    offset = strength = coarse = perturbation = None
    if loss.noise_offset:
        offset = white_noise((batch, channels, 1, 1), generator)
        strength = _strength(
            batch, loss.noise_offset, source("offset strength") if loss.noise_offset_random else None
        )
    if loss.multires_iterations is not None:
        coarse = pyramid(shape, loss.multires_iterations, loss.multires_discount, source("multires"))
    if loss.input_perturbation:
        random = source("perturbation strength") if loss.input_perturbation_random else None
        share = _strength(batch, loss.input_perturbation, random)
        perturbation = share * white_noise(shape, source("perturbation"))
    return Noise(white, offset, strength, coarse, perturbation)


def white_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """(B, C, H, W) float32 of deviation 1, every number by itself, on the generator's device."""
    return torch.randn(*shape, generator=generator, device=generator.device)


def mixed(noise: Noise, latents: Tensor, *, loss: LossConfig) -> Tensor:
    """-> (B, C, H, W): what the network learns to tell from the picture.

    Offset noise gives each picture and channel one value more: without it the mean colour of a picture is hardly ever
    hidden, and so is not learned (N. Guttenberg, "Diffusion with offset noise", 2023). Multires noise does so at
    several scales (J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training", 2023).
    """
    result = noise.white
    if noise.offset is not None and noise.offset_strength is not None:
        strength = noise.offset_strength
        if loss.adaptive_noise_scale is not None:
            strength = adapted(strength, latents, loss.adaptive_noise_scale)
        result = result + strength * noise.offset
    if noise.coarse is not None:
        result = of_unit_deviation(result + noise.coarse)
    return result


def perturbed(mixture: Tensor, noise: Noise) -> Tensor:
    """-> (B, C, H, W): the noise that the network is shown, a little more than the one it is asked for.

    So it gets used to inputs that are slightly off, as its own are when it draws (arXiv:2301.11706).
    """
    return mixture if noise.perturbation is None else mixture + noise.perturbation


def adapted(strength: Tensor, latents: Tensor, scale: float) -> Tensor:
    """(B, 1, 1, 1) -> (B, C, 1, 1): more offset (less, with a negative scale) where a channel is far from grey."""
    return (strength + scale * latents.mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0)  # as kohya's trainer


def of_unit_deviation(noise: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): each picture's noise scaled to a deviation of 1."""
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)


def pyramid(shape: Sequence[int], iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """-> (B, C, H, W): noise at ever coarser scales, each level `discount` times as strong as the one before.

    Level i is a factor of r^i coarser, with r drawn anew from 2 to 4 for each level; a side of 1 is the last.
    """
    batch, channels, height, width = shape
    total = torch.zeros(shape, device=generator.device)
    for level in range(iterations):
        factor = (2 + 2 * torch.rand((), generator=generator, device=generator.device).item()) ** level
        size = (max(1, int(height / factor)), max(1, int(width / factor)))
        coarse = white_noise((batch, channels, *size), generator)
        total += discount**level * F.interpolate(coarse, size=(height, width), mode="bilinear")
        if 1 in size:
            break
    return total


def _strength(batch: int, strength: float, random: torch.Generator | None) -> Tensor:
    """-> (B, 1, 1, 1): the same for all, or for each picture a share of it, evenly from none to all."""
    if random is None:
        return torch.full((batch, 1, 1, 1), strength)
    return strength * torch.rand(batch, 1, 1, 1, generator=random, device=random.device)
