"""Settings carried over: from SD 1.5 to SDXL, and from one character to another. Each change says why.

The figures for SDXL are those of a set of recipes that was trained both ways: batch 4 x 3 became 1 x 8, 18 epochs 20,
1.3e-4 1e-4 and 8e-5 6e-5, AdamW AdamW8bit, fp16 bf16, 512 px 1024; rank, alpha, min-SNR, noise offset and schedule
stayed.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from brushwork.config.describe import literal
from brushwork.config.load import flatten
from brushwork.config.schema import FolderConfig, Settings
from brushwork.errors import UserError

SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
SDXL_EPOCHS = 20
KEPT = ("lora.rank", "lora.alpha", "loss.min_snr_gamma", "loss.noise_offset", "schedule.name")

USUAL_VIEWS = 4130
"""Pictures seen an epoch in the recipes that the figures come from: 413, each 10 times."""


@dataclass(frozen=True)
class Change:
    """One setting that is another now."""

    key: str
    old: Any
    new: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {literal(self.old)} -> {literal(self.new)}: {self.why}"


@dataclass(frozen=True)
class SetSize:
    """How large a set of pictures is."""

    pictures: int
    views: int
    """Pictures seen an epoch, the repeats of numbered folders counted; those of a plain folder count once."""
    numbered: bool
    """Whether the folders say their repeats."""

    def seen(self, repeats: int) -> int:
        """Pictures seen an epoch."""
        return self.views if self.numbered else self.pictures * repeats


def changed(settings: Settings, changes: list[Change]) -> Settings:
    """The settings with the changes in them."""
    nested = settings.model_dump()
    for change in changes:
        table, _, name = change.key.rpartition(".")
        (nested[table] if table else nested)[name] = change.new
    return Settings.model_validate(nested)


# SD 1.5 -> SDXL


def to_sdxl(settings: Settings) -> list[Change]:
    """What has to be another for SDXL, but for epochs and repeats."""
    found = flatten(settings)
    proposals = [*_base(found), *_learning(found), *_batches(found), *_size(found)]
    return [Change(key, found[key], new, why) for key, new, why in proposals if found[key] != new]


Proposal = tuple[str, Any, str]


def _base(found: dict[str, Any]) -> Iterator[Proposal]:
    if "xl" not in found["model.base"].lower():
        yield "model.base", SDXL_BASE, "a base of SDXL; put your own file here"
    if found["model.vae"] is not None and "xl" not in found["model.vae"].lower():
        yield "model.vae", None, "a VAE of SD 1.5 gives wrong colours with SDXL"
    yield "model.clip_skip", 1, "SDXL always takes the last state but one"
    yield "model.prediction", "auto", "belongs to the base"
    yield "model.zero_terminal_snr", "auto", "belongs to the base"


def _learning(found: dict[str, Any]) -> Iterator[Proposal]:
    if found["optimizer.name"] not in ("adamw", "adamw8bit"):
        return
    yield "optimizer.name", "adamw8bit", "the same rule with a quarter of its memory; SDXL needs the room"
    yield (
        "optimizer.learning_rate",
        1e-4,
        "the recipes' rate for SDXL, where SD 1.5 had 1.3e-4",
    )
    if found["lora.text_encoder"]:
        yield "optimizer.text_encoder_learning_rate", 6e-5, "the recipes' rate for SDXL, where SD 1.5 had 8e-5"


def _batches(found: dict[str, Any]) -> Iterator[Proposal]:
    yield "train.batch_size", 1, "one picture of 1024 px takes the memory of four of 512"
    yield "train.accumulation", 8, "the gradient of 8 pictures, one at a time"
    if found["train.precision"] in ("fp16", "fp32"):
        yield "train.precision", "bf16", "SDXL overflows in fp16, and fp32 takes twice the memory"
    yield "train.checkpointing", True, "without it SDXL does not fit on 16 GB"
    yield "cache.vae_batch_size", 1, "pictures of 1024 px, one at a time"
    if found["train.max_steps"] is not None and found["train.epochs"] is None:
        before = found["train.batch_size"] * found["train.accumulation"]
        steps = max(1, round(found["train.max_steps"] * before / 8))
        yield "train.max_steps", steps, f"as many pictures are seen, 8 a step instead of {before}"


def _size(found: dict[str, Any]) -> Iterator[Proposal]:
    if found["data.resolution"] is not None:
        yield "data.resolution", 1024, "what SDXL was trained at"
    if found.get("buckets.enabled"):
        for key in ("buckets.min_side", "buckets.max_side", "buckets.step"):
            yield key, None, "SDXL's own sizes"
        yield "buckets.sizes", "auto", "SDXL's own sizes"


# Epochs and repeats


def pace(settings: Settings, *, old: SetSize | None, new: SetSize | None, epochs: int) -> tuple[list[Change], str]:
    """Epochs and repeats for the size of the set, so that an epoch shows as many pictures as before.

    Args:
        old: the set that the settings were made for; where it is unknown, the recipes' own is taken.
        new: the set that will be trained; where it is unknown, repeats stay.
        epochs: how many there should be.

    Returns:
        The changes, and in a sentence how they came about.
    """
    repeats, before = settings.data.repeats, settings.train.epochs
    if before is None:
        return [], "epochs and repeats: none, as the run ends by its steps (train.max_steps)"
    if new is None:
        changes = _different("train.epochs", before, epochs, "twenty, of which the best is found by evaluation")
        return changes, "the size of the set is not known, so repeats stay; --data FOLDER has them computed"
    goal = old.seen(repeats) if old is not None else USUAL_VIEWS
    whose = f"{old.pictures} pictures" if old is not None else "413 pictures x 10, as in the recipes"
    new_repeats = repeats if new.numbered else max(1, round(goal / new.pictures))
    seen = new.seen(new_repeats)
    new_epochs = max(1, round(epochs * goal / seen))
    how = (
        f"an epoch of {goal} ({whose}), {epochs} times, are {goal * epochs} pictures seen; {new.pictures} pictures "
        f"make {seen} an epoch, and {new_epochs} epochs {seen * new_epochs}"
    )
    if new.numbered and abs(seen - goal) * 4 > goal:
        how += (
            f". Folders say their repeats: {max(1, round(goal / new.pictures))}_NAME would keep the epoch as it was"
        )
    return [
        *_different("data.repeats", repeats, new_repeats, "for the size of the set"),
        *_different("train.epochs", before, new_epochs, "for the size of the set"),
    ], how


def _different(key: str, old: Any, new: Any, why: str) -> list[Change]:
    return [] if old == new else [Change(key, old, new, why)]


# One character -> another

NAMED = (
    "name",
    "data.path",
    "trigger",
    "data.caption_prefix",
    "data.caption_suffix",
    "sample.prompts",
    "validation.data",
)


def to_character(settings: Settings, old: str, new: str) -> list[Change]:
    """Names, paths and captions with the new character's name in them."""
    found = flatten(settings)
    changes = []
    for key in NAMED:
        value = found[key]
        if isinstance(value, str) and (renamed := rename(value, old, new)) != value:
            changes.append(Change(key, value, renamed, f"{old} is {new} now"))
    folders = tuple(_renamed_folder(folder, old, new) for folder in settings.data.folders)
    if folders != settings.data.folders:
        changes.append(Change("data.folders", settings.data.folders, folders, f"{old} is {new} now"))
    if all(change.key != "name" for change in changes):
        changes.append(Change("name", settings.name, file_word(new), f"{old} is {new} now"))
    return changes


def _renamed_folder(folder: FolderConfig, old: str, new: str) -> FolderConfig:
    texts = {name: value for name, value in folder if isinstance(value, str)}
    return folder.model_copy(update={name: rename(value, old, new) for name, value in texts.items()})


def rename(text: str, old: str, new: str) -> str:
    """The text with one name in place of another, however it is written: luca, Luca, LUCA."""

    def instead(match: re.Match[str]) -> str:
        word = match[0]
        case: Callable[[str], str] = str.upper if word.isupper() else str.title if word.istitle() else str
        return case(new)

    return re.sub(rf"(?<![A-Za-z]){re.escape(old)}(?![A-Za-z])", instead, text, flags=re.IGNORECASE)


def file_word(name: str) -> str:
    """A name as it may begin a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")


def guess_character(settings: Settings, *places: str | None) -> str:
    """Whose settings these are: the first word of the run's name that other settings or places hold too."""
    words = [word for word in re.split(r"[^A-Za-z]+", settings.name) if len(word) > 1]
    found = flatten(settings)
    others = [found[key] for key in NAMED if key != "name" and isinstance(found[key], str)]
    texts = [text for text in (*others, *places) if text]
    for word in words:
        if any(rename(text, word, "") != text for text in texts):
            return word
    if settings.trigger:
        return settings.trigger
    if words and settings.name != Settings().name:
        return words[0]
    raise UserError(
        f"whose settings these are cannot be told from the name {settings.name}.", fix="--character OLD=NEW"
    )
