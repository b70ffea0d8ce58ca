"""A running mean of what learns: smoother than its last step."""

from collections.abc import Mapping

import torch
from torch import Tensor


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
