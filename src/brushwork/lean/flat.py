"""Parameters end to end in one buffer, and their gradients in another: what moves them all is a handful of kernels.

An adapter of SDXL is over a thousand small tensors. Cleared, clipped and moved one by one, they ask a card for more
kernels than it has time for. Here they become views of one buffer: they keep their names, shapes and places in the
network, so that nobody else has to know.

Shapes in this file:  N numbers of all parameters, with the gaps between them
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

GRAIN = 16
"""Each parameter begins at a multiple of so many numbers, 64 bytes, as it would by itself."""

ROUNDED = "rounded"
"""Under this name a parameter has its rounded copy with it."""

ROW = 4096
"""The buffer is a whole number of such rows. A sum of squares that goes by rows, then over them, rounds little."""


class Flat:
    """Makes parameters views of one buffer.

    Args:
        parameters: float32, all on one device, in the order in which they are to lie.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.starts: list[int] = []
        end = 0
        for parameter in self.parameters:
            self.starts.append(end)
            end += -(-parameter.numel() // GRAIN) * GRAIN
        device = self.parameters[0].device if self.parameters else None
        self.values = torch.zeros(-(-end // ROW) * ROW, dtype=torch.float32, device=device)  # (N,)
        for parameter, view in zip(self.parameters, self.views(self.values), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self._rounded: Tensor | None = None
        self._kept: Tensor | None = None
        self.gradient: Tensor | None = None
        """(N,), of the step so far; zero where `present` is not set, and in the gaps."""
        self.present = [False] * len(self.parameters)
        """Which parameters have a gradient in this step."""

    @torch.no_grad()
    def round_to(self, dtype: torch.dtype) -> None:
        """Keep a copy of all parameters in the type that the network computes in, where that is another; `in_type`
        finds it. To be called whenever a parameter has changed."""
        if dtype == torch.float32:
            return
        if self._rounded is None:
            self._rounded = torch.empty_like(self.values, dtype=dtype)
            for parameter, view in zip(self.parameters, self.views(self._rounded), strict=True):
                setattr(parameter, ROUNDED, view)
        self._rounded.copy_(self.values)

    @property
    def buffers(self) -> list[Tensor]:
        """What stays in memory: the parameters, and their rounded copy where there is one."""
        return [self.values] if self._rounded is None else [self.values, self._rounded]

    def views(self, buffer: Tensor) -> list[Tensor]:
        """What stands in a buffer (N,) for each parameter, in its shape."""
        return list(self._views(buffer))

    def _views(self, buffer: Tensor) -> Iterator[Tensor]:
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            yield buffer[start : start + parameter.numel()].view(parameter.shape)

    def keep_gradient(self) -> None:
        """From now on the gradient has memory of its own that stays, for what is recorded and looks there."""
        self._kept = torch.zeros_like(self.values) if self._kept is None else self._kept
        self.gradient = self._kept

    @torch.no_grad()
    def collect(self) -> None:
        """Add what autograd has left at the parameters to the gradient. It hands over what it made and does not copy
        it, since it finds nothing there to add to."""
        found = [(number, parameter.grad) for number, parameter in enumerate(self.parameters)]
        new = [(number, gradient) for number, gradient in found if gradient is not None]
        for parameter in self.parameters:
            parameter.grad = None
        if not new:
            return
        first = self.gradient is None
        if self.gradient is None:
            self.gradient = torch.zeros_like(self.values)
        views = self.views(self.gradient)
        own, added = [views[number] for number, _ in new], [gradient for _, gradient in new]
        if first:
            torch._foreach_copy_(own, added)
        else:
            torch._foreach_add_(own, added)
        for number, _ in new:
            self.present[number] = True

    def hand_out(self) -> None:
        """Each parameter's gradient is a view of the one gradient, for whoever moves them."""
        if self.gradient is None:
            return
        for parameter, view, present in zip(self.parameters, self.views(self.gradient), self.present, strict=True):
            parameter.grad = view if present else None

    def norm(self) -> Tensor:
        """Of the whole gradient: ()"""
        if self.gradient is None:
            return torch.zeros(())
        rows = torch.linalg.vector_norm(self.gradient.view(-1, ROW), dim=1)
        length: Tensor = torch.linalg.vector_norm(rows)
        return length

    def clear(self) -> None:
        """Let go of the gradient; where its memory stays, make it zero."""
        self.gradient = None if self._kept is None else self._kept.zero_()
        self.present = [False] * len(self.parameters)
        for parameter in self.parameters:
            parameter.grad = None


def in_type(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter in the type of the computation: the copy that `Flat` keeps of it, or a new one."""
    rounded: Tensor | None = getattr(parameter, ROUNDED, None)
    return parameter.to(dtype) if rounded is None or rounded.dtype != dtype else rounded


def stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices one below the other, (R, I) each -> (sum of R, I): as they lie, where they lie so already."""
    first, *others = matrices
    end = first.storage_offset() + first.numel()
    for other in others:
        together = other.untyped_storage()._cdata == first.untyped_storage()._cdata
        if not together or other.storage_offset() != end:
            return torch.cat(list(matrices))
        end += other.numel()
    rows, columns = sum(len(matrix) for matrix in matrices), first.shape[1]
    return first.as_strided((rows, columns), (columns, 1)) if others else first
