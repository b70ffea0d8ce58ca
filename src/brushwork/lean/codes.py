"""Products of a frozen weight's codes with rows that are rounded too: a card multiplies 8 bit twice as fast as 16.

With s_o the scale of an output, c its codes, and a scale r and codes q of each row:

    y = r (q c^T) s            rows are rounded as they are
    d_x = r (q c)              what is rounded is d_y s, so that the scales stand in front of the sum

Both are exact but for the rounding of the rows, by at most 1/254 of a row's largest number (int8) or 1/16 of each
number (fp8).

Shapes in this file:  N rows   I width in   O width out
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.models.rounded import ByOutput, RoundedLinear

CODES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""`model.quantize` whose Linears can be multiplied as they are stored."""

GRAIN = 16
"""Widths that a card multiplies in 8 bit are multiples of this."""

FEWEST_ROWS = 32
"""A card takes more than 16 rows of int8; where there are fewer, rows of zeros are added."""


@dataclass(frozen=True)
class InCodes:
    """The weight of one Linear or of several that read the same, multiplied as it is stored.

    Args:
        parts: one for each layer.
        by: how rows are rounded.
    """

    parts: Sequence[ByOutput]
    by: Pointwise = PLAIN

    def dense(self) -> Tensor:
        """The weight in the type of the computation, (O, I): where it is not multiplied by rows."""
        dense = [part.dense() for part in self.parts]
        return torch.cat(dense) if len(dense) > 1 else dense[0]

    def multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        """(N, I) -> (N, O)"""
        for part in self.parts:
            part.arrive()
        codes, scales = (
            tensors[0] if len(tensors) == 1 else torch.cat(tensors)
            for tensors in ([part.codes for part in self.parts], [part.scales for part in self.parts])
        )
        rounded, own = self.by.rounded(rows, None, codes.dtype)
        return self.by.scaled(product_of_codes(rounded, codes.t()), own, scales[:, 0], bias, rows.dtype)

    def multiply_back(self, wanted: Sequence[Tensor]) -> Tensor:
        """Gradients of each layer's outputs, (N, O) each -> of the rows: (N, I)"""
        d_rows: Tensor | None = None
        for d_y, part in zip(wanted, self.parts, strict=True):
            part.arrive()
            rounded, own = self.by.rounded(d_y, part.scales[:, 0], part.codes.dtype)
            found = self.by.scaled(product_of_codes(rounded, part.codes), own, None, None, d_y.dtype)
            d_rows = found if d_rows is None else d_rows.add_(found)
        assert d_rows is not None
        return d_rows


def product_of_codes(rows: Tensor, matrix: Tensor) -> Tensor:
    """(N, I), (I, O) -> (N, O): int8 is summed in int32, exactly, fp8 in float32."""
    if rows.dtype == torch.int8:
        few = rows.is_cuda and len(rows) < FEWEST_ROWS
        padded = F.pad(rows, (0, 0, 0, FEWEST_ROWS - len(rows))) if few else rows
        return torch._int_mm(padded, matrix)[: len(rows)]
    one = torch.ones((), device=rows.device)
    # A card wants the columns one after the other.
    columns = matrix if matrix.stride(0) == 1 else matrix.t().contiguous().t()
    return torch._scaled_mm(rows, columns, one, one, out_dtype=torch.float32)


def in_codes(layers: Sequence[nn.Module], by: Pointwise) -> InCodes | None:
    """The weights of layers that read the same, to be multiplied as they are stored; None where they cannot be."""
    parts = [layer.stored for layer in layers if isinstance(layer, RoundedLinear)]
    codes = [part for part in parts if isinstance(part, ByOutput) and not any(side % GRAIN for side in part.shape)]
    return InCodes(codes, by) if len(codes) == len(layers) else None


def stays_dense(unet: nn.Module) -> int:
    """How many Linears that are kept in fewer bits are of a width that no card multiplies so."""
    linears = [module for module in unet.modules() if isinstance(module, RoundedLinear)]
    return sum(in_codes([linear], PLAIN) is None for linear in linears)


def refuse_without_products(form: str, device: torch.device) -> None:
    """Multiply once, where the result is known.

    Args:
        form: `model.quantize`

    Raises:
        UserError: the device does not multiply such numbers, or not rightly.
    """
    ones = torch.ones(FEWEST_ROWS, FEWEST_ROWS, device=device).to(CODES[form])
    try:
        sums = product_of_codes(ones, ones.t()).float()
        why = None if bool((sums == FEWEST_ROWS).all()) else "its product of ones is wrong"
    except (RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if why is not None:
        raise UserError(
            f"train.compute = rounded: {device} does not multiply in {form} here ({why}).",
            fix="--set train.compute=dense spreads the weights out before each product",
        )
