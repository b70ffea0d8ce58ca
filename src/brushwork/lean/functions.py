"""The steps that a frozen base with adapters is made of, each with its gradient derived by hand.

Autograd of the plain network keeps what every layer read. For a frozen layer that is needed for nothing: its weight
has no gradient. These functions keep the residual stream, the statistics of the norms and the products with `down`,
which are a rank wide. What was normalised, activated or gated is computed again from them, for no matrix product.

The gradients of a product (d_x, d_A, d_B of d_y) are those of `rows.py` and `convolutions.py`; norms of groups and
gates are computed `by` one of the ways of `pointwise.py`.

Shapes in this file:  B pictures   T tokens   C channels   I width in   O width out   N rows: B * T   H, W of a map
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from brushwork.lean import convolutions, rows
from brushwork.lean.flat import in_type
from brushwork.lean.norms import Statistics, layer_norm, layer_norm_gradient
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.lean.products import Product
from brushwork.models.attention import to_map, to_tokens

Gradients = tuple[Tensor | None, ...]


def normed_product(x: Tensor, norm: nn.LayerNorm, product: Product) -> tuple[Tensor, ...]:
    """(B, T, I) -> for each layer of the product (B, T, O)"""
    return NormedProduct.apply(x, norm, product, *product.factors)  # type: ignore[no-any-return,no-untyped-call]


def added_product(x: Tensor, product: Product, residual: Tensor | None = None) -> tuple[Tensor, ...]:
    """(B, T, I) -> for each layer of the product (B, T, O), added to `residual` where there is one."""
    return AddedProduct.apply(x, residual, product, *product.factors)  # type: ignore[no-any-return,no-untyped-call]


def feed_forward(
    x: Tensor, norm: nn.LayerNorm, inner: Product, outer: Product, *, recompute: bool, by: Pointwise = PLAIN
) -> Tensor:
    """(B, T, C) -> (B, T, C), added to x"""
    factors = (*inner.factors, *outer.factors)
    return FeedForward.apply(  # type: ignore[no-any-return,no-untyped-call]
        x, norm, inner, outer, recompute, by, *factors
    )


def normed_tokens(x: Tensor, norm: nn.GroupNorm, product: Product, *, by: Pointwise = PLAIN) -> Tensor:
    """(B, C, H, W) -> (B, T, O): the way into a transformer, by a Linear or a 1 x 1 convolution."""
    return NormedTokens.apply(x, norm, product, by, *product.factors)  # type: ignore[no-any-return,no-untyped-call]


def added_map(tokens: Tensor, product: Product, residual: Tensor) -> Tensor:
    """(B, T, I), (B, O, H, W) -> (B, O, H, W): the way out of a transformer, added to what came in."""
    return AddedMap.apply(tokens, residual, product, *product.factors)  # type: ignore[no-any-return,no-untyped-call]


def normed_convolution(
    x: Tensor,
    norm: nn.GroupNorm,
    conv: nn.Conv2d,
    product: Product,
    *,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    by: Pointwise = PLAIN,
) -> Tensor:
    """Norm, SiLU, convolution: (B, I, H, W), (B, O), (B, O, H, W) -> (B, O, H, W), `shift` and `residual` added."""
    return NormedConvolution.apply(  # type: ignore[no-any-return,no-untyped-call]
        x, shift, residual, norm, conv, product, by, *product.factors
    )


def convolution(x: Tensor, conv: nn.Conv2d, product: Product) -> Tensor:
    """(B, I, H, W) -> (B, O, H', W')"""
    return Convolution.apply(x, conv, product, *product.factors)  # type: ignore[no-any-return,no-untyped-call]


def fork(x: Tensor) -> tuple[Tensor, Tensor]:
    """x for the two branches of a block. Their gradients are added up here, before any that comes from outside the
    block, so that the sum has one order and the same bits whether the block is computed once or twice."""
    return Fork.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class Fork(Function):
    """x, x. Back: d_x = d_first + d_second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        return first + second


class NormedProduct(Function):
    """y = n W^T + b + s t B^T of n = LN(x), for one layer or for several that read the same.

    Keeps x, its mean and 1 / deviation, and t. Back, with n computed again:
        d_n, d_A, d_B of (d_y, n)
        d_x = LN'(d_n), which needs x and its statistics alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.LayerNorm, product: Product, *factors: Tensor) -> tuple[Tensor, ...]:
        normed, statistics = layer_norm(x, norm)
        y, kept = rows.multiply(normed.flatten(0, -2), product, shape=x.shape[:-1])
        ctx.save_for_backward(x, *statistics, *kept)
        ctx.norm, ctx.product = norm, product
        return torch.split(y.view(*x.shape[:-1], -1), list(product.widths), dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, mean, rstd, *kept = ctx.saved_tensors
        normed = layer_norm(x, ctx.norm)[0].flatten(0, -2) if ctx.product.branches else None
        wanted = [gradient.flatten(0, -2) for gradient in gradients]
        d_n, d_factors = rows.gradients(wanted, normed, kept, ctx.product, into_input=ctx.needs_input_grad[0])
        d_x = None if d_n is None else layer_norm_gradient(d_n.view(x.shape), x, (mean, rstd), ctx.norm)
        return d_x, None, None, *d_factors


class AddedProduct(Function):
    """y = x W^T + b + s t B^T + residual.

    Keeps x and t where there is an adapter, and nothing where there is none. Back:
        d_x, d_A, d_B of (d_y, x)
        d_residual = d_y.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, product: Product, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        y, kept = rows.multiply(x.flatten(0, -2), product, shape=x.shape[:-1])
        if residual is not None:
            y += residual.reshape(y.shape)
        ctx.save_for_backward(*([x] if product.branches else []), *kept)
        ctx.product, ctx.shape = product, x.shape
        return torch.split(y.view(*x.shape[:-1], -1), list(product.widths), dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, *kept = ctx.saved_tensors or [None]
        wanted = [gradient.flatten(0, -2) for gradient in gradients]
        d_x, d_factors = rows.gradients(
            wanted, None if x is None else x.flatten(0, -2), kept, ctx.product, into_input=ctx.needs_input_grad[0]
        )
        d_residual = gradients[0] if ctx.needs_input_grad[1] else None
        return None if d_x is None else d_x.view(ctx.shape), d_residual, None, *d_factors


class FeedForward(Function):
    """y = x + u W2^T + b2 + s t2 B2^T of u = v * GELU(g), [v, g] = n W1^T + b1 + s t1 B1^T, n = LN(x).

    Keeps x, its statistics, t1, t2 and [v, g]; with `recompute` x alone, which costs the first product again. Back:
        d_u, d_A2, d_B2 of (d_y, u);    d_v = d_u GELU(g),  d_g = d_u v GELU'(g)
        d_n, d_A1, d_B1 of ([d_v, d_g], n)
        d_x = d_y + LN'(d_n).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: nn.LayerNorm,
        inner: Product,
        outer: Product,
        recompute: bool,
        by: Pointwise,
        *factors: Tensor,
    ) -> Tensor:
        both, *kept_inner = value_and_gate(x, norm, inner)
        y, kept_outer = rows.multiply(by.gated(both), outer, shape=x.shape[:-1])
        y += x.flatten(0, -2)
        ctx.save_for_backward(x, *([] if recompute else [both, *kept_inner, *kept_outer]))
        ctx.norm, ctx.inner, ctx.outer, ctx.num_inner, ctx.by = norm, inner, outer, len(kept_inner), by
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, *kept = ctx.saved_tensors
        into_x, by = ctx.needs_input_grad[0], ctx.by
        d_x, d_factors = feed_forward_gradients(
            gradient, x, ctx.norm, ctx.inner, ctx.outer, kept, ctx.num_inner, into_input=into_x, by=by
        )
        return d_x, None, None, None, None, None, *d_factors


def value_and_gate(x: Tensor, norm: nn.LayerNorm, inner: Product) -> list[Tensor]:
    """(B, T, C) -> [v, g] (N, 8C), the statistics of x, and what is kept of the product"""
    normed, statistics = layer_norm(x, norm)
    both, kept = rows.multiply(normed.flatten(0, -2), inner, shape=x.shape[:-1])
    return [both, *statistics, *kept]


def feed_forward_gradients(
    gradient: Tensor,
    x: Tensor,
    norm: nn.LayerNorm,
    inner: Product,
    outer: Product,
    kept: Sequence[Tensor] = (),
    num_inner: int = 0,
    *,
    into_input: bool,
    by: Pointwise = PLAIN,
) -> tuple[Tensor | None, list[Tensor]]:
    """(B, T, C) -> of x (B, T, C), and of every factor. What `FeedForward` keeps can be made again."""
    both, *others = kept or value_and_gate(x, norm, inner)
    mean, rstd, *kept_inner = others[: num_inner or None]
    activated = by.gated(both) if outer.branches else None
    kept_outer = others[num_inner:] if kept else []
    if activated is not None and not kept:
        kept_outer = rows.narrow(activated, outer, shape=x.shape[:-1])
    further = into_input or bool(inner.branches)
    d_u, d_outer = rows.gradients([gradient.flatten(0, -2)], activated, kept_outer, outer, into_input=further)
    del activated
    if d_u is None:
        return None, d_outer
    d_both = by.gated_gradient(d_u, both)  # (N, 8C)
    del both, d_u
    normed = layer_norm(x, norm)[0].flatten(0, -2) if inner.branches else None
    d_n, d_inner = rows.gradients([d_both], normed, kept_inner, inner, into_input=into_input)
    del d_both, normed
    d_x = None
    if d_n is not None:
        d_x = layer_norm_gradient(d_n.view(x.shape), x, (mean, rstd), norm).add_(gradient)
    return d_x, [*d_inner, *d_outer]


class NormedTokens(Function):
    """y = n W^T + b + s t B^T of n = the places of GN(x) as rows.

    Keeps x, its statistics and t. Back, with n computed again:
        d_n, d_A, d_B of (d_y, n)
        d_x = GN'(d_n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm, product: Product, by: Pointwise, *factors: Tensor) -> Tensor:
        normed, statistics = by.normed(x, norm, silu=False)
        tokens = to_tokens(normed)
        y, kept = rows.multiply(tokens.flatten(0, 1), product, shape=tokens.shape[:2])
        ctx.save_for_backward(x, *statistics, *kept)
        ctx.norm, ctx.product, ctx.by = norm, product, by
        return y.view(*tokens.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, mean, rstd, *kept = ctx.saved_tensors
        again = ctx.by.again(x, (mean, rstd), ctx.norm, silu=False)
        normed = to_tokens(again.value()).flatten(0, 1) if ctx.product.branches else None
        d_n, d_factors = rows.gradients(
            [gradient.flatten(0, 1)], normed, kept, ctx.product, into_input=ctx.needs_input_grad[0]
        )
        d_x = None
        if d_n is not None:
            d_x = again.gradient(to_map(d_n.view(*gradient.shape[:2], -1), *x.shape[-2:]))
        return d_x, None, None, None, *d_factors


class AddedMap(Function):
    """y = residual + the map of x W^T + b + s t B^T, computed as W x^T so that it comes out as a map.

    Keeps x and t where there is an adapter. Back, with d_y as rows:
        d_x, d_A, d_B of (d_y, x)
        d_residual = d_y.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, residual: Tensor, product: Product, *factors: Tensor) -> Tensor:
        B, T, _ = tokens.shape
        weight = rows.matrix(product)
        y = torch.baddbmm(residual.flatten(2), weight.expand(B, *weight.shape), tokens.transpose(1, 2))  # (B, O, T)
        if product.bias is not None:
            y += product.bias[:, None]
        kept = rows.narrow(tokens.flatten(0, 1), product, shape=tokens.shape[:2]) if product.branches else []
        narrowed = torch.split(kept[0].view(B, T, -1), rows.ranks(product), dim=2) if kept else ()
        for part, (_, up), branch in zip(narrowed, rows.factor_pairs(product), product.branches, strict=True):
            wide = in_type(up, y.dtype).flatten(1)
            y.baddbmm_(wide.expand(B, *wide.shape), part.transpose(1, 2), alpha=branch.scale)
        ctx.save_for_backward(*([tokens] if product.branches else []), *kept)
        ctx.product, ctx.shape = product, tokens.shape
        return y.view(residual.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        tokens, *kept = ctx.saved_tensors or [None]
        d_y = to_tokens(gradient).flatten(0, 1)
        d_x, d_factors = rows.gradients(
            [d_y],
            None if tokens is None else tokens.flatten(0, 1),
            kept,
            ctx.product,
            into_input=ctx.needs_input_grad[0],
        )
        d_residual = gradient if ctx.needs_input_grad[1] else None
        return None if d_x is None else d_x.view(ctx.shape), d_residual, None, *d_factors


class NormedConvolution(Function):
    """y = conv(a) + shift + residual of a = SiLU(n), n = GN(x).

    Keeps x, its statistics and t. Back, with n and a computed again:
        d_a, d_A, d_B of (d_y, a);    d_n = d_a SiLU'(n);    d_x = GN'(d_n)
        d_shift = sum of d_y over the places;    d_residual = d_y.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        residual: Tensor | None,
        norm: nn.GroupNorm,
        conv: nn.Conv2d,
        product: Product,
        by: Pointwise,
        *factors: Tensor,
    ) -> Tensor:
        activated, statistics = by.normed(x, norm, silu=True)
        y, kept = convolutions.convolve(activated, conv, product)
        if shift is not None:
            y += shift[:, :, None, None]
        if residual is not None:
            y += residual
        ctx.save_for_backward(x, *statistics, *kept)
        ctx.norm, ctx.conv, ctx.product, ctx.by = norm, conv, product, by
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, mean, rstd, *kept = ctx.saved_tensors
        into_x, into_shift, into_residual, *_ = ctx.needs_input_grad
        d_x, d_factors = normed_convolution_gradients(
            gradient, x, (mean, rstd), kept, ctx.norm, ctx.conv, ctx.product, into_input=into_x, by=ctx.by
        )
        d_shift = gradient.sum(dim=(2, 3)) if into_shift else None
        return d_x, d_shift, gradient if into_residual else None, None, None, None, None, *d_factors


def normed_convolution_gradients(
    gradient: Tensor,
    x: Tensor,
    statistics: Statistics | None,
    kept: Sequence[Tensor],
    norm: nn.GroupNorm,
    conv: nn.Conv2d,
    product: Product,
    *,
    into_input: bool,
    by: Pointwise = PLAIN,
) -> tuple[Tensor | None, list[Tensor]]:
    """(B, O, H, W) -> of x (B, I, H, W), and of every factor. Without statistics, all that is kept is made again."""
    again = by.again(x, statistics, norm, silu=True)
    activated = again.value() if product.branches else None
    if statistics is None:
        kept = [] if activated is None else convolutions.narrow(activated, conv, product)
    d_a, d_factors = convolutions.gradients(
        gradient, activated, kept, conv, product, shape=x.shape, into_input=into_input
    )
    return None if d_a is None else again.gradient(d_a), d_factors


class Convolution(Function):
    """y = conv(x), of any stride.

    Keeps x and t where there is an adapter, and nothing where there is none. Back: d_x, d_A, d_B of (d_y, x).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d, product: Product, *factors: Tensor) -> Tensor:
        y, kept = convolutions.convolve(x, conv, product)
        ctx.save_for_backward(*([x] if product.branches else []), *kept)
        ctx.conv, ctx.product, ctx.shape = conv, product, x.shape
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, *kept = ctx.saved_tensors or [None]
        d_x, d_factors = convolutions.gradients(
            gradient, x, kept, ctx.conv, ctx.product, shape=ctx.shape, into_input=ctx.needs_input_grad[0]
        )
        return d_x, None, None, *d_factors
