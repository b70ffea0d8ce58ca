"""From the values of kohya's files to settings, and to what a person should know about them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from brushwork.config.describe import fields, literal
from brushwork.config.kohya.files import file_name
from brushwork.config.kohya.key import Given, Key, Meaning
from brushwork.config.kohya.network import text_encoder_decision
from brushwork.config.kohya.pictures import caption_ending
from brushwork.config.kohya.table import TABLE
from brushwork.errors import UserError

DEFAULTS: Mapping[str, Any] = MappingProxyType({name: key.default for name, key in TABLE.items()})

NoteKind = Literal["not honoured", "kohya's default", "note", "not needed"]
"""The more a person should look at it, the earlier."""


@dataclass(frozen=True)
class Note:
    """What a person should know about a key."""

    kind: NoteKind
    key: str
    value: Any
    """None where the file leaves the key out."""
    text: str

    def __str__(self) -> str:
        shown = f"{self.key} = {literal(self.value)}" if self.value is not None else self.key
        return f"{self.kind}: {shown}: {self.text}"


@dataclass(frozen=True)
class Choice:
    """A value for which there is no way here: a person has to say what to take instead."""

    key: str
    value: Any
    origin: str
    problem: str
    override: str
    """What settles it, as it is typed after `--set`; empty where only another file does."""

    @property
    def setting(self) -> str:
        """The setting that settles it."""
        return self.override.partition("=")[0]

    def error(self) -> UserError:
        """The refusal."""
        fix = f"--set {self.override}, or change {self.key} in the file" if self.override else "change the file"
        return UserError(f"{self.origin}: {self.key} = {literal(self.value)}: {self.problem}.", fix=fix)


@dataclass(frozen=True)
class Translation:
    """What kohya's files come to here."""

    values: dict[str, Any] = field(default_factory=dict)
    """Settings by their dotted keys."""
    origins: dict[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    choices: tuple[Choice, ...] = ()
    out: str | None = None
    """The folder of the run that the file names."""


def translate(
    said: Mapping[str, Any],
    sources: Mapping[str, str],
    *,
    further: tuple[Mapping[str, Any], ...] = (),
    data: Path | None = None,
) -> Translation:
    """The settings that kohya's files come to, kohya's own defaults included.

    Args:
        said: what the files say, by kohya's keys.
        sources: the file that each key stands in.
        further: what they say about folders of pictures beside the first.
        data: the folder of pictures, where the command names another than the file.
    """
    folder = said.get("image_dir") or said.get("train_data_dir")
    given = Given(said, DEFAULTS, further, data or (Path(folder).expanduser() if folder else None))
    translation = Translation(out=_run_folder(given))
    notes: list[Note] = list(_notes_about_pictures(given))
    choices: list[Choice] = []
    ours = fields()
    for key in TABLE.values():
        meaning = Meaning() if key.convert is None else key.convert(given[key.name], given)
        origin = _origin(key, given, sources)
        settings = {
            setting: value
            for setting, value in meaning.settings.items()
            if key.name in given or value != ours[setting].default
        }
        translation.values.update(settings)
        translation.origins.update(dict.fromkeys(settings, origin))
        if meaning.undecided:
            where = sources.get(key.name, "kohya's defaults")
            choices.append(Choice(key.name, given[key.name], where, meaning.undecided, meaning.choice))
        notes.extend(_notes(key, given, meaning))
    return replace(translation, notes=tuple(sorted(notes, key=_urgency)), choices=tuple(choices))


def _urgency(note: Note) -> int:
    return get_args(NoteKind).index(note.kind)


def _origin(key: Key, given: Given, sources: Mapping[str, str]) -> str:
    if key.name in given:
        return f"kohya file {sources[key.name]}, key {key.name}"
    return f"kohya's default of {key.name}"


def _notes(key: Key, given: Given, meaning: Meaning) -> Iterator[Note]:
    """What is to be said about one key."""
    value = given.said.get(key.name)
    if meaning.instead:
        yield Note("not honoured", key.name, value, meaning.instead)
    if meaning.remark:
        yield Note("note", key.name, value, meaning.remark)
    if key.surprise and key.name not in given and _applies(key, given, meaning):
        yield Note("kohya's default", key.name, None, key.surprise)
    if key.convert is None and not key.aside and key.name in given and not key.asks_nothing(value):
        yield Note("not needed" if key.needless else "not honoured", key.name, value, key.about)


def _applies(key: Key, given: Given, meaning: Meaning) -> bool:
    """Whether the default of a key really decides something."""
    text_learns = bool(text_encoder_decision(given)[1])
    if key.name == "network_train_unet_only":
        return text_learns and given["text_encoder_lr"] is None
    if key.name == "learning_rate":
        return given["unet_lr"] is None or (given["text_encoder_lr"] is None and text_learns)
    if key.name == "lr_scheduler":
        return not given["lr_scheduler_type"]
    return bool(meaning.settings)


# Where pictures and captions are


def _run_folder(given: Given) -> str | None:
    if given["output_dir"] is None:
        return None
    return str(Path(given["output_dir"]) / file_name(given))


def _notes_about_pictures(given: Given) -> Iterator[Note]:
    folder = given.pictures
    if given["dataset_config"] is None and "image_dir" not in given and folder is not None and _is_flat(folder):
        text = f"no folder in {folder} is named like 10_name; its pictures count once an epoch (data.repeats)"
        yield Note("note", "train_data_dir", None, text)
    said = given.said.get("caption_extension") or given.said.get("caption_extention")
    if said in (None, ".caption", "caption") and caption_ending(said, folder) == ".txt":
        missing = "is not there to look into" if folder is None or not folder.is_dir() else "holds none"
        text = f"kohya reads files that end in .caption; {folder or 'the data set'} {missing}, so .txt is read"
        yield Note("kohya's default" if said is None else "note", "caption_extension", said, text)


def _is_flat(folder: Path) -> bool:
    """Whether pictures lie in the folder itself, where kohya's program would find none."""
    if not folder.is_dir():
        return False
    return not any(entry.is_dir() and entry.name.partition("_")[0].isdigit() for entry in folder.iterdir())
