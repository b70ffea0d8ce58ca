"""Telling the UNet how noisy its input is and, in SDXL, how large the picture was.

Shapes in this file:  B batch   N numbers (timesteps or sizes)   K width of a code   W width of the embedding
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimestepEmbedding(nn.Module):
    """A code becomes the vector that steers every residual block.

    Args:
        code_width: K; in SDXL's `add_embedding` the pooled text and six codes side by side.
        width: W.
    """

    def __init__(self, code_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(code_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, code: Tensor) -> Tensor:
        """(B, K) -> (B, W)"""
        return self.linear_2(F.silu(self.linear_1(code)))  # type: ignore[no-any-return]


def sinusoidal_code(numbers: Tensor, width: int) -> Tensor:
    """(N,) -> (N, K) float32: cosines first, then sines, the order the checkpoints were trained with.

    The sinusoids are those of sec. 3.5, arXiv:1706.03762.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=numbers.device, dtype=torch.float32) / half)
    # Stays float32: bfloat16 tells only 507 of the 1,000 timesteps apart, so neighbours would share a code.
    angles = numbers.float()[:, None] * frequencies  # (N, K/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
