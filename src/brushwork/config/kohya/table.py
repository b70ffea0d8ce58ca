"""Every key of kohya's files, by its name."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from brushwork.config.kohya.files import LOGS, SAMPLES, SAVING, VALIDATION
from brushwork.config.kohya.key import Key
from brushwork.config.kohya.loop import LOOP, LOSS
from brushwork.config.kohya.network import ADAPTER, BASE
from brushwork.config.kohya.optimizer import OPTIMIZER
from brushwork.config.kohya.pictures import CACHING, CAPTIONS, PLACES, SETS, SIZES, WINDOWS

GROUPS: Mapping[str, list[Key]] = MappingProxyType(
    {
        "The base": BASE,
        "The adapter": ADAPTER,
        "Optimizer and schedule": OPTIMIZER,
        "The loop": LOOP,
        "Loss and noise": LOSS,
        "Pictures": PLACES,
        "Captions": CAPTIONS,
        "Sizes, crops and masks": SIZES,
        "Caches": CACHING,
        "In files for data sets": SETS,
        "Saving": SAVING,
        "Pictures on the way": SAMPLES,
        "Measuring": VALIDATION,
        "Logs and metadata": LOGS,
        "Written by windows around kohya's program": WINDOWS,
    }
)
"""The rows, under the headings that the documentation has."""


def _rows() -> Iterator[Key]:
    for rows in GROUPS.values():
        yield from rows


TABLE: Mapping[str, Key] = MappingProxyType({key.name: key for key in _rows()})
"""In the order in which keys are taken: none decides over another's setting."""
