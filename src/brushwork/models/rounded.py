"""Weights that are kept in fewer bits than they are computed in: for each a code of few values, times a scale.

int8   codes -127 to 127, a scale for each output: off by at most half a step, 1/254 of the output's largest weight.
fp8    codes in float8_e4m3fn, a scale for each output: off by at most 1/16 of the weight itself, unless it is tiny.
nf4    16 codes that lie as close as normally distributed weights do, two to a byte, a scale for each 64 weights
       (section 3 and appendix E, arXiv:2305.14314). The scales are codes too, of 8 bit for each 256: 4.13 bit in all.

They are spread out where they are used and never kept so. Linears may be nf4; convolutions then are int8.

Shapes in this file:  O outputs   K weights of an output: inputs times kernel   S blocks of 64   G groups of blocks
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.errors import UserError

Format = Literal["int8", "fp8", "nf4"]

BLOCK, GROUP = 64, 256
"""Weights that share a scale in nf4, and scales that share one of their own."""

PIECE = 2**22
"""Weights that are rounded at a time: what is computed beside them in float32 stays small."""

NORMAL_FLOAT = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The values of nf4: appendix E, arXiv:2305.14314."""

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest number of each code."""


class Rounded(nn.Module, ABC):
    """A weight in fewer bits. Its tensors are buffers that no state dict names: they are not the base's numbers.

    Args:
        shape: of the weight, (O, I) or (O, I, kh, kw).
        dtype: the type that it is computed in.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.dtype = dtype
        self.home: Home | None = None
        """Where the tensors lie between two uses, if that is elsewhere."""

    def keep(self, name: str, tensor: Tensor) -> None:
        """Hold a tensor, which goes where the module goes."""
        self.register_buffer(name, tensor, persistent=False)

    @abstractmethod
    def fill(self, weight: Tensor) -> None:
        """Round a weight of this shape into the tensors, which are there already: what comes and goes among tensors
        that stay leaves holes in a CPU's memory. So a network makes room for all of them first."""

    @abstractmethod
    def spread(self, out: Tensor) -> None:
        """Write the weight into `out`, which is contiguous and of its shape and type."""

    @property
    def device(self) -> torch.device:
        """Where it is computed with."""
        return next(self.buffers()).device if self.home is None else self.home.device

    def dense(self) -> Tensor:
        """The weight as it is computed with, here now; it may go when another block's weight is asked for."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        self.spread(out)
        return out

    def arrive(self) -> None:
        """Have the tensors on the device."""
        if self.home is not None:
            self.home.fetch()


class Home(Protocol):
    """Knows how tensors that lie elsewhere come to the device."""

    @property
    def device(self) -> torch.device:
        """Where it is computed with them."""

    def fetch(self) -> None:
        """Have them there."""


@final
class Whole(Rounded):
    """A weight as it is: not rounded, but it may lie elsewhere."""

    values: Tensor

    def __init__(self, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(shape, dtype)
        self.keep("values", torch.empty(self.shape, dtype=dtype, device=device))

    def fill(self, weight: Tensor) -> None:
        self.values.copy_(weight)

    def spread(self, out: Tensor) -> None:
        out.copy_(self.dense())

    def dense(self) -> Tensor:
        """The weight itself."""
        self.arrive()
        return self.values


@final
class ByOutput(Rounded):
    """int8 or fp8: codes (O, K) and a scale for each output (O, 1)."""

    codes: Tensor
    scales: Tensor

    def __init__(
        self, shape: Sequence[int], code: torch.dtype, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(shape, dtype)
        outputs = shape[0]
        self.keep("codes", torch.empty(outputs, self.shape.numel() // outputs, dtype=code, device=device))
        self.keep("scales", torch.empty(outputs, 1, device=device))

    def fill(self, weight: Tensor) -> None:
        rows, code = weight.flatten(1), self.codes.dtype
        step = max(1, PIECE // rows.shape[1])
        for start in range(0, len(rows), step):
            piece = rows[start : start + step].float()
            scale = piece.abs().amax(dim=1, keepdim=True) / LARGEST[code]
            piece = (piece / torch.where(scale > 0, scale, 1.0)).clamp_(-LARGEST[code], LARGEST[code])
            self.codes[start : start + step] = piece.round_() if code == torch.int8 else piece
            self.scales[start : start + step] = scale

    def spread(self, out: Tensor) -> None:
        self.arrive()
        # Both codes are exact in bf16 and fp16, and the product is rounded once.
        out.view(self.codes.shape).copy_(self.codes).mul_(self.scales)


@final
class ByBlock(Rounded):
    """nf4: codes two to a byte, the first in the upper half; scales as 8 bit codes (S,), times (G, 1) plus mean."""

    codes: Tensor
    scale_codes: Tensor
    scale_scales: Tensor
    mean: Tensor

    def __init__(self, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(shape, dtype)
        num_blocks = -(-self.shape.numel() // BLOCK)
        self.keep("codes", torch.empty(num_blocks * BLOCK // 2, dtype=torch.uint8, device=device))
        self.keep("scale_codes", torch.empty(num_blocks, dtype=torch.int8, device=device))
        self.keep("scale_scales", torch.empty(-(-num_blocks // GROUP), 1, device=device))
        self.keep("mean", torch.empty((), device=device))

    def fill(self, weight: Tensor) -> None:
        flat, num_blocks = weight.flatten(), len(self.scale_codes)
        scales = torch.empty(num_blocks, device=weight.device)
        borders = torch.tensor(NORMAL_FLOAT, device=weight.device)
        borders = (borders[1:] + borders[:-1]) / 2
        for start in range(0, num_blocks, PIECE // BLOCK):
            piece = flat[start * BLOCK : start * BLOCK + PIECE].float()
            blocks = F.pad(piece, (0, -len(piece) % BLOCK)).view(-1, BLOCK)
            largest = blocks.abs().amax(dim=1)
            parts = blocks / torch.where(largest > 0, largest, 1.0)[:, None]
            found = torch.bucketize(parts, borders, out_int32=True).view(-1, 2)
            at = start * BLOCK // 2
            self.codes[at : at + len(found)] = found[:, 0] * 16 + found[:, 1]
            scales[start : start + len(largest)] = largest
        self.mean.copy_(scales.mean())
        groups = F.pad(scales - self.mean, (0, -num_blocks % GROUP)).view(-1, GROUP)
        self.scale_scales.copy_(groups.abs().amax(dim=1, keepdim=True) / 127)
        parts = groups / torch.where(self.scale_scales > 0, self.scale_scales, 1.0)
        self.scale_codes.copy_(parts.round_().clamp_(-127, 127).flatten()[:num_blocks])

    def scales(self) -> Tensor:
        """The scale of each block, (S,)"""
        num_blocks = len(self.scale_codes)
        groups = F.pad(self.scale_codes.float(), (0, -num_blocks % GROUP)).view(-1, GROUP)
        return groups.mul_(self.scale_scales).add_(self.mean).flatten()[:num_blocks]

    def spread(self, out: Tensor) -> None:
        self.arrive()
        table, codes = pairs(out.dtype, out.device), self.codes.int()
        if out.numel() % BLOCK == 0:
            torch.index_select(table, 0, codes, out=out.view(-1, 2))
            out.view(-1, BLOCK).mul_(self.scales()[:, None])
        else:
            values = table.index_select(0, codes).view(-1, BLOCK).mul_(self.scales()[:, None])
            out.copy_(values.flatten()[: out.numel()].view(out.shape))


@lru_cache(maxsize=8)
def pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The two values of each byte of nf4: (256, 2)"""
    values = torch.tensor(NORMAL_FLOAT, dtype=dtype, device=device)
    bytes_ = torch.arange(256, device=device)
    return torch.stack([values[bytes_ // 16], values[bytes_ % 16]], dim=1)


def room(
    shape: Sequence[int], form: Format | Literal["off"], *, dtype: torch.dtype, device: torch.device | str
) -> Rounded:
    """What a weight of this shape will be kept in.

    Args:
        dtype: the type that it will be computed in.
    """
    if form == "off":
        return Whole(shape, dtype=dtype, device=device)
    if form == "nf4" and len(shape) == 2:
        return ByBlock(shape, dtype=dtype, device=device)
    code = torch.float8_e4m3fn if form == "fp8" else torch.int8
    return ByOutput(shape, code, dtype=dtype, device=device)


def refuse_not_finite(weight: Tensor, name: str) -> None:
    """A number that is not finite would be rounded to one that is."""
    if not weight.is_meta and not bool(weight.isfinite().all()):
        raise UserError(
            f"{name} holds numbers that are not finite, which cannot be rounded.",
            fix="take the base from where it was first published; --set model.quantize=off would only hide it",
        )


def rounded(weight: Tensor, form: Format, *, dtype: torch.dtype) -> Rounded:
    """The weight in fewer bits, on its device, for computing in `dtype`."""
    stored = room(weight.shape, form, dtype=dtype, device=weight.device)
    stored.fill(weight)
    return stored


class RoundedLinear(nn.Linear):
    """A Linear whose weight is spread out each time it is asked for."""

    stored: Rounded

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(O, I), in memory of its own."""
        return self.stored.dense()


class RoundedConv2d(nn.Conv2d):
    """A convolution whose weight is spread out each time it is asked for."""

    stored: Rounded

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(O, I, kh, kw), in memory of its own."""
        return self.stored.dense()


def is_rounded(layer: nn.Module) -> bool:
    """Whether the layer's weight is kept in fewer bits."""
    return isinstance(layer, RoundedLinear | RoundedConv2d)


def weight_bytes(layer: nn.Module) -> int:
    """What the weight of a Linear or convolution takes as it is kept."""
    if isinstance(layer, RoundedLinear | RoundedConv2d):
        return sum(tensor.nbytes for tensor in layer.stored.buffers())
    assert isinstance(layer.weight, Tensor)
    return layer.weight.nbytes


def store(layer: nn.Module, stored: Rounded) -> None:
    """Give a Linear or convolution, in place, its weight in fewer bits: its class and its weight change, no more."""
    del layer.weight
    layer.__class__ = RoundedLinear if isinstance(layer, nn.Linear) else RoundedConv2d
    cast(RoundedLinear, layer).stored = stored


def can_round(path: str, module: nn.Module) -> bool:
    """Whether a layer of the UNet may be kept in fewer bits: those of its blocks. What tells every block the time and
    the sizes stays, and so do the first and the last convolution: they are 1 % of SDXL."""
    in_blocks = path.startswith(("down_blocks.", "mid_block.", "up_blocks."))
    return in_blocks and isinstance(module, nn.Linear | nn.Conv2d) and not path.endswith("time_emb_proj")


def round_blocks(unet: nn.Module, form: Format, *, dtype: torch.dtype) -> None:
    """Keep the weights of a UNet's blocks in fewer bits, in place; without numbers, only what they take is known."""
    for path, module in list(unet.named_modules()):
        if can_round(path, module):
            store(module, rounded(cast(nn.Linear, module).weight.detach(), form, dtype=dtype))
