"""Runs side by side: what each came to, what it cost, and by how much each pair differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from brushwork.evaluation.choice import Result
from brushwork.evaluation.resampling import Figure, is_tie

SCORE = "score"


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Args:
        memory_gib: the most, on a card; on a CPU what the process held.
    """

    steps: int
    seconds: float
    memory_gib: float | None


@dataclass(frozen=True, eq=False)
class Entry:
    """One run in a comparison.

    Args:
        file: the name of the file that stands for it.
        pictures: of each shared cell.
        family: `sd15`, `sdxl`; "?" where nothing tells.
        cost: None where nothing was kept of the training.
    """

    name: str
    path: Path
    file: str
    is_picked: bool
    result: Result
    pictures: tuple[Path, ...]
    base: str
    family: str
    cost: Cost | None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of its pictures; None where they are gone."""
        there = next((file for file in self.pictures if file.is_file()), None)
        if there is None:
            return None
        with Image.open(there) as image:
            return image.size

    @property
    def value(self) -> float:
        return self.result.score.value


@dataclass(frozen=True, eq=False)
class Pair:
    """By how much the first of two runs is above the second, over the same prompts and seeds."""

    first: Entry
    second: Entry
    score: Figure
    parts: Mapping[str, Figure]

    def of(self, what: str) -> Figure:
        return self.score if what == SCORE else self.parts[what]

    @property
    def words(self) -> str:
        """Who is better, or that nobody can tell."""
        if is_tie(self.score):
            return f"a tie: the difference is within the noise ({self.score.low:+.2f} to {self.score.high:+.2f})"
        better, worse = (self.first, self.second) if self.score.value > 0 else (self.second, self.first)
        low, high = sorted((abs(self.score.low), abs(self.score.high)))
        return f"{better.name} is better than {worse.name} by {low:.2f} to {high:.2f}"


@dataclass(frozen=True, eq=False)
class Contest:
    """All that is told of runs side by side.

    Args:
        entries: in the order in which they were named.
        texts: the prompts, without the trigger.
        prompts: of each cell, its position among them.
        settings: those that differ, with the value of each run.
    """

    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    shares: Mapping[str, float]
    texts: tuple[str, ...]
    prompts: tuple[int, ...]
    seeds: tuple[int, ...]
    num_references: int
    num_bases: int
    encoder: str
    confidence: float
    settings: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...]

    @property
    def ranking(self) -> list[Entry]:
        """The highest score first; who copies cannot win and stands last."""
        return sorted(self.entries, key=lambda each: (each.result.copies_too_much, -each.value))

    @property
    def sound(self) -> list[Entry]:
        """Those that do not copy."""
        return [each for each in self.entries if not each.result.copies_too_much]

    def ties(self, one: Entry, other: Entry, what: str = SCORE) -> bool:
        """Whether two cannot be told from one another."""
        return any(is_tie(pair.of(what)) for pair in self.pairs if {pair.first, pair.second} == {one, other})

    def leaders(self, what: str, among: Sequence[Entry]) -> list[Entry]:
        """The one that has most of something, and behind it those that cannot be told from it."""
        if not among:
            return []

        def value(each: Entry) -> float:
            return each.value if what == SCORE else each.result.part(what).value

        top = max(among, key=value)
        return [top, *(each for each in among if each is not top and self.ties(top, each, what))]
