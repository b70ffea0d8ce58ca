"""Captions that are written over: what stood there is put down first, and can be had back.

SET/captions.jsonl      a row for each change: file, before, after, what was asked, when
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from brushwork.atomic import write_bytes
from brushwork.data.captions import decode_text
from brushwork.records import Row, append_row, read_rows

HISTORY = "captions.jsonl"


@dataclass(frozen=True)
class Change:
    """One caption file, before and after. None where there is no file."""

    file: Path
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Rewritten:
    """A caption file as it was before it was written anew by hand."""

    text: str | None
    """None where there was no file."""
    at: str


def rewrite_caption(root: Path, file: Path, text: str | None, *, undoes: str | None = None) -> None:
    """Write one caption file as a whole; the old one is kept as those of an edit are, and can be had back like them.

    Args:
        text: what is to stand in it; None where there is to be no file.
        undoes: which change is taken back by this.
    """
    about = {"edit": "review"} if undoes is None else {"edit": "undo", "undoes": undoes}
    write_changes(root, [Change(file, text_now(file), text)], about)


def rewritten(root: Path, file: Path) -> Rewritten | None:
    """What a caption file was before it was last written by hand, if that was not taken back yet."""
    rows = read_rows(root / HISTORY) if (root / HISTORY).is_file() else []
    undone = {row.get("undoes") for row in rows}
    name = file.relative_to(root).as_posix()
    for row in reversed(rows):
        if row.get("edit") == "review" and row.get("file") == name and row.get("at") not in undone:
            return Rewritten(row["before"], row["at"])
    return None


def caption_text(file: Path) -> str:
    """The whole text, byte order mark and line ends included, so that it can be put back byte for byte."""
    data = file.read_bytes()
    decode_text(data, file)  # refuses what is not UTF-8, by the name of the file
    return data.decode("utf-8")


def text_now(file: Path) -> str | None:
    """The text of a file; None where there is none."""
    return caption_text(file) if file.exists() else None


def write_changes(root: Path, changes: Sequence[Change], about: Row) -> None:
    """Write down what was, then what is to be."""
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    for change in changes:
        append_row(root / HISTORY, {**row_of(change, root), **about, "at": at})
    for change in changes:
        if change.after is None:
            change.file.unlink(missing_ok=True)
        else:
            write_bytes(change.file, change.after.encode("utf-8"))


def row_of(change: Change, root: Path) -> Row:
    """A change as it stands in the file."""
    return {"file": change.file.relative_to(root).as_posix(), "before": change.before, "after": change.after}
