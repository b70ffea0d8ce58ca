"""The gradient of a step, from the passes that it is made of to the optimizer: collected, summed, measured, scaled.

An adapter's lies in one buffer (`lean/flat.py`). A whole network's stays with its weights: there are few of them, and
as one piece it would not fit beside them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from brushwork.distributed import Group
from brushwork.lean.flat import Flat
from brushwork.training.sharding import Shards


class Gradients(Protocol):
    """What the loop asks of a gradient, in this order."""

    def collect(self) -> None:
        """After each pass: take what autograd has left."""

    def finish(self, group: Group) -> None:
        """After all passes: the sum over all processes is at the parameters."""

    def norm(self, group: Group) -> float:
        """Over everything that learns."""

    def scale(self, factor: float) -> None:
        """Multiply all of it."""

    def clear(self) -> None:
        """Let go of all of it."""


@dataclass(frozen=True)
class FlatGradients:
    """In one buffer: a call for each of these, however many parameters there are."""

    flat: Flat

    def collect(self) -> None:
        """See `Gradients`."""
        self.flat.collect()

    def finish(self, group: Group) -> None:
        """See `Gradients`. What no process has a gradient of stays without."""
        flat = self.flat
        if group.size > 1:
            there = torch.tensor(flat.present, dtype=torch.float32, device=flat.values.device)
            group.add_up(there)
            flat.present = [count > 0 for count in there.tolist()]
            if any(flat.present):
                flat.gradient = torch.zeros_like(flat.values) if flat.gradient is None else flat.gradient
                group.add_up(flat.gradient)
        flat.hand_out()

    def norm(self, group: Group) -> float:
        """See `Gradients`."""
        return float(self.flat.norm())

    def scale(self, factor: float) -> None:
        """See `Gradients`."""
        if self.flat.gradient is not None:
            self.flat.gradient.mul_(factor)

    def clear(self) -> None:
        """See `Gradients`."""
        self.flat.clear()


@dataclass(frozen=True)
class SeparateGradients:
    """Each at its own parameter."""

    parameters: Mapping[str, nn.Parameter]
    copies: Mapping[str, nn.Parameter]
    """See `Learner.copies`."""
    shards: Shards | None
    device: torch.device

    @torch.no_grad()
    def collect(self) -> None:
        """See `Gradients`. Those of rounded copies are added to the parameters' in float32."""
        for name, copy in self.copies.items():
            if copy.grad is None:
                continue
            parameter = self.parameters[name]
            gradient = copy.grad.float()
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            copy.grad = None

    def finish(self, group: Group) -> None:
        """See `Gradients`."""
        if self.shards is not None:
            self.shards.collect_gradients()  # each block's were summed as they came
        else:
            group.sum_gradients(list(self.parameters.values()))

    def norm(self, group: Group) -> float:
        """See `Gradients`."""
        gradients = self._there()
        if not gradients:
            return 0.0
        norms = [norm.to(self.device) for norm in torch._foreach_norm(gradients)]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        return norm if self.shards is None else math.sqrt(group.total(norm**2))

    def scale(self, factor: float) -> None:
        """See `Gradients`."""
        gradients = self._there()
        if gradients:
            torch._foreach_mul_(gradients, factor)

    def clear(self) -> None:
        """See `Gradients`."""
        for tensor in (*self.parameters.values(), *self.copies.values()):
            tensor.grad = None

    def _there(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
