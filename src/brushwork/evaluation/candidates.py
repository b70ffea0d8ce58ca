"""What is compared: the files of a run, or of any folder of LoRAs, each at the strengths that are asked for.

A run's folder is read as it lies: `settings.toml`, `run.json`, and the adapters in it with the steps that they tell.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from brushwork.config.load import read_toml
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.tensor_file import read_tensors

BASE = "base"
"""What the base model without a LoRA is called."""

BEST = "best.safetensors"

_STEPS_IN_NAME = re.compile(r"-step(\d+)$")


@dataclass(frozen=True)
class Candidate:
    """One thing that draws.

    Args:
        name: `luca-000004`, `luca-000004:0.8`, `base`.
        file: None for the base, and for pictures that are already drawn.
        step: optimizer steps, where the file tells; the order of the files where none does.
        digest: of the adapter's numbers, so that the same weights under two names are one candidate.
        also: other names of the same weights.
    """

    name: str
    file: Path | None = None
    strength: float = 1.0
    step: int | None = None
    epoch: int | None = None
    ema: bool = False
    digest: str = ""
    also: tuple[str, ...] = ()

    @property
    def is_base(self) -> bool:
        return self.name == BASE

    @property
    def place(self) -> tuple[str, int] | None:
        """Where in its run it stands: ("step", 800) or ("epoch", 2); None where nothing tells."""
        if self.step is not None:
            return "step", self.step
        return None if self.epoch is None else ("epoch", self.epoch)


@dataclass(frozen=True)
class Folder:
    """Where the files come from.

    Args:
        settings: of the run; None for any other folder of LoRAs.
        description: `run.json`.
    """

    path: Path
    settings: Settings | None
    description: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.settings is None else self.settings.name


def open_folder(path: Path) -> Folder:
    """A run, or any folder with LoRAs in it."""
    if not path.is_dir():
        what = "is a file" if path.is_file() else "is not there"
        raise UserError(f"{path} {what}; a run or a folder of LoRAs is wanted.", fix="brushwork evaluate runs/NAME")
    if not ((path / "settings.toml").is_file() and (path / "run.json").is_file()):
        return Folder(path, None, {})
    settings = read_toml(path / "settings.toml")
    if settings.train.mode == "full":
        raise UserError(
            f"{path} trained the whole UNet; LoRAs of one base are what can be compared here.",
            fix="draw with each base by `brushwork generate --prompts FILE`, then: brushwork evaluate --samples DIR",
        )
    try:
        description = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path / 'run.json'} cannot be read: {error}.") from error
    return Folder(path, settings, dict(description))


def candidates(folder: Folder, *, strengths: Sequence[float], ema: bool) -> list[Candidate]:
    """Every file at every strength, from the earliest to the latest."""
    found = [candidate for file in adapter_files(folder, ema=ema) for candidate in _at(file, strengths)]
    if not found:
        raise UserError(f"there is no LoRA in {folder.path}.", fix="name a run that has saved one, or another folder")
    return ordered(found)


def adapter_files(folder: Folder, *, ema: bool) -> list[Path]:
    """The LoRAs of a folder; `best.safetensors` is a copy of one of them."""
    files = sorted(file for file in folder.path.glob("*.safetensors") if file.name != BEST)
    return [file for file in files if ema or not file.stem.endswith("-ema")]


def named_candidate(file: Path, *, strength: float = 1.0) -> Candidate:
    """One file as a candidate."""
    step, epoch = _told(file)
    name = file.stem if strength == 1 else f"{file.stem}:{strength:g}"
    return Candidate(name, file, strength, step, epoch, file.stem.endswith("-ema"), content_digest(file))


def ordered(found: Iterable[Candidate]) -> list[Candidate]:
    """By step, strength and name; weights that lie there under two names once."""
    kept: dict[tuple[str, float], Candidate] = {}
    for each in sorted(found, key=_preferred):
        key = (each.digest, each.strength)
        if key in kept:
            first = kept[key]
            kept[key] = Candidate(**{**vars(first), "also": (*first.also, each.name)})
        else:
            kept[key] = each
    return sorted(kept.values(), key=_place)


def content_digest(file: Path) -> str:
    """SHA-256 of the tensors: two files that differ in what they tell of themselves alone are the same LoRA."""
    tensors, _ = read_tensors(file)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _at(file: Path, strengths: Sequence[float]) -> list[Candidate]:
    first = named_candidate(file)
    return [
        first
        if strength == 1
        else Candidate(**{**vars(first), "name": f"{file.stem}:{strength:g}", "strength": strength})
        for strength in dict.fromkeys(strengths)
    ]


def _told(file: Path) -> tuple[int | None, int | None]:
    """Steps and epochs, as the file tells of itself, else as its name does."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}).", fix="move it away, or write it again") from error
    stem = file.stem.removesuffix("-ema")
    by_name = _STEPS_IN_NAME.search(stem)
    step, epoch = _whole(metadata.get("ss_steps")), _whole(metadata.get("ss_epoch"))
    if step is None and by_name is not None:
        step = int(by_name[1])
    if epoch is None and (by_epoch := re.search(r"-(\d{6})$", stem)) is not None:
        epoch = int(by_epoch[1])
    return step, epoch


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _preferred(each: Candidate) -> tuple[bool, int, str]:
    """Of two names for the same weights, the plain one: not that of the lowest loss."""
    return "lowest-loss" in each.name, len(each.name), each.name


def _place(each: Candidate) -> tuple[float, float, bool, float, str]:
    step = float("inf") if each.step is None else float(each.step)
    epoch = float("inf") if each.epoch is None else float(each.epoch)
    return step, epoch, each.ema, each.strength, each.name
