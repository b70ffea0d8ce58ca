"""Filling the cache: pictures become latents, captions become text states. What is there and good is not made again.

The network comes in as a function, so this file knows neither device nor precision. A kill at any moment loses at
most the batch that was being encoded. Batches are formed from the whole list and not from what is missing, because
an encoder's last bits depend on what shares its batch: a build that was cut and continued writes the same bytes as
one that never stopped.

Shapes in this file:  B batch   C, h, w latent channels, height and width   H, W height and width of the target
                      L tokens   D width of the text states   P width of the pooled state
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brushwork.cache.fingerprint import latent_key, mask_key, text_key
from brushwork.cache.store import Store
from brushwork.data.folder import Sample
from brushwork.data.masks import render_mask
from brushwork.data.picture import BadPictureError, open_rgb
from brushwork.data.scan import decoding_threads
from brushwork.data.transform import Placement, render
from brushwork.errors import UserError
from brushwork.progress import Progress

if TYPE_CHECKING:
    from brushwork.models.text import TextStates

Encode = Callable[[Tensor], "tuple[Tensor, Tensor]"]
"""(B, 3, H, W) in [-1, 1], on the CPU -> mean and deviation, each (B, C, h, w), on any device."""

EncodeText = Callable[[Sequence[str]], "TextStates"]
"""B captions -> context (B, L, D) and, for SDXL, pooled (B, P)."""

AHEAD = 4
"""Pictures that are decoded while the encoder works, beyond the batch that is next."""


@dataclass(frozen=True)
class _Job:
    """One entry to be made."""

    key: str
    sample: Sample
    placement: Placement


def latent_keys(
    samples: Sequence[Sample], placements: Sequence[Placement], *, background: str, encoder: str
) -> list[str]:
    """The entry of each picture, whether it is there or not."""
    pairs = zip(samples, placements, strict=True)
    return [latent_key(sample.content, placement, background, encoder) for sample, placement in pairs]


def build_latents(
    samples: Sequence[Sample],
    placements: Sequence[Placement],
    store: Store,
    *,
    encode: Encode,
    encoder: str,
    background: str,
    max_pixels: int,
    batch_size: int = 1,
    on_progress: Progress | None = None,
) -> list[str]:
    """Make the entries that are missing or damaged, and give the entry of each picture.

    An entry holds `mean` and `deviation` (C, h, w) in the type that `encode` gives. Nothing is rounded, so a run from
    the cache sees the same numbers as one that encodes as it goes.

    Args:
        encoder: fingerprint of the VAE, with the precision that it computes in.
        on_progress: called with (entries that are good, all entries).
    """
    keys = latent_keys(samples, placements, background=background, encoder=encoder)
    jobs = {job[0]: _Job(*job) for job in zip(keys, samples, placements, strict=True)}  # copies share an entry
    missing = _missing(list(jobs), store)
    report = on_progress or (lambda done, total: None)
    report(len(jobs) - len(missing), len(jobs))
    todo = [batch for batch in _batches(jobs.values(), batch_size) if any(job.key in missing for job in batch)]
    for batch, pixels in _decoded(todo, background=background, max_pixels=max_pixels):
        mean, deviation = _encoded(batch, pixels, encode)
        for job, one_mean, one_deviation in zip(batch, mean, deviation, strict=True):
            if job.key not in missing:
                continue
            _check_finite(one_mean, one_deviation, job.sample)
            width, height = job.placement.target
            about = {"kind": "latents", "picture": job.sample.name, "target": f"{width}x{height}", "encoder": encoder}
            store.write(job.key, {"mean": one_mean, "deviation": one_deviation}, about=about)
            missing.remove(job.key)
            report(len(jobs) - len(missing), len(jobs))
    return keys


def build_masks(
    samples: Sequence[Sample],
    placements: Sequence[Placement],
    store: Store,
    *,
    max_pixels: int,
    on_progress: Progress | None = None,
) -> list[str]:
    """Make the entries of masks that are missing or damaged: how much each latent counts, `mask` (1, h, w).

    Returns:
        The names of pictures of which nothing counts in one of their frames, among those that were made now.
    """
    jobs = {
        mask_key(sample.mask.content, placement, own=sample.mask.path is None): (sample, placement)
        for sample, placement in zip(samples, placements, strict=True)
        if sample.mask is not None
    }
    missing = _missing(list(jobs), store)
    report = on_progress or (lambda done, total: None)
    black: list[str] = []
    for key, (sample, placement) in jobs.items():
        if key not in missing:
            continue
        report(len(jobs) - len(missing), len(jobs))
        assert sample.mask is not None
        mask = render_mask(sample.mask, sample.path.read_bytes(), placement, max_pixels=max_pixels)
        if not mask.any():
            black.append(sample.name)
        store.write(key, {"mask": mask}, about={"kind": "mask", "picture": sample.name})
        missing.remove(key)
    report(len(jobs), len(jobs))
    return black


def build_text(
    captions: Sequence[str],
    store: Store,
    *,
    encode_text: EncodeText,
    encoder: str,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> dict[str, str]:
    """Make the text states that are missing or damaged, and give the entry of each caption and of the empty one.

    An entry holds `context` (L, D) and, for SDXL, `pooled` (P,), in the type that `encode_text` gives.

    Args:
        captions: the texts as they are encoded, prefix and suffix included; repeated ones are encoded once.
        encoder: fingerprint of the text encoders, with clip_skip, max_tokens and their precision.
        on_progress: called with (entries that are good, all entries).
    """
    entries = {caption: text_key(caption, encoder) for caption in ["", *captions]}
    missing = _missing(list(entries.values()), store)
    report = on_progress or (lambda done, total: None)
    report(len(entries) - len(missing), len(entries))
    ordered = list(entries)
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        if not any(entries[caption] in missing for caption in batch):
            continue
        with torch.no_grad():
            states = encode_text(batch)
        for row, caption in enumerate(batch):
            if entries[caption] not in missing:
                continue
            tensors = {"context": states.context[row]}
            if states.pooled is not None:
                tensors["pooled"] = states.pooled[row]
            if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
                raise UserError(
                    f"the text encoder gives values that are not finite for the caption {caption[:80]!r}.",
                    fix="--set train.precision=fp32, or check the base with `brushwork inspect`",
                )
            store.write(entries[caption], tensors, about={"kind": "text", "caption": caption, "encoder": encoder})
            missing.remove(entries[caption])
            report(len(entries) - len(missing), len(entries))
    return entries


def _missing(keys: Sequence[str], store: Store) -> set[str]:
    """Entries that are not there or do not pass their checksum."""
    with ThreadPoolExecutor(4) as pool:
        return {key for key, good in zip(keys, pool.map(store.is_good, keys), strict=True) if not good}


def _batches(jobs: Iterable[_Job], batch_size: int) -> list[list[_Job]]:
    """Jobs of one target size together; the last batch of a size may be short.

    Batches come in the order of their first pictures, so shards and tables are read from the front to the back.
    """
    batches: list[list[_Job]] = []
    open_batches: dict[tuple[int, int], list[_Job]] = {}
    for job in jobs:
        batch = open_batches.get(job.placement.target)
        if batch is None or len(batch) == batch_size:
            batch = open_batches[job.placement.target] = []
            batches.append(batch)
        batch.append(job)
    return batches


def _decoded(todo: list[list[_Job]], *, background: str, max_pixels: int) -> Iterator[tuple[list[_Job], Tensor]]:
    """Each batch with its pixels (B, 3, H, W); threads decode the next pictures while this one is encoded."""
    waiting: deque[tuple[list[_Job], list[Future[Tensor]]]] = deque()
    with decoding_threads() as pool:
        for batch in todo:
            waiting.append((batch, [pool.submit(_pixels, job, background, max_pixels) for job in batch]))
            if sum(len(jobs) for jobs, _ in waiting) > len(batch) + AHEAD:
                jobs, futures = waiting.popleft()
                yield jobs, torch.stack([future.result() for future in futures])
        while waiting:
            jobs, futures = waiting.popleft()
            yield jobs, torch.stack([future.result() for future in futures])


def _pixels(job: _Job, background: str, max_pixels: int) -> Tensor:
    """The picture in its frame (3, H, W), if the file is still the one that was scanned."""
    try:
        data = job.sample.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != job.sample.digest:
            raise UserError(
                f"{job.sample.path}: the file changed after the folder was read.", fix="run the same command again"
            )
        image = open_rgb(data, background=background, max_pixels=max_pixels, crop=job.sample.box)
        return render(image, job.placement)
    except (OSError, BadPictureError) as error:
        raise UserError(
            f"{job.sample.path}: cannot be read any more ({error}).", fix="run the same command again"
        ) from error


def _encoded(batch: Sequence[_Job], pixels: Tensor, encode: Encode) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) -> mean and deviation, each (B, C, h, w); a complaint gets the pictures' names."""
    try:
        with torch.no_grad():
            return encode(pixels)
    except UserError as error:
        names = ", ".join(job.sample.name for job in batch)
        raise UserError(f"{names}: {error.problem}", fix=error.fix) from error


def _check_finite(mean: Tensor, deviation: Tensor, sample: Sample) -> None:
    """The VAE of SDXL overflows in fp16: its NaN would be found hours later, as a loss without a cause."""
    if not bool(mean.isfinite().all() and deviation.isfinite().all()):
        raise UserError(
            f"{sample.path}: the VAE gives latents that are not finite.",
            fix="encode in fp32, or take the fp16-fix VAE: --vae madebyollin/sdxl-vae-fp16-fix",
        )
