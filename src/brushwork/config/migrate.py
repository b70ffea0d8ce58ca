"""`brushwork migrate`: kohya's settings as a file of ours, SD 1.5's for SDXL, one character's for another."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from brushwork.config.load import DEFAULT, Resolved, flatten, resolve
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
    changes: list[Change] = []
    told = [str(note) for note in resolved.notes]
    told += [f"choose: {choice.error().problem} {choice.error().fix}" for choice in resolved.undecided]
    before = trained or resolved.data
    pictures, run = data or before, resolved.out
    if character is not None:
        old, new = _names(character, resolved, pictures)
        changes += to_character(resolved.settings, old, new)
        renamed = [None if place is None else rename(place, old, new) for place in (before, run)]
        told += [f"{was} is {now} now" for was, now in zip((before, run), renamed, strict=True) if was != now]
        pictures, run = data or renamed[0], renamed[1]
    settings = changed(resolved.settings, changes)
    if to is not None:
        for_sdxl = to_sdxl(settings)
        settings, changes = changed(settings, for_sdxl), changes + for_sdxl
    if to is not None or character is not None:
        before = before or (pictures if character is None else None)
        old_size, new_size = (None if place is None else measure(place) for place in (before, pictures))
        epochs = SDXL_EPOCHS if to is not None else settings.train.epochs or 1
        paced, how = pace(settings, old=old_size, new=new_size, epochs=epochs)
        settings, changes = changed(settings, paced), changes + paced
        told.append(how)
    if to is not None:
        told.append(f"kept: {', '.join(f'{key} = {literal(flatten(settings)[key])}' for key in KEPT)}")
    command = _command(pictures, run, out)
    text = _text(files, settings, resolved, changes, told, command)
    return Migrated(text, settings, tuple(changes), tuple(told))


def _names(character: str, resolved: Resolved, pictures: str | None) -> tuple[str, str]:
    """The old and the new name."""
    old, given, new = character.rpartition("=")
    if not file_word(new) or (given and not old.strip()):
        raise UserError(f"--character {character!r} names nobody.", fix="--character mia, or --character luca=mia")
    return old.strip() or guess_character(resolved.settings, pictures, resolved.out), new.strip()


def _command(pictures: str | None, run: str | None, out: Path | None) -> str:
    words = ["brushwork", "train", pictures or "PICTURES", "--config", str(out or "THIS.toml")]
    return shlex.join([*words, "--out", run] if run else words)


# As a file


def _text(
    files: Sequence[Path],
    settings: Settings,
    resolved: Resolved,
    changes: Sequence[Change],
    told: Sequence[str],
    command: str,
) -> str:
    """The file: what to type, what was found and done, and every setting that is not the default."""
    names = ", ".join(file.name for file in files)
    head = [f"Settings from {names}, by `brushwork migrate`. All others have Brushwork's defaults.", "", command]
    lines = [f"# {line}".rstrip() for line in [*head, *([""] if told else []), *_folded(told)]]
    return "\n".join([*lines, "", *_settings(settings, resolved, changes)]) + "\n"


def _folded(sentences: Sequence[str]) -> Iterator[str]:
    """One line each, whatever the values hold."""
    for sentence in sentences:
        yield "- " + _comment(sentence)


def _comment(text: str) -> str:
    """In one line, without what TOML allows in no comment."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _settings(settings: Settings, resolved: Resolved, changes: Sequence[Change]) -> Iterator[str]:
    why = {change.key: f"{literal(change.old)} before: {change.why}" for change in changes}
    plain, table = flatten(Settings()), ""
    for key, value in flatten(settings).items():
        if value == plain[key] and key not in why:
            continue
        section, _, name = key.rpartition(".")
        if section != table:
            yield from ("", f"[{section}]")
            table = section
        comment = why.get(key) or _source(resolved.origins.get(key, DEFAULT))
        yield f"{name} = {literal(value)}" + (f"  # {_comment(comment)}" if comment else "")


def _source(origin: str) -> str:
    """The key of kohya's that a setting comes from; nothing for files of ours, where it has its own name."""
    if origin.startswith("kohya file "):
        return origin.rpartition(", key ")[2]
    return origin if "kohya's" in origin else ""
