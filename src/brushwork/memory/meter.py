"""Counting what a computation keeps alive, how many operations it makes and how many kernels it calls.

On the meta device tensors have shapes and no numbers, so a training step of SDXL at 1024 px is measured in seconds,
on any machine: a storage counts from the operation that made it until nothing holds it any more.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

GRAIN = 512
"""Bytes: CUDA's allocator gives memory in pieces of this size."""

TWINS = {"_int_mm": "mm"}
"""Products that PyTorch has no formula for, and those that make as many operations."""


@dataclass
class Reading:
    """What was counted so far.

    Args:
        live: bytes that are held now, without what was there before.
        peak: most of them at once.
        flops: of matrix products, convolutions and attention; a multiplication and an addition are two.
        calls: kernels that are started; a view of something is none.
    """

    live: int = 0
    peak: int = 0
    flops: int = 0
    calls: int = 0


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts within its `with` block.

    Args:
        known: tensors that were there before and count for nothing.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reading = Reading()
        self._known = {_storage(tensor) for tensor in known}
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what was asked, and count it."""
        result = func(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._hold(tensor)
        is_view = not func._schema.is_mutable and {_storage(tensor) for tensor in made} <= given
        if not is_view and made:
            self.reading.calls += 1
        formula = _formula(func)
        if formula is not None:
            self.reading.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _storage(tensor)
        if key in self._known or key in self._held:
            return
        size = -(-storage.nbytes() // GRAIN) * GRAIN
        self._held[key] = weakref.ref(storage, lambda _: self._let_go(key, size))
        self.reading.live += size
        self.reading.peak = max(self.reading.peak, self.reading.live)

    def _let_go(self, key: int, size: int) -> None:
        self._held.pop(key, None)
        self.reading.live -= size


@contextmanager
def flash_on_meta() -> Iterator[None]:
    """Meta tensors would take attention's plain form, whose matrix of all pairs no card ever makes.

    PyTorch's function is replaced within the block; a mode of torch functions would not see what is called backward.
    """
    usual = F.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, *more: Any, **named: Any) -> Tensor:
        if not q.is_meta:
            return usual(q, k, v, *more, **named)
        mixed: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False)[0]
        return mixed

    F.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = usual


@contextmanager
def metered(known: Iterable[Tensor] = ()) -> Iterator[Reading]:
    """Count what happens within; `known` counts for nothing."""
    meter = Meter(known)
    with flash_on_meta(), meter:
        yield meter.reading


def _formula(func: Any) -> Any:
    """How many operations a call makes; `addmm_` makes those of `addmm`. None where it is no product."""
    packet = func._overloadpacket
    name = packet.__name__
    twin = (
        getattr(torch.ops.aten, TWINS.get(name, name.removesuffix("_")), None) if func.namespace == "aten" else None
    )
    return flop_registry.get(packet) or flop_registry.get(twin)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
