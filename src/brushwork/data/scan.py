"""Every picture of a folder is decoded once, up front, and what was found is remembered.

A broken file is found before the run, not after an hour. The second start of a run asks the file system whether a
file is still the same one, and decodes only those that are not: seconds for 20,000 pictures.
"""

import hashlib
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import PIL

from brushwork.data.picture import UNREADABLE, BadPictureError, open_rgb
from brushwork.data.source import Source
from brushwork.errors import UserError
from brushwork.places import note_use
from brushwork.progress import Progress
from brushwork.records import Row, read_rows, write_rows

INDEX_SCHEMA = 1
ROWS_AT_ONCE = 64
"""Pictures found between two writes of the index."""
UNDER_WAY = 32
"""Pictures that are given to the decoding threads at a time."""
SETTLED_SECONDS = 2.0
"""A file changed less than this before it was read is not remembered: a second change could carry the same time."""


class Facts(NamedTuple):
    """What one decoding tells: size after EXIF, SHA-256 of the file's bytes, and why it cannot be used, if so."""

    width: int
    height: int
    digest: str
    problem: str | None


Result = TypeVar("Result")

Stamp = tuple[int, int, int]
"""Size in bytes, time of the last change of the content, and of the entry, in nanoseconds.

The third is the one that `cp --preserve` and `touch` cannot set back."""


def examine(path: Source, *, max_pixels: int) -> Facts:
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
    pictures: Mapping[str, Source], *, max_pixels: int, index: Path | None, on_progress: Progress | None = None
) -> dict[str, Facts]:
    """Facts about every picture, by name; those that `index` remembers and that have not changed are not opened."""
    stamps = {name: stamp_of(path) for name, path in pictures.items()}
    memory = _Index(index, {"index": INDEX_SCHEMA, "max_pixels": max_pixels, "pillow": PIL.__version__})
    facts = memory.recall(stamps)
    todo = [name for name in pictures if name not in facts]
    report = on_progress or (lambda done, total: None)
    report(len(facts), len(pictures))
    if todo:
        memory.begin(facts, stamps)
        with decoding_threads() as pool:
            found = in_order(pool, lambda name: examine(pictures[name], max_pixels=max_pixels), todo)
            try:
                for name, result in found:
                    facts[name] = result
                    memory.add(name, stamps[name], result)
                    report(len(facts), len(pictures))
            finally:
                memory.flush()
    return facts


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], Result], names: Iterable[str]
) -> Iterator[tuple[str, Result]]:
    """Each name with what comes of it, in order; no more than a few are under way, however many there are."""
    waiting: deque[tuple[str, Future[Result]]] = deque()
    for name in names:
        waiting.append((name, pool.submit(work, name)))
        if len(waiting) > UNDER_WAY:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


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


def stamp_of(path: Source) -> Stamp | None:
    """What the file system tells of a file without opening it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(stamp: Stamp) -> bool:
    """Whether the last change is so long ago that another one would carry another time."""
    return time.time() - stamp[1] / 1e9 > SETTLED_SECONDS


class _Index:
    """The file of what was found. It only saves time: where it is damaged it counts as empty, and a full or
    read-only disk does not stop the run here.
    """

    def __init__(self, path: Path | None, header: Row) -> None:
        self.path = path
        self.header = header
        self.waiting: list[Row] = []

    def recall(self, stamps: Mapping[str, Stamp | None]) -> dict[str, Facts]:
        """What is known about files that are still the same; nothing where it was found under other settings."""
        if self.path is None:
            return {}
        try:
            rows = read_rows(self.path)
            note_use(self.path)
            if not rows or rows[0] != self.header:
                return {}
            return {
                row["file"]: Facts(row["width"], row["height"], row["digest"], row["problem"])
                for row in rows[1:]
                if row["file"] in stamps and stamps[row["file"]] == tuple(row["stamp"])
            }
        except (OSError, UnicodeDecodeError, UserError, KeyError, TypeError):
            return {}

    def begin(self, facts: Mapping[str, Facts], stamps: Mapping[str, Stamp | None]) -> None:
        """Write what is still true anew: a kill may have left half a line at the end."""
        if self.path is not None:
            with suppress(OSError):
                write_rows(self.path, [self.header, *(_row(name, stamps[name], facts[name]) for name in facts)])

    def add(self, name: str, stamp: Stamp | None, facts: Facts) -> None:
        """Remember one more; a kill loses those of the last moments, which are decoded again."""
        if stamp is not None and is_settled(stamp):
            self.waiting.append(_row(name, stamp, facts))
        if len(self.waiting) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.waiting)
        self.waiting.clear()
        if self.path is not None and lines:
            with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(lines)


def _row(name: str, stamp: Stamp | None, facts: Facts) -> Row:
    return {"file": name, "stamp": stamp, **facts._asdict()}
