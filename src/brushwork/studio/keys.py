"""What each key does. The page, its help and its buttons are made from this one table."""

from typing import NamedTuple


class Key(NamedTuple):
    """One thing that can be done."""

    action: str
    keys: tuple[str, ...]
    """As browsers name them; letters in lower case."""
    shown: str
    """As the help shows them."""
    says: str
    part: str
    """Under which heading of the help."""


REASONS = (
    "blurred",
    "wrong character",
    "hidden",
    "cut off",
    "too dark or bright",
    "text or bars",
    "artefacts",
    "duplicate",
    "other",
)
"""What the keys 1 to 9 give as the reason of a refusal."""

KEYS = (
    Key("keep", ("k",), "K", "keep, and go on", "Decide"),
    Key("refuse", ("r",), "R", "refuse, and go on", "Decide"),
    Key("reason", tuple("123456789"), "1 ... 9", "refuse, and say why", "Decide"),
    Key("undecided", ("w", "Backspace"), "W", "take back to undecided", "Decide"),
    Key("undo", ("z",), "Z", "undo the last step", "Decide"),
    Key("duplicate", ("d",), "D", "refuse as a duplicate of the marked one", "Decide"),
    Key("mark", ("m",), "M", "mark as the one that others are duplicates of", "Decide"),
    Key("left", ("ArrowLeft", "b"), "Left", "back", "Go"),
    Key("right", ("ArrowRight", "n"), "Right", "on", "Go"),
    Key("up", ("ArrowUp",), "Up", "a row up", "Go"),
    Key("down", ("ArrowDown",), "Down", "a row down", "Go"),
    Key("page-up", ("PageUp",), "PgUp", "a screen up", "Go"),
    Key("page-down", ("PageDown",), "PgDn", "a screen down", "Go"),
    Key("first", ("Home",), "Home", "the first", "Go"),
    Key("last", ("End",), "End", "the last", "Go"),
    Key("uncertain", ("u",), "U", "the next uncertain one", "Go"),
    Key("select", ("Shift",), "Shift + arrows", "select several, to decide them at once", "Go"),
    Key("open", ("Enter",), "Enter", "one at a time, and back to the grid", "Look"),
    Key("close", ("Escape",), "Esc", "close, back to the grid", "Look"),
    Key("magnify", (" ",), "Space", "every pixel", "Look"),
    Key("compare", ("c",), "C", "beside the references", "Look"),
    Key("reference-back", ("[", ","), "[", "the reference before", "Look"),
    Key("reference-on", ("]", "."), "]", "the next reference", "Look"),
    Key("larger", ("+", "="), "+", "larger pictures in the grid", "Look"),
    Key("smaller", ("-",), "-", "smaller pictures in the grid", "Look"),
    Key("caption", ("e",), "E", "edit the caption", "Change"),
    Key("crop", ("x",), "X", "crop", "Change"),
    Key("filter", ("f",), "F", "only undecided, kept, refused, all", "Choose"),
    Key("sort", ("s",), "S", "next order", "Choose"),
    Key("search", ("/",), "/", "search names and captions", "Choose"),
    Key("help", ("?", "h"), "?", "these keys", "Choose"),
)

PARTS = ("Decide", "Go", "Look", "Change", "Choose")

ACTIONS = {key: entry.action for entry in KEYS for key in entry.keys}
"""What a key does, by its name."""


def reason_of_key(key: str) -> str:
    """`1` -> `blurred`"""
    return REASONS[int(key) - 1]
