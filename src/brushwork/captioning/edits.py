"""Changing many captions at once. The old ones are written down before anything is changed, and can be had back.

SET/captions.jsonl      a row for each change: file, before, after, what was asked, when
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from brushwork.config.schema import DataConfig
from brushwork.data.changed_captions import HISTORY, Change, caption_text, row_of, text_now, write_changes
from brushwork.data.forms import find_pictures
from brushwork.data.layout import Layout, counted
from brushwork.data.reviews import REVIEW
from brushwork.data.wording import shuffled
from brushwork.errors import UserError, listed
from brushwork.records import Row, read_rows


@dataclass(frozen=True)
class Edit:
    """What is to be done to every line of every caption, in this order."""

    removed_tags: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    suffix: str = ""
    shuffle: int | None = None
    """Put the tags in another order that follows from this number and the file's name, before prefix and suffix are
    put on. Those that `data.keep_tokens` and `data.keep_tokens_separator` hold stay."""

    def __bool__(self) -> bool:
        return bool(self.removed_tags or self.replacements or self.prefix or self.suffix or self.shuffle is not None)

    def __str__(self) -> str:
        parts = [f"remove tag {tag}" for tag in self.removed_tags]
        parts += [f"replace {old} by {new}" for old, new in self.replacements]
        parts += [f"prefix {self.prefix}"] if self.prefix else []
        parts += [f"suffix {self.suffix}"] if self.suffix else []
        parts += [f"shuffle by {self.shuffle}"] if self.shuffle is not None else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Edited:
    """What was changed, or would be."""

    root: Path
    changes: tuple[Change, ...]
    num_captions: int
    written: bool
    notes: tuple[str, ...] = ()

    @property
    def history(self) -> Path:
        """Where the old captions are."""
        return self.root / HISTORY

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": str(self.root),
            "captions": self.num_captions,
            "written": self.written,
            "changes": [row_of(change, self.root) for change in self.changes],
            "notes": list(self.notes),
        }


def edited(text: str, edit: Edit, *, data: DataConfig | None = None, name: str = "") -> str:
    """A caption file's text after an edit. Line ends, blank lines and a byte order mark stay as they are.

    Args:
        data: what stands between tags, and which keep their place.
        name: the file's, for what is drawn.
    """
    data = data or DataConfig()
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    draws = None if edit.shuffle is None else _draws(edit.shuffle, name)
    return mark + "".join(_edited_line(line, edit, data, draws) for line in lines)


def _draws(number: int, name: str) -> Random:
    """What puts the tags of a file in their order."""
    from brushwork.runtime import derive_seed  # imported late: no other edit needs torch

    return Random(derive_seed(number, f"order of {name}"))


def edit_captions(place: Path, edit: Edit, *, data: DataConfig, dry_run: bool = False) -> Edited:
    """Change the captions of a folder.

    A caption that stands in `metadata.jsonl` is not changed there: the new one is written beside the picture, where
    it counts first.

    Args:
        dry_run: only tell what would be changed.
    """
    layout = editable_layout(place, data)
    captions: dict[Path, Change] = {}
    untouched = []
    for name, picture in layout.pictures.items():
        if picture.caption_file is not None:
            before = caption_text(picture.caption_file)
            after = edited(before, edit, data=data, name=layout.name(picture.caption_file))
            captions[picture.caption_file] = Change(picture.caption_file, before, after)
        elif picture.caption and picture.caption != picture.class_tokens:
            file = Path(str(picture.path)).with_suffix(data.caption_extension)
            after = edited(picture.caption, edit, data=data, name=layout.name(file))
            captions[file] = Change(file, None, None if after == picture.caption else after + "\n")
        else:
            untouched.append(name)
    changes = tuple(change for change in captions.values() if change.before != change.after)
    if not dry_run:
        write_changes(layout.root, changes, {"edit": str(edit)})
    notes = (counted("pictures without a caption, left as they are", untouched),) if untouched else ()
    if layout.refused:
        notes = (*notes, counted(f"refused in {REVIEW}, left as they are", layout.refused))
    return Edited(layout.root, changes, len(captions), written=not dry_run, notes=notes)


def undo_last_edit(place: Path, *, data: DataConfig, dry_run: bool = False) -> Edited:
    """Put back the captions as they were before the last edit that was not undone yet.

    Raises:
        UserError: there is none, or captions were changed by other means since.
    """
    root = editable_layout(place, data).root
    rows = read_rows(root / HISTORY) if (root / HISTORY).is_file() else []
    undone = {row.get("undoes") for row in rows}
    last = [row["at"] for row in rows if "undoes" not in row and row.get("at") not in undone]
    if not last:
        raise UserError(f"{root}: no edit of captions is left to be undone.")
    done = [row for row in rows if row.get("at") == last[-1]]
    changes = tuple(
        Change(root / file, before=rows_of_file[-1]["after"], after=rows_of_file[0]["before"])
        for file, rows_of_file in _by_file(done).items()
    )
    if other := [
        str(change.file) for change in changes if text_now(change.file) not in (change.before, change.after)
    ]:
        raise UserError(
            f"{listed(other)}: changed since the edit, so undoing it would lose that.",
            fix=f"the captions before the edit are in {root / HISTORY}, under `before`",
        )
    changes = tuple(change for change in changes if text_now(change.file) != change.after)
    if not dry_run:
        write_changes(root, changes, {"edit": "undo", "undoes": last[-1]})
    return Edited(root, changes, len(done), written=not dry_run)


def _edited_line(line: str, edit: Edit, data: DataConfig, draws: Random | None) -> str:
    text = line.strip()
    if not text:
        return line
    new = _without_tags(text, edit.removed_tags, data.caption_separator)
    for old, replacement in edit.replacements:
        new = re.sub(_whole(old), replacement.replace("\\", r"\\"), new)
    if draws is not None:
        new = shuffled(new, data, draws)
    if edit.prefix and not new.startswith(edit.prefix.strip()):
        new = f"{edit.prefix.strip()} {new}".strip()
    if edit.suffix and not new.endswith(edit.suffix.strip()):
        new = f"{new} {edit.suffix.strip()}".strip()
    return line if new == text else line.replace(text, new, 1)


def _without_tags(text: str, removed: Sequence[str], separator: str) -> str:
    """A caption without some of its tags, whatever their case; one that has none of them stays as it is written."""
    unwanted = {tag.strip().casefold() for tag in removed}
    tags = [tag.strip() for tag in text.split(separator)]
    kept = [tag for tag in tags if tag.casefold() not in unwanted]
    return text if len(kept) == len(tags) else f"{separator} ".join(kept)


def _whole(words: str) -> str:
    """A pattern that finds words, and not a part of a longer word: `cat` is not in `category`."""
    before = r"(?<!\w)" if re.match(r"\w", words) else ""
    after = r"(?!\w)" if re.search(r"\w$", words) else ""
    return before + re.escape(words) + after


def editable_layout(place: Path, data: DataConfig) -> Layout:
    """The pictures of a folder whose captions can be written beside them."""
    layout = find_pictures(place, data=data)
    if not all(isinstance(picture.path, Path) for picture in layout.pictures.values()):
        raise UserError(
            f"{place}: captions inside shards and tables cannot be changed.",
            fix="name a folder of pictures with captions beside them",
        )
    return layout


def _by_file(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """One edit may have changed a file twice: a captioning run that was killed, and went on."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["file"], []).append(row)
    return found
