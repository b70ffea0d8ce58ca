"""The noise that is mixed into the latents.

Shapes in this file:  B batch   C channels of the latents   H, W their size
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw(shape: Sequence[int], *, generator: torch.Generator, offset: float = 0.0) -> Tensor:
    """(B, C, H, W) float32 of unit Gaussian noise, on the generator's device.

    Args:
        offset: deviation of one value more for each picture and channel. Without it the mean colour of a picture
            is hardly ever hidden, and so is not learned (N. Guttenberg, "Diffusion with offset noise", 2023).
    """
    noise = torch.randn(*shape, generator=generator, device=generator.device)
    if offset == 0:
        return noise
    batch, channels = shape[:2]
    return noise + offset * torch.randn(batch, channels, 1, 1, generator=generator, device=generator.device)
