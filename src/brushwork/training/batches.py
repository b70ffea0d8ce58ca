"""Which pictures a step sees: epochs, batches of one size, and how many steps that makes.

Everything is computed from (sizes, repeats, seed, epoch), so that any step can be found again by its number.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from brushwork.amounts import number_of
from brushwork.errors import UserError
from brushwork.runtime import generator

Microbatch = tuple[int, ...]
"""Indices of pictures that go through the network together."""


@dataclass(frozen=True, eq=False)
class Budget:
    """How a folder of pictures becomes a number of optimizer steps.

    Budgets are compared by identity: hashing the sizes of 20,000 pictures would take a millisecond of every step.
    """

    sizes: tuple[tuple[int, int], ...]
    """Target width and height of each picture: only equal ones can share a batch."""
    repeats: tuple[int, ...]
    """How often each picture is seen in an epoch."""
    batch_size: int
    accumulation: int
    epochs: int | None
    max_steps: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.epochs is None and self.max_steps is None:
            raise UserError(
                "train.epochs and train.max_steps are both off, so the run would have no end.",
                fix="--set train.epochs=10",
            )

    @cached_property
    def pictures_per_epoch(self) -> int:
        """Pictures seen in an epoch, repeats counted."""
        return sum(self.repeats)

    @cached_property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch. A short batch is used, never dropped."""
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for size, times in zip(self.sizes, self.repeats, strict=True):
            counts[size] += times
        return sum(math.ceil(count / self.batch_size) for count in counts.values())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch. The last may average fewer batches."""
        return math.ceil(self.batches_per_epoch / self.accumulation)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        ends = []
        if self.epochs is not None:
            ends.append(self.epochs * self.steps_per_epoch)
        if self.max_steps is not None:
            ends.append(self.max_steps)
        return min(ends)

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) in which optimizer step `step` (from 0) lies."""
        return step // self.steps_per_epoch

    def ends_epoch(self, steps_done: int) -> bool:
        """Whether an epoch is complete when `steps_done` steps are done."""
        return steps_done % self.steps_per_epoch == 0

    def microbatches(self, step: int) -> tuple[Microbatch, ...]:
        """The batches of optimizer step `step` (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        batches = _batches_of_epoch(self, epoch)
        return batches[position * self.accumulation : (position + 1) * self.accumulation]

    def lines(self) -> list[tuple[str, str]]:
        """The derivation, line by line, for the table that is shown before the start."""
        seen = f"{self.pictures_per_epoch} = " + _sum_of_repeats(self.repeats)
        batches = f"{self.batches_per_epoch} = {self.pictures_per_epoch} / batch size {self.batch_size}"
        if len(set(self.sizes)) > 1:
            batches += f", {len(set(self.sizes))} sizes apart"
        steps = f"{self.steps_per_epoch} = {self.batches_per_epoch} / accumulation {self.accumulation}, rounded up"
        ends = []
        if self.epochs is not None:
            ends.append(f"{self.epochs} epochs x {self.steps_per_epoch} = {self.epochs * self.steps_per_epoch}")
        if self.max_steps is not None:
            ends.append(f"at most {self.max_steps}")
        total = f"{self.total_steps}: " + ", ".join(ends)
        return [
            ("pictures seen an epoch", seen),
            ("batches an epoch", batches),
            ("steps an epoch", steps),
            ("steps", total),
        ]


def _sum_of_repeats(repeats: Sequence[int]) -> str:
    counts: dict[int, int] = defaultdict(int)
    for times in repeats:
        counts[times] += 1
    return " + ".join(f"{number_of(count, 'picture')} x {times}" for times, count in sorted(counts.items()))


@lru_cache(maxsize=2)
def _batches_of_epoch(budget: Budget, epoch: int) -> tuple[Microbatch, ...]:
    """Shuffle the pictures, fill batches of one size, shuffle the batches."""
    source = generator(budget.seed, "order", epoch)
    entries = [index for index, times in enumerate(budget.repeats) for _ in range(times)]
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position in torch.randperm(len(entries), generator=source).tolist():
        groups[budget.sizes[entries[position]]].append(entries[position])
    batches = [
        tuple(group[start : start + budget.batch_size])
        for _, group in sorted(groups.items())
        for start in range(0, len(group), budget.batch_size)
    ]
    return tuple(batches[position] for position in torch.randperm(len(batches), generator=source).tolist())
