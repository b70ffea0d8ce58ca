"""Norms and gates in one or two kernels each, on a card that has Triton; held against PyTorch's own before their use.

A step of SDXL is some 7,000 calls, most of them small. Norm and SiLU are two, their gradient three, a gate two, its
gradient six that read and write the widest tensors of the network. `triton_kernels.py` computes each with as few
passes over memory as there can be. LayerNorm is left to PyTorch, where it is one kernel each way with statistics in
float32 already.

Shapes in this file:  B pictures   C channels   G groups   P parts of a group   N rows   M width of the gate
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.lean.norms import Statistics
from brushwork.lean.pointwise import PLAIN, Again, Pointwise
from brushwork.models.attention import GEGLU
from brushwork.models.rounded import LARGEST

logger = logging.getLogger("brushwork")

BLOCK = 4096
"""Numbers of a group that one program takes: a group of SDXL's first level at 1024 px is 40 of them."""

COLUMNS = 1024
"""Of a row that one program gates."""

MOST_ERROR = 0.01
"""Of a kernel against PyTorch's, as a share: in bf16 PyTorch rounds between the steps that are one here."""

TRIAL_SIDES = ((32, 32), (15, 13))
"""Height and width of the maps that kernels are tried on: those of round and of odd sizes are compiled apart."""

Asked = Literal["auto", "on", "off"]
"""`train.fused`"""

Launch = Callable[..., None]
"""Starts a kernel: name, grid, arguments, constants by name."""


def launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a kernel of `triton_kernels.py` where the first argument lies."""
    from brushwork.lean import triton_kernels

    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        getattr(triton_kernels, name)[grid](*arguments, **constants)


@dataclass(frozen=True)
class Fused:
    """The kernels of `triton_kernels.py`. Tensors without numbers are made as with numbers, and nothing is started.

    Args:
        start: starts a kernel.
    """

    start: Launch = launch

    def normed(self, x: Tensor, norm: nn.GroupNorm, *, silu: bool) -> tuple[Tensor, Statistics]:
        """See `Pointwise`."""
        mean, rstd = (x.new_empty(len(x), norm.num_groups, dtype=torch.float32) for _ in range(2))
        return self._normed(x.contiguous(), (mean, rstd), norm, known=False, silu=silu), (mean, rstd)

    def again(self, x: Tensor, statistics: Statistics | None, norm: nn.GroupNorm, *, silu: bool) -> Again:
        """See `Pointwise`."""
        if statistics is None:
            value, statistics = self.normed(x, norm, silu=silu)
            return FusedAgain(self, x.contiguous(), statistics, norm, silu, value)
        return FusedAgain(self, x.contiguous(), statistics, norm, silu, None)

    def gated(self, both: Tensor) -> Tensor:
        """See `Pointwise`."""
        rows, width = len(both), both.shape[1] // 2
        y = both.new_empty(rows, width)
        self._start("gate", (rows, -(-width // COLUMNS)), both.contiguous(), y, width, BLOCK=COLUMNS)
        return y

    def gated_gradient(self, d_gated: Tensor, both: Tensor) -> Tensor:
        """See `Pointwise`."""
        rows, width = d_gated.shape
        both, d_both = both.contiguous(), torch.empty_like(both, memory_format=torch.contiguous_format)
        grid = (rows, -(-width // COLUMNS))
        self._start("gate_gradient", grid, both, d_gated.contiguous(), d_both, width, BLOCK=COLUMNS)
        return d_both

    def rounded(self, rows: Tensor, factors: Tensor | None, code: torch.dtype) -> tuple[Tensor, Tensor]:
        """See `Pointwise`."""
        rows = rows.contiguous()
        codes, scales = torch.empty_like(rows, dtype=code), rows.new_empty(len(rows), 1, dtype=torch.float32)
        given = (rows if factors is None else factors.contiguous(), codes, scales, rows.shape[1])
        constants = {"HAS_FACTORS": factors is not None, "WHOLE": code == torch.int8}
        self._start("rows_rounded", (len(rows),), rows, *given, **constants, LARGEST=LARGEST[code], BLOCK=COLUMNS)
        return codes, scales

    def scaled(
        self, sums: Tensor, scales: Tensor, factors: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """See `Pointwise`."""
        sums = sums.contiguous()
        y, (rows, width) = torch.empty_like(sums, dtype=dtype), sums.shape
        columns = (scales if each is None else each.contiguous() for each in (factors, bias))
        constants = {"HAS_FACTORS": factors is not None, "HAS_BIAS": bias is not None, "BLOCK": COLUMNS}
        self._start("sums_scaled", (rows, -(-width // COLUMNS)), sums, y, scales, *columns, width, **constants)
        return y

    def _normed(self, x: Tensor, statistics: Statistics, norm: nn.GroupNorm, *, known: bool, silu: bool) -> Tensor:
        y, (grid, sizes) = torch.empty_like(x), shape_of_groups(x, norm)
        means, squares = (x.new_empty(() if known else grid, dtype=torch.float32) for _ in range(2))
        if not known:
            self._start("group_moments", grid, x, means, squares, sizes[0], grid[1], BLOCK=BLOCK)
        given = (x, y, *statistics, means, squares, norm.weight, norm.bias, *sizes, grid[1], norm.eps)
        self._start("group_normed", grid, *given, KNOWN=known, SILU=silu, BLOCK=BLOCK)
        return y

    def _start(self, name: str, grid: tuple[int, ...], first: Tensor, *more: Any, **constants: Any) -> None:
        if not first.is_meta:
            self.start(name, grid, first, *more, **constants)


@dataclass(frozen=True)
class FusedAgain:
    """See `Again`."""

    fused: Fused
    x: Tensor
    statistics: Statistics
    norm: nn.GroupNorm
    silu: bool
    made: Tensor | None

    def value(self) -> Tensor:
        """See `Again`."""
        if self.made is not None:
            return self.made
        return self.fused._normed(self.x, self.statistics, self.norm, known=True, silu=self.silu)

    def gradient(self, d_value: Tensor) -> Tensor:
        """See `Again`."""
        x, norm, d_value = self.x, self.norm, d_value.contiguous()
        d_x, (grid, sizes) = torch.empty_like(x), shape_of_groups(x, norm)
        sums, products = (x.new_empty(grid, dtype=torch.float32) for _ in range(2))
        known = (*self.statistics, norm.weight, norm.bias, sums, products, *sizes, grid[1])
        constants = {"SILU": self.silu, "BLOCK": BLOCK}
        self.fused._start("group_slopes", grid, x, d_value, *known, **constants)
        self.fused._start("group_gradient", grid, x, d_value, d_x, *known, **constants)
        return d_x


FUSED = Fused()


def shape_of_groups(x: Tensor, norm: nn.GroupNorm) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """All groups and P; numbers of a group, places of a channel, G"""
    B, C, H, W = x.shape
    size = C // norm.num_groups * H * W
    return (B * norm.num_groups, -(-size // BLOCK)), (size, H * W, norm.num_groups)


def choose_pointwise(
    asked: Asked,
    unet: nn.Module,
    *,
    dtype: torch.dtype,
    device: torch.device,
    code: torch.dtype | None = None,
    kernels: Pointwise = FUSED,
) -> Pointwise:
    """How norms and gates of the network are computed here: fused where that can be and gives PyTorch's numbers.

    Args:
        asked: `train.fused`
        code: in which rows are rounded; None where none are.

    Raises:
        UserError: it is `on`, and cannot be.
    """
    if asked == "off":
        return PLAIN
    missing = why_not(device)
    why = missing or differing(kernels, unet, dtype=dtype, device=device, code=code)
    if why is None:
        logger.info("norms and gates are computed by fused kernels, which gave PyTorch's numbers (train.fused)")
        return kernels
    if asked == "on":
        raise UserError(f"train.fused = on, and it cannot be: {why}.", fix="--set train.fused=auto")
    if device.type == "cuda" or missing is None:
        told = logging.INFO if missing else logging.WARNING
        logger.log(told, "no fused kernels (%s): norms and gates are computed by PyTorch's own", why)
    return PLAIN


def refuse_if_missing(asked: Asked, device: torch.device) -> None:
    """Stop where they are insisted on and cannot be, before anything is loaded.

    Raises:
        UserError: see above.
    """
    why = why_not(device)
    if asked == "on" and why is not None:
        raise UserError(f"train.fused = on, and it cannot be: {why}.", fix="--set train.fused=auto")


def planned_pointwise(asked: Asked, device: torch.device) -> Pointwise:
    """How they would be computed there, for counting what a step takes."""
    return PLAIN if asked == "off" or why_not(device) is not None else FUSED


def why_not(device: torch.device) -> str | None:
    """What stands in the way of kernels in Triton; None where nothing does."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if not has_triton():
        return "Triton is not installed (pip install triton)"
    return None


def has_triton() -> bool:
    """Whether kernels can be compiled here."""
    return importlib.util.find_spec("triton") is not None


@torch.no_grad()
def differing(
    fused: Pointwise, unet: nn.Module, *, dtype: torch.dtype, device: torch.device, code: torch.dtype | None = None
) -> str | None:
    """Compute with every width of norm and gate that the network has, once, and hold it against PyTorch's kernels.

    Returns:
        What is wrong; None where nothing is.
    """
    try:
        for name, found, wanted in trials(fused, unet, dtype=dtype, device=device, code=code):
            error = float((found.float() - wanted.float()).norm())
            if not error <= MOST_ERROR * float(wanted.float().norm()):
                return f"{name} is not what PyTorch computes"
    except Exception as error:  # Triton compiles here, with errors of its own and of the compilers that it calls
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(".: ")
    return None


def trials(
    fused: Pointwise, unet: nn.Module, *, dtype: torch.dtype, device: torch.device, code: torch.dtype | None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is computed, by these kernels and by PyTorch's: every width of a norm or gate, maps of every side."""
    norms = {(n.num_channels, n.num_groups): n for n in unet.modules() if isinstance(n, nn.GroupNorm)}
    gates = {gate.proj.out_features for gate in unet.modules() if isinstance(gate, GEGLU)}
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    for (channels, _), norm in sorted(norms.items()):
        for side in TRIAL_SIDES:
            x, d = drawn(2, channels, *side) + 1, drawn(2, channels, *side)
            for silu in (False, True):
                name = f"GroupNorm{' with SiLU' * silu} of {channels} channels"
                pair = [_norm_and_back(each, x, d, norm, silu=silu) for each in (fused, PLAIN)]
                yield from ((name, found, wanted) for found, wanted in zip(*pair, strict=True))
    for width in sorted(gates):
        both, d = drawn(33, width), drawn(33, width // 2)
        yield f"the gate of {width}", fused.gated(both), PLAIN.gated(both)
        wanted = PLAIN.gated_gradient(d.clone(), both)
        yield f"the gradient of the gate of {width}", fused.gated_gradient(d, both), wanted
    if code is not None:
        rows, factors, bias = drawn(33, 1300), drawn(1300).float(), drawn(1300)
        sums = drawn(33, 1300).mul(1000).to(torch.int32 if code == torch.int8 else torch.float32)
        found, wanted = (codes.float() * s for codes, s in (by.rounded(rows, factors, code) for by in (fused, PLAIN)))
        yield "the rounding of rows", found, wanted
        scales = factors[:33, None].contiguous()
        found, wanted = (by.scaled(sums, scales, factors, bias, dtype) for by in (fused, PLAIN))
        yield "what follows a product of codes", found, wanted


def _norm_and_back(by: Pointwise, x: Tensor, d: Tensor, norm: nn.GroupNorm, *, silu: bool) -> list[Tensor]:
    """All that a step asks of a norm."""
    value, statistics = by.normed(x, norm, silu=silu)
    again = by.again(x, statistics, norm, silu=silu)
    return [value, *statistics, again.value(), again.gradient(d)]
