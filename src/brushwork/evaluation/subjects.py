"""The pictures that everything is measured against: held-out references, and what was trained on.

References that were trained on would reward whoever learned them by heart, so they are refused.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brushwork.config.schema import DataConfig, Settings
from brushwork.data.folder import Dataset, Sample, read_dataset
from brushwork.data.folders import is_regularisation, read_folders
from brushwork.data.layout import held_out_part
from brushwork.data.picture import open_rgb
from brushwork.data.place import is_there
from brushwork.data.source import Source
from brushwork.data.split import hold_out
from brushwork.errors import UserError, listed
from brushwork.evaluation import copying
from brushwork.evaluation.candidates import Folder

logger = logging.getLogger("brushwork")

FEWEST = 3
"""References below this say nothing about how alike pictures of the subject are."""

SAME = 0.985
"""A correlation of small pictures from which one is taken for a copy of the other: saved anew, scaled, cut a little,
mirrored. Two different frames of one shot stay below it."""

LARGEST, LARGEST_LEARNED = 1024, 144
"""References, and training pictures, of which there may be thousands, are kept in memory at most this large."""


@dataclass(frozen=True)
class Shown:
    """A picture with its name, where it lies, and the digest of its file."""

    name: str
    source: Source
    digest: str
    image: Image.Image


@dataclass(frozen=True)
class Subjects:
    """References, and training pictures where they are known.

    Args:
        source: where the references come from, in words.
    """

    references: tuple[Shown, ...]
    training: tuple[Shown, ...]
    source: str


def read_subjects(folder: Folder | None, *, references: Path | None, training: Path | None) -> Subjects:
    """Read both and see that they are not the same.

    Raises:
        UserError: no references, too few, or references that were trained on.
    """
    learned, held_out = _of_run(folder) if training is None else (_pictures(training), [])
    return subjects_of(learned, held_out, references=references)


def subjects_of(learned: Sequence[Sample], held_out: Sequence[Sample], *, references: Path | None) -> Subjects:
    """The same, where it is known already what was trained on and what was held out."""
    found: Sequence[Sample]
    if references is not None:
        found, source = _pictures(references), str(references)
    elif held_out:
        found, source = held_out, "the pictures that the run held out"
    else:
        raise UserError(
            "there are no references, and the run held no pictures out.",
            fix="--references DIR, a folder of pictures of the subject that were not trained on",
        )
    if len(found) < FEWEST:
        raise UserError(
            f"{source}: {len(found)} pictures; with fewer than {FEWEST} nothing can be said about what is usual.",
            fix="hold out more pictures: 8 to 32 are good",
        )
    shown, known = _opened(found, LARGEST), _opened(learned, LARGEST_LEARNED)
    refuse_trained(shown, known, source=source)
    # No folders: a report is given away.
    named = source if references is None else references.resolve().name
    return Subjects(tuple(shown), tuple(known), named)


def refuse_trained(references: Sequence[Shown], training: Sequence[Shown], *, source: str) -> None:
    """Stop where a reference is a training picture, or nearly one."""
    if not training:
        return
    digests = {each.digest: each.name for each in training}
    small = [copying.all_small([each.image for each in some]) for some in (references, training)]
    nearest = copying.nearest(copying.by_pixels(*small))
    pairs = []
    for place, each in enumerate(references):
        if each.digest in digests:
            pairs.append(f"{each.name} is {digests[each.digest]}")
        elif float(nearest.similarity[place]) >= SAME:
            pairs.append(f"{each.name} is nearly {training[int(nearest.which[place])].name}")
    if pairs:
        raise UserError(
            f"{source}: {len(pairs)} of {len(references)} references were trained on ({listed(pairs)}). Judged by "
            "them, the file that has learned its pictures by heart would win.",
            fix="take other pictures of the subject as references, or train anew with these held out: "
            "brushwork train ... --validation DIR",
        )


def _of_run(folder: Folder | None) -> tuple[list[Sample], list[Sample]]:
    """What a run learned from, and what it held out."""
    if folder is None or folder.settings is None or "data" not in folder.description:
        return [], []
    settings, place = folder.settings, Path(folder.description["data"])
    if not is_there(place):
        raise UserError(
            f"the pictures of {folder.path} were in {place}, which is no longer there; without them nothing can be "
            "said about copying.",
            fix="--training DIR, where they are now",
        )
    dataset = read_folders(place, data=settings.data, read=lambda each, data: _read(each, data, settings))
    learned = [each for each in dataset.samples if not is_regularisation(settings.data, each)]
    return _parted(place, Dataset(dataset.root, tuple(learned)), settings)


def _parted(place: Path, dataset: Dataset, settings: Settings) -> tuple[list[Sample], list[Sample]]:
    """What was learned from, and what the held-out loss was measured on, as `brushwork train` parts them.

    Only a share is taken out of them: what also lies in a folder of held-out ones is learned all the same.
    """
    wanted, learned = settings.validation.data, list(dataset.samples)
    if wanted is None:
        prepared = held_out_part(place)
        return learned, [] if prepared is None else list(_read(prepared, _bare(settings.data), settings).samples)
    try:
        share = float(wanted)
    except ValueError:
        return learned, list(_read(Path(wanted), _bare(settings.data), settings).samples)
    kept, held_out = hold_out(dataset, share, settings.train.seed)
    return list(kept.samples), list(held_out.samples)


def _pictures(place: Path) -> list[Sample]:
    return list(_read(place, DataConfig(max_missing_captions=1.0), None).samples)


def _read(place: Path, data: DataConfig, settings: Settings | None) -> Dataset:
    """Pictures; their captions do not matter here."""
    offline = settings is not None and settings.model.offline
    return read_dataset(place, data=data.model_copy(update={"max_missing_captions": 1.0}), offline=offline)


def _bare(data: DataConfig) -> DataConfig:
    return data.model_copy(update={"folders": ()})


def _opened(samples: Sequence[Sample], largest: int) -> list[Shown]:
    defaults = DataConfig()
    shown = []
    for sample in samples:
        image = open_rgb(sample.path, background=defaults.background, max_pixels=defaults.max_pixels)
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        shown.append(Shown(sample.name, sample.path, sample.digest, image))
    return shown
