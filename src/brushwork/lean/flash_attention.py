"""Attention by the package `flash-attn`, where it is installed.

It reads q, k and v as the products leave them, without heads and tokens changing places. It is for CUDA cards, in
bf16 and fp16.

Shapes in this file:  B batch   T tokens   C channels   N heads
"""

from collections.abc import Callable

from torch import Tensor

INSTALL = "pip install flash-attn --no-build-isolation"


class FlashAttention:
    """See `attention.Kernel`.

    Raises:
        ImportError: the package is not here, or was built for another PyTorch.
    """

    def __init__(self) -> None:
        from flash_attn import flash_attn_func

        self._attend: Callable[[Tensor, Tensor, Tensor], Tensor] = flash_attn_func

    def split(self, tokens: Tensor, heads: int) -> Tensor:
        """(B, T, C) -> (B, T, N, C/N)"""
        return tokens.view(*tokens.shape[:2], heads, -1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `attention.Kernel`."""
        return self._attend(q, k, v).flatten(2)
