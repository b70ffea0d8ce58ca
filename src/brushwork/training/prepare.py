"""From a folder and settings to all that a run needs to know before anything big is loaded."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from brushwork.cache.fingerprint import latent_key, mask_key, text_key
from brushwork.config.schema import DataConfig, Settings
from brushwork.data.bucket_report import BucketReport, Framed, report_buckets
from brushwork.data.buckets import Buckets, make_buckets
from brushwork.data.folder import Dataset, Sample, read_dataset
from brushwork.data.folders import balance, is_regularisation, read_folders, settings_of
from brushwork.data.layout import held_out_part
from brushwork.data.masks import give_masks
from brushwork.data.split import hold_out
from brushwork.data.transform import Placement, Size, mirrored, spread
from brushwork.data.wording import full_text
from brushwork.diffusion.prediction import check_prediction
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError
from brushwork.lean.codes import refuse_without_products
from brushwork.lean.fused import refuse_if_missing
from brushwork.models.weights import Base, open_configured
from brushwork.progress import Progress, progress_bar
from brushwork.runtime import pick_device, pick_dtype
from brushwork.training.batches import Budget
from brushwork.training.captions import Captioned, Captions
from brushwork.training.contradictions import caches_text, refuse_contradictions
from brushwork.training.feed import Example, Shown
from brushwork.training.loss_settings import refuse_foreign_loss
from brushwork.training.validation import fixed_part

logger = logging.getLogger("brushwork")


@dataclass(frozen=True)
class View:
    """One way in which a picture is shown: mirrored or not, this part of it or that."""

    placement: Placement
    latent_key: str
    mask_key: str | None

    @property
    def shown(self) -> Shown:
        return Shown(self.latent_key, self.placement.time_ids(), self.mask_key)


@dataclass(frozen=True)
class Picture:
    """A sample with what the settings make of it."""

    sample: Sample
    placement: Placement
    words: Captioned
    views: tuple[View, ...]
    """The ways in which it is shown; the first is the plain one, with the placement above."""
    weight: float
    """Of its loss, beside the other pictures' 1."""
    regularisation: bool

    @property
    def example(self) -> Example:
        return Example(
            name=self.sample.name,
            caption=self.words.plainly,
            views=tuple(view.shown for view in self.views),
            weight=self.weight,
        )


@dataclass(frozen=True)
class Preparation:
    """A run, planned."""

    data: Path
    settings: Settings
    base: Base
    schedule: NoiseSchedule
    device: torch.device
    dtype: torch.dtype
    resolution: int
    buckets: Buckets
    dataset: Dataset
    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    budget: Budget

    @property
    def caches_text(self) -> bool:
        """Whether text states come from the cache, so that the encoders can go."""
        return caches_text(self.settings)

    @cached_property
    def wording(self) -> Captions:
        """What is said of each picture in each step."""
        settings = self.settings
        frozen = not settings.lora.text_encoder
        return Captions(
            pictures=[picture.words for picture in self.pictures],
            budget=self.budget,
            seed=settings.train.seed,
            variants=settings.cache.caption_variants if frozen else None,
        )

    @cached_property
    def captions(self) -> list[str]:
        """Every caption that the run reads, once; the plain ones too, on which is measured."""
        plain = {picture.words.plainly for picture in (*self.pictures, *self.held_out)}
        return sorted(plain | self.wording.all())

    @property
    def shown(self) -> tuple[list[Sample], list[Placement]]:
        """Every picture in every way in which it is shown."""
        pairs = [
            (picture.sample, view.placement) for picture in (*self.pictures, *self.held_out) for view in picture.views
        ]
        return [sample for sample, _ in pairs], [placement for _, placement in pairs]

    @cached_property
    def bucket_report(self) -> BucketReport:
        """What the buckets do to the pictures that are trained."""
        framed = [Framed(each.sample.name, each.placement, each.sample.repeats) for each in self.pictures]
        return report_buckets(framed, batch_size=self.settings.train.batch_size)

    def text_key(self, caption: str) -> str:
        """Where the cache keeps the states of a caption."""
        return text_key(caption, self.text_fingerprint)

    @cached_property
    def text_fingerprint(self) -> str:
        """Changes with anything that changes the states of a caption."""
        model = self.settings.model
        return f"{self.base.fingerprint('text')}/{self.dtype}/skip {model.clip_skip}/{model.max_tokens} tokens"

    @cached_property
    def vae_fingerprint(self) -> str:
        """Changes with anything that changes the latents of a picture."""
        return vae_fingerprint(self.base)

    @property
    def data_digest(self) -> str:
        """Changes with any picture, caption, order or size that the run would see."""
        digest = hashlib.sha256()
        for picture in (*self.pictures, *self.held_out):
            line = (picture.views[0].latent_key, picture.words.text, picture.sample.repeats, picture.placement[:4])
            digest.update(repr(line).encode())
            for view in picture.views[1:]:
                digest.update(view.latent_key.encode())
            if picture.sample.mask is not None:
                digest.update(f"mask {picture.sample.mask.content}".encode())
            if picture.regularisation:
                digest.update(b"regularisation")
        return digest.hexdigest()


VAE_DTYPE = torch.float32
"""Pictures are encoded once and looked at for hours, so the VAE computes in full precision; SDXL's own would overflow
in fp16 anyway."""


def vae_fingerprint(base: Base) -> str:
    """The VAE's weights and the precision that it computes in."""
    return f"{base.fingerprint('vae')}/{VAE_DTYPE}"


def prepare(data: Path, settings: Settings, *, on_progress: Progress | None = None) -> Preparation:
    """Read headers, pictures and captions; compute placements, keys and the number of steps."""
    refuse_contradictions(settings)
    base = open_configured(settings.model)
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=base.zero_terminal_snr)
    check_prediction(base.prediction, schedule)
    refuse_foreign_loss(settings.loss, base.prediction)
    device = pick_device(settings.train.device)
    refuse_if_missing(settings.train.fused, device)
    if settings.train.compute == "rounded":
        refuse_without_products(settings.model.quantize, device)
    resolution = settings.data.resolution or base.spec.native_resolution
    buckets = make_buckets(settings.buckets, resolution=resolution, family=base.family)

    def read(place: Path, own: DataConfig) -> Dataset:
        dataset = read_dataset(place, data=own, offline=settings.model.offline, on_progress=on_progress)
        return give_masks(dataset, own)

    dataset = read_folders(data, data=settings.data, read=read)
    train_set, held_out = _split(data, dataset, settings, read)
    asks_pictures = settings.evaluation.every_epochs is not None
    if "overtrained" in settings.train.stop_when and held_out is None and not asks_pictures:
        raise UserError(
            "train.stop_when = overtrained needs pictures that are held out, and there are none.",
            fix="--validation 0.1 holds out a tenth of the pictures, --evaluate-every 2 --references DIR looks at "
            "what the files draw; --stop-when flat needs none",
        )
    samples, notes = balance(train_set.samples, settings.data)
    vae = vae_fingerprint(base)
    pictures = _pictures(samples, settings, buckets, vae, shown=True)
    budget = Budget(
        sizes=tuple((picture.placement.target.width, picture.placement.target.height) for picture in pictures),
        repeats=tuple(picture.sample.repeats for picture in pictures),
        batch_size=settings.train.batch_size,
        accumulation=settings.train.accumulation,
        epochs=settings.train.epochs,
        max_steps=settings.train.max_steps,
        seed=settings.train.seed,
    )
    return Preparation(
        data=data,
        settings=settings,
        base=base,
        schedule=schedule,
        device=device,
        dtype=pick_dtype(settings.train.precision, device),
        resolution=resolution,
        buckets=buckets,
        dataset=replace(dataset, notes=(*dataset.notes, *notes)),
        pictures=pictures,
        held_out=_pictures(held_out.samples, settings, buckets, vae, shown=False) if held_out else (),
        budget=budget,
    )


def prepare_aloud(data: Path, settings: Settings, console: Console) -> Preparation:
    """`prepare`, telling how far it is."""
    with progress_bar(console, "reading pictures", 0) as advance:
        return prepare(data, settings, on_progress=advance)


def measured_part(preparation: Preparation) -> list[Picture]:
    """The training pictures whose loss is measured beside that of the held-out ones."""
    settings = preparation.settings
    wanted = settings.validation.train_part
    size = len(preparation.held_out) if wanted is None else wanted
    learned = [picture for picture in preparation.pictures if not picture.regularisation]
    return [learned[index] for index in fixed_part(len(learned), size, seed=settings.validation.seed)]


def _split(
    data: Path, dataset: Dataset, settings: Settings, read: Callable[[Path, DataConfig], Dataset]
) -> tuple[Dataset, Dataset | None]:
    """Set aside what is held out: a share of the pictures, a folder of its own, or the `heldout/` beside `train/`.

    Regularisation pictures stay: what is measured is how the subject is learned.
    """
    wanted = settings.validation.data
    if wanted is None:
        prepared = held_out_part(data)
        return dataset, read(prepared, _measured(settings.data)) if prepared else None
    try:
        share = float(wanted)
    except ValueError:
        return dataset, read(Path(wanted), _measured(settings.data))
    classes = tuple(sample for sample in dataset.samples if is_regularisation(settings.data, sample))
    learned = tuple(sample for sample in dataset.samples if not is_regularisation(settings.data, sample))
    kept, held_out = hold_out(replace(dataset, samples=learned), share, settings.train.seed)
    return replace(kept, samples=(*kept.samples, *classes)), held_out


def _measured(data: DataConfig) -> DataConfig:
    """How a folder of pictures to measure on is read: they may lie elsewhere than the masks."""
    return data.model_copy(update={"folders": (), "max_missing_masks": 1.0})


def _pictures(
    samples: Sequence[Sample], settings: Settings, buckets: Buckets, vae: str, *, shown: bool
) -> tuple[Picture, ...]:
    """What the settings make of samples.

    Args:
        shown: whether they are shown in all their ways, or are measured on and seen plainly.
    """
    pictures = []
    for sample in samples:
        placement = buckets.place(Size(sample.width, sample.height))
        data, regularisation = settings_of(settings.data, sample.folder), is_regularisation(settings.data, sample)
        placements = _placements(placement, data, settings.cache.crops) if shown else (placement,)
        pictures.append(
            Picture(
                sample=sample,
                placement=placement,
                words=Captioned(sample.name, full_text(sample.caption, data), data),
                views=tuple(_view(sample, each, data.background, vae) for each in placements),
                weight=settings.loss.prior_weight if regularisation else 1.0,
                regularisation=regularisation,
            )
        )
    return tuple(pictures)


def _placements(placement: Placement, data: DataConfig, num_crops: int) -> tuple[Placement, ...]:
    """Every way in which a picture is shown, the plain one first."""
    parts: tuple[Placement, ...] = (placement,)
    if data.random_crop:
        parts += tuple(part for part in spread(placement, num_crops) if part != placement)
    return parts + (tuple(mirrored(part) for part in parts) if data.flip else ())


def _view(sample: Sample, placement: Placement, background: str, vae: str) -> View:
    mask = sample.mask
    return View(
        placement=placement,
        latent_key=latent_key(sample.content, placement, background, vae),
        mask_key=None if mask is None else mask_key(mask.content, placement, own=mask.path is None),
    )
