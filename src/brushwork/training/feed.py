"""From indices to tensors: reads batches from the cache, one ahead of the step that uses them.

Shapes in this file:  B pictures   h, w size of the latents   L tokens   W width of the text states
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from brushwork.models.text import TextStates
from brushwork.training.step import Batch


@dataclass(frozen=True)
class Example:
    """One picture as the loop sees it: what to look up, never the pixels."""

    name: str
    caption: str
    """Said plainly, with nothing left to chance."""
    latent_key: str
    time_ids: tuple[int, ...]
    weight: float = 1.0
    """Of its loss, beside the other pictures' 1."""


class ReadsEntries(Protocol):
    """What is needed of the cache."""

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors stored under `key`."""


class EncodesText(Protocol):
    """Captions become text states: from the cache, or by the encoders themselves."""

    def __call__(self, captions: Sequence[str]) -> TextStates: ...


@dataclass(frozen=True)
class Feed:
    """Reads batches.

    Args:
        examples: all pictures of the run.
        latents: the cache of latents.
        cached_text: text states from the cache, read ahead with the latents; None where `encode` is asked instead.
    """

    examples: Sequence[Example]
    latents: ReadsEntries
    cached_text: EncodesText | None
    needs_time_ids: bool

    def read(self, indices: Sequence[int], captions: Sequence[str] | None = None) -> "Loaded":
        """Read one batch; all its pictures have one size.

        Args:
            captions: what is said of them this time; by default what is said plainly.
        """
        chosen = [self.examples[index] for index in indices]
        moments = [self.latents.read(example.latent_key) for example in chosen]
        captions = tuple(captions) if captions is not None else tuple(each.caption for each in chosen)
        return Loaded(
            mean=torch.stack([entry["mean"].float() for entry in moments]),
            deviation=torch.stack([entry["deviation"].float() for entry in moments]),
            time_ids=torch.tensor([example.time_ids for example in chosen]) if self.needs_time_ids else None,
            weights=_weights([example.weight for example in chosen]),
            text=None if self.cached_text is None else self.cached_text(captions),
            captions=captions,
            names=tuple(example.name for example in chosen),
        )

    def read_ahead(self, batches: Iterable[tuple[Sequence[int], Sequence[str]]]) -> Iterator["Loaded"]:
        """Read every batch (indices, captions) in order, always one before it is asked for."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            upcoming = None
            for indices, captions in batches:
                following = reader.submit(self.read, indices, captions)
                if upcoming is not None:
                    yield upcoming.result()
                upcoming = following
            if upcoming is not None:
                yield upcoming.result()


@dataclass(frozen=True)
class Loaded:
    """A batch as it comes from the cache, still on the CPU."""

    mean: Tensor  # (B, 4, h, w)
    deviation: Tensor  # (B, 4, h, w)
    time_ids: Tensor | None  # (B, 6)
    weights: Tensor | None  # (B,)
    text: TextStates | None  # (B, L, W); None where the encoders are asked in the step
    captions: tuple[str, ...]
    names: tuple[str, ...]

    def with_text(self, text: TextStates) -> Batch:
        """The batch that the step takes."""
        return Batch(
            mean=self.mean,
            deviation=self.deviation,
            context=text.context,
            pooled=text.pooled,
            time_ids=self.time_ids,
            weights=self.weights,
            names=self.names,
        )


def _weights(weights: Sequence[float]) -> Tensor | None:
    """(B,), or None where all count alike"""
    return None if all(weight == 1.0 for weight in weights) else torch.tensor(weights)
