"""Where the picture looks at itself and at the prompt.

Shapes in this file:  B batch   T picture tokens (H*W)   L text tokens   C channels   D width of the context   N heads
"""

import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.models.checkpointing import Checkpointed


class SpatialTransformer(nn.Module):
    """A feature map is read as a row of tokens, passes through transformer blocks, and is added back to itself.

    Args:
        depth: number of transformer blocks.
        linear_projection: enter and leave by a Linear (SDXL) rather than by a 1x1 convolution (SD 1.5): the same
            product, but the shapes of the weights differ.
    """

    def __init__(
        self, channels: int, *, heads: int, depth: int, context_width: int, linear_projection: bool, norm_groups: int
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads=heads, context_width=context_width) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels) if linear_projection else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W), (B, L, D) -> (B, C, H, W)"""
        size = x.shape[-2:]
        hidden = self.norm(x)
        if self.linear_projection:
            hidden = self.proj_in(to_tokens(hidden))
        else:
            hidden = to_tokens(self.proj_in(hidden))
        for block in self.transformer_blocks:
            hidden = block(hidden, context)  # (B, T, C)
        if self.linear_projection:
            hidden = to_map(self.proj_out(hidden), *size)
        else:
            hidden = self.proj_out(to_map(hidden, *size))
        return x + hidden  # type: ignore[no-any-return]


class TransformerBlock(Checkpointed):
    """Self-attention, attention to the prompt, and a feed-forward layer, each added to what came in."""

    def __init__(self, channels: int, *, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads=heads, context_width=channels)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads=heads, context_width=context_width)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def compute(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, C), (B, L, D) -> (B, T, C)"""
        hidden = self.norm1(x)
        x = x + self.attn1(hidden, hidden)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(width of a head)) V for every head: eq. 1, arXiv:1706.03762."""

    def __init__(self, channels: int, *, heads: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_width, channels, bias=False)
        self.to_v = nn.Linear(context_width, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list, as in the checkpoints: to_out.0

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, T, C), (B, L, D) -> (B, T, C)"""
        q = self._split(self.to_q(x))  # (B, N, T, C/N)
        k = self._split(self.to_k(context))  # (B, N, L, C/N)
        v = self._split(self.to_v(context))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, N, T, C/N)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, N, T, C/N)"""
        batch, num_tokens, channels = tokens.shape
        return tokens.view(batch, num_tokens, self.heads, channels // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Every token by itself: four times wider, gated, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Numbered as in the checkpoints, where net.1 is a dropout that has no weights.
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return self.net[2](self.net[0](x))  # type: ignore[no-any-return]


class GEGLU(nn.Module):
    """One half of a projection, gated by the GELU of the other: sec. 2, arXiv:2002.05202."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, inner)"""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)  # type: ignore[no-any-return]


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, T, C), row by row."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, T, C) -> (B, C, H, W)"""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
