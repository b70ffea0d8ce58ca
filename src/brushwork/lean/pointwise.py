"""What lies between two products: a norm of groups with or without SiLU, the gate of a feed-forward layer, and where
products are of rounded numbers, the rounding before them and the scales behind.

How they are computed can be chosen: `Plain` calls PyTorch's own kernels, one after the other, and defines the
numbers; `fused.Fused` computes the same in one or two kernels.

Shapes in this file:  B pictures   C channels   G groups   H, W height and width   N rows   M width of the gate
I, O numbers of a row
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.lean.norms import Statistics, group_norm, group_norm_gradient
from brushwork.models.rounded import LARGEST


class Again(Protocol):
    """A norm whose result was not kept: what it was, and its gradient."""

    def value(self) -> Tensor:
        """(B, C, H, W)"""

    def gradient(self, d_value: Tensor) -> Tensor:
        """Gradient of the result -> of what was normed: (B, C, H, W)"""


class Pointwise(Protocol):
    """How norms and gates are computed."""

    def normed(self, x: Tensor, norm: nn.GroupNorm, *, silu: bool) -> tuple[Tensor, Statistics]:
        """(B, C, H, W) -> the same, and statistics (B, G) each"""

    def again(self, x: Tensor, statistics: Statistics | None, norm: nn.GroupNorm, *, silu: bool) -> Again:
        """The norm of x for the gradient; without statistics, they too are made again."""

    def gated(self, both: Tensor) -> Tensor:
        """v * GELU(g) of [v, g]: (N, 2M) -> (N, M)"""

    def gated_gradient(self, d_gated: Tensor, both: Tensor) -> Tensor:
        """(N, M) -> (N, 2M); `d_gated` is not needed afterwards and may be written over."""

    def rounded(self, rows: Tensor, factors: Tensor | None, code: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rows (N, I), times factors (I,), -> codes (N, I) and the scale of each row (N, 1), float32."""

    def scaled(
        self, sums: Tensor, scales: Tensor, factors: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Sums (N, O) of products of codes -> (N, O): times scales (N, 1) and factors (O,), plus bias (O,)."""


@dataclass
class PlainAgain:
    """See `Again`; the norm is computed when it is first asked for."""

    x: Tensor
    statistics: Statistics | None
    norm: nn.GroupNorm
    silu: bool

    @cached_property
    def _normed(self) -> tuple[Tensor, Statistics]:
        return group_norm(self.x, self.norm)

    def value(self) -> Tensor:
        """See `Again`."""
        normed, _ = self._normed
        return F.silu(normed) if self.silu else normed

    def gradient(self, d_value: Tensor) -> Tensor:
        """See `Again`."""
        statistics = self.statistics or self._normed[1]
        d_normed = torch.ops.aten.silu_backward(d_value, self._normed[0]) if self.silu else d_value
        return group_norm_gradient(d_normed, self.x, statistics, self.norm)


class Plain:
    """PyTorch's kernels, one for each step of what is written."""

    def normed(self, x: Tensor, norm: nn.GroupNorm, *, silu: bool) -> tuple[Tensor, Statistics]:
        """See `Pointwise`."""
        normed, statistics = group_norm(x, norm)
        return F.silu(normed, inplace=True) if silu else normed, statistics

    def again(self, x: Tensor, statistics: Statistics | None, norm: nn.GroupNorm, *, silu: bool) -> Again:
        """See `Pointwise`."""
        return PlainAgain(x, statistics, norm, silu)

    def gated(self, both: Tensor) -> Tensor:
        """See `Pointwise`."""
        value, gate = both.chunk(2, dim=1)
        return F.gelu(gate).mul_(value)

    def gated_gradient(self, d_gated: Tensor, both: Tensor) -> Tensor:
        """See `Pointwise`."""
        value, gate = both.chunk(2, dim=1)
        d_both = torch.empty_like(both)
        d_value, d_gate = d_both.chunk(2, dim=1)
        d_value.copy_(F.gelu(gate).mul_(d_gated))
        d_gate.copy_(torch.ops.aten.gelu_backward(d_gated.mul_(value), gate))
        return d_both

    def rounded(self, rows: Tensor, factors: Tensor | None, code: torch.dtype) -> tuple[Tensor, Tensor]:
        """See `Pointwise`."""
        wide = rows.float() if factors is None else rows.float() * factors
        scales = wide.abs().amax(dim=1, keepdim=True) / LARGEST[code]
        wide = (wide / torch.where(scales > 0, scales, 1.0)).clamp_(-LARGEST[code], LARGEST[code])
        return (wide.round_() if code == torch.int8 else wide).to(code).contiguous(), scales

    def scaled(
        self, sums: Tensor, scales: Tensor, factors: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """See `Pointwise`."""
        wide = sums.float() * scales
        wide = wide if factors is None else wide.mul_(factors)
        return (wide if bias is None else wide.add_(bias)).to(dtype)


PLAIN = Plain()
