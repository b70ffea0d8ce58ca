"""Reading a data set: a folder of pictures and captions becomes samples, and a list of what cannot be used.

Nothing in the folder is written to, changed or deleted. What a person refused in `review.jsonl` is left out. What
lies where is told in `layout.py`, what makes a picture unusable in `picture.py`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brushwork.config.schema import DataConfig
from brushwork.data.forms import find_pictures
from brushwork.data.layout import Layout, PictureFile, counted, other_ending
from brushwork.data.masks import Mask
from brushwork.data.picture import READABLE, Box, parse_colour
from brushwork.data.place import whole_place
from brushwork.data.reviews import REVIEW, refuse_foreign_crop
from brushwork.data.scan import Facts, scan
from brushwork.data.source import Source
from brushwork.errors import UserError, listed
from brushwork.places import user_cache_folder
from brushwork.progress import Progress
from brushwork.records import Row


class Crop(NamedTuple):
    """A part of a picture file."""

    box: Box
    whole: tuple[int, int]
    """Width and height of all of it."""


@dataclass(frozen=True)
class Sample:
    """One usable picture and what is said about it."""

    name: str
    """Path below the data set's root, with slashes: `10_luca/0001.png`."""
    path: Source
    caption: str
    repeats: int
    width: int
    """In pixels, after EXIF turned it and of the part that is used; so is `height`."""
    height: int
    digest: str
    """SHA-256 of the file's bytes."""
    folder: int = 0
    """Which of the run's folders it lies in: 0 is the one that the command names, 1 the first of `data.folders`."""
    mask: Mask | None = None
    """Which parts of it count; None where all do."""
    crop: Crop | None = None
    """The part of the file that is the picture; None where all of it is."""

    @property
    def content(self) -> str:
        """A digest of what is seen: the file's, and another one for each part of it."""
        if self.crop is None:
            return self.digest
        return hashlib.sha256(f"{self.digest} {list(self.crop.box)}".encode()).hexdigest()

    @property
    def box(self) -> Box | None:
        """The part of the file that is to be decoded."""
        return None if self.crop is None else self.crop.box


@dataclass(frozen=True)
class Quarantined:
    """A file that should be a picture and cannot be used."""

    name: str
    path: Source
    reason: str

    def row(self) -> Row:
        """As it stands in the quarantine report."""
        return {"file": self.name, "reason": self.reason}


@dataclass(frozen=True)
class Dataset:
    """Everything that reading a folder brought to light."""

    root: Path
    samples: tuple[Sample, ...]
    quarantined: tuple[Quarantined, ...] = ()
    missing_captions: tuple[str, ...] = ()
    empty_captions: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for the person: whatever was left out, shared or doubtful."""


def read_dataset(
    path: Path, *, data: DataConfig, offline: bool = False, on_progress: Progress | None = None
) -> Dataset:
    """Read a data set; every picture is decoded once, so that none fails later.

    Args:
        path: a folder, shards, tables or a place on the hub, as `forms.py` tells them apart.
        offline: do not ask the hub.
        on_progress: called with (pictures looked at, all pictures).
    """
    parse_colour(data.background)
    layout = find_pictures(path, data=data, offline=offline)
    root = layout.root
    if not layout.pictures:
        raise UserError(
            f"{root}: no picture in this folder"
            + (f" is kept; {len(layout.refused)} are refused in {REVIEW}." if layout.refused else "."),
            fix=f"keep some: brushwork review {path}"
            if layout.refused
            else f"name a folder that holds {', '.join(sorted(READABLE))} files",
        )
    _give_class_prompt(layout, data.class_prompt)
    _check_captions(layout, most=data.max_missing_captions, extension=data.caption_extension)
    facts = scan(
        {name: picture.path for name, picture in layout.pictures.items()},
        max_pixels=data.max_pixels,
        index=index_file(root),
        on_progress=on_progress,
    )
    return _assemble(layout, facts)


def index_file(root: Path) -> Path:
    """Where the facts about a folder's pictures are remembered: in the user's cache folder, by the folder's path."""
    name = hashlib.sha256(str(whole_place(root)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return user_cache_folder() / "datasets" / f"{name}.jsonl"


def _give_class_prompt(layout: Layout, prompt: str) -> None:
    """Pictures without words of their own are called what they show."""
    without = [name for name, picture in layout.pictures.items() if picture.caption is None] if prompt else []
    for name in without:
        layout.pictures[name].caption = prompt
    if without:
        layout.notes.append(counted("captioned by the class prompt", without))


def _check_captions(layout: Layout, *, most: float, extension: str) -> None:
    """Stop, before anything is decoded, where too many pictures would train without words."""
    missing = [name for name, picture in layout.pictures.items() if picture.caption is None]
    empty = [name for name, picture in layout.pictures.items() if picture.caption == ""]
    bare, total = len(missing) + len(empty), len(layout.pictures)
    if bare <= most * total:
        return
    write = other_ending(layout).removeprefix("; ") or f"write a {extension} file beside each"
    raise UserError(
        f"{layout.root}: {bare} of {total} pictures have no caption ({len(missing)} no file, {len(empty)} an empty "
        f"one): {listed(missing + empty)}. The largest share is {most:g} (data.max_missing_captions).",
        fix=f"{write}, or train them on data.caption_prefix alone: --set data.max_missing_captions=1",
    )


def _sample(root: Path, name: str, picture: PictureFile, facts: Facts) -> Sample:
    """A picture, or the part of it that a person chose."""
    width, height, digest, _ = facts
    crop, caption = picture.crop, picture.caption or ""
    if crop is None:
        return Sample(name, picture.path, caption, picture.repeats, width, height, digest)
    refuse_foreign_crop(root, name, crop, width, height)
    size = crop[2] - crop[0], crop[3] - crop[1]
    return Sample(name, picture.path, caption, picture.repeats, *size, digest, crop=Crop(crop, (width, height)))


def _assemble(layout: Layout, facts: Mapping[str, Facts]) -> Dataset:
    """Samples and quarantine out of what was found and what decoding told."""
    samples, quarantined = [], []
    for name, picture in layout.pictures.items():
        if (problem := facts[name].problem) is not None:
            quarantined.append(Quarantined(name, picture.path, problem))
        else:
            samples.append(_sample(layout.root, name, picture, facts[name]))
    reasons = listed([f"{bad.name}: {bad.reason}" for bad in quarantined])
    if not samples:
        raise UserError(f"{layout.root}: none of the {len(quarantined)} pictures can be used ({reasons}).")
    captions = {sample.name: layout.pictures[sample.name].caption for sample in samples}
    missing = tuple(name for name, caption in captions.items() if caption is None)
    empty = tuple(name for name, caption in captions.items() if caption == "")
    notes = list(layout.notes)
    if quarantined:
        notes.append(f"left out, cannot be used: {len(quarantined)} ({reasons})")
    if missing:
        notes.append(counted("pictures without a caption", missing) + other_ending(layout))
    if empty:
        notes.append(counted("pictures with an empty caption", empty))
    counts = Counter(sample.digest for sample in samples)
    if twins := [sample.name for sample in samples if counts[sample.digest] > 1]:
        notes.append(counted("copies of one another, byte for byte", twins))
    return Dataset(
        layout.root, tuple(samples), tuple(quarantined), missing, empty, tuple(layout.refused), tuple(notes)
    )
