"""JSON Lines: one row a line, the form in which stages hand on what was decided and measured."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from brushwork.atomic import write_text
from brushwork.errors import UserError

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read every row of a JSON Lines file.

    A last line without its newline is what a kill leaves in the middle of a write, and is left out. Any other
    line that is not a JSON object is an error.
    """
    text = path.read_text(encoding="utf-8")
    return list(numbered_rows(text[: text.rfind("\n") + 1], path).values())


def numbered_rows(text: str, path: Path) -> dict[int, Row]:
    """Each row by the number of its line; a line that is not a JSON object is an error that names `path`."""
    rows: dict[int, Row] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {number}: not JSON ({error.msg}).", fix=f"mend or remove line {number}"
            ) from error
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.",
                fix=f"mend or remove line {number}",
            )
        rows[number] = row
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row at the end of the file, which is made if it is not there; what a kill left of the row before does
    not become a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end_last_line(file)
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))


def mend_last_row(path: Path) -> None:
    """End the last row of a file, or take off the half of one that a kill left, before its rows are read."""
    if path.is_file():
        with path.open("a+b") as file:
            end_last_line(file)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the whole file by `rows`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def is_whole(line: str) -> bool:
    """Whether a line without its newline is all that was to be written: no beginning of an object is an object."""
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def end_last_line(file: BinaryIO) -> None:
    """Let the next row begin on a line of its own: a whole last one gets its newline, half of one is removed.

    Args:
        file: opened to append and read (`a+b`).
    """
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    data = file.read()
    begin = data.rfind(b"\n") + 1
    if is_whole(data[begin:].decode("utf-8", "replace")):
        file.write(b"\n")
    else:
        file.truncate(begin)
