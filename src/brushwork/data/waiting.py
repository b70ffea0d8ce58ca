"""Waiting until every picture has its caption: captions are often written by another program, for hours."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from brushwork.config.schema import DataConfig
from brushwork.data.folders import settings_of
from brushwork.data.forms import find_pictures
from brushwork.errors import listed
from brushwork.progress import progress_bar

SECONDS = 5.0
"""Between two looks at the folder."""


def wait_for_captions(place: Path, *, data: DataConfig, console: Console, seconds: float | None = None) -> None:
    """Return once every picture of `place` and of `data.folders` has a caption of its own that is not empty.

    The name of a folder (`10_luca`) or a class prompt is no caption here: it is what pictures have in the meantime.
    """
    places = [place, *(Path(folder.path).expanduser() for folder in data.folders)]
    with progress_bar(console, "waiting for captions", 0) as advance:
        while True:
            total, bare = _look(places, data)
            advance(total - len(bare), total, f"none yet: {listed(bare, limit=2)}" if bare else "")
            if not bare:
                return
            time.sleep(SECONDS if seconds is None else seconds)


def _look(places: Sequence[Path], data: DataConfig) -> tuple[int, list[str]]:
    """How many pictures there are, and the names of those that have no words yet."""
    total, bare = 0, []
    for number, place in enumerate(places):
        layout = find_pictures(place, data=settings_of(data, number), tolerant=True)
        total += len(layout.pictures)
        bare += [
            name
            for name, picture in layout.pictures.items()
            if not picture.caption or (picture.caption_file is None and picture.caption == picture.class_tokens)
        ]
    return total, bare
