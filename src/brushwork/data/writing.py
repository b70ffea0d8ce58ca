"""`brushwork prepare`: a data set in any form becomes one in the form that a trainer reads.

    folder        OUT/0001.png  OUT/0001.txt
    kohya         OUT/10_corgi/0001.png  OUT/10_corgi/0001.txt
    webdataset    OUT/00000.tar with 0001.png, 0001.txt, 0002.png, ...

Pictures are copied byte for byte; the part that a review chose of one is written as PNG. OUT appears when all of it
is there.
"""

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from rich.console import Console

from brushwork.config.schema import DataConfig
from brushwork.data.folder import Dataset, Sample, read_dataset
from brushwork.data.layout import MOST_REPEATS, is_hidden
from brushwork.data.picture import cropped_png
from brushwork.data.split import check_share, hold_out_scenes
from brushwork.errors import UserError, listed
from brushwork.progress import Advance, progress_bar

Form = Literal["folder", "kohya", "webdataset"]

SHARD_MIB = 1024
"""A shard is closed once it is larger than this."""
CHECKSUMS = "checksums.sha256"

Scenes = Callable[[Dataset], Mapping[str, Hashable]]
"""Tells to which scene each picture belongs, by its name."""


@dataclass(frozen=True)
class Prepared:
    """A set that was written."""

    folder: Path
    num_pictures: int
    num_captions: int
    repeats: int
    notes: tuple[str, ...]
    validated: bool
    held_out: int = 0
    """How many of the pictures lie in `heldout/`."""

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "pictures": self.num_pictures,
            "captions": self.num_captions,
            "held_out": self.held_out,
            "repeats": self.repeats,
            "validated": self.validated,
            "notes": list(self.notes),
        }


def prepare_set(
    place: Path,
    out: Path,
    *,
    form: Form,
    repeats: int = 1,
    name: str | None = None,
    validate: bool = False,
    held_out: float | None = None,
    scenes: Scenes | None = None,
    seed: int = 0,
    views: float | None = None,
    shard_mib: float = SHARD_MIB,
    data: DataConfig | None = None,
    console: Console | None = None,
) -> Prepared:
    """Write the usable pictures of a set, each with its caption, as `form` says.

    Args:
        repeats: the number before the name of kohya's folder.
        name: what follows it; by default the name of `out`.
        validate: read what was written, and compare pictures and captions.
        held_out: the share of the pictures for `heldout/`.
        scenes: pictures of one scene are on one side; without it, those with the same bytes.
        seed: which scenes they are.
        views: pictures that a run will show in an epoch: `repeats` is computed from it, where kohya's folder says it.
        shard_mib: a shard is closed once it is larger than so many MiB.

    Raises:
        UserError: a picture has no caption, `out` is taken, or what was written is not what was read.
    """
    console = console or Console(stderr=True)
    name = name or out.name
    _check(out, form, repeats, name)
    if held_out is not None:
        check_share(held_out)
    settings = (data or DataConfig()).model_copy(update={"max_missing_captions": 0.0})
    with progress_bar(console, "reading pictures", 0) as advance:
        dataset = read_dataset(place, data=settings, on_progress=advance)
    parts = _parts(dataset, held_out, scenes, seed)
    learned = parts[0][1]
    if views is not None:
        repeats = min(max(1, round(views / len(learned.samples))), MOST_REPEATS)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for number, (part, some) in enumerate(parts):
            folder = partial / part
            folder.mkdir(exist_ok=True)
            with progress_bar(console, "writing pictures", len(some.samples)) as advance:
                if form == "webdataset":
                    _write_shards(some, folder, advance, most_bytes=int(shard_mib * 2**20))
                elif form == "kohya":
                    _write_files(some, folder / f"{1 if number else repeats}_{name}", advance)
                else:
                    _write_files(some, folder, advance)
            if validate:
                _compare(some, folder, out, settings, console)
        if form == "webdataset":
            _write_checksums(partial)
        partial.chmod(0o755)
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    count = len(dataset.samples)
    shown = repeats if form == "kohya" or views is not None else 1
    return Prepared(out, count, count, shown, dataset.notes, validate, count - len(learned.samples))


def _parts(dataset: Dataset, held_out: float | None, scenes: Scenes | None, seed: int) -> list[tuple[str, Dataset]]:
    """The folders below OUT and what lies in each; the first is trained on."""
    if held_out is None:
        return [("", dataset)]
    known = scenes(dataset) if scenes else {sample.name: sample.content for sample in dataset.samples}
    learned, aside = hold_out_scenes(dataset, held_out, seed, known)
    return [("train", learned), ("heldout", aside)]


def _write_checksums(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = []
    for file in files:
        with file.open("rb") as opened:
            lines.append(
                f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.relative_to(folder).as_posix()}\n"
            )
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _check(out: Path, form: Form, repeats: int, name: str) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty.", fix="choose another --out")
    if form != "kohya" and repeats != 1:
        raise UserError(
            f"--repeat {repeats} stands in the name of kohya's folders; a {form} set has none.",
            fix=f"--layout kohya, or leave it out and train with --set data.repeats={repeats}",
        )
    if not 1 <= repeats <= MOST_REPEATS:
        raise UserError(f"--repeat {repeats}: from 1 to {MOST_REPEATS} was expected.", fix="--repeat 10")
    if "/" in name or "\\" in name or is_hidden(name):
        raise UserError(f"--name {name!r} is no name of a folder.", fix="--name corgi")


def _named(dataset: Dataset) -> Iterator[tuple[str, str, Sample, bytes]]:
    """Each picture with a name that no other has, and the ending that its bytes have."""
    taken: Counter[str] = Counter()
    for sample in dataset.samples:
        data = _content(sample)
        suffix = (".png" if sample.crop else sample.path.suffix.lower()) or _suffix(data)
        flat = sample.name.replace("/", "_").removesuffix(sample.path.suffix).replace(".", "_")
        taken[flat.lower()] += 1
        count = taken[flat.lower()]
        yield (flat if count == 1 else f"{flat}-{count}"), suffix, sample, data


def _content(sample: Sample) -> bytes:
    """What is written of a picture: its file as it is, or the part that is used. It was decoded once already, so its
    size is known to be allowed."""
    data = sample.path.read_bytes()
    if sample.crop is None:
        return data
    width, height = sample.crop.whole
    return cropped_png(data, sample.crop.box, max_pixels=width * height)


def _suffix(data: bytes) -> str:
    """`.png`, of bytes that have no name."""
    with Image.open(io.BytesIO(data)) as image:
        return {"JPEG": ".jpg", "TIFF": ".tif"}.get(image.format or "", f".{(image.format or '').lower()}")


def _digest(sample: Sample) -> str:
    return sample.digest if sample.crop is None else hashlib.sha256(_content(sample)).hexdigest()


def _write_files(dataset: Dataset, folder: Path, advance: Advance) -> None:
    folder.mkdir(exist_ok=True)
    for done, (stem, suffix, sample, data) in enumerate(_named(dataset), start=1):
        (folder / f"{stem}{suffix}").write_bytes(data)
        (folder / f"{stem}.txt").write_text(sample.caption + "\n", encoding="utf-8")
        advance(done, len(dataset.samples))


def _write_shards(dataset: Dataset, folder: Path, advance: Advance, *, most_bytes: int) -> None:
    shards, archive = 0, None
    try:
        for done, (stem, suffix, sample, data) in enumerate(_named(dataset), start=1):
            if archive is None or archive.offset > most_bytes:
                if archive is not None:
                    archive.close()
                archive = tarfile.open(folder / f"{shards:05}.tar", "w")  # noqa: SIM115
                shards += 1
            for ending, content in ((suffix, data), (".txt", sample.caption.encode() + b"\n")):
                info = tarfile.TarInfo(stem + ending)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            advance(done, len(dataset.samples))
    finally:
        if archive is not None:
            archive.close()


def _compare(dataset: Dataset, written: Path, out: Path, data: DataConfig, console: Console) -> None:
    """What was written is read as a trainer would read it."""
    data = data.model_copy(update={"caption_extension": ".txt"})
    with progress_bar(console, "comparing", 0) as advance:
        found = read_dataset(written, data=data, on_progress=advance)
    wanted = {sample.name: (_digest(sample), sample.caption) for sample in dataset.samples}
    after = Counter((sample.digest, sample.caption) for sample in found.samples)
    if Counter(wanted.values()) != after:
        names = [name for name, each in wanted.items() if each not in after]
        raise UserError(
            f"{out}: what was written is not what was read: {len(dataset.samples)} pictures before, "
            f"{len(found.samples)} after{'; different: ' + listed(names) if names else ''}.",
            fix="try another disk: --out",
        )
