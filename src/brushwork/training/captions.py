"""Which words go with each picture of each step.

A picture's captions are numbered: number 3 is always the same words, for its draws follow from (seed, picture, 3). A
picture that is shown for the tenth time gets number 9, or, where only so many variants are kept, 9 modulo their
number. So a run knows ahead every caption that it will need, text states can be cached, and a run that is continued,
or that asks the encoders in each step, reads the same words.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import torch

from brushwork.config.schema import DataConfig
from brushwork.data.wording import is_varied, worded
from brushwork.runtime import derive_seed, generator
from brushwork.training.batches import Budget


@dataclass(frozen=True)
class Captioned:
    """A picture by its words.

    Args:
        text: with prefix and suffix, and with all that is still to be drawn.
    """

    name: str
    text: str
    data: DataConfig

    @property
    def plainly(self) -> str:
        """The words where nothing is left to chance: for the held-out loss, and for people."""
        return worded(self.text, self.data, None)


@dataclass(frozen=True, eq=False)
class Captions:
    """The words of a run.

    Args:
        pictures: in the order of the budget.
        variants: how many different captions of a picture are shown in turn; None for a new one each time.
    """

    pictures: Sequence[Captioned]
    budget: Budget
    seed: int
    variants: int | None

    def shown(self, step: int, microbatch: int, indices: Sequence[int]) -> tuple[str, ...]:
        """The words that go with the pictures of a batch, which are given by their indices."""
        epoch = self.budget.epoch_of(step)
        settings = [self.pictures[index].data for index in indices]
        rates = [data.caption_dropout for data in settings]
        dropped = dropped_captions(rates, seed=self.seed, step=step, microbatch=microbatch)
        earlier = _earlier_in_epoch(self.budget, epoch)[step, microbatch]
        captions = []
        for place, index in enumerate(indices):
            every = settings[place].caption_dropout_every_epochs
            if dropped[place] or (every is not None and (epoch + 1) % every == 0):
                captions.append("")
            else:
                captions.append(self.caption(index, epoch * self.budget.repeats[index] + earlier[place], step=step))
        return tuple(captions)

    def caption(self, index: int, showing: int, *, step: int | None = None) -> str:
        """What is said of a picture that has been shown `showing` times before.

        Args:
            step: the optimizer step, which counts while tags are warmed up.
        """
        picture = self.pictures[index]
        steps = self._warmup_steps(picture.data)
        warming = step if step is not None and step < steps else None
        number = showing if self.variants is None else showing % self.variants
        draws = Random(derive_seed(self.seed, f"caption of {picture.name}", number))
        return worded(picture.text, picture.data, draws, step=warming, warmup_steps=steps)

    def of_picture(self, index: int) -> set[str]:
        """Every caption of a picture that the run may show once its tags are warmed up."""
        picture = self.pictures[index]
        if not is_varied(picture.text, picture.data):
            return {self.caption(index, 0)}
        epochs = self.budget.epoch_of(self.budget.total_steps - 1) + 1
        showings = epochs * self.budget.repeats[index]
        count = showings if self.variants is None else min(showings, self.variants)
        return {self.caption(index, showing) for showing in range(count)}

    def all(self) -> set[str]:
        """Every caption that the run may show."""
        found = {caption for index in range(len(self.pictures)) for caption in self.of_picture(index)}
        warmup = max((self._warmup_steps(picture.data) for picture in self.pictures), default=0)
        for step in range(min(math.ceil(warmup), self.budget.total_steps)):
            for microbatch, indices in enumerate(self.budget.microbatches(step)):
                found.update(self.shown(step, microbatch, indices))
        return found

    def _warmup_steps(self, data: DataConfig) -> float:
        """Below 1 they are a share of the run."""
        steps = data.token_warmup_steps
        return math.floor(steps * self.budget.total_steps) if steps < 1 else steps


def dropped_captions(rates: Sequence[float], *, seed: int, step: int, microbatch: int) -> list[bool]:
    """Which of a batch's pictures are shown without their caption.

    Args:
        rates: for each picture how often that happens.
    """
    if not any(rates):
        return [False] * len(rates)
    source = generator(seed, "caption dropout", step, microbatch)
    return (torch.rand(len(rates), generator=source) < torch.tensor(rates)).tolist()


@lru_cache(maxsize=2)
def _earlier_in_epoch(budget: Budget, epoch: int) -> dict[tuple[int, int], tuple[int, ...]]:
    """By (step, microbatch): how often each of its pictures was shown before in this epoch."""
    counts: Counter[int] = Counter()
    earlier = {}
    for step in range(epoch * budget.steps_per_epoch, (epoch + 1) * budget.steps_per_epoch):
        for microbatch, indices in enumerate(budget.microbatches(step)):
            found = []
            for index in indices:
                found.append(counts[index])
                counts[index] += 1
            earlier[step, microbatch] = tuple(found)
    return earlier
