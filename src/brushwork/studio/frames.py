"""What is to be reviewed: the pictures of a set, and what `brushwork curate` found out about each."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brushwork.config.schema import DataConfig
from brushwork.data.forms import find_pictures
from brushwork.data.layout import PictureFile, counted, is_picture, same_name
from brushwork.data.source import Source
from brushwork.errors import UserError
from brushwork.records import read_rows

CURATION = "curation.jsonl"
UNLIKE = "unlike_references"
"""How curation calls a frame that is too little like the references."""
MOST_REFERENCES = 500
"""A folder of references with more is most likely another one than was meant."""


@dataclass(slots=True)
class Frame:
    """One picture, with everything about it that does not change while it is reviewed; the caption alone may."""

    number: int
    """Its place in the set, in the order of the names. The page asks for pictures by it and never by a path."""
    name: str
    """Below the root of the set, with slashes."""
    source: Source
    caption: str = ""
    caption_file: Path | None = None
    similarity: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    nearest: int | None = None
    """Which reference is most like it."""
    group: int | None = None
    """Near-duplicates carry the same number."""
    proposal: str = ""
    """`keep` or `refuse`, as curation has it; empty where it says nothing."""
    code: str = ""
    """Why curation refuses it, in one word."""
    why: str = ""
    """And in a sentence."""


@dataclass(frozen=True)
class ReviewSet:
    """A set that is reviewed."""

    root: Path
    frames: tuple[Frame, ...]
    references: tuple[Path, ...]
    caption_extension: str
    reference_folder: Path | None
    links: bool
    """Whether files outside the set are shown where a link in it leads to them."""
    notes: tuple[str, ...]
    threshold: float | None = None
    """The similarity that parts what curation kept from what it refused."""

    def may_show(self, source: Source) -> bool:
        """Whether a picture lies where the person said that pictures are.

        Asked each time one is served: what was a file when the set was read may be a link by then.
        """
        if self.links or not isinstance(source, Path):
            return True
        folder = self.reference_folder if source in self.references else self.root
        return folder is not None and not leads_outside(source, folder)

    def uncertainty(self, frame: Frame) -> float:
        """How far a picture is from the line between kept and refused: 0 is on it; without a similarity, far."""
        if frame.similarity is None or self.threshold is None:
            return float("inf")
        return abs(frame.similarity - self.threshold)

    @property
    def score_names(self) -> list[str]:
        """Everything that was measured of the pictures."""
        names = dict.fromkeys(name for frame in self.frames for name in frame.scores)
        return ["similarity", *names] if any(frame.similarity is not None for frame in self.frames) else list(names)


def read_review_set(
    place: Path, *, data: DataConfig, references: Path | None = None, links: bool = False
) -> ReviewSet:
    """Find the pictures of a set, refused ones too, with what curation says of them.

    Args:
        references: a folder of approved pictures, which are shown beside.
        links: show files outside the set where a link in it leads to them.

    Raises:
        UserError: no picture is there, or a file beside them is broken.
    """
    layout = find_pictures(place, data=data, tolerant=True, reviewed=False)
    if not layout.pictures:
        raise UserError(f"{layout.root}: no picture in this folder.", fix="name a folder that holds pictures")
    folder = layout.root if layout.root.is_dir() else layout.root.parent
    approved = _references(references)
    rows, notes = _curation(folder, set(map(same_name, layout.pictures)))
    ordered = sorted(layout.pictures.items(), key=lambda item: _natural(item[0]))
    frames = [_frame(number, name, picture, rows, approved) for number, (name, picture) in enumerate(ordered)]
    if layout.unreadable:
        notes.append(counted("captions that cannot be read", sorted(layout.unreadable)))
    if not links and (outside := _outside(frames, folder)):
        notes.append(counted("links to files outside the set, which are not shown without --links", outside))
    return ReviewSet(
        root=layout.root,
        frames=tuple(frames),
        references=approved,
        caption_extension=data.caption_extension,
        reference_folder=references,
        links=links,
        notes=tuple(notes),
        threshold=_threshold(list(rows.values())),
    )


def score_of(frame: Frame, name: str) -> float | None:
    """One of the numbers that curation gave."""
    return frame.similarity if name == "similarity" else frame.scores.get(name)


def leads_outside(file: Path, root: Path) -> bool:
    """Whether a file of a folder is, or lies behind, a link to somewhere else."""
    real = os.path.realpath(root)
    return os.path.commonpath([real, os.path.realpath(file)]) != real


def _outside(frames: Sequence[Frame], root: Path) -> list[str]:
    """Names of pictures that links lead to; folders are asked once, files only whether they are links."""
    folders: dict[Path, bool] = {}
    found = []
    for frame in frames:
        file = frame.source
        if not isinstance(file, Path):
            continue
        if file.parent not in folders:
            folders[file.parent] = leads_outside(file.parent, root)
        if folders[file.parent] or (file.is_symlink() and leads_outside(file, root)):
            found.append(frame.name)
    return found


def _frame(
    number: int, name: str, picture: PictureFile, rows: Mapping[str, dict[str, Any]], references: tuple[Path, ...]
) -> Frame:
    frame = Frame(number, name, picture.path, picture.caption or "", picture.caption_file)
    row = rows.get(same_name(name))
    if row is None:
        return frame
    frame.similarity = _number(row.get("similarity"))
    scores = row.get("scores")
    if isinstance(scores, dict):
        named = {str(key): _number(value) for key, value in scores.items() if key != "similarity"}
        frame.scores = {key: value for key, value in named.items() if value is not None}
    frame.nearest = _nearest(row.get("nearest_reference"), references)
    group = row.get("group")
    frame.group = group if type(group) is int else None
    frame.proposal, frame.code, frame.why = (str(row.get(key) or "") for key in ("decision", "reason", "why"))
    return frame


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _nearest(named: object, references: tuple[Path, ...]) -> int | None:
    """The reference that curation names, among those that the user named: no other file is ever shown."""
    if not isinstance(named, str):
        return None
    wanted = Path(named).parts[::-1]
    alike = [_same_beginning(wanted, file.parts[::-1]) for file in references]
    best = max(alike, default=0)
    return alike.index(best) if best else None


def _same_beginning(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def _curation(folder: Path, here: set[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The rows of `curation.jsonl` by name, and how many of them are of frames that are not in this set.

    What curation refused is never in the set that it writes: only of the others the names are told.
    """
    file = folder / CURATION
    if not file.is_file():
        return {}, []
    rows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_rows(file), start=1):
        name = row.get("file")
        if not isinstance(name, str):
            raise UserError(f"{file}, row {number}: `file` should be the name of a picture, found {name!r}.")
        rows[same_name(name)] = row
    elsewhere = [name for name in rows if name not in here]
    gone = [name for name in elsewhere if rows[name].get("decision") != "refuse"]
    refused = len(elsewhere) - len(gone)
    notes = [f"refused by curation and therefore not in this set: {refused} ({CURATION} says why)"] if refused else []
    notes += [counted(f"measured in {CURATION} and not in this set", gone)] if gone else []
    return rows, notes


def _threshold(rows: list[dict[str, Any]]) -> float | None:
    """Half way between the least similar frame that curation kept and the most similar one that it refused for it."""
    known = [(row, value) for row in rows if (value := _number(row.get("similarity"))) is not None]
    kept = [value for row, value in known if row.get("decision") == "keep"]
    refused = [value for row, value in known if row.get("decision") == "refuse" and row.get("reason") == UNLIKE]
    if kept and refused:
        return (min(kept) + max(refused)) / 2
    if kept or refused:
        return min(kept) if kept else max(refused)
    return None


def _references(folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of references.", fix="--references DIR")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and is_picture(file))
    if not files or len(files) > MOST_REFERENCES:
        raise UserError(
            f"{folder} holds {len(files)} pictures; 1 to {MOST_REFERENCES} references were expected.",
            fix="name the folder of the approved pictures",
        )
    return tuple(files)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """`frame-9` comes before `frame-10`."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]
