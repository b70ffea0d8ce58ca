"""What a detector finds in many picture files, each looked at once: kept by the file's content and by the detector.

CACHE/detections/NAME.jsonl    a row for each picture: its digest, width and height, what was found
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brushwork.config.schema import DataConfig
from brushwork.data.picture import BadPictureError, open_rgb
from brushwork.data.scan import decoding_threads, in_order
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.progress import Progress
from brushwork.records import Row
from brushwork.vision.detector import Box, Detector, Seen

AT_ONCE = 32
"""Rows that are written down together."""


@dataclass(frozen=True)
class Detected:
    """What was found in one picture of so many pixels."""

    width: int
    height: int
    things: tuple[Seen, ...]


def detect_files(
    detector: Detector,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    cache_folder: Path | None,
    data: DataConfig,
    group: Group,
    on_progress: Progress,
) -> dict[str, Detected]:
    """Look at every file, by name; what the cache knows is not opened. Each process of a group gets all."""
    told = f"{detector.fingerprint}/{data.background}"
    name = hashlib.sha256(told.encode()).hexdigest()[:32]
    path = None if cache_folder is None else cache_folder / "detections" / f"{name}.jsonl"
    known = group.from_first(_read(path) if group.is_first else {})
    by_digest = {digests[name]: file for name, file in files.items() if digests[name] not in known}
    mine = {digest: by_digest[digest] for digest in group.share(list(by_digest))}
    before, rows = len(by_digest), []
    on_progress(len(files) - before, len(files))

    def opened(digest: str) -> Image.Image:
        return _open(mine[digest], data)

    found: dict[str, Detected] = {}
    with decoding_threads() as pool:
        for count, (digest, picture) in enumerate(in_order(pool, opened, mine), start=1):
            found[digest] = Detected(picture.width, picture.height, tuple(detector.detect(picture)))
            rows.append(_row(digest, found[digest]))
            if len(rows) == AT_ONCE:
                _write(path, rows)
                rows = []
            on_progress(min(len(files), len(files) - before + count * group.size), len(files))
    _write(path, rows)
    for part in group.gathered(found):
        known.update(part)
    return {name: known[digests[name]] for name in files}


def _open(file: Path, data: DataConfig) -> Image.Image:
    try:
        return open_rgb(file, background=data.background, max_pixels=data.max_pixels)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.", fix="start again") from error
    except BadPictureError as error:
        raise UserError(f"{file} cannot be used: {error}.", fix="take it away, or save it again") from error


def _row(digest: str, found: Detected) -> Row:
    things = [[each.label, round(each.score, 4), [round(side, 1) for side in each.box]] for each in found.things]
    return {"digest": digest, "width": found.width, "height": found.height, "things": things}


def _read(path: Path | None) -> dict[str, Detected]:
    """The file only saves time: a damaged row is passed by."""
    found: dict[str, Detected] = {}
    if path is not None:
        with suppress(OSError, UnicodeDecodeError):
            for line in path.read_text(encoding="utf-8").split("\n"):
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    things = tuple(Seen(label, score, Box(*box)) for label, score, box in row["things"])
                    found[row["digest"]] = Detected(row["width"], row["height"], things)
    return found


def _write(path: Path | None, rows: Sequence[Row]) -> None:
    """In one piece that begins on a line of its own: a kill may have left half a line. A full disk stops nothing."""
    if path is None or not rows:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + "".join(json.dumps(row) + "\n" for row in rows))
