"""Pictures as the page shows them: made when they are first asked for, and kept outside the set.

    thumb     at most 320 pixels long, for the grid
    screen    at most 1600, one at a time
    full      every pixel, to look closely

Kept in the user's cache folder under `thumbnails/`, named by the file's place, size and time, so that a picture that
was replaced is made anew. They may be removed at any time.
"""

import hashlib
import io
import os
import threading
from contextlib import suppress
from pathlib import Path

from PIL import Image

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.data.picture import open_rgb
from brushwork.data.source import Source
from brushwork.places import note_use, user_cache_folder

SIDES = {"thumb": 320, "screen": 1600, "full": None}
"""The longest side of each kind, in pixels."""
MEDIA_TYPE = "image/jpeg"
JPEG_END = b"\xff\xd9"


class Renderings:
    """Makes and keeps what the page shows of pictures.

    Args:
        max_pixels: what is larger is not opened.
    """

    def __init__(self, *, max_pixels: int) -> None:
        self.folder = user_cache_folder() / "thumbnails"
        self.max_pixels = max_pixels
        self._at_once = threading.Semaphore(max(2, (os.cpu_count() or 2) - 1))

    def read(self, source: Source, kind: str) -> bytes:
        """A picture as JPEG.

        Raises:
            BadPictureError: it cannot be shown; the text says why.
            OSError: the file is gone.
        """
        status = source.stat()
        about = f"{source} {status.st_size} {status.st_mtime_ns} {kind}"
        name = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()
        file = self.folder / name[:2] / f"{name}.jpg"
        with suppress(OSError):
            data = file.read_bytes()
            if data.endswith(JPEG_END):
                note_use(file)
                return data
        with self._at_once:
            data = self._made(source, kind)
        if kind != "full":
            _keep(file, data)
        return data

    def _made(self, source: Source, kind: str) -> bytes:
        image = open_rgb(source, background="#808080", max_pixels=self.max_pixels)
        side = SIDES[kind]
        if side is not None:
            image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        written = io.BytesIO()
        image.save(written, format="JPEG", quality=80 if kind == "thumb" else 92)
        return written.getvalue()


def _keep(file: Path, data: bytes) -> None:
    """Not forced to the disk, which would take longer than to make it: half a file is known by its missing end.

    A full disk costs time and nothing else.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL_SUFFIX}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def picture_size(source: Source) -> tuple[int, int] | None:
    """Width and height after EXIF turned it, from the header of the file; None where it cannot be read."""
    try:
        with Image.open(Path(source) if isinstance(source, Path) else io.BytesIO(source.read_bytes())) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # what decoders raise on a damaged file is of a dozen types
        return None
    return (height, width) if turned else (width, height)
