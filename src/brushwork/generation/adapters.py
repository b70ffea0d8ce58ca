"""Which adapter files a picture is drawn with: found, read, checked against the base, and put on."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.config.load import read_toml
from brushwork.errors import UserError, nearest
from brushwork.lora.files import FILE_NAME, AdapterFile, read_adapter
from brushwork.lora.inject import apply
from brushwork.lora.merge import fuse
from brushwork.lora.state import AdapterState, Components, component_of
from brushwork.models.spec import UNetSpec
from brushwork.run_files import SETTINGS_FILE, ema_name, is_ema


@dataclass(frozen=True)
class Wanted:
    """An adapter file, or a run folder, and how strongly it works: 1 as it was trained."""

    path: Path
    strength: float = 1.0

    @property
    def run_settings(self) -> Path | None:
        """The settings of the run, where a run folder was named, or one of the files in it."""
        folder = self.path.parent if self.path.is_file() else self.path
        file = folder / SETTINGS_FILE
        return file if file.is_file() else None


@dataclass(frozen=True)
class Applied:
    """How much of a file went into the model."""

    file: str
    strength: float
    num_applied: int
    num_modules: int

    def __str__(self) -> str:
        modules = f"{self.num_applied} of {self.num_modules} modules applied"
        return f"{self.file}: {modules}, strength {self.strength:g}"


@dataclass(frozen=True)
class Chosen:
    """An adapter file that was read and fits the base."""

    path: Path
    strength: float
    content: AdapterFile
    digest: str

    def part_of(self, components: Components) -> AdapterState:
        """What of it belongs to these components."""
        return {name: weights for name, weights in self.content.state.items() if component_of(name) in components}

    def record(self) -> dict[str, Any]:
        """As it stands in a picture's parameters: no folder, for pictures are given away."""
        return {"file": self.path.name, "strength": self.strength, "sha256": self.digest}


def wanted(text: str) -> Wanted:
    """`FILE`, `FILE:0.8`; in `C:\\loras\\corgi.safetensors` the colon belongs to the file."""
    path, colon, strength = text.rpartition(":")
    if not colon or not path or Path(text).exists():
        return Wanted(Path(text))
    try:
        number = float(strength)
    except ValueError:
        return Wanted(Path(text))
    if not math.isfinite(number):
        raise UserError(f"--lora {text}: the strength {strength} is not a finite number.", fix=f"--lora {path}:1")
    return Wanted(Path(path), number)


def choose(lora: Wanted, *, spec: UNetSpec, ema: bool) -> Chosen:
    """Find the file and read it; one that does not fit the base as a whole is refused."""
    path = ema_file(adapter_file(lora.path)) if ema else adapter_file(lora.path)
    return Chosen(path, lora.strength, read_adapter(path, spec=spec), _digest(path))


def put_on(components: Components, adapters: Sequence[Chosen], *, fused: bool) -> list[int]:
    """Put every adapter's part for these components on, fused or beside; how many modules each has there."""
    counts = []
    for adapter in adapters:
        part = adapter.part_of(components)
        with _named(adapter.path):
            if not part:
                counts.append(0)
            elif fused:
                counts.append(fuse(components, part, strength=adapter.strength))
            else:
                counts.append(apply(components, part, strength=adapter.strength).num_modules)
    return counts


def adapter_file(path: Path) -> Path:
    """The file itself; of a run folder the final one, of a diffusers folder the only one."""
    if path.is_file():
        return path
    if not path.exists():
        near = nearest(path.name, [file.name for file in path.parent.glob("*") if file.suffix == ".safetensors"])
        fix = f"did you mean {path.parent / near}?" if near else "--lora FILE.safetensors[:STRENGTH], or a run folder"
        raise UserError(f"there is no LoRA {path}.", fix=fix)
    if (path / SETTINGS_FILE).is_file():
        return _final_file(path)
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    raise UserError(
        f"{path} is neither a run folder (no {SETTINGS_FILE}) nor a diffusers folder (no {FILE_NAME}).",
        fix="--lora FILE.safetensors",
    )


def ema_base(base: str | None) -> str:
    """The running mean that full fine-tuning wrote beside a base."""
    if base is None or not Path(base).exists():
        raise UserError(
            "--ema takes the running mean beside an adapter or a base that was trained here, and none is named.",
            fix="--lora RUN --ema, or --base RUN/NAME.safetensors --ema, or leave --ema out",
        )
    return str(ema_file(Path(base)))


def ema_file(path: Path) -> Path:
    """The running mean that the training wrote beside an adapter or a base."""
    if is_ema(path.name, suffix=path.suffix):
        return path
    file = path.with_name(ema_name(path.name, suffix=path.suffix))
    if not file.exists():
        raise UserError(
            f"--ema: there is no {file.name} beside {path}.",
            fix="leave --ema out, or train with --set train.ema_decay=0.999",
        )
    return file


def _final_file(run: Path) -> Path:
    name = read_toml(run / SETTINGS_FILE).name
    file = run / f"{name}.safetensors"
    if file.is_file():
        return file
    saved = [path for path in run.glob("*.safetensors") if not is_ema(path.name, suffix=path.suffix)]
    if not saved:
        raise UserError(f"the run {run} has not saved an adapter yet.", fix=f"brushwork resume {run}")
    newest = max(saved, key=lambda path: path.stat().st_mtime)
    raise UserError(
        f"the run {run} has not come to its end: there is no {file.name}.",
        fix=f"--lora {newest}, or finish it with `brushwork resume {run}`",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file it was that does not fit."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error.problem}", fix=error.fix) from error
