"""A whole block that keeps its inputs alone and is computed again when the gradient comes.

Unlike a general checkpoint (arXiv:1604.06174), what is computed again is the head of the block; of its tail, a
function whose gradient needs nothing but its input, the result is not asked for a second time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from brushwork.lean.functions import (
    feed_forward,
    feed_forward_gradients,
    normed_convolution,
    normed_convolution_gradients,
)
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.lean.products import Product

Head = Callable[..., tuple[Tensor, ...]]
"""The block's inputs -> what its tail reads: its input and, in a residual block, what is added to the result."""


@dataclass(frozen=True)
class FeedForwardTail:
    """`feed_forward`, the last step of a transformer block."""

    norm: nn.LayerNorm
    inner: Product
    outer: Product
    by: Pointwise = PLAIN

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """What learns in it."""
        return (*self.inner.factors, *self.outer.factors)

    def value(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return feed_forward(x, self.norm, self.inner, self.outer, recompute=True, by=self.by)

    def gradients(self, gradient: Tensor, x: Tensor, *, into_input: bool) -> tuple[list[Tensor | None], list[Tensor]]:
        """Of what the tail reads, and of its factors."""
        d_x, d_factors = feed_forward_gradients(
            gradient, x, self.norm, self.inner, self.outer, into_input=into_input, by=self.by
        )
        return [d_x], d_factors


@dataclass(frozen=True)
class ConvolutionTail:
    """`normed_convolution` added to the shortcut, the last step of a residual block."""

    norm: nn.GroupNorm
    conv: nn.Conv2d
    product: Product
    by: Pointwise = PLAIN

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """What learns in it."""
        return self.product.factors

    def value(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """(B, I, H, W), (B, O, H, W) -> (B, O, H, W)"""
        return normed_convolution(x, self.norm, self.conv, self.product, residual=shortcut, by=self.by)

    def gradients(
        self, gradient: Tensor, x: Tensor, shortcut: Tensor, *, into_input: bool
    ) -> tuple[list[Tensor | None], list[Tensor]]:
        """Of what the tail reads, and of its factors."""
        d_x, d_factors = normed_convolution_gradients(
            gradient, x, None, (), self.norm, self.conv, self.product, into_input=into_input, by=self.by
        )
        return [d_x, gradient], d_factors


def recomputed(
    head: Head, tail: FeedForwardTail | ConvolutionTail, inputs: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    """tail(head(inputs)), of which only the inputs are kept.

    Args:
        factors: what learns in the head.
    """
    return Recomputed.apply(  # type: ignore[no-any-return,no-untyped-call]
        head, tail, len(inputs), *inputs, *factors, *tail.factors
    )


class Recomputed(Function):
    """y = tail(head(x)).

    Keeps x. Back: h = head(x) anew, with autograd; d_h by hand; then autograd's d_x and factors of the head from d_h.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Head, tail: FeedForwardTail | ConvolutionTail, num_inputs: int, *tensors: Tensor
    ) -> Tensor:
        inputs = tensors[:num_inputs]
        ctx.save_for_backward(*inputs)
        ctx.head, ctx.tail = head, tail
        ctx.factors = tensors[num_inputs : len(tensors) - len(tail.factors)]
        return tail.value(*head(*inputs))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        inputs = [
            tensor.detach().requires_grad_(asked) for tensor, asked in zip(ctx.saved_tensors, needed, strict=False)
        ]
        with torch.enable_grad():
            read = ctx.head(*inputs)
        into_head = any(tensor.requires_grad for tensor in read)
        d_read, d_tail = ctx.tail.gradients(gradient, *(tensor.detach() for tensor in read), into_input=into_head)
        asked = [tensor for tensor in (*inputs, *ctx.factors) if tensor.requires_grad]
        roots = [
            (tensor, d) for tensor, d in zip(read, d_read, strict=True) if tensor.requires_grad and d is not None
        ]
        found: dict[int, Tensor | None] = {}
        if asked and roots:
            tensors, wanted = zip(*roots, strict=True)
            given = torch.autograd.grad(tensors, asked, wanted, allow_unused=True)
            found = {id(tensor): d for tensor, d in zip(asked, given, strict=True)}
        return None, None, None, *(found.get(id(tensor)) for tensor in (*inputs, *ctx.factors)), *d_tail
