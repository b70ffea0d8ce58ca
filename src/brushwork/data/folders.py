"""Several folders as one data set: the one that the command names and those of `data.folders`, each read its own way.

Regularisation pictures show what the subject's class looks like without the subject. They are seen as often as the
pictures that are learned, their loss weighs `loss.prior_weight`, and nothing of them is held out.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from brushwork.config.schema import DataConfig, FolderConfig
from brushwork.data.folder import Dataset, Quarantined, Sample
from brushwork.data.layout import counted
from brushwork.errors import UserError

OF_A_FOLDER = tuple(name for name in FolderConfig.model_fields if name in DataConfig.model_fields)
"""What a folder may say for itself; what it leaves out is as `[data]` says."""

_OF_THE_SUBJECT = ("caption_prefix", "caption_suffix", "class_prompt")
"""What regularisation pictures never take over from `[data]`: they do not show the subject."""


def settings_of(data: DataConfig, number: int) -> DataConfig:
    """How the pictures of a folder are read: 0 is the one that the command names, 1 the first of `data.folders`."""
    if number == 0:
        return data
    folder = data.folders[number - 1]
    values = {name: getattr(folder, name) for name in OF_A_FOLDER}
    own = {name: value for name, value in values.items() if value is not None}
    cleared = dict.fromkeys(_OF_THE_SUBJECT, "") if folder.regularisation else {}
    return data.model_copy(update={**cleared, **own, "folders": ()})


def is_regularisation(data: DataConfig, sample: Sample) -> bool:
    """Whether a picture stands for its class, and is not learned."""
    return sample.folder > 0 and data.folders[sample.folder - 1].regularisation


def read_folders(place: Path, *, data: DataConfig, read: Callable[[Path, DataConfig], Dataset]) -> Dataset:
    """Read the folder that the command names, and all of `data.folders`.

    Args:
        read: reads one folder with its own settings.

    Raises:
        UserError: a folder is not there, is listed twice, or holds pictures of another one.
    """
    places = [place, *(Path(folder.path).expanduser() for folder in data.folders)]
    _refuse_twins(places)
    parts = [read(place, settings_of(data, 0))]
    for number, folder in enumerate(places[1:], start=1):
        try:
            parts.append(read(folder, settings_of(data, number)))
        except UserError as error:
            raise UserError(f"data.folders, folder {number}: {error.problem}", fix=error.fix) from error
    _refuse_overlap(places, parts)
    return _joined(parts, _names(places))


def balance(samples: Sequence[Sample], data: DataConfig) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples with regularisation pictures repeated until they are seen as often as the others, as kohya does it;
    and what a person should know about it.

    Where there are more of them than that, they are taken at even distances; the rest is not seen.
    """
    learned = [sample for sample in samples if not is_regularisation(data, sample)]
    classes = [sample for sample in samples if is_regularisation(data, sample)]
    if not classes:
        return tuple(samples), ()
    wanted = sum(sample.repeats for sample in learned)
    counts = _balanced([sample.repeats for sample in classes], wanted)
    used = [replace(sample, repeats=count) for sample, count in zip(classes, counts, strict=True) if count]
    notes = [
        f"regularisation: {len(used)} pictures are seen {wanted} times an epoch, as often as those to be learned"
    ]
    if unused := [sample.name for sample, count in zip(classes, counts, strict=True) if not count]:
        notes.append(counted("regularisation pictures that are not seen, for there are more than needed", unused))
    return (*learned, *used), tuple(notes)


def _balanced(repeats: Sequence[int], wanted: int) -> list[int]:
    """How often each is seen, `wanted` times in all: evenly more, or evenly fewer, than `repeats` says."""
    total = sum(repeats)
    if total <= wanted:
        each, rest = divmod(wanted - total, len(repeats))
        return [count + each + (number < rest) for number, count in enumerate(repeats)]
    entries = [number for number, count in enumerate(repeats) for _ in range(count)]
    taken = Counter(entries[position * total // wanted] for position in range(wanted))
    return [taken[number] for number in range(len(repeats))]


def _refuse_twins(places: Sequence[Path]) -> None:
    seen: dict[str, int] = {}
    for number, place in enumerate(places):
        real = os.path.realpath(place.expanduser())
        if real in seen:
            first = "the folder of the command" if seen[real] == 0 else f"folder {seen[real]} of data.folders"
            raise UserError(
                f"data.folders, folder {number}: {place} is also {first}, so its pictures would be read twice.",
                fix="take it out; to see its pictures more often, set its repeats",
            )
        seen[real] = number


def _refuse_overlap(places: Sequence[Path], parts: Sequence[Dataset]) -> None:
    """A folder inside another is read with it."""
    owner: dict[str, int] = {}
    for number, part in enumerate(parts):
        for sample in part.samples:
            first = owner.setdefault(os.path.realpath(str(sample.path)), number)
            if first != number:
                raise UserError(
                    f"data.folders, folder {number}: {sample.path} is read with {places[first]} already.",
                    fix=f"move {places[number]} out of {places[first]}, or take it off the list",
                )


def _names(places: Sequence[Path]) -> list[str]:
    """What the folders are called in messages: the last parts of their paths, told apart by a number."""
    names: list[str] = []
    for place in places:
        name = place.expanduser().resolve().name or "data"
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _joined(parts: Sequence[Dataset], names: Sequence[str]) -> Dataset:
    """One data set; pictures of further folders carry their folder's name in front."""
    first = parts[0]
    samples, quarantined, notes = list(first.samples), list(first.quarantined), list(first.notes)
    missing, empty, refused = list(first.missing_captions), list(first.empty_captions), list(first.refused)
    for number, (part, name) in enumerate(zip(parts[1:], names[1:], strict=True), start=1):
        samples += [replace(each, name=f"{name}/{each.name}", folder=number) for each in part.samples]
        quarantined += [Quarantined(f"{name}/{bad.name}", bad.path, bad.reason) for bad in part.quarantined]
        notes += [f"{name}: {note}" for note in part.notes]
        for all_names, own in ((missing, part.missing_captions), (empty, part.empty_captions)):
            all_names += [f"{name}/{each}" for each in own]
        refused += [f"{name}/{each}" for each in part.refused]
    return Dataset(
        first.root,
        tuple(samples),
        tuple(quarantined),
        tuple(missing),
        tuple(empty),
        tuple(refused),
        tuple(notes),
    )
