"""What the comments of a recipe tell: which card, how much memory, how long, and why a value is what it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_EXPECTATION = re.compile(
    r"What to expect: (?P<card>[^,(]+), (?P<memory>[^,(]+), (?P<time>[^,(]+) \((?P<source>(?:not )?measured\b)"
)
_SECTION = re.compile(r"\[([a-z_0-9]+)\]")
_VALUE = re.compile(r"([a-z_0-9-]+)\s*=.*?\s#\s+(.+)")


@dataclass(frozen=True)
class Expectation:
    """What a run of a recipe takes, in the words of the file."""

    card: str
    memory: str
    time: str
    measured: bool
    """Whether somebody looked; otherwise it is what the guide behind the recipe promises."""


def expectation(header: Sequence[str]) -> Expectation | None:
    """From the comment that opens a recipe; None where a file of the user's own says nothing of the kind.

    The form is `What to expect: CARD, MEMORY, TIME (measured ...` or `(not measured ...`.
    """
    found = _EXPECTATION.search(" ".join(header))
    if found is None:
        return None
    memory = found["memory"].replace(" of memory", "").removeprefix("memory ")
    return Expectation(
        found["card"].removeprefix("a card of ").removeprefix("a "),
        memory,
        found["time"],
        found["source"] == "measured",
    )


def reasons(text: str) -> dict[str, str]:
    """The comment behind each value of a recipe, by dotted key."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if table := _SECTION.fullmatch(line.strip()):
            section = f"{table[1]}."
        elif value := _VALUE.fullmatch(line.strip()):
            found[section + value[1].replace("-", "_")] = value[2]
    return found
