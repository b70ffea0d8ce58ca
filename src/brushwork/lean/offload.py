"""What is kept for the gradient waits in the host's memory, and comes back one tensor ahead of its use.

Autograd hands over each tensor that it keeps, and asks for it in the reverse order: when one is asked for, the one
that was handed over before it is fetched too, beside the computation.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from brushwork.models.streaming import Copier, copier_for

SMALLEST = 2**20
"""Bytes below which a tensor stays: statistics and products a rank wide are not worth the way."""


@dataclass
class Away:
    """A tensor that waits in the host's memory."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    host: Tensor | None
    """None where there are no numbers: what a step takes is being counted."""
    left: Any
    before: "Away | None"
    back: tuple[Tensor, Any] | None = None
    came: bool = False


class Offload:
    """Keeps for autograd, in the host's memory, what one call of the network wants to have kept.

    Args:
        smallest: bytes of a tensor that goes.
    """

    def __init__(self, device: torch.device, *, copier: Copier | None = None, smallest: int = SMALLEST) -> None:
        self._device = device
        self._made = copier
        self._smallest = smallest
        self._last: Away | None = None

    @property
    def _copier(self) -> Copier:
        """Made when the first tensor leaves: what a step takes can be counted without a card."""
        self._made = self._made or copier_for(self._device)
        return self._made

    def hooks(self) -> saved_tensors_hooks:
        """A context for one call."""
        self._last = None
        return saved_tensors_hooks(self.leave, self.come)

    def leave(self, tensor: Tensor) -> Tensor | Away:
        """Called for each tensor that is to be kept."""
        if tensor.nbytes < self._smallest or isinstance(tensor, nn.Parameter):
            return tensor
        host, left = None, None
        if not tensor.is_meta:
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._device.type == "cuda")
            left = self._copier.start(host, tensor)
        self._last = Away(tensor.shape, tensor.dtype, tensor.device, host, left, self._last)
        return self._last

    def come(self, kept: Tensor | Away) -> Tensor:
        """Called when it is asked for."""
        if isinstance(kept, Tensor):
            return kept
        self._fetch(kept)
        kept.came = True
        if kept.before is not None and not kept.before.came:
            self._fetch(kept.before)
        assert kept.back is not None
        (tensor, arrival), kept.back = kept.back, None
        if kept.host is not None:
            self._copier.wait(arrival)
        return tensor

    def _fetch(self, away: Away) -> None:
        if away.back is not None:
            return
        target = torch.empty(away.shape, dtype=away.dtype, device=away.device)
        if away.host is None:
            away.back = (target, None)
            return
        self._copier.wait(away.left)
        away.back = (target, self._copier.start(target, away.host))
