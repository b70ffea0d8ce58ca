"""Judging what a model answered: what is no part of a description is taken off, what is no description is told apart.

The same rules look at captions that are there already, in `checks.py`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_MARKS = re.compile(r"<\|[^|>]*\|>|</?s>|```\w*|\*\*|__|^#+\s", re.MULTILINE)
_LABEL = re.compile(
    r"^(sure|certainly|of course|okay)\s*[:!,.]\s*|^here( is|'s)[^:.!]{0,60}:\s*"
    r"|^(the )?(caption|description|answer|response|assistant)\s*:\s*",
    re.IGNORECASE,
)
_OPENER = re.compile(
    r"^(in )?(this|the) (image|picture|photo|photograph|scene|frame|illustration)"
    r"(,| (shows|depicts|features|displays|presents|captures|portrays|is of|contains))\s+(?=\w)|"
    r"^(this|it) is an? (image|picture|photo|photograph|frame|illustration) (of|showing)\s+|"
    r"^an? (image|picture|photo|photograph) (of|showing)\s+",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"^\W*(i'?m|i am) (really |very |so )?(sorry|afraid|unable|not able)\b"
    r"|^\W*sorry\b|^\W*(unfortunately|apologies|i apologi[sz]e)\b"
    r"|^\W*i (can'?t|cannot|can not|do not|don'?t|won'?t|am not able to|could not|couldn'?t)\b"
    r"|\bas an ai\b|\bas a (large )?language model\b"
    r"|\bi('m| am) (unable|not able) to\b"
    r"|\bi (cannot|can'?t) (assist|help|identify|see|view|provide|describe|process)\b"
    r"|\b(no|without an) (image|picture|photo) (was |is |has been )?(provided|attached|visible|given|uploaded)\b"
    r"|\bplease (provide|upload|share|attach) (the|an?|your) (image|picture|photo)\b"
    r"|\b(goes )?against (my|the) (guidelines|policy|policies)\b",
    re.IGNORECASE,
)
_NOTHING = frozenset({"none", "nothing", "n a", "na", "not visible", "not applicable", "unknown", "not shown"})
_REMAINS = re.compile(
    r"<\|[^|>]*\|>|</?(think|s|image)>|```|\*\*|^\s*[{\[]\s*\"|\b(user|assistant|system)\s*:", re.IGNORECASE
)
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ue000-\uf8ff]|\u00c3[\u0080-\u00bf]|\u00e2\u20ac")
_ENDS = re.compile(r"(?<=[.!?])\s+|,\s+|;\s+")
DANGLING = frozenset(
    {"a", "an", "the", "and", "or", "of", "with", "his", "her", "their", "its", "my", "is", "are", "was"}
)
"""No phrase of English ends in one of these."""
DANGLING_AT_END = DANGLING | {
    *("in", "on", "at", "to", "from", "by", "for", "into", "while", "as", "that", "which", "who", "but", "wearing"),
    *("holding", "under", "near", "behind", "between", "very", "some", "has", "have"),
}
"""And no caption in one of these."""

LONGEST_CIRCLE = 12
"""Words of which a circle consists at most."""

ROUNDS, ROUNDS_OF_A_WORD = 3, 4
"""So often in a row, several words or a single one are a model that goes round in circles."""


def cleaned(answer: str) -> str:
    """An answer without the model's thoughts, marks, labels and openers, on one line."""
    text = _MARKS.sub("", _THOUGHTS.sub("", answer)).replace("\u2019", "'")
    text = " ".join(text.split())
    for pattern in (_LABEL, _LABEL, _OPENER):
        text = pattern.sub("", text.strip(" \"'`\u201c\u201d"), count=1)
    return text.strip(' "`\u201c\u201d')


def whole_part(text: str) -> str:
    """What an answer that was cut off says in whole sentences, else in whole phrases; empty where it has none."""
    if (end := max(text.rfind(mark) for mark in ".!?")) > 0:
        return text[: end + 1]
    return text.rpartition(",")[0].rstrip()


def phrases(text: str) -> list[str]:
    """The sentences of a text, and what stands between commas in them."""
    return [part.strip(" .!?;,") for part in _ENDS.split(text) if part.strip(" .!?;,")]


def is_empty(text: str) -> bool:
    """Whether no word is in it."""
    return not any(letter.isalpha() for letter in text)


def is_nothing(text: str) -> bool:
    """Whether it says that there is nothing to say."""
    return " ".join(re.findall(r"\w+", text.casefold())) in _NOTHING


def is_refusal(text: str) -> bool:
    """Whether the model talks of itself, or of a picture that it did not get, instead of describing."""
    return _REFUSALS.search(text.replace("\u2019", "'")) is not None


def has_remains(text: str) -> bool:
    """Whether marks of a conversation or of Markdown or JSON are left in it."""
    return _REMAINS.search(text) is not None


def has_odd_characters(text: str) -> bool:
    """Whether characters are in it that no text holds: a wrong encoding leaves them, or a broken model."""
    return _ODD.search(text) is not None


def foreign_letters(text: str, scripts: Iterable[str]) -> str:
    """The letters of other scripts; a single one may be on a sign in the picture, and is none."""
    allowed = set(scripts)
    foreign = "".join(letter for letter in text if letter.isalpha() and _script(letter) not in allowed)
    return foreign if len(foreign) > 1 else ""


def _script(letter: str) -> str:
    """`LATIN`, `CJK`, ... by the letter's name in Unicode."""
    return unicodedata.name(letter, "UNNAMED").split()[0].removesuffix("-A").removesuffix("-B")


def circles(text: str) -> str | None:
    """The words that a model could not get away from, said again and again without a pause; None where it could."""
    words = re.findall(r"\w+", text.casefold())
    for period in range(1, LONGEST_CIRCLE + 1):
        same = 0
        for place in range(period, len(words)):
            same = same + 1 if words[place] == words[place - period] else 0
            if same >= period * (ROUNDS_OF_A_WORD if period == 1 else ROUNDS) - period:
                return " ".join(words[place - period + 1 : place + 1])
    return None


def said_twice(text: str) -> list[str]:
    """Phrases of two words or more that stand in a text more than once."""
    counts = Counter(phrase.casefold() for phrase in phrases(text) if " " in phrase)
    return [phrase for phrase, count in counts.items() if count > 1]


def cut_off(text: str) -> str | None:
    """The phrase of a text that breaks off; None where all are whole."""
    parts = phrases(text)
    if not parts:
        return None
    for part in parts[:-1]:
        if _last_word(part) in DANGLING:
            return part
    ending = text.rstrip()[-1]
    unclosed = parts[-1].count("(") > parts[-1].count(")") or text.count('"') % 2 == 1
    dangling = DANGLING if ending in ".!?" else DANGLING_AT_END  # "the bench that it sits on."
    return parts[-1] if _last_word(parts[-1]) in dangling or ending in ",;:-(" or unclosed else None


def _last_word(text: str) -> str:
    words = text.split()
    return words[-1].casefold() if len(words) > 1 else ""
