"""A running mean of what learns: smoother than its last step."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from brushwork.lean.flat import Flat


@dataclass(frozen=True)
class RunningMean:
    """The mean by name, and how it is moved."""

    tensors: Mapping[str, Tensor]
    moving: Mapping[str, Tensor]
    """The same memory, in as few tensors as there are."""
    following: Mapping[str, Tensor]
    """What each of these follows."""

    def update(self, *, decay: float, steps_done: int) -> None:
        """One step towards what learns."""
        update(self.moving, self.following, decay=decay, steps_done=steps_done)


def running_mean(
    parameters: Mapping[str, Tensor], *, flat: Flat | None, device: torch.device | None = None
) -> RunningMean:
    """The mean before the first step: a copy of what learns, on `device` or beside it.

    Args:
        flat: the buffer in which the parameters lie, if they do; then the mean lies in one too.
    """
    if flat is None:
        mean = start(parameters, device=device)
        return RunningMean(mean, mean, parameters)
    following = {"all": flat.values}
    moving = start(following, device=device)
    views = dict(zip(map(id, flat.parameters), flat.views(moving["all"]), strict=True))
    return RunningMean({name: views[id(each)] for name, each in parameters.items()}, moving, following)


def start(parameters: Mapping[str, Tensor], *, device: torch.device | None = None) -> dict[str, Tensor]:
    """The mean before the first step: a copy, on `device` or beside the parameters."""
    return {
        name: parameter.detach().to(device or parameter.device, copy=True) for name, parameter in parameters.items()
    }


@torch.no_grad()
def update(mean: Mapping[str, Tensor], parameters: Mapping[str, Tensor], *, decay: float, steps_done: int) -> None:
    """Move `mean` towards `parameters`, in place, where the mean lies.

    In the first steps the decay is (1 + n) / (10 + n) where that is smaller, so that the untrained start is
    forgotten also in a short run.
    """
    share = 1.0 - min(decay, (1 + steps_done) / (10 + steps_done))
    means = list(mean.values())
    torch._foreach_lerp_(means, [parameters[name].to(own.device) for name, own in mean.items()], share)
