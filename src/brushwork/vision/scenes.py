"""Which pictures of a set belong to one scene, so that none of them is held out while another is trained.

A scene is what hangs together: pictures that look nearly alike, that `curation.jsonl` puts into one group, or whose
names say so (`scene_012_0003.png`, `Shot 7/...`).
"""

import re
from collections.abc import Hashable, Iterable, Iterator

from brushwork.config.schema import DataConfig
from brushwork.data.folder import Dataset, Sample
from brushwork.data.picture import open_rgb
from brushwork.data.scan import decoding_threads, in_order
from brushwork.progress import Progress
from brushwork.records import read_rows
from brushwork.vision.duplicates import Looks, bits_of, near_pairs, perceptual_hash

CURATION = "curation.jsonl"

_SCENE = re.compile(r".*?(?<![a-z])(?:scene|shot|clip|take)[-_ ]?\d+", re.IGNORECASE | re.DOTALL)


def scenes_of(
    dataset: Dataset, *, distance: float, data: DataConfig, on_progress: Progress | None = None
) -> dict[str, int]:
    """The number of each picture's scene, by the picture's name.

    Args:
        distance: share of the bits of their hashes in which pictures that look nearly alike differ at most.
    """
    samples = {sample.name: sample for sample in dataset.samples}
    names = list(samples)
    hashes = []
    with decoding_threads() as pool:
        for _, found in in_order(pool, lambda name: _hash(samples[name], data), names):
            hashes.append(found)
            if on_progress is not None:
                on_progress(len(hashes), len(names))
    alike = near_pairs(Looks(bits_of(hashes), distance)).tolist()
    together = _Together(len(names))
    for first, second in alike:
        together.join(first, second)
    for key_of in (_scene_in_name, _groups(dataset).get):
        for first, second in _same([key_of(name) for name in names]):
            together.join(first, second)
    return {name: together.leader(place) for place, name in enumerate(names)}


def _hash(sample: Sample, data: DataConfig) -> bytes:
    picture = open_rgb(sample.path.read_bytes(), background=data.background, max_pixels=data.max_pixels)
    return perceptual_hash(picture.crop(sample.crop.box) if sample.crop else picture)


def _scene_in_name(name: str) -> str | None:
    """`film/scene_012` of `film/scene_012_0003.png`"""
    found = _SCENE.match(name)
    return found[0].lower() if found else None


def _groups(dataset: Dataset) -> dict[str, int]:
    """The groups of near-duplicates that `brushwork curate` found."""
    path = dataset.root / CURATION
    rows = read_rows(path) if path.is_file() else []
    return {row["file"]: row["group"] for row in rows if row.get("group") is not None and "file" in row}


def _same(keys: Iterable[Hashable | None]) -> Iterator[tuple[int, int]]:
    """Places with the same key, each with the first."""
    first: dict[Hashable, int] = {}
    for place, key in enumerate(keys):
        if key is not None:
            yield first.setdefault(key, place), place


class _Together:
    """Places that hang together, also by way of others."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def leader(self, place: int) -> int:
        """The same place for all that hang together."""
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def join(self, first: int, second: int) -> None:
        """These two hang together from now on."""
        one, other = sorted((self.leader(first), self.leader(second)))
        self._above[other] = one
