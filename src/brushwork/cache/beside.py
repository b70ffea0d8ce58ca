"""What the cache folder holds beside the entries of `store.py`, all of which can be made again.

    FOLDER/embeddings/ENCODER/....safetensors   FOLDER/measures/....jsonl   FOLDER/thumbnails/ab/....jpg
    FOLDER/datasets/....jsonl

Each is written where it is needed; here is only how room is made. Two kinds stay, of less than a kilobyte each: the
digests of bases, and the lists of what was fetched from the hub, without which a data set is not found offline.
"""

import re
import time
from contextlib import suppress
from pathlib import Path

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.cache.store import Removed
from brushwork.places import DAY

KINDS = {
    "embeddings": re.compile(r"[0-9a-f]{32}/[0-9a-f]{32}\.safetensors"),
    "measures": re.compile(r"[0-9a-f]{32}\.jsonl"),
    "thumbnails": re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.jpg"),
    "datasets": re.compile(r"[0-9a-f]{32}\.jsonl"),
}
"""Folder and what its files are called; files of other names are never touched."""


def prune_beside(folder: Path, *, unused_days: float) -> dict[str, Removed]:
    """Remove the files of each kind that nothing has read for so many days, all of them with 0; -> how many."""
    limit = time.time() - unused_days * DAY
    return {kind: _prune(folder / kind, name, limit) for kind, name in KINDS.items()}


def _prune(folder: Path, name: re.Pattern[str], limit: float) -> Removed:
    removed = num_bytes = 0
    for file in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # another run removed it meanwhile
            status = file.stat()
            place = file.relative_to(folder).as_posix()
            whole = name.fullmatch(place) is not None
            # What a kill left half written; a younger one may belong to a run that is writing it now.
            half = name.match(place) and place.endswith(PARTIAL_SUFFIX) and status.st_mtime < time.time() - DAY
            if (whole and status.st_mtime <= limit) or half:
                file.unlink()
                removed += whole
                num_bytes += status.st_size
    return Removed(removed, num_bytes)
