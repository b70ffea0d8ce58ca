"""The pictures that show what is wanted, and those that show what is not: `--references` and `--not`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brushwork.config.schema import DataConfig
from brushwork.data.layout import PictureFile, counted, read_layout
from brushwork.data.picture import READABLE
from brushwork.data.reviews import heed_reviews
from brushwork.data.scan import scan
from brushwork.errors import UserError, listed


@dataclass(frozen=True)
class Examples:
    """Readable pictures, each once."""

    folder: Path
    files: Mapping[str, Path]
    """By name below the folder."""
    digests: Mapping[str, str]
    notes: tuple[str, ...]


def read_examples(folder: Path, *, what: str, data: DataConfig) -> Examples:
    """Every picture in a folder that can be read.

    Args:
        what: what they are called in messages: `references`.

    Raises:
        UserError: there is none.
    """
    files, notes = pictures_of(folder, data=data)
    notes = [f"{what}: {note}" for note in notes]
    facts = scan(files, max_pixels=data.max_pixels, index=None)
    broken = [f"{name}: {found.problem}" for name, found in facts.items() if found.problem is not None]
    if broken:
        notes.append(f"{what} that cannot be used: {len(broken)} ({listed(broken)})")
    if len(broken) == len(files):
        told = f": none of its {len(files)} pictures can be used ({listed(broken)})" if files else " holds no picture"
        raise UserError(
            f"{folder}{told}; it was named for the {what}.",
            fix=f"name a folder that holds {', '.join(sorted(READABLE))} files",
        )
    first: dict[str, str] = {}
    for name, found in facts.items():
        if found.problem is None:
            first.setdefault(found.digest, name)
    twins = len(files) - len(broken) - len(first)
    if twins:
        notes.append(f"{what} that are copies of others, and count once: {twins}")
    digests = {name: digest for digest, name in first.items()}
    return Examples(folder, {name: files[name] for name in digests}, digests, tuple(notes))


def pictures_of(folder: Path, *, data: DataConfig) -> tuple[dict[str, Path], list[str]]:
    """Every picture below a folder by its name there, without those that a review refused, and what is to be told."""
    found, notes = with_captions(folder, data=data)
    return {name: _path(picture) for name, picture in found.items()}, notes


def with_captions(folder: Path, *, data: DataConfig) -> tuple[dict[str, PictureFile], list[str]]:
    """The same, each with the caption that lies beside it."""
    if not folder.is_dir():
        there = "this is a file" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: a folder of pictures was expected, {there}.", fix="check the path")
    layout = read_layout(folder, repeats=1, caption_extension=data.caption_extension, tolerant=True)
    heed_reviews(layout)
    notes = [note for note in layout.notes if note.startswith(("left out", "refused"))]
    if cropped := [name for name, picture in layout.pictures.items() if picture.crop is not None]:
        notes.append(counted("cropped by a review, and looked at as a whole here", cropped))
    return dict(layout.pictures), notes


def _path(picture: PictureFile) -> Path:
    assert isinstance(picture.path, Path)  # a folder's pictures are files of their own
    return picture.path


def refuse_common(references: Examples, others: Examples) -> None:
    """A picture cannot be an example of both."""
    names = {digest: name for name, digest in references.digests.items()}
    both = [f"{names[digest]} = {name}" for name, digest in others.digests.items() if digest in names]
    if both:
        raise UserError(
            f"{len(both)} pictures are references and counter-examples at once: {listed(both)}.",
            fix=f"take them out of {references.folder} or of {others.folder}",
        )
