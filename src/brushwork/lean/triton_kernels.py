"""Norms, SiLU, gates and the rounding of rows as kernels for a card, in Triton: several calls of PyTorch's are one.

Imported where a card computes with them and nowhere else. Numbers are read in their own type, computed in float32 and
rounded once. A group of channels is one stretch of memory, which many programs share: each leaves the moments of its
part, and whoever needs those of the whole adds them up, in one order.

Shapes in this file:  N rows   M width of the gate   P parts of a group
"""

import triton
import triton.language as tl

PARTS = tl.constexpr(128)
"""Parts of a group that are added up at a time."""


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))"""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def normal_below(x):
    """How much of a normal distribution lies below x."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def added(values, group, parts):
    """Sum of what the parts of a group have left in `values`, (groups, P)"""
    total = tl.zeros([PARTS], tl.float32)
    for start in range(0, parts, PARTS):
        number = start + tl.arange(0, PARTS)
        total += tl.load(values + group * parts + number, mask=number < parts, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def whole_moments(means, squares, group, parts, size, eps, BLOCK: tl.constexpr):
    """Mean and 1 / deviation of a group from those of its parts (Chan, Golub and LeVeque 1979, eq. 2.1)."""
    total = tl.zeros([PARTS], tl.float32)
    for start in range(0, parts, PARTS):
        number = start + tl.arange(0, PARTS)
        count = tl.maximum(tl.minimum(size - number * BLOCK, BLOCK), 0).to(tl.float32)
        total += count * tl.load(means + group * parts + number, mask=number < parts, other=0.0)
    mean = tl.sum(total, axis=0) / size
    spread = tl.zeros([PARTS], tl.float32)
    for start in range(0, parts, PARTS):
        number = start + tl.arange(0, PARTS)
        count = tl.maximum(tl.minimum(size - number * BLOCK, BLOCK), 0).to(tl.float32)
        apart = tl.load(means + group * parts + number, mask=number < parts, other=0.0) - mean
        spread += tl.load(squares + group * parts + number, mask=number < parts, other=0.0) + count * apart * apart
    return mean, 1.0 / tl.sqrt(tl.sum(spread, axis=0) / size + eps)


@triton.jit(do_not_specialize=["parts"])
def group_moments(x, means, squares, size, parts, BLOCK: tl.constexpr):
    """Mean and sum of squares around it of one part of one group."""
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    values = tl.load(x + group * size + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=0) / tl.minimum(size - part * BLOCK, BLOCK)
    apart = tl.where(inside, values - mean, 0.0)
    tl.store(means + group * parts + part, mean)
    tl.store(squares + group * parts + part, tl.sum(apart * apart, axis=0))


@triton.jit(do_not_specialize=["parts"])
def group_normed(
    x, y, mean, rstd, means, squares, weight, bias, size, places, groups, parts, eps,
    KNOWN: tl.constexpr, SILU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = n or SiLU(n), n = (x - mean) * rstd * weight + bias; where the statistics are not known, they are left."""
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if KNOWN:
        middle, scale = tl.load(mean + group), tl.load(rstd + group)
    else:
        middle, scale = whole_moments(means, squares, group, parts, size, eps, BLOCK)
        if part == 0:
            tl.store(mean + group, middle)
            tl.store(rstd + group, scale)
    at = part * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    channel = (group % groups) * (size // places) + at // places
    values = tl.load(x + group * size + at, mask=inside, other=0.0).to(tl.float32)
    normed = (values - middle) * scale
    normed = normed * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    normed += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        normed *= sigmoid(normed)
    tl.store(y + group * size + at, normed.to(y.dtype.element_ty), mask=inside)


@triton.jit
def slope(
    x, d_y, middle, scale, weight, bias, group, at, inside, size, places, groups, SILU: tl.constexpr
):  # fmt: skip
    """x without its mean and deviation, and the gradient of that."""
    channel = (group % groups) * (size // places) + at // places
    values = tl.load(x + group * size + at, mask=inside, other=0.0).to(tl.float32)
    plain = tl.where(inside, (values - middle) * scale, 0.0)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    d_normed = tl.load(d_y + group * size + at, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        normed = plain * factor + tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
        share = sigmoid(normed)
        d_normed *= share * (1.0 + normed * (1.0 - share))
    return plain, d_normed * factor


@triton.jit(do_not_specialize=["parts"])
def group_slopes(
    x, d_y, mean, rstd, weight, bias, sums, products, size, places, groups, parts,
    SILU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one part of one group: the sum of the gradient, and of its product with the normed x."""
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    middle, scale = tl.load(mean + group), tl.load(rstd + group)
    plain, d_plain = slope(
        x, d_y, middle, scale, weight, bias, group, at, at < size, size, places, groups, SILU
    )  # fmt: skip
    tl.store(sums + group * parts + part, tl.sum(d_plain, axis=0))
    tl.store(products + group * parts + part, tl.sum(plain * d_plain, axis=0))


@triton.jit(do_not_specialize=["parts"])
def group_gradient(
    x, d_y, d_x, mean, rstd, weight, bias, sums, products, size, places, groups, parts,
    SILU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """d_x = rstd * (d - mean(d) - p * mean(d p)), with p the normed x and d its gradient."""
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    inside, scale = at < size, tl.load(rstd + group)
    plain, d_plain = slope(
        x, d_y, tl.load(mean + group), scale, weight, bias, group, at, inside, size, places, groups, SILU
    )
    d_plain -= added(sums, group, parts) / size + plain * (added(products, group, parts) / size)
    tl.store(d_x + group * size + at, (d_plain * scale).to(d_x.dtype.element_ty), mask=inside)


@triton.jit
def gate(both, y, width, BLOCK: tl.constexpr):
    """y = v * GELU(g) of [v, g]: (N, 2M) -> (N, M)"""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, start = column < width, both + row * 2 * width
    v = tl.load(start + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(start + width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, (v * g * normal_below(g)).to(y.dtype.element_ty), mask=inside)


@triton.jit
def gate_gradient(both, d_y, d_both, width, BLOCK: tl.constexpr):
    """[d_y GELU(g), d_y v GELU'(g)]: (N, 2M), (N, M) -> (N, 2M)"""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, start = column < width, row * 2 * width
    v = tl.load(both + start + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(both + start + width + column, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(d_y + row * width + column, mask=inside, other=0.0).to(tl.float32)
    below = normal_below(g)
    d_g = d * v * (below + g * tl.exp(-0.5 * g * g) * 0.3989422804014327)
    tl.store(d_both + start + column, (d * g * below).to(d_both.dtype.element_ty), mask=inside)
    tl.store(d_both + start + width + column, d_g.to(d_both.dtype.element_ty), mask=inside)


@triton.jit
def rows_rounded(
    rows, factors, codes, scales, width,
    HAS_FACTORS: tl.constexpr, WHOLE: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each row, times factors, as codes and a scale: its largest number becomes the largest code."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        values = tl.load(rows + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        if HAS_FACTORS:
            values *= tl.load(factors + column, mask=column < width, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(values))
    scale = tl.max(largest, axis=0) / LARGEST
    tl.store(scales + row, scale)
    scale = tl.where(scale > 0.0, scale, 1.0)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        values = tl.load(rows + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        if HAS_FACTORS:
            values *= tl.load(factors + column, mask=column < width, other=0.0).to(tl.float32)
        values = tl.minimum(tl.maximum(values / scale, -LARGEST), LARGEST)
        if WHOLE:
            values = tl.floor(values + 0.5)
        tl.store(codes + row * width + column, values.to(codes.dtype.element_ty), mask=column < width)


@triton.jit
def sums_scaled(
    sums, y, scales, factors, bias, width, HAS_FACTORS: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y = sums * scale of the row * factor of the column + bias: (N, O) -> (N, O)"""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    values = tl.load(sums + row * width + column, mask=inside, other=0).to(tl.float32) * tl.load(scales + row)
    if HAS_FACTORS:
        values *= tl.load(factors + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        values += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, values.to(y.dtype.element_ty), mask=inside)
