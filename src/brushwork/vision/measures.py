"""Many picture files are measured, each once: several processes share the work, and what was found is kept.

    CACHE/measures/NAME.jsonl    a row for each file: where it lies, when it was changed, its digest and measures

A file that has not changed is not opened again; one that lies elsewhere or has another name is read, but its picture
is not measured again. Rows are only ever added, those of a few seconds at a time.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL

from brushwork.data.picture import UNREADABLE, BadPictureError, open_rgb
from brushwork.data.scan import Stamp, is_settled, stamp_of
from brushwork.places import note_use
from brushwork.progress import Progress
from brushwork.records import Row
from brushwork.vision import quality
from brushwork.vision.dissolves import small_copy
from brushwork.vision.duplicates import perceptual_hash, pixel_digest
from brushwork.vision.quality import Quality
from brushwork.vision.sharing import answers

FORM = 2
"""Raised when what is kept of a file changes."""
FLUSH_SECONDS = 2.0
FEW = 48
"""So few are measured here: to start a process takes as long."""
AT_ONCE = 8
"""Pictures for which another process is worth starting."""


@dataclass(frozen=True)
class Measured:
    """What is known of one file: either `quality` and the fingerprints of the picture, or the `problem`."""

    digest: str
    """SHA-256 of the file's bytes; empty where they could not be read."""
    quality: Quality | None = None
    pixels: str = ""
    """Digest of the decoded pixels."""
    look: str = ""
    """The perceptual hash, in hexadecimal digits."""
    small: str = ""
    """The picture at 16 x 16 pixels, for what its neighbours in time tell."""
    problem: str | None = None

    def record(self) -> Row:
        """As plain values."""
        return {
            "digest": self.digest,
            "quality": self.quality.record() if self.quality else None,
            "pixels": self.pixels,
            "look": self.look,
            "small": self.small,
            "problem": self.problem,
        }


def _recalled(row: Mapping[str, Any]) -> Measured:
    found = row["quality"]
    return Measured(
        row["digest"],
        Quality(**found) if found else None,
        row["pixels"],
        row["look"],
        row["small"],
        row["problem"],
    )


def measure_files(
    files: Mapping[str, Path],
    *,
    background: str = "white",
    max_pixels: int = 178_956_970,
    cache_folder: Path | None = None,
    processes: int | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Measured]:
    """Measure every file, by name and in their order. One that cannot be read has its reason, and ends nothing.

    Args:
        background: what transparent parts are laid on.
        max_pixels: larger pictures are not decoded.
        cache_folder: where what was measured is kept; None to remember nothing.
        processes: how many share the work; by default one for each core.
    """
    memory = _Memory(cache_folder, background, max_pixels)
    stamps = {name: stamp_of(file) for name, file in files.items()}
    found = {name: known for name, file in files.items() if (known := memory.of_file(_place(file), stamps[name]))}
    report = on_progress or (lambda done, total: None)
    report(len(found), len(files))
    missing = {name: file for name, file in files.items() if name not in found}
    work = partial(_look_at, background=background, max_pixels=max_pixels, known=frozenset(memory.by_digest))
    try:
        for name, measured in _shared_out(work, missing, processes or _num_cores()):
            found[name] = memory.by_digest[measured.digest] if isinstance(measured, _Known) else measured
            memory.add(_place(files[name]), stamps[name], found[name])
            report(len(found), len(files))
    finally:
        memory.flush()
    return {name: found[name] for name in files}


def _place(file: Path) -> str:
    return os.path.abspath(file)  # noqa: PTH100  a link is a file of its own


@dataclass(frozen=True)
class _Known:
    """The bytes are those of a picture that was measured before."""

    digest: str


def _look_at(file: Path, *, background: str, max_pixels: int, known: frozenset[str]) -> "Measured | _Known":
    """Read, decode and measure one file. Whatever is wrong with it comes back as its problem."""
    if file.suffix.lower() in UNREADABLE:
        return Measured("", problem=f"{file.suffix} pictures are not read; save it as PNG or JPEG")
    try:
        data = file.read_bytes()
    except OSError as error:
        return Measured("", problem=error.strerror or str(error))
    digest = hashlib.sha256(data).hexdigest()
    if digest in known:
        return _Known(digest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and of large pictures
            picture = open_rgb(data, background=background, max_pixels=max_pixels)
        return Measured(
            digest,
            quality.measure(picture),
            pixel_digest(picture),
            perceptual_hash(picture).hex(),
            small_copy(picture),
        )
    except BadPictureError as error:
        return Measured(digest, problem=str(error))
    except MemoryError:
        return Measured(digest, problem="there was not enough memory to decode it")


Look = partial["Measured | _Known"]


def _shared_out(look: Look, files: Mapping[str, Path], processes: int) -> Iterator[tuple[str, "Measured | _Known"]]:
    """Each file with what came of it, as it comes. What no other process answers for is measured here."""
    todo = dict(files)
    if processes > 1 and len(todo) > FEW:
        task = {"background": look.keywords["background"], "max_pixels": look.keywords["max_pixels"]}
        questions = {name: str(file) for name, file in files.items()}
        task["known"] = sorted(look.keywords["known"])
        with answers(__name__, task, questions, min(processes, len(files) // AT_ONCE)) as found:
            for name, row in found:
                del todo[name]
                yield name, _Known(row["known"]) if "known" in row else _recalled(row)
    for name, file in todo.items():
        yield name, look(file)


def answer(task: Row) -> Callable[[str], Row]:
    """In a process that shares the work: what it answers when it is given a path."""
    background, max_pixels, known = task["background"], task["max_pixels"], frozenset(task["known"])

    def look(path: str) -> Row:
        found = _look_at(Path(path), background=background, max_pixels=max_pixels, known=known)
        return {"known": found.digest} if isinstance(found, _Known) else found.record()

    return look


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Memory:
    """The file of what was measured. It only saves time: a damaged row is passed by, and a full or read-only disk
    does not stop the work."""

    def __init__(self, folder: Path | None, background: str, max_pixels: int) -> None:
        settings = json.dumps([FORM, quality.SCHEMA, background, max_pixels, PIL.__version__])
        name = hashlib.sha256(settings.encode()).hexdigest()[:32]
        self.path = None if folder is None else folder / "measures" / f"{name}.jsonl"
        self.by_digest: dict[str, Measured] = {}
        self._by_place: dict[str, tuple[Stamp, Measured]] = {}
        self._waiting: list[Row] = []
        self._since = time.monotonic()
        for line in self._lines():
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                self._learn(row["place"], tuple(row["stamp"]), _recalled(row))

    def _lines(self) -> list[str]:
        if self.path is not None:
            with suppress(OSError, UnicodeDecodeError):
                note_use(self.path)
                return self.path.read_text(encoding="utf-8").split("\n")
        return []

    def _learn(self, place: str, stamp: Stamp, measured: Measured) -> None:
        self._by_place[place] = (stamp, measured)
        if measured.digest:
            self.by_digest[measured.digest] = measured

    def of_file(self, place: str, stamp: Stamp | None) -> Measured | None:
        """What is known of a file that has not changed since."""
        known = self._by_place.get(place)
        return known[1] if known and known[0] == stamp else None

    def add(self, place: str, stamp: Stamp | None, measured: Measured) -> None:
        """Remember one more. What could not be read may be readable the next time."""
        if measured.digest:
            self.by_digest[measured.digest] = measured
            if stamp is not None and is_settled(stamp):
                self._waiting.append({"place": place, "stamp": stamp, **measured.record()})
        if time.monotonic() - self._since > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in one piece that begins on a line of its own: a kill may have left half a line."""
        rows, self._waiting, self._since = self._waiting, [], time.monotonic()
        if self.path is None or not rows:
            return
        text = "\n" + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
