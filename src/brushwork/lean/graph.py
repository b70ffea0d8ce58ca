"""What a card is told once and replays in one go: CUDA graphs, and how the inputs of one are told from another's.

Telling a fast card each kernel of a large network takes longer than computing them. A graph always reads the same
memory, so what it is asked is copied to where it looks; it is for one shape of it.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

MOST_GRAPHS = 20
"""A graph keeps some memory; of more shapes than this, the later ones go kernel by kernel."""

WARM_UP = 2
"""Calls before a graph is recorded, in which libraries choose their kernels and make their workspaces."""

MOST_ERROR = 0.01
"""Of a replay against the same kernel by kernel, as a share: a card adds bf16 numbers up in any order."""


class Records(Protocol):
    """Makes a graph."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Where the result of `call` will stand, and what computes it anew. `call` may be made several times."""


class CudaGraphs:
    """Records CUDA graphs, all with one pool of memory: they never run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `Records`."""
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = call()
        return result, graph.replay


def are_alike(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether a replay gave the numbers of the same kernel by kernel, but for the order in which a card adds up."""
    errors = [float((one - other).norm()) for one, other in zip(found, expected, strict=True)]
    return all(error <= MOST_ERROR * float(other.norm()) for error, other in zip(errors, expected, strict=True))


def shape_of(value: Any) -> Hashable:
    """What two inputs share that the same graph can take: shapes and types of tensors, and what is not there."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if is_dataclass(value):
        return tuple(shape_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple) and not all(isinstance(each, str) for each in value):
        return tuple(shape_of(each) for each in value)
    return value is None


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in tuples and dataclasses, in one order."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from tensors_of(each)


def copied(value: Any, device: torch.device) -> Any:
    """The same with tensors of its own on `device`."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: copied(getattr(value, field.name), device) for field in fields(value)})
    if isinstance(value, tuple):
        return tuple(copied(each, device) for each in value)
    return value
