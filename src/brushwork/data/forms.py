"""Which form a data set has, and who reads it.

a folder of pictures            `layout.py`
tar shards                      `webdataset.py`: a folder that holds them, at any depth, or one, or a pattern
parquet files                   `parquet.py`: likewise
hf:OWNER/NAME                   `huggingface.py` fetches it; then it is one of the above
"""

from collections.abc import Sequence
from pathlib import Path

from brushwork.config.schema import DataConfig
from brushwork.data.huggingface import fetched, training_files
from brushwork.data.layout import CONTAINERS, Layout, counted, read_layout, training_part
from brushwork.data.mask_files import leave_out_masks
from brushwork.data.parquet import TABLE, read_tables
from brushwork.data.place import fixed_part, is_hub_place, is_pattern, matching_files
from brushwork.data.reviews import heed_reviews
from brushwork.data.webdataset import SHARD, compressed_shards, read_shards
from brushwork.errors import UserError, listed


def find_pictures(
    place: Path, *, data: DataConfig, offline: bool = False, tolerant: bool = False, reviewed: bool = True
) -> Layout:
    """Every picture of a data set and the caption that belongs to it; no picture is opened.

    What a person refused in `review.jsonl` is left out, and the parts to be used of the others are noted.

    Args:
        place: as the user named it.
        offline: do not ask the hub.
        tolerant: of a folder, gather the captions that cannot be read, instead of stopping at the first.
        reviewed: whether the review counts; it does not for the one who reviews.
    """
    layout = _found(place, data=data, offline=offline, tolerant=tolerant)
    leave_out_masks(layout, data.masks)
    if reviewed:
        heed_reviews(layout)
    return layout


def _found(place: Path, *, data: DataConfig, offline: bool, tolerant: bool) -> Layout:
    if is_hub_place(place):
        folder, files = fetched(place, offline=offline)
        return _containers(place, files, below=folder, data=data) if files else _folder(place, folder, data)
    if is_pattern(place):
        return _containers(place, matching_files(place), below=fixed_part(place.expanduser()), data=data)
    if place.is_file() and place.name.lower().endswith(CONTAINERS):
        return _containers(place, [place], below=place.parent, data=data)
    root = training_part(place)
    return _folder(root, root, data, tolerant=tolerant)


def _folder(root: Path, folder: Path, data: DataConfig, *, tolerant: bool = False) -> Layout:
    """Pictures in a folder, else what holds pictures in it."""
    layout = read_layout(
        folder,
        repeats=data.repeats,
        caption_extension=data.caption_extension,
        all_lines=data.wildcards,
        tolerant=tolerant,
    )
    if not layout.containers:
        return layout
    names = [layout.name(file) for file in layout.containers]
    if not layout.pictures:
        wanted = training_files(names)
        found = _containers(root, [folder / name for name in wanted], below=folder, data=data)
        if others := [name for name in names if name not in wanted]:
            found.notes.append(counted("left out, for testing or validation by their names", others))
        return found
    ending = Path(names[0]).suffix
    layout.notes.append(
        counted("left out, archives beside the pictures", names) + f"; to train on them: '{folder}/**/*{ending}'"
    )
    return layout


def _containers(root: Path, files: Sequence[Path], *, below: Path, data: DataConfig) -> Layout:
    """Shards or tables, all of one kind."""
    kinds = {_kind(file) for file in files}
    if kinds == {SHARD}:
        return read_shards(root, files, below=below, data=data)
    if kinds == {TABLE}:
        return read_tables(root, files, below=below, data=data)
    if odd := [file for file in files if _kind(file) is None]:
        if all(".t" in file.name for file in odd):
            raise compressed_shards(odd)
        raise UserError(
            f"{root} names files that are neither .tar shards nor .parquet: {listed([file.name for file in odd])}.",
            fix="name the folder of the pictures, or 'DIR/*.tar'",
        )
    raise UserError(
        f"{root} holds tar shards and parquet files: {listed([file.name for file in files])}.",
        fix=f"name those that are meant: '{below}/**/*{SHARD}' or '{below}/**/*{TABLE}'",
    )


def _kind(file: Path) -> str | None:
    ending = file.suffix.lower()
    return ending if ending in (SHARD, TABLE) else None
