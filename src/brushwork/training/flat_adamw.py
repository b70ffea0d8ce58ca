"""AdamW over parameters that lie in one buffer: what it remembers lies in such buffers too, and it moves all at once.

The numbers are torch's own, by torch's own function; it is given the buffers in place of a thousand tensors. What is
remembered stands under each parameter as torch's AdamW has it, so that states are read and written alike.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from brushwork.lean.flat import Flat


class FlatAdamW(torch.optim.Optimizer):
    """torch's AdamW.

    A parameter without a gradient stands still and forgets nothing, as there. So what is moved at once is a stretch
    of the buffer: neighbours that have a gradient and have been moved equally often. That is all of a group, unless
    layers are left out of a step.

    Args:
        params: groups of the parameters in `flat`.
    """

    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        *,
        flat: Flat,
        lr: float,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        amsgrad: bool = False,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps, "amsgrad": amsgrad}
        super().__init__(params, defaults)
        self._flat = flat
        self._numbers = {parameter: number for number, parameter in enumerate(flat.parameters)}
        self._memory: dict[str, Tensor] = {}
        self._views: dict[str, list[Tensor]] = {}
        self._moved = torch.zeros(len(flat.parameters))  # how often, on the CPU, where torch's AdamW counts it

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "one gradient a step"
        flat, moved = self._flat, self._moved.tolist()
        for group in self.param_groups:
            with_gradient = sorted(
                number for number in map(self._numbers.__getitem__, group["params"]) if flat.present[number]
            )
            for number in with_gradient:
                if not self.state[flat.parameters[number]]:
                    self._remember(number, group)
            for first, last in _stretches(with_gradient, moved):
                self._move(first, last, moved[first], group)

    def adopt(self) -> None:
        """Take what was put back into `state` into the buffers."""
        for group in self.param_groups:
            for parameter in group["params"]:
                given = self.state.pop(parameter, None)
                if not given:
                    continue
                number = self._numbers[parameter]
                self._remember(number, group)
                for kind, tensor in self.state[parameter].items():
                    if kind in given:
                        tensor.copy_(given[kind])

    def _remember(self, number: int, group: dict[str, Any]) -> None:
        kinds = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")
        for kind in kinds:
            if kind not in self._memory:
                self._memory[kind] = torch.zeros_like(self._flat.values)
                self._views[kind] = self._flat.views(self._memory[kind])
        self.state[self._flat.parameters[number]] = {
            "step": self._moved[number],
            **{kind: self._views[kind][number] for kind in kinds},
        }

    def _move(self, first: int, last: int, moved: float, group: dict[str, Any]) -> None:
        """Move the parameters from number `first` to `last`, which have been moved so often."""
        flat = self._flat
        assert flat.gradient is not None
        where = slice(flat.starts[first], flat.starts[last] + flat.parameters[last].numel())
        on_card = flat.values.device.type == "cuda"
        amsgrad = group["amsgrad"]
        adamw(
            [flat.values[where]],
            [flat.gradient[where]],
            [self._memory["exp_avg"][where]],
            [self._memory["exp_avg_sq"][where]],
            [self._memory["max_exp_avg_sq"][where]] if amsgrad else [],
            [torch.full((), moved, device=flat.values.device if on_card else None)],
            foreach=False,
            fused=on_card,
            amsgrad=amsgrad,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        self._moved[first : last + 1] = moved + 1


def _stretches(numbers: Sequence[int], moved: Sequence[float]) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours that have been moved equally often."""
    first = None
    for place, number in enumerate(numbers):
        if first is None:
            first = number
        following = numbers[place + 1] if place + 1 < len(numbers) else None
        if following != number + 1 or moved[following] != moved[number]:
            yield first, number
            first = None
