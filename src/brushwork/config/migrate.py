"""`brushwork migrate`: kohya's settings as a file of ours, SD 1.5's for SDXL, one character's for another."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from brushwork.config.carry import (
    KEPT,
    SDXL_EPOCHS,
    Change,
    SetSize,
    changed,
    file_word,
    guess_character,
    pace,
    rename,
    to_character,
    to_sdxl,
)
from brushwork.config.describe import literal
from brushwork.config.load import DEFAULT, flatten, resolve
from brushwork.config.schema import Settings
from brushwork.errors import UserError

Measure = Callable[[str], SetSize | None]
"""How large the set in a folder is; None where it cannot be read."""


@dataclass(frozen=True)
class Migrated:
    """A settings file of ours, and what was done to get it."""

    text: str
    settings: Settings
    changes: tuple[Change, ...]
    told: tuple[str, ...]
    """Sentences for the person: what is not honoured, what surprises, how figures came about."""


def migrate(
    files: Sequence[Path],
    *,
    to: Literal["sdxl"] | None = None,
    character: str | None = None,
    data: str | None = None,
    trained: str | None = None,
    out: Path | None = None,
    measure: Measure = lambda folder: None,
) -> Migrated:
    """Read settings of kohya's trainer or of ours, carry them over, and write them as ours.

    Args:
        to: the family that they should train next.
        character: the new character's name, or OLD=NEW.
        data: the folder that will be trained, where the files do not name it.
        trained: the folder that they were made for, where the files do not name it.
        out: the file that will be written, for the command that is told.
    """
    resolved = resolve(files=files, data=None if data is None else Path(data), undecided=True)
    work = _Work(resolved.settings, trained or resolved.settings.data.path, resolved.out)
    work.told += [str(note) for note in resolved.notes]
    work.told += [f"choose: {choice.error().problem} {choice.error().fix}" for choice in resolved.undecided]
    if character is not None:
        _give_to(work, *_names(character, work))
    if data is not None and data != work.settings.data.path:
        work.change([Change("data.path", work.settings.data.path, data, "as asked for")])
    if to is not None:
        work.change(to_sdxl(work.settings))
    if to is not None or character is not None:
        _set_pace(work, measure, same_set=character is None, epochs=SDXL_EPOCHS if to is not None else None)
    if to is not None:
        kept = [f"{key} = {literal(flatten(work.settings)[key])}" for key in KEPT]
        work.told.append(f"kept: {', '.join(kept)}")
    text = _text(files, work, resolved.origins, _command(work, out))
    return Migrated(text, work.settings, tuple(work.changes), tuple(work.told))


@dataclass
class _Work:
    """Settings on their way."""

    settings: Settings
    made_for: str | None
    """The pictures that they were made for."""
    run: str | None
    """The folder that the run will have, where the files say it."""
    changes: list[Change] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def change(self, changes: list[Change]) -> None:
        """Make changes, and remember them."""
        self.settings = changed(self.settings, changes)
        self.changes += changes


def _give_to(work: _Work, old: str, new: str) -> None:
    """Put another name into settings and places."""
    work.change(to_character(work.settings, old, new))
    if work.settings.data.path is None and work.made_for is not None:
        work.change([Change("data.path", None, rename(work.made_for, old, new), f"{old} is {new} now")])
    if work.run is not None and (renamed := rename(work.run, old, new)) != work.run:
        work.told.append(f"{work.run} is {renamed} now")
        work.run = renamed


def _set_pace(work: _Work, measure: Measure, *, same_set: bool, epochs: int | None) -> None:
    """Epochs and repeats for the size of the set."""
    pictures = work.settings.data.path or work.made_for
    made_for = work.made_for or (pictures if same_set else None)
    old, new = (None if place is None else measure(place) for place in (made_for, pictures))
    changes, how = pace(work.settings, old=old, new=new, epochs=epochs or work.settings.train.epochs or 1)
    work.change(changes)
    work.told.append(how)


def _names(character: str, work: _Work) -> tuple[str, str]:
    """The old and the new name."""
    old, given, new = character.rpartition("=")
    if not file_word(new) or (given and not old.strip()):
        raise UserError(f"--character {character!r} names nobody.", fix="--character mia, or --character luca=mia")
    return old.strip() or guess_character(work.settings, work.made_for, work.run), new.strip()


def _command(work: _Work, out: Path | None) -> str:
    pictures = [] if work.settings.data.path else [work.made_for or "PICTURES"]
    words = ["brushwork", "train", *pictures, "--config", str(out or "THIS.toml")]
    return shlex.join([*words, "--out", work.run] if work.run else words)


# As a file


def _text(files: Sequence[Path], work: _Work, origins: Mapping[str, str], command: str) -> str:
    """The file: what to type, what was found and done, and every setting that is not the default."""
    names = ", ".join(file.name for file in files)
    head = [f"Settings from {names}, by `brushwork migrate`. All others have Brushwork's defaults.", "", command]
    lines = [f"# {line}".rstrip() for line in [*head, *([""] if work.told else []), *_folded(work.told)]]
    return "\n".join([*lines, "", *_settings(work, origins)]) + "\n"


def _folded(sentences: Sequence[str]) -> Iterator[str]:
    """One line each, whatever the values hold."""
    for sentence in sentences:
        yield "- " + _comment(sentence)


def _comment(text: str) -> str:
    """In one line, without what TOML allows in no comment."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _settings(work: _Work, origins: Mapping[str, str]) -> Iterator[str]:
    why = {change.key: f"{literal(change.old)} before: {change.why}" for change in work.changes}
    plain, table = flatten(Settings()), ""
    for key, value in flatten(work.settings).items():
        if value == plain[key] and key not in why:
            continue
        section, _, name = key.rpartition(".")
        if section != table:
            yield from ("", f"[{section}]")
            table = section
        comment = why.get(key) or _source(origins.get(key, DEFAULT))
        yield f"{name} = {literal(value)}" + (f"  # {_comment(comment)}" if comment else "")


def _source(origin: str) -> str:
    """The key of kohya's that a setting comes from; nothing for files of ours, where it has its own name."""
    if origin.startswith("kohya file "):
        return origin.rpartition(", key ")[2]
    return origin if "kohya's" in origin else ""
