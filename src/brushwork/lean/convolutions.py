"""The product of a map with a frozen convolution and the adapters beside it, and its gradients.

The same as in `rows.py`, with the convolution in place of the product: x * A has the stride of the base, B is 1 x 1.

    d_t = s m * (d_y B)    d_A = weight gradient of (x, d_t)    d_B = that of (t, s d_y)
    d_x = d_y *^T W + d_t *^T A

Shapes in this file:  B pictures   I width in   O width out   R rank   H, W height and width, H', W' after the stride
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from brushwork.lean.flat import in_type
from brushwork.lean.products import Product
from brushwork.lean.rows import factor_pairs, in_turn, scaled

Padding = tuple[int, ...] | str


def convolve(x: Tensor, conv: nn.Conv2d, product: Product) -> tuple[Tensor, list[Tensor]]:
    """(B, I, H, W) -> y (B, O, H', W') and what `gradients` wants to have kept."""
    y = F.conv2d(x, product.weight.dense(), product.bias, conv.stride, conv.padding)
    kept = narrow(x, conv, product)
    for branch, (_, up), narrowed in zip(product.branches, factor_pairs(product), kept[::2], strict=True):
        y.add_(F.conv2d(narrowed, in_type(up, x.dtype)), alpha=branch.scale)
    return y, kept


def narrow(x: Tensor, conv: nn.Conv2d, product: Product) -> list[Tensor]:
    """(B, I, H, W) -> t (B, R, H', W') and the mask of each branch in turn; a mask of no dropout is empty."""
    kept: list[Tensor] = []
    for branch, (down, _) in zip(product.branches, factor_pairs(product), strict=True):
        narrowed = F.conv2d(x, in_type(down, x.dtype), None, conv.stride, conv.padding)
        mask = narrowed.new_empty(0) if branch.mask is None else branch.mask(narrowed)
        kept += [narrowed if branch.mask is None else narrowed.mul_(mask), mask]
    return kept


def gradients(
    d_y: Tensor,
    x: Tensor | None,
    kept: Sequence[Tensor],
    conv: nn.Conv2d,
    product: Product,
    *,
    shape: Sequence[int],
    into_input: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """(B, O, H', W') -> of x (B, I, H, W), and of every factor in float32.

    Args:
        x: what was convolved; not looked at where there is no branch.
        shape: that of x.
        into_input: whether the gradient of x is asked for.
    """
    d_x = input_gradient(shape, product.weight.dense(), d_y, conv.stride, conv.padding) if into_input else None
    d_downs, d_ups = [], []
    for branch, (down, up), narrowed, mask in zip(
        product.branches, factor_pairs(product), kept[::2], kept[1::2], strict=True
    ):
        assert x is not None
        d_ups.append(scaled(weight_gradient(narrowed, up.shape, d_y).float(), branch.scale))
        d_narrow = scaled(input_gradient(narrowed.shape, in_type(up, d_y.dtype), d_y), branch.scale)
        if branch.mask is not None:
            d_narrow.mul_(mask)
        d_downs.append(weight_gradient(x, down.shape, d_narrow, conv.stride, conv.padding).float())
        if d_x is not None:
            d_x += input_gradient(shape, in_type(down, d_y.dtype), d_narrow, conv.stride, conv.padding)
    return d_x, in_turn(d_downs, d_ups, product)


def input_gradient(
    shape: Sequence[int], weight: Tensor, d_y: Tensor, stride: tuple[int, ...] = (1, 1), padding: Padding = (0, 0)
) -> Tensor:
    """(B, O, H', W') -> `shape`, (B, I, H, W)"""
    d_x: Tensor = conv2d_input(shape, weight, d_y, stride, padding)  # type: ignore[no-untyped-call]
    return d_x


def weight_gradient(
    x: Tensor, shape: Sequence[int], d_y: Tensor, stride: tuple[int, ...] = (1, 1), padding: Padding = (0, 0)
) -> Tensor:
    """(B, I, H, W), (B, O, H', W') -> `shape`, (O, I, kh, kw)"""
    d_w: Tensor = conv2d_weight(x, shape, d_y, stride, padding)  # type: ignore[no-untyped-call]
    return d_w
