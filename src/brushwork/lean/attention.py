"""Attention by kernels that keep q, k, v and the result; on demand q, k and v are made again instead.

Shapes in this file:  B batch   T picture tokens   L tokens that are looked at   C channels   N heads
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MakeQKV = Callable[[], tuple[Tensor, ...]]
"""-> q (B, T, C), k (B, L, C), v (B, L, C), the same numbers whenever it is called."""


class Kernel(Protocol):
    """Computes attention, in a layout of its own."""

    def split(self, tokens: Tensor, heads: int) -> Tensor:
        """(B, T, C) -> the same by heads, as it is read here."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What `split` gives of q, k and v -> (B, T, C)"""


class PyTorchKernel:
    """Whichever of PyTorch's own kernels it chooses, or was told to."""

    def split(self, tokens: Tensor, heads: int) -> Tensor:
        """(B, T, C) -> (B, N, T, C/N)"""
        batch, num_tokens, channels = tokens.shape
        return tokens.view(batch, num_tokens, heads, channels // heads).transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Kernel`."""
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


PYTORCH = PyTorchKernel()


def attend(make: MakeQKV, *, heads: int, rebuilt: bool, kernel: Kernel = PYTORCH) -> Tensor:
    """-> (B, T, C)

    Args:
        rebuilt: whether q, k and v are made again for the gradient rather than kept.
    """
    if rebuilt and torch.is_grad_enabled():
        again = Rebuilt(make, heads, kernel)
        q, k, v = again.first()
        with torch.autograd.graph.saved_tensors_hooks(again.forget, again.recall):
            return kernel.mix(q, k, v)
    q, k, v = (kernel.split(tensor, heads) for tensor in make())
    return kernel.mix(q, k, v)


class Rebuilt:
    """What the attention kernel wants to have kept: of q, k and v only which of them it is."""

    def __init__(self, make: MakeQKV, heads: int, kernel: Kernel) -> None:
        self._make = make
        self._heads = heads
        self._kernel = kernel
        self._places: list[tuple[int, int, torch.Size]] = []
        self._made: dict[int, Tensor] = {}

    def first(self) -> list[Tensor]:
        """q, k and v by heads, as the kernel reads them."""
        tensors = [self._kernel.split(tensor, self._heads) for tensor in self._make()]
        self._places = [_place(tensor) for tensor in tensors]
        return tensors

    def forget(self, tensor: Tensor) -> Tensor | int:
        """Called for each tensor that is to be kept."""
        place = _place(tensor)
        return self._places.index(place) if place in self._places else tensor

    def recall(self, kept: Tensor | int) -> Tensor:
        """Called when it is asked for; all three are made at the first question and let go with the last."""
        if isinstance(kept, Tensor):
            return kept
        if not self._made:
            with torch.no_grad():
                made = [self._kernel.split(tensor, self._heads) for tensor in self._make()]
            self._made = dict(enumerate(made))
        return self._made.pop(kept)


def _place(tensor: Tensor) -> tuple[int, int, torch.Size]:
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset()), tensor.shape
