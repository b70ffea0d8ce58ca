"""Why a run is slow, where that can be seen: memory that spills over, or data that comes too late."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from brushwork.records import Row

LATELY = 20
"""Steps that are looked at."""

WARM = 3
"""The first steps of a process are slow for reasons of their own."""


@dataclass(frozen=True)
class Memory:
    """How full the memory is in which a run computes."""

    taken: int
    total: int
    of: str
    """`card` or `machine`."""

    @property
    def is_full(self) -> bool:
        """Whether what comes next would have to go elsewhere."""
        return self.taken >= 0.95 * self.total

    def __str__(self) -> str:
        return f"{self.taken / 2**30:.1f} of {self.total / 2**30:.1f} GiB of the {self.of}"


def memory_of(device: torch.device) -> Memory:
    """The memory of the device, with what other programs hold of it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # A driver that spills into the machine's memory lets torch reserve more than the card has.
        return Memory(max(total - free, torch.cuda.memory_reserved(device)), total, "card")
    machine = psutil.virtual_memory()
    return Memory(machine.total - machine.available, machine.total, "machine")


def causes(rows: Sequence[Row], memory: Memory) -> dict[str, str]:
    """What is wrong, by its kind, in words that say what to do.

    Args:
        rows: the steps of this process.
    """
    found = {}
    waiting = _waiting(rows)
    if waiting is not None:
        found["data"] = waiting
    spilling = _spilling(rows, memory)
    if spilling is not None:
        found["memory"] = spilling
    return found


def _waiting(rows: Sequence[Row]) -> str | None:
    """Data is late where a third of the time goes by without any: a step hides what is read while it computes."""
    if len(rows) < WARM + LATELY:
        return None
    lately = rows[-LATELY:]
    waited = sum(row["data_wait_seconds"] for row in lately)
    whole = sum(row["seconds"] for row in lately)
    if waited < 0.33 * whole or waited < 0.02 * LATELY:
        return None
    return (
        f"{waited / whole:.0%} of the last {LATELY} steps went by waiting for data ({waited / LATELY:.2f} s a step): "
        "the cache is read more slowly than the network learns. Put it on a faster disk (cache.folder), or leave the "
        "disk and the processor to this run"
    )


def _spilling(rows: Sequence[Row], memory: Memory) -> str | None:
    """Memory spills where it is full and steps take twice as long as at first, or more is held than there is."""
    over = memory.taken > memory.total
    if not memory.is_full or len(rows) < WARM + 2 * LATELY:
        return f"{_OVER.format(memory=memory)} {_LESS}" if over else None
    at_first = statistics.median(row["seconds"] for row in rows[WARM : WARM + LATELY])
    lately = statistics.median(row["seconds"] for row in rows[-LATELY:])
    if lately < 2 * at_first and not over:
        return None
    return (
        f"memory is full ({memory}) and a step takes {lately:.2f} s, {lately / at_first:.1f} times as long as at "
        f"first: it is being moved to a slower place (the machine's memory, or its disk). {_LESS}"
    )


_OVER = "more memory is held than there is ({memory}): it is being moved to a slower place, many times slower."
_LESS = "Close other programs, or use less: train.checkpointing, a smaller data.resolution or train.batch_size"
