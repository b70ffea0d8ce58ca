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
from brushwork.runtime import generator
from brushwork.training.step import Batch


@dataclass(frozen=True)
class Shown:
    """One way in which a picture is shown."""

    latent_key: str
    time_ids: tuple[int, ...]
    mask_key: str | None = None


@dataclass(frozen=True)
class Example:
    """One picture as the loop sees it: what to look up, never the pixels."""

    name: str
    caption: str
    """Said plainly, with nothing left to chance."""
    views: tuple[Shown, ...]
    """The ways in which it is shown, the plain one first."""
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

    def read(
        self, indices: Sequence[int], captions: Sequence[str] | None = None, views: Sequence[int] = ()
    ) -> "Loaded":
        """Read one batch; all its pictures have one size.

        Args:
            captions: what is said of them this time; by default what is said plainly.
            views: which of its ways each is shown in; by default the plain one.
        """
        chosen = [self.examples[index] for index in indices]
        shown = [each.views[view] for each, view in zip(chosen, views or [0] * len(chosen), strict=True)]
        moments = [self.latents.read(view.latent_key) for view in shown]
        captions = tuple(captions) if captions is not None else tuple(each.caption for each in chosen)
        return Loaded(
            mean=torch.stack([entry["mean"].float() for entry in moments]),
            deviation=torch.stack([entry["deviation"].float() for entry in moments]),
            time_ids=torch.tensor([view.time_ids for view in shown]) if self.needs_time_ids else None,
            masks=self._masks(shown, moments[0]["mean"]),
            weights=_weights([example.weight for example in chosen]),
            text=None if self.cached_text is None else self.cached_text(captions),
            captions=captions,
            names=tuple(example.name for example in chosen),
        )

    def _masks(self, shown: Sequence[Shown], like: Tensor) -> Tensor | None:
        """(B, 1, h, w), or None where every picture counts as a whole"""
        if all(view.mask_key is None for view in shown):
            return None
        whole = torch.ones(1, *like.shape[1:])
        return torch.stack(
            [whole if view.mask_key is None else self.latents.read(view.mask_key)["mask"] for view in shown]
        )

    def read_ahead(self, batches: Iterable[tuple[Sequence[int], Sequence[str], Sequence[int]]]) -> Iterator["Loaded"]:
        """Read every batch (indices, captions, views) in order, always one before it is asked for."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            upcoming = None
            for indices, captions, views in batches:
                following = reader.submit(self.read, indices, captions, views)
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
    masks: Tensor | None  # (B, 1, h, w)
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
            masks=self.masks,
            weights=self.weights,
            names=self.names,
        )


def drawn_views(counts: Sequence[int], *, seed: int, step: int, microbatch: int) -> list[int]:
    """In which of its ways each picture of a batch is shown.

    Args:
        counts: how many ways there are for each.
    """
    if all(count == 1 for count in counts):
        return [0] * len(counts)
    drawn = torch.rand(len(counts), generator=generator(seed, "view", step, microbatch), dtype=torch.float64)
    return [int(share * count) for share, count in zip(drawn.tolist(), counts, strict=True)]


def _weights(weights: Sequence[float]) -> Tensor | None:
    """(B,), or None where all count alike"""
    return None if all(weight == 1.0 for weight in weights) else torch.tensor(weights)
