"""What went wrong, in words that a person can act on."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something that the user can put right; shown without a traceback.

    Args:
        problem: what is wrong, naming the file, key or value, and what was expected.
        fix: the next step, as something that can be typed or done.
    """

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return self.problem if self.fix is None else f"{self.problem}\n  fix: {self.fix}"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that looks most like `word`, or None where none is close."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def listed(names: Sequence[str], limit: int = 5) -> str:
    """`a, b, c, d, e and 4 more`"""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
