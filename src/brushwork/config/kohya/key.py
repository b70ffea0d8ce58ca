"""A row of the table: a key of kohya's files, and what it comes to here.

What kohya does with each key and which value it has by default was read in sd-scripts at 48d368fa.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "flag", "texts", "numbers", "size", "table"]

KINDS: dict[Kind, str] = {
    "text": "a text",
    "whole": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "texts": 'a list of texts such as ["conv_dim=8"]',
    "numbers": "a number, or a list of numbers",
    "size": 'a size such as "1024,1024" or 512',
    "table": "a table",
}


@dataclass(frozen=True)
class Given:
    """The values of kohya's files: what they say, and kohya's own defaults for the rest."""

    said: Mapping[str, Any]
    defaults: Mapping[str, Any]
    further: tuple[Mapping[str, Any], ...] = ()
    """What is said about folders of pictures beside the first."""
    pictures: Path | None = None
    """The first folder: the command's, or the file's."""

    def __getitem__(self, name: str) -> Any:
        return self.said.get(name, self.defaults[name])

    def __contains__(self, name: str) -> bool:
        return name in self.said


@dataclass(frozen=True)
class Meaning:
    """What the value of a key comes to: settings, and what a person should know about it."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""
    """A sentence for the person, where the value means something else here, or surprises."""

    instead: str = ""
    """Where the value is not honoured: why, and what is done instead."""

    undecided: str = ""
    """Where there is no way to honour the value and the person has to choose: the problem..."""

    choice: str = ""
    """...and the setting whose value settles it, as it is typed after `--set`. Empty where only the file can."""


Convert = Callable[[Any, Given], Meaning]


@dataclass(frozen=True)
class Key:
    """One key of kohya's files."""

    name: str
    kind: Kind
    default: Any
    """kohya's own."""
    about: str
    """How it is honoured, or why it is not: for the documentation, and for the person whose file has it."""

    settings: tuple[str, ...] = ()
    """The settings that it leads to; none where it is not honoured, or needs no setting."""

    convert: Convert | None = None
    """From the value to settings; None where the key is not honoured."""

    needless: bool = False
    """Nothing is lost without it: what it asks for is done always, or not needed here."""

    aside: bool = False
    """Honoured, but by another key's settings or by the command itself; nothing is to be said."""

    surprise: str = ""
    """Said where the file leaves the key out and kohya's default is not what most people expect."""

    neutral: tuple[Any, ...] = ()
    """Values besides the default that ask for nothing."""

    def asks_nothing(self, value: Any) -> bool:
        """Whether a value asks for nothing that is not so anyway."""
        return value == self.default or value in self.neutral


def same(
    name: str, kind: Kind, default: Any, setting: str, about: str = "", *, surprise: str = "", unset: Any = None
) -> Key:
    """A key that has the same value under another name.

    Args:
        unset: the setting's value where kohya's is None.
    """

    def convert(value: Any, given: Given) -> Meaning:
        return Meaning({setting: unset if value is None else value})

    return Key(name, kind, default, about, (setting,), convert, surprise=surprise)


def turned(
    name: str,
    kind: Kind,
    default: Any,
    settings: tuple[str, ...],
    convert: Convert,
    about: str,
    *,
    surprise: str = "",
) -> Key:
    """A key whose value has to be turned into another form, or that decides together with others."""
    return Key(name, kind, default, about, settings, convert, surprise=surprise)


def needless(name: str, kind: Kind, default: Any, about: str, *, neutral: tuple[Any, ...] = ()) -> Key:
    """A key for something that is done always, or that nothing here needs."""
    return Key(name, kind, default, about, needless=True, neutral=neutral)


def aside(name: str, kind: Kind, default: Any, about: str) -> Key:
    """A key that other keys, or the command itself, look at."""
    return Key(name, kind, default, about, aside=True)


def unmet(name: str, kind: Kind, default: Any, why: str, *, neutral: tuple[Any, ...] = ()) -> Key:
    """A key that is not honoured, and why."""
    return Key(name, kind, default, why, neutral=neutral)


NOTHING = Meaning()
"""The key adds nothing: another decides."""
