"""Which noise levels are trained, and how often each.

Shapes in this file:  B batch
"""

import math

import torch
from torch import Tensor

from brushwork.config.schema import LossConfig


def draw(count: int, *, loss: LossConfig, generator: torch.Generator) -> Tensor:
    """-> (B,) whole numbers from `min_timestep` up to, and without, `max_timestep`."""
    low, high = loss.min_timestep, loss.max_timestep
    if loss.timesteps == "uniform":
        return torch.randint(low, high, (count,), generator=generator, device=generator.device)
    if loss.timesteps == "logit_normal":
        normal = torch.randn(count, generator=generator, device=generator.device)
        places = logit_normal(normal, loss.logit_mean, loss.logit_deviation)
    else:
        places = mode(torch.rand(count, generator=generator, device=generator.device), loss.mode_scale)
    return low + (places * (high - low)).long().clamp(0, high - low - 1)  # a place may be rounded to 1


def logit_normal(normal: Tensor, mean: float, deviation: float) -> Tensor:
    """(B,) standard normal -> (B,) places from 0 (clean) to 1 (noise), most of them near the sigmoid of `mean`."""
    return (mean + deviation * normal).sigmoid()  # sec. 3.1, arXiv:2403.03206


def mode(even: Tensor, scale: float) -> Tensor:
    """(B,) evenly from 0 to 1 -> (B,) places; a positive scale favours the middle, a negative one the ends."""
    bend = (math.pi / 2 * even).cos().square() - 1 + even
    return 1 - even - scale * bend  # sec. 3.1, arXiv:2403.03206
