"""The blocks of the UNet: residual blocks and attention, level by level, down, across the bottom and up again.

On the way down every step pushes its output on a stack of skips; on the way up every residual block pops one and
reads it beside its input. So the fine detail of the picture does not have to squeeze through the bottom.

Shapes in this file:  B batch   C channels   H, W height and width in latents   E width of the embedding
L text tokens   D width of the context
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.models.attention import SpatialTransformer
from brushwork.models.checkpointing import Checkpointed
from brushwork.models.spec import UNetSpec

Skips = list[Tensor]
"""A stack, the finest at the bottom."""


class ResidualBlock(Checkpointed):
    """Two convolutions, told in between how noisy the picture is, added to what came in (arXiv:1512.03385)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, embedding_width: int, norm_groups: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, eps=norm_eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_width, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels, eps=norm_eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def compute(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C_in, H, W), (B, E) -> (B, C_out, H, W)"""
        # The shortcut comes first, so that conv2 is the last step: checkpointing stops before it computes it again.
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        return shortcut + self.conv2(F.silu(self.norm2(hidden)))  # type: ignore[no-any-return]


class DownBlock(nn.Module):
    """One level on the way down: residual blocks, attention after each where the level has it, then half the size."""

    def __init__(self, spec: UNetSpec, level: int, *, in_channels: int) -> None:
        super().__init__()
        channels = spec.channels[level]
        widths = [in_channels] + [channels] * (spec.layers_per_block - 1)
        self.resnets = _residual_blocks(spec, widths, channels)
        self.attentions = _attentions(spec, level, depth=spec.attention_depth[level], count=len(widths))
        is_coarsest = level == len(spec.channels) - 1
        self.downsamplers = nn.ModuleList([] if is_coarsest else [Downsample(channels)])

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor, skips: Skips) -> Tensor:
        """(B, C_in, H, W), (B, E), (B, L, D) -> (B, C, H/2, W/2), rounded up; every step is pushed on `skips`."""
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = resnet(x, embedding)
            if attention is not None:
                x = attention(x, context)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """The bottom: residual block, attention, residual block."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        channels = spec.channels[-1]
        self.resnets = _residual_blocks(spec, [channels, channels], channels)
        self.attentions = _attentions(spec, -1, depth=spec.mid_depth, count=1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W), (B, E), (B, L, D) -> (B, C, H, W)"""
        x = self.resnets[0](x, embedding)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, embedding)  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """One level on the way up: every residual block reads a skip beside its input; then the size of the next level.

    Args:
        skip_channels: widths of the skips that this level will pop, in that order.
    """

    def __init__(self, spec: UNetSpec, level: int, *, in_channels: int, skip_channels: Sequence[int]) -> None:
        super().__init__()
        channels = spec.channels[level]
        widths = [in_channels] + [channels] * (len(skip_channels) - 1)
        joined = [width + skip for width, skip in zip(widths, skip_channels, strict=True)]
        self.resnets = _residual_blocks(spec, joined, channels)
        self.attentions = _attentions(spec, level, depth=spec.attention_depth[level], count=len(widths))
        self.upsamplers = nn.ModuleList([] if level == 0 else [Upsample(channels)])

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor, skips: Skips) -> Tensor:
        """(B, C_in, H, W), (B, E), (B, L, D) -> (B, C, 2H, 2W) or the odd size that was halved; pops from `skips`."""
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if attention is not None:
                x = attention(x, context)
        for upsample in self.upsamplers:
            x = upsample(x, size=skips[-1].shape[-2:])
        return x


class Downsample(nn.Module):
    """Half the size, odd sizes rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))"""
        return self.conv(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """The size of the level above, which is not always twice: 13 was halved to 7, and 7 becomes 13 again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)"""
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))  # type: ignore[no-any-return]


def _residual_blocks(spec: UNetSpec, widths: Iterable[int], channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResidualBlock(
            width,
            channels,
            embedding_width=spec.embedding_width,
            norm_groups=spec.norm_groups,
            norm_eps=spec.norm_eps,
        )
        for width in widths
    )


def _attentions(spec: UNetSpec, level: int, *, depth: int, count: int) -> nn.ModuleList:
    """As many attentions as there are residual blocks, or none."""
    return nn.ModuleList(
        SpatialTransformer(
            spec.channels[level],
            heads=spec.heads[level],
            depth=depth,
            context_width=spec.context_width,
            linear_projection=spec.linear_projection,
            norm_groups=spec.norm_groups,
        )
        for _ in range(count if depth else 0)
    )
