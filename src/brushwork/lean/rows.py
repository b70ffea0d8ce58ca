"""Products of rows with a frozen weight and the adapters beside it, and their gradients.

With W frozen, A = `down` and B = `up` in the type of the computation, s the scale, m the mask of dropout and
t = m * (x A^T):    y = x W^T + b + s t B^T.    Of the gradient d_y it follows (eq. 3 of arXiv:2106.09685, chain rule)

    d_t = s m * (d_y B)      d_A = d_t^T x      d_B = s d_y^T t      d_x = d_y W + d_t A

Shapes in this file:  N rows   I width in   O width out   R rank, of all branches together
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from brushwork.lean.codes import InCodes
from brushwork.lean.flat import in_type, stacked
from brushwork.lean.products import Product


def multiply(rows: Tensor, product: Product, *, shape: torch.Size) -> tuple[Tensor, list[Tensor]]:
    """(N, I) -> y (N, O) and what `gradients` wants to have kept: t (N, R) and the mask (N, R), if there are any.

    Args:
        shape: what N stands for, e.g. (B, T): dropout is drawn for that shape.
    """
    if isinstance(product.weight, InCodes):
        y = product.weight.multiply(rows, product.bias)
    else:
        y = F.linear(rows, matrix(product), product.bias)
    if not product.branches:
        return y, []
    kept = narrow(rows, product, shape=shape)
    for piece, part, (_, up), branch in zip(
        pieces(y, product),
        torch.split(kept[0], ranks(product), dim=1),
        factor_pairs(product),
        product.branches,
        strict=True,
    ):
        piece.addmm_(part, in_type(up, y.dtype).flatten(1).T, alpha=branch.scale)
    return y, kept


def narrow(rows: Tensor, product: Product, *, shape: torch.Size) -> list[Tensor]:
    """(N, I) -> t (N, R), and the mask where there is one."""
    narrowed = rows @ downs(product, rows.dtype).T
    if all(branch.mask is None for branch in product.branches):
        return [narrowed]
    masks = []
    for part, branch in zip(torch.split(narrowed, ranks(product), dim=1), product.branches, strict=True):
        hidden = part.view(*shape, branch.rank)
        masks.append((torch.ones_like(hidden) if branch.mask is None else branch.mask(hidden)).reshape(part.shape))
    mask = torch.cat(masks, dim=1)
    return [narrowed.mul_(mask), mask]


def gradients(
    wanted: Sequence[Tensor], rows: Tensor | None, kept: Sequence[Tensor], product: Product, *, into_input: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of each layer's outputs, (N, O) each -> of the rows (N, I), and of every factor in float32.

    Args:
        rows: what was multiplied; not looked at where there is no branch.
        into_input: whether the gradient of the rows is asked for.
    """
    d_rows = product_of_gradients(wanted, product) if into_input else None
    if not product.branches:
        return d_rows, []
    assert rows is not None
    narrowed, *mask = kept
    parts, d_ups = [], []
    for part, (_, up), branch in zip(
        torch.split(narrowed, ranks(product), dim=1), factor_pairs(product), product.branches, strict=True
    ):
        d_y = wanted[branch.layer]
        d_ups.append(scaled((d_y.T @ part).float(), branch.scale).view(up.shape))
        parts.append(scaled(d_y @ in_type(up, d_y.dtype).flatten(1), branch.scale))
    d_narrow = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
    if mask:
        d_narrow.mul_(mask[0])
    if d_rows is not None:
        d_rows.addmm_(d_narrow, downs(product, d_rows.dtype))
    d_downs = torch.split((d_narrow.T @ rows).float(), ranks(product))
    return d_rows, in_turn(d_downs, d_ups, product)


def product_of_gradients(wanted: Sequence[Tensor], product: Product) -> Tensor:
    """d_y W, summed over the layers: (N, O) each -> (N, I)"""
    if isinstance(product.weight, InCodes):
        return product.weight.multiply_back(wanted)
    first, *others = zip(wanted, torch.split(matrix(product), list(product.widths)), strict=True)
    d_rows: Tensor = first[0] @ first[1]
    for d_y, weight in others:
        d_rows.addmm_(d_y, weight)
    return d_rows


def in_turn(d_downs: Sequence[Tensor], d_ups: Sequence[Tensor], product: Product) -> list[Tensor]:
    """The gradients in the order and shapes of the product's factors."""
    found = []
    for d_down, d_up, (down, _) in zip(d_downs, d_ups, factor_pairs(product), strict=True):
        found += [d_down.view(down.shape), d_up]
    return found


def matrix(product: Product) -> Tensor:
    """The weight as (O, I), also where it is that of a 1 x 1 convolution."""
    return product.weight.dense().flatten(1)


def downs(product: Product, dtype: torch.dtype) -> Tensor:
    """`down` of every branch, one below the other: (R, I)"""
    return stacked([in_type(down, dtype).flatten(1) for down, _ in factor_pairs(product)])


def scaled(gradient: Tensor, scale: float) -> Tensor:
    """Multiplied in place; by 1, which a scale mostly is, in no time."""
    return gradient if scale == 1.0 else gradient.mul_(scale)


def ranks(product: Product) -> list[int]:
    """The rank of each branch."""
    return [branch.rank for branch in product.branches]


def pieces(y: Tensor, product: Product) -> list[Tensor]:
    """For each branch the columns of its layer, as a view: (N, O) -> (N, its outputs)"""
    columns = torch.split(y, list(product.widths), dim=1)
    return [columns[branch.layer] for branch in product.branches]


def factor_pairs(product: Product) -> list[tuple[Tensor, Tensor]]:
    """down and up of each branch."""
    return list(zip(product.factors[::2], product.factors[1::2], strict=True))
