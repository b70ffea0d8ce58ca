"""Which pictures lie in a folder, how often each is seen, and which words lie beside it. No picture is opened.

Three layouts, told apart by what is there (shards and tables are found in `forms.py`):

    plain      pictures at any depth, each with `NAME.txt` beside it, or named in a `metadata.jsonl`
    numbered   `10_luca/`, `1_background/`: kohya's; seen 10 times and once an epoch, `luca` is the caption of
               pictures that have none
    prepared   `train/` and `heldout/`, as `brushwork prepare` writes them; `train/` is read
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brushwork.data.captions import read_caption, read_metadata
from brushwork.data.picture import READABLE, UNREADABLE, Box
from brushwork.data.source import Source
from brushwork.errors import UserError, listed
from brushwork.run_files import DESCRIPTION_FILE, SETTINGS_FILE

METADATA = "metadata.jsonl"
CONTACT_SHEET = "contact-sheet.png"
"""What `brushwork generate` lays beside its pictures: an overview, and no picture of the set."""
OVERVIEWS = ("contact-kept.png", "contact-refused.png", "similarity.png")
"""What `brushwork curate` lays beside the pictures of its set: left out where `curation.jsonl` is with them."""
CURATED = "curation.jsonl"
MOST_REPEATS = 1000
"""A folder named `2023_holiday` means a year."""

_NUMBERED = re.compile(r"(\d+)_(.*)", re.DOTALL)
_CAPTION_ENDINGS = frozenset({".txt", ".caption", ".cap"})
CONTAINERS = (".tar", ".parquet", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_NOT_DATA = frozenset({"__MACOSX", "@eaDir", "lost+found"})
"""What archives and network drives put beside pictures."""


@dataclass
class PictureFile:
    """A picture before it is opened."""

    path: Source
    repeats: int
    class_tokens: str
    caption: str | None = None
    """None where there is none; empty where its file is empty."""
    caption_file: Path | None = None
    """Where it was read, if it lies beside the picture."""
    crop: Box | None = None
    """The part of it that is used; None for the whole."""


@dataclass
class Layout:
    """What a folder holds, by names below its root, with slashes."""

    root: Path
    all_lines: bool = False
    unreadable: dict[str, UserError] | None = None
    """Caption files that cannot be read; None where such a file ends the reading."""
    pictures: dict[str, PictureFile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sentences for the person about what was left out or is doubtful."""

    other_endings: Counter[str] = field(default_factory=Counter)
    """Files beside pictures that look like captions and do not end in `data.caption_extension`."""

    caption_hint: str = ""
    """Where else captions may be, if none was found."""

    containers: list[Path] = field(default_factory=list)
    """Files that hold many pictures: tar shards, parquet files."""

    metadata: dict[str, str] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    longer: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Pictures that a review took out."""

    def name(self, path: Path) -> str:
        """`10_luca/0001.png`"""
        return path.relative_to(self.root).as_posix()


def training_part(path: Path) -> Path:
    """The folder to train on: `train` of a prepared set, else the folder itself."""
    if not path.exists():
        raise UserError(f"{path}: there is no such folder.", fix="name the folder that holds the pictures")
    if not path.is_dir():
        raise UserError(f"{path}: a folder of pictures was expected, this is a file.", fix=f"name {path.parent}")
    return path / "train" if held_out_part(path) is not None else path


def held_out_part(path: Path) -> Path | None:
    """`heldout` of a prepared set, on which a run that is given the whole set is validated."""
    return path / "heldout" if (path / "train").is_dir() and (path / "heldout").is_dir() else None


def read_layout(
    root: Path, *, repeats: int, caption_extension: str, all_lines: bool = False, tolerant: bool = False
) -> Layout:
    """Find every picture below `root` and the caption that belongs to it.

    Args:
        repeats: how often pictures of a plain folder are seen in an epoch.
        all_lines: whether every line of a caption is one, not only the first.
        tolerant: gather the caption files that cannot be read, instead of stopping at the first.
    """
    layout = Layout(root, all_lines=all_lines, unreadable={} if tolerant else None)
    folders, loose = _entries(root)
    numbered = {folder: match for folder in folders if (match := _NUMBERED.fullmatch(folder.name))}
    ending = caption_extension.lower()
    if numbered:
        _tell_left_out(layout, [folder for folder in folders if folder not in numbered], loose)
        for folder, match in numbered.items():
            _read_numbered(layout, folder, int(match[1]), match[2].strip(), ending)
    else:
        for files in _walk(layout, root, set()):
            _read_files(layout, files, repeats=repeats, class_tokens="", ending=ending)
        _tell_number_of_root(layout, repeats)
    _give_other_captions(layout)
    tell_odd_captions(layout)
    return layout


def counted(what: str, names: Sequence[str]) -> str:
    """`captions without a picture: 2 (a.txt, b.txt)`"""
    return f"{what}: {len(names)} ({listed(names)})"


def same_name(name: str) -> str:
    """Names are compared in one Unicode form: macOS writes an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, by name, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not is_hidden(entry.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from error
    return [folder / name for name, is_dir in found if is_dir], [
        folder / name for name, is_dir in found if not is_dir
    ]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's data."""
    return name.startswith(".") or name in _NOT_DATA


def is_picture(file: Source) -> bool:
    """Whether the ending says so."""
    return file.suffix.lower() in READABLE | UNREADABLE and file.name != CONTACT_SHEET


def _walk(layout: Layout, folder: Path, seen: set[str]) -> Iterator[list[Path]]:
    """The files of every folder; links to folders are followed, but no folder is read twice."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    folders, files = _entries(folder)
    if {DESCRIPTION_FILE, SETTINGS_FILE} <= {file.name for file in files} and folder != layout.root:
        layout.notes.append(f"left out: {layout.name(folder)}, which is the folder of a run")
        return
    yield files
    for deeper in folders:
        yield from _walk(layout, deeper, seen)


def _read_numbered(layout: Layout, folder: Path, repeats: int, class_tokens: str, ending: str) -> None:
    """One `10_luca` folder. kohya reads the files in it and nothing deeper, and so the same is done here."""
    if repeats > MOST_REPEATS:
        raise UserError(
            f"{folder}: the number before `_` says how often each picture is seen in an epoch, and {repeats} is more "
            f"than {MOST_REPEATS}.",
            fix=f"rename the folder, e.g. to `1_{class_tokens}`",
        )
    if repeats == 0:
        layout.notes.append(f"left out: {folder.name}, whose number of repeats is 0")
        return
    deeper, files = _entries(folder)
    if deeper:
        names = [entry.name for entry in deeper]
        layout.notes.append(counted(f"left out, folders inside {folder.name}, for numbered folders are flat", names))
    _read_files(layout, files, repeats=repeats, class_tokens=class_tokens, ending=ending)


def _read_files(layout: Layout, files: Sequence[Path], *, repeats: int, class_tokens: str, ending: str) -> None:
    """Pair the pictures of one folder with the captions beside them."""
    captions = {same_name(file.name[: -len(ending)]): file for file in files if file.name.lower().endswith(ending)}
    stems: Counter[str] = Counter()
    overviews = OVERVIEWS if any(file.name == CURATED for file in files) else ()
    for file in filter(is_picture, files):
        if file.name in overviews:
            continue
        stem = same_name(file.stem)
        stems[stem] += 1
        picture = PictureFile(file, repeats, class_tokens)
        if stem in captions:
            picture.caption_file = captions[stem]
            picture.caption, unused = _read_caption(layout, captions[stem])
            if unused and stems[stem] == 1:
                layout.longer.append(layout.name(captions[stem]))
        layout.pictures[layout.name(file)] = picture
    for file in files:
        if file.name.lower().endswith(CONTAINERS):
            layout.containers.append(file)
        if file.name == METADATA:
            named = {
                file.parent / name: text for name, text in read_metadata(file, all_lines=layout.all_lines).items()
            }
            layout.metadata |= {_metadata_name(layout, path): text for path, text in named.items()}
        elif file.suffix.lower() in _CAPTION_ENDINGS - {ending} and same_name(file.stem) in stems:
            layout.other_endings[file.suffix] += 1
    layout.shared += [layout.name(file) for stem, file in captions.items() if stems[stem] > 1]
    layout.orphans += [layout.name(file) for stem, file in captions.items() if not stems[stem]]


def _read_caption(layout: Layout, file: Path) -> tuple[str | None, int]:
    """The caption in a file, and how many lines are not used; none where it cannot be read and that is borne."""
    try:
        return read_caption(file, all_lines=layout.all_lines)
    except UserError as error:
        if layout.unreadable is None:
            raise
        layout.unreadable[layout.name(file)] = error
        return None, 0


def _metadata_name(layout: Layout, path: Path) -> str:
    """The name below the root of a file that `metadata.jsonl` names; `./` and `..` are resolved, links are not."""
    return same_name(Path(os.path.relpath(path, layout.root)).as_posix())


def _give_other_captions(layout: Layout) -> None:
    """Pictures without a caption file take the text of `metadata.jsonl`, else their folder's class tokens."""
    unused = dict(layout.metadata)
    from_folder = []
    for name, picture in layout.pictures.items():
        text = unused.pop(same_name(name), None)
        if picture.caption is None:
            picture.caption = text
        if picture.caption is None and picture.class_tokens:
            picture.caption = picture.class_tokens
            from_folder.append(name)
    if from_folder:
        layout.notes.append(
            f"captioned by the name of their folder: {len(from_folder)} of {len(layout.pictures)} pictures "
            f"({listed(from_folder)}){other_ending(layout)}"
        )
    if unused:
        layout.notes.append(counted(f"named in {METADATA} and not here", sorted(unused)))


def other_ending(layout: Layout) -> str:
    """A hint where captions seem to have another ending than the one that is read."""
    if layout.caption_hint:
        return f"; {layout.caption_hint}"
    if not layout.other_endings:
        return ""
    ending, count = layout.other_endings.most_common(1)[0]
    return f"; {count} files beside them end in {ending}: --set data.caption_extension={ending}"


def tell_odd_captions(layout: Layout) -> None:
    """Note captions that belong to no picture, to several, or that are read in part."""
    if layout.orphans:
        layout.notes.append(counted("captions without a picture", layout.orphans))
    if layout.shared:
        layout.notes.append(counted("captions shared by pictures of one name", layout.shared))
    if layout.longer:
        layout.notes.append(counted("captions of several lines, of which the first is used", layout.longer))


def _tell_left_out(layout: Layout, folders: Sequence[Path], files: Sequence[Path]) -> None:
    """Beside numbered folders, a folder or picture without a number was most likely forgotten."""
    if folders:
        what = "left out, folders that do not say their repeats (10_name) as the others here do"
        layout.notes.append(counted(what, [folder.name for folder in folders]))
    if pictures := [file.name for file in files if is_picture(file)]:
        layout.notes.append(counted("left out, pictures beside the numbered folders", pictures))


def _tell_number_of_root(layout: Layout, repeats: int) -> None:
    name = layout.root.resolve().name
    if _NUMBERED.fullmatch(name):
        layout.notes.append(
            f"the folder is itself named {name}; its pictures are seen {repeats} x an epoch (data.repeats): name the "
            "folder above it to use its number"
        )
