"""The cache as a run uses it: filled before the first step, read in every one."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from rich.console import Console
from torch import Tensor

from brushwork.cache.build import build_latents, build_masks, build_text
from brushwork.cache.store import BadEntryError, Store
from brushwork.data.folder import Sample
from brushwork.data.transform import Placement
from brushwork.distributed import current
from brushwork.errors import UserError, listed
from brushwork.models.text import TextEncoders, TextStates
from brushwork.models.vae import VAE
from brushwork.progress import Advance, progress_bar
from brushwork.training.interruption import Interruption
from brushwork.training.prepare import Preparation

T = TypeVar("T")

logger = logging.getLogger("brushwork")


class CachingInterruptedError(Exception):
    """The user asked to stop while the cache was being filled; what is done is kept."""


def fill_latents(
    preparation: Preparation, store: Store, vae: VAE, *, console: Console, interruption: Interruption
) -> None:
    """Encode the pictures that are not in the cache yet; the VAE is back on the CPU afterwards."""
    samples, placements = preparation.shown
    everything = list(zip(samples, placements, strict=True))
    vae.to(preparation.device)

    def build(pieces: Sequence[tuple[Sample, Placement]]) -> None:
        with progress_bar(console, "encoding pictures", len(pieces)) as advance:
            build_latents(
                [sample for sample, _ in pieces],
                [placement for _, placement in pieces],
                store,
                encode=vae.encode,
                encoder=preparation.vae_fingerprint,
                background=preparation.settings.data.background,
                max_pixels=preparation.settings.data.max_pixels,
                batch_size=preparation.settings.cache.vae_batch_size,
                on_progress=_stopping(advance, interruption),
            )

    _shared(build, everything)
    vae.to("cpu")
    if any(sample.mask is not None for sample in samples):
        black: list[str] = []

        def read_masks(pieces: Sequence[tuple[Sample, Placement]]) -> None:
            with progress_bar(console, "reading masks", len(pieces)) as advance:
                black[:] = build_masks(
                    [sample for sample, _ in pieces],
                    [placement for _, placement in pieces],
                    store,
                    max_pixels=preparation.settings.data.max_pixels,
                    on_progress=_stopping(advance, interruption),
                )

        _shared(read_masks, everything)
        if black:
            logger.warning("nothing counts of %s: the mask is black where the frame lies", listed(black))


def fill_text(
    preparation: Preparation, store: Store, text: TextEncoders, *, console: Console, interruption: Interruption
) -> None:
    """Encode the captions that are not in the cache yet, and the empty one.

    One at a time: the last bits of a caption's states depend on what shares its batch, and an entry should
    follow from its key alone.
    """

    def build(captions: Sequence[str]) -> None:
        with progress_bar(console, "encoding captions", len(captions) + 1) as advance:
            build_text(
                captions,
                store,
                encode_text=text.encode,
                encoder=preparation.text_fingerprint,
                batch_size=1,
                on_progress=_stopping(advance, interruption),
            )

    _shared(build, preparation.captions)


def _shared(build: Callable[[Sequence[T]], None], pieces: Sequence[T]) -> None:
    """Each process builds its share. Then each looks for all of them: on a machine with a cache of its own, the
    shares of the other machines are not there yet."""
    group = current()
    for own in (group.share(pieces), pieces) if group.size > 1 else (pieces,):
        interrupted = False
        try:
            build(own)
        except CachingInterruptedError:
            interrupted = True
        if group.any(interrupted):
            raise CachingInterruptedError


@dataclass(frozen=True)
class Entries:
    """The cache while a run reads it. What another process took away or spoiled meanwhile ends the run in words."""

    store: Store

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry, on the CPU."""
        try:
            return self.store.read(key)
        except (KeyError, BadEntryError) as error:
            told = str(error) if isinstance(error, BadEntryError) else "it is not there any more"
            raise UserError(
                f"{self.store.path(key)} was changed while the run was reading the cache: {told}.",
                fix="the same command makes it anew and goes on from the last saved state",
            ) from error


@dataclass(frozen=True)
class CachedText:
    """Text states of captions, read from the cache."""

    preparation: Preparation
    entries: Entries

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """B captions -> context (B, L, W) and, for SDXL, pooled (B, P), on the CPU."""
        states = [self.entries.read(self.preparation.text_key(caption)) for caption in captions]
        pooled = [each["pooled"] for each in states if "pooled" in each]
        return TextStates(
            context=torch.stack([each["context"] for each in states]),
            pooled=torch.stack(pooled) if pooled else None,
        )


def _stopping(advance: Advance, interruption: Interruption) -> Advance:
    def report(done: int, total: int, note: str = "") -> None:
        advance(done, total, note)
        if interruption.requested and done < total:
            raise CachingInterruptedError

    return report
