"""Files are written beside and renamed, so that a kill leaves the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is being written. A run that is continued removes those that a kill left behind."""


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it replaces `path`, on an error it is removed.

    The data is on disk before the name changes, so a power cut does not leave an empty file either. An error of the
    system (a full disk, a folder that is not to be written into) names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` (UTF-8) as a whole."""
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data` as a whole."""
    with written_beside(path) as partial:
        partial.write_bytes(data)


def remove_partials(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing, anywhere below `folder`."""
    for partial in folder.rglob(f"*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)
