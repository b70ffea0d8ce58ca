"""What a person decided about the pictures of a set: `SET/review.jsonl`, a row for each decision.

    {"file": "0001.png", "decision": "keep", "reason": "", "time": "2026-01-31T12:00:00+00:00"}

Rows are added at the end and never changed; the last one on a file counts, as a whole. The file lies beside the
pictures, or beside the shards that hold them.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from brushwork.data.layout import Layout, counted, same_name
from brushwork.data.picture import Box
from brushwork.errors import UserError, listed
from brushwork.records import Row, end_last_line, is_whole, numbered_rows

REVIEW = "review.jsonl"

Decision = Literal["keep", "refuse", "undecided"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)

_EXAMPLE = '{"file": "0001.png", "decision": "refuse"}'


@dataclass(frozen=True)
class Review:
    """The last word on one picture."""

    file: str
    """Its name below the root of the set, with slashes."""
    decision: Decision
    reason: str = ""
    caption: str | None = None
    """What the person wrote into the caption's file at that time. The file is what counts."""
    crop: Box | None = None
    """The part to use, in pixels of the picture after EXIF turned it; None for the whole."""
    duplicate_of: str | None = None
    time: str = ""
    undo: bool = False
    """Whether this puts back what was said before, rather than saying something new."""
    line: int = 0
    """Where it stands in the file; 0 where it does not yet."""

    def row(self) -> Row:
        """As it is written; what was not said is left out."""
        said = {"caption": self.caption, "crop": self.crop and list(self.crop), "duplicate_of": self.duplicate_of}
        return {
            "file": self.file,
            "decision": self.decision,
            "reason": self.reason,
            **{name: value for name, value in said.items() if value is not None},
            "time": self.time,
            **({"undo": True} if self.undo else {}),
        }


def review_file(root: Path) -> Path:
    """Where the reviews of a set are; `root` is its folder, or the file or pattern of shards."""
    return (root if root.is_dir() else root.parent) / REVIEW


def read_reviews(root: Path) -> dict[str, Review]:
    """The last review of each picture, by its name in Unicode's composed form; none where there is no file."""
    return {same_name(review.file): review for review in read_review_rows(root)}


def read_review_rows(root: Path) -> list[Review]:
    """Every row, in the order in which they were decided.

    A last line that a kill cut short was never acknowledged and is left out; a whole one that only lacks its newline
    counts.

    Raises:
        UserError: a line is not a review.
    """
    file = review_file(root)
    if not file.is_file():
        return []
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 (byte {error.start}).", fix="save it as UTF-8") from error
    if not is_whole(text[text.rfind("\n") + 1 :]):
        text = text[: text.rfind("\n") + 1]
    return [parse_review(row, file, line) for line, row in numbered_rows(text, file).items()]


def append_reviews(root: Path, reviews: Sequence[Review]) -> None:
    """Add reviews at the end; they are on the disk when this returns."""
    file = review_file(root)
    lines = "".join(json.dumps(review.row(), ensure_ascii=False) + "\n" for review in reviews)
    is_new = not file.exists()
    with file.open("a+b") as opened:
        end_last_line(opened)
        opened.write(lines.encode("utf-8"))
        opened.flush()
        os.fsync(opened.fileno())
    if is_new and os.name == "posix":  # the name of a new file is on the disk once its folder is
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def heed_reviews(layout: Layout) -> None:
    """Take out of a data set what was refused, and note the parts that are to be used of the others."""
    reviews = read_reviews(layout.root)
    names = {same_name(name): name for name in layout.pictures}
    refused = [name for name, review in reviews.items() if review.decision == "refuse"]
    layout.refused = sorted(names[name] for name in refused if name in names)
    for name in layout.refused:
        del layout.pictures[name]
    cropped = []
    for name, review in reviews.items():
        picture = layout.pictures.get(names.get(name, ""))
        if review.crop is not None and picture is not None:
            picture.crop = review.crop
            cropped.append(names[name])
    if layout.refused:
        layout.notes.append(counted(f"left out, refused in {REVIEW}", layout.refused))
    if cropped:
        layout.notes.append(counted(f"used in part, cropped in {REVIEW}", sorted(cropped)))
    if absent := sorted(name for name in refused if name not in names):
        layout.notes.append(counted(f"refused in {REVIEW} and not here", absent))


def refuse_foreign_crop(root: Path, name: str, crop: Box, width: int, height: int) -> None:
    """Stop where a crop is not of this picture: it was most likely replaced by another one since."""
    if crop[2] <= width and crop[3] <= height:
        return
    line = read_reviews(root)[same_name(name)].line
    raise UserError(
        f"{review_file(root)}, line {line}: the crop {list(crop)} of {name} does not lie inside the picture, which "
        f"is {width} x {height}.",
        fix=f"crop it anew (brushwork review {root}), or remove `crop` from line {line}",
    )


def parse_review(row: Mapping[str, object], file: Path, line: int) -> Review:
    """One row of the file, checked.

    Raises:
        UserError: something in it is not what it should be; names the line.
    """

    def bad(problem: str) -> UserError:
        return UserError(f"{file}, line {line}: {problem}.", fix=f"mend or remove line {line}; a review: {_EXAMPLE}")

    name, decision, crop = row.get("file"), row.get("decision"), row.get("crop")
    if not isinstance(name, str) or not name:
        raise bad(f"`file` should be the name of a picture, found {name!r}")
    if decision not in DECISIONS:
        raise bad(f"`decision` should be one of {listed(DECISIONS)}, found {decision!r}")
    texts: dict[str, str | None] = {}
    for key in ("reason", "caption", "duplicate_of", "time"):
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            raise bad(f"`{key}` should be a text, found {value!r}")
        texts[key] = value
    return Review(
        file=name,
        decision=decision,
        reason=texts["reason"] or "",
        caption=texts["caption"],
        crop=None if crop is None else _box(crop, bad),
        duplicate_of=texts["duplicate_of"],
        time=texts["time"] or "",
        undo=row.get("undo") is True,
        line=line,
    )


def _box(crop: object, bad: Callable[[str], UserError]) -> Box:
    if isinstance(crop, list) and len(crop) == 4 and all(type(value) is int for value in crop):
        left, top, right, bottom = crop
        if 0 <= left < right and 0 <= top < bottom:
            return left, top, right, bottom
    raise bad(f"`crop` should be [left, top, right, bottom] in whole pixels with an area, found {crop!r}")
