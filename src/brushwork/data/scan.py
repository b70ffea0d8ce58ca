"""Every picture of a folder is decoded once, up front, and what was found is remembered.

A broken file is found before the run, not after an hour. The second start of a run asks the file system whether a
file is still the same one, and decodes only those that are not: seconds for 20,000 pictures.
"""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import PIL

from brushwork.data.picture import UNREADABLE, BadPictureError, open_rgb
from brushwork.errors import UserError
from brushwork.records import Row, append_row, read_rows, write_rows

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""

INDEX_SCHEMA = 1
SETTLED_SECONDS = 2.0
"""A file changed less than this before it was read is not remembered: a second change could carry the same time."""


class Facts(NamedTuple):
    """What one decoding tells: size after EXIF, SHA-256 of the file's bytes, and why it cannot be used, if so."""

    width: int
    height: int
    digest: str
    problem: str | None


Stamp = tuple[int, int, int]
"""Size in bytes, time of the last change of the content, and of the entry, in nanoseconds.

The third is the one that `cp --preserve` and `touch` cannot set back."""


def examine(path: Path, *, max_pixels: int) -> Facts:
    """Decode one picture completely."""
    if path.suffix.lower() in UNREADABLE:
        return Facts(0, 0, "", f"{path.suffix} pictures are not read; save it as PNG or JPEG")
    try:
        data = path.read_bytes()
    except OSError as error:
        return Facts(0, 0, "", error.strerror or str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        width, height = open_rgb(data, background="white", max_pixels=max_pixels).size
    except BadPictureError as error:
        return Facts(0, 0, digest, str(error))
    return Facts(width, height, digest, None)


def scan(
    pictures: Mapping[str, Path], *, max_pixels: int, index: Path | None, on_progress: Progress | None = None
) -> dict[str, Facts]:
    """Facts about every picture, by name; those that `index` remembers and that have not changed are not opened."""
    header: Row = {"index": INDEX_SCHEMA, "max_pixels": max_pixels, "pillow": PIL.__version__}
    remembered = {} if index is None else _recall(index, header)
    stamps = {name: _stamp(path) for name, path in pictures.items()}
    facts = {
        name: remembered[name][1]
        for name, stamp in stamps.items()
        if name in remembered and stamp is not None and remembered[name][0] == stamp
    }
    todo = [name for name in pictures if name not in facts]
    report = on_progress or (lambda done, total: None)
    report(len(facts), len(pictures))
    if not todo:
        return facts
    if index is not None:
        # A file that a kill left with half a line is made whole before anything is added to it.
        with suppress(OSError):
            write_rows(index, [header, *(_row(name, stamps[name], facts[name]) for name in facts)])
    with decoding_threads() as pool:
        found = pool.map(lambda name: examine(pictures[name], max_pixels=max_pixels), todo)
        for name, result in zip(todo, found, strict=True):
            facts[name] = result
            stamp = stamps[name]
            if index is not None and stamp is not None and _is_settled(stamp):
                # The index only saves time: a full or read-only disk must not stop the run here.
                with suppress(OSError):
                    append_row(index, _row(name, stamp, result))
            report(len(facts), len(pictures))
    return {name: facts[name] for name in pictures}


@contextmanager
def decoding_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for Pillow, which decodes outside Python's lock. On an error or Ctrl-C, what waits is dropped."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")
    with warnings.catch_warnings():
        # Pillow warns of large pictures and of odd EXIF; what is not usable is told in the quarantine.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_settled(stamp: Stamp) -> bool:
    return time.time() - stamp[1] / 1e9 > SETTLED_SECONDS


def _row(name: str, stamp: Stamp | None, facts: Facts) -> Row:
    return {"file": name, "stamp": stamp, **facts._asdict()}


def _recall(index: Path, header: Row) -> dict[str, tuple[Stamp, Facts]]:
    """What an earlier scan wrote; nothing where it was made under other settings or is damaged."""
    try:
        rows = read_rows(index)
    except (OSError, UnicodeDecodeError, UserError):
        return {}
    if not rows or rows[0] != header:
        return {}
    try:
        return {
            row["file"]: (tuple(row["stamp"]), Facts(row["width"], row["height"], row["digest"], row["problem"]))
            for row in rows[1:]
        }
    except (KeyError, TypeError):
        return {}
