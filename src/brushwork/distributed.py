"""Several processes that work as one, on one machine or many, as `torchrun` starts them.

Every process runs the same program and knows its rank, from 0 up. The first writes and speaks; all of them compute.
Without torchrun there is one process, and nothing here does anything.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from brushwork.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long a process waits for another, which may be encoding; torchrun ends all when one of them dies."""

NUMBERS_AT_ONCE = 2**24
"""Gradients are added up in pieces of so many numbers, 64 MiB."""


class Counter(Protocol):
    """What is asked of the store that all processes share."""

    def add(self, key: str, amount: int, /) -> int:
        """Count up; the new count."""


@dataclass(frozen=True)
class Group:
    """The processes of a run, seen from one of them.

    Every method that names another process is to be called by all of them, in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number among the processes of this machine, which is the number of its card."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def owns(self, number: int) -> bool:
        """Whether piece `number` of some work is this process's: pieces are dealt out in turn."""
        return number % self.size == self.rank

    def share(self, pieces: Sequence[T]) -> list[T]:
        """This process's pieces."""
        return list(pieces[self.rank :: self.size])

    def gathered(self, value: T) -> list[T]:
        """What each process holds, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        _together(lambda: dist.all_gather_object(values, value))
        return list(values)  # type: ignore[arg-type]

    def any(self, here: bool) -> bool:
        """Whether it is so in any process. All wait for one another."""
        return any(self.gathered(here))

    def from_first(self, value: T) -> T:
        """What the first process holds: it decides."""
        if self.size == 1:
            return value
        values = [value]
        _together(lambda: dist.broadcast_object_list(values, src=0))
        return values[0]

    def gathered_in_first(self, tensor: Tensor) -> list[Tensor]:
        """What each process holds, by rank, tensors of one shape on the CPU; nothing in the others."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_first else None
        _together(lambda: dist.gather(tensor, parts))
        return parts or []

    def total(self, number: float) -> float:
        """The sum over all processes, the same bits in each."""
        return sum(self.gathered(number))

    def wait(self) -> None:
        """Until every process is here."""
        self.any(False)

    @torch.no_grad()
    def add_up(self, tensor: Tensor) -> None:
        """A tensor (N,) becomes, in place, the sum of those of all processes."""
        if self.size == 1:
            return
        for piece in torch.split(tensor, NUMBERS_AT_ONCE):
            _together(lambda piece=piece: dist.all_reduce(piece))  # type: ignore[misc]

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Every gradient becomes the sum over all processes. One that no process has stays None, so that the
        optimizer passes its parameter by, as it does with one process."""
        if self.size == 1:
            return
        piece: list[nn.Parameter] = []
        for parameter in parameters:
            if piece and sum(each.numel() for each in piece) + parameter.numel() > NUMBERS_AT_ONCE:
                _sum_piece(piece)
                piece = []
            piece.append(parameter)
        if piece:
            _sum_piece(piece)


def _sum_piece(parameters: Sequence[nn.Parameter]) -> None:
    """One flat message: all gradients, zeros for those that are not there, and which are there."""
    first = parameters[0]
    there = torch.tensor([float(each.grad is not None) for each in parameters], device=first.device)
    parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    flat = torch.cat([part.flatten() for part in parts] + [there])
    _together(lambda: dist.all_reduce(flat))
    *sums, counts = torch.split(flat, [each.numel() for each in parameters] + [len(parameters)])
    for parameter, gradient, count in zip(parameters, sums, counts.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter).clone() if count else None


def _together(talk: Callable[[], object]) -> None:
    try:
        talk()
    except RuntimeError as error:
        said = re.sub(r"^\[\S+\] ", "", str(error)).partition("\n")[0].split(". ")[0].rstrip(".")
        raise UserError(
            f"another process of this run is gone: killed, or its machine is out of reach ({said}).",
            fix="look at what it said; the same command goes on from the last saved state",
        ) from error


def current() -> Group:
    """The group that this process is in."""
    if not (dist.is_available() and dist.is_initialized()):
        return Group()
    return Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined() -> Iterator[Group]:
    """Be in the group that torchrun made; outside torchrun, and inside another `joined`, change nothing.

    An error in one process ends all: it is raised where it came first, the others leave without a word.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if not started or not dist.is_available() or dist.is_initialized():
        yield current()
        return
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    group = current()
    if cuda and group.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(group.local_rank)
    try:
        yield group
        group.wait()  # torchrun ends the rest when one leaves with an error code, and the first may still be writing
    except BaseException:
        if not _fails_first(store):
            raise SystemExit(1) from None
        raise
    dist.destroy_process_group()


def _fails_first(store: Counter) -> bool:
    """Whether no other process has failed before this one."""
    with suppress(RuntimeError):  # the store went with the process that kept it
        return bool(store.add("brushwork failed", 1) == 1)
    return True


def voice(group: Group, console: Console | None) -> Console:
    """Where a process speaks: the first to `console`, by default the error stream; the others nowhere."""
    if not group.is_first:
        return Console(quiet=True)
    return Console(stderr=True) if console is None else console
