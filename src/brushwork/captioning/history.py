"""What has been written so far: rows in `captions.jsonl`, in the form that `edits.py` reads, and the run in progress.

SET/captions.jsonl          a row for each caption: file, before, after, edit, at; picture, answers, tries, left_out
SET/captions.rank1.jsonl    the same of the second of several processes, until the first takes it over
SET/captioning.json         the run in progress; one that was killed goes on under its own time, so that
                            `brushwork captions SET --undo` takes back all of it at once
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from brushwork.atomic import write_text
from brushwork.data.changed_captions import HISTORY, caption_text
from brushwork.records import Row, append_row, mend_last_row, read_rows

RUNNING = "captioning.json"
OTHERS = "captions.rank*.jsonl"


@dataclass(frozen=True)
class Standing:
    """A run over a set: when it began, and what it has done."""

    at: str
    done: frozenset[str]
    """Names of pictures."""


def history_file(root: Path, rank: int = 0) -> Path:
    """Where a process writes its rows: processes on several machines must not write into one file."""
    return root / (HISTORY if rank == 0 else f"captions.rank{rank}.jsonl")


def begin(root: Path, *, asked: str) -> Standing:
    """Start a run, or go on with one of the same kind that was killed.

    Args:
        asked: what tells kinds apart: profile, model, and whether old captions are replaced.
    """
    gather(root)
    running = _running(root)
    if running.get("asked") == asked and isinstance(running.get("at"), str):
        at = running["at"]
        rows = [row for row in _rows([root / HISTORY]) if row.get("at") == at and "picture" in row]
        _finish(root, rows[-1:])
        return Standing(at, frozenset(row["picture"] for row in rows if (root / row["file"]).is_file()))
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    write_text(root / RUNNING, json.dumps({"at": at, "asked": asked}) + "\n")
    return Standing(at, frozenset())


def end(root: Path) -> None:
    """The run came to its end; the next one is another."""
    gather(root)
    (root / RUNNING).unlink(missing_ok=True)


def gather(root: Path) -> None:
    """Take over what other processes wrote; their files go when their rows are in."""
    mend_last_row(root / HISTORY)
    known = {_key(row) for row in _rows([root / HISTORY])}
    for file in sorted(root.glob(OTHERS)):
        rows = _rows([file])
        _finish(root, rows[-1:])
        for row in rows:
            if _key(row) not in known:  # a kill between taking over and removing leaves both
                append_row(root / HISTORY, row)
        file.unlink()


def _finish(root: Path, rows: Iterable[Row]) -> None:
    """A kill between a row and its file leaves the file as it was before: write it now."""
    for row in rows:
        file = root / row["file"]
        if (caption_text(file) if file.exists() else None) == row["before"]:
            write_text(file, row["after"])


def _rows(files: Iterable[Path]) -> list[Row]:
    return [row for file in files if file.is_file() for row in read_rows(file)]


def _key(row: Row) -> tuple[object, object, object]:
    return row.get("file"), row.get("at"), row.get("after")


def _running(root: Path) -> Row:
    try:
        found = json.loads((root / RUNNING).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
