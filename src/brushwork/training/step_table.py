"""The run as a table: step, loss, learning rate, memory, and what else a person wants to see go by."""

from collections.abc import Callable

from rich.console import Console

from brushwork.records import Row

COLUMNS: tuple[tuple[str, int, Callable[[Row], str]], ...] = (
    ("step", 7, lambda row: f"{row['step']}"),
    ("loss", 8, lambda row: f"{row['smoothed_loss']:.4f}"),
    ("held out", 9, lambda row: "" if row.get("held_out_loss") is None else f"{row['held_out_loss']:.4f}"),
    ("rate", 9, lambda row: f"{row['learning_rate']:.2e}"),
    ("images/s", 9, lambda row: f"{row['images_per_second']:.2f}"),
    ("wait", 5, lambda row: f"{row['data_wait']:.0%}"),
    ("memory", 10, lambda row: f"{row['memory_gib']:.1f} GiB"),
)
"""Heading, width, and the words of each column; all of them fit a terminal of 80."""

ABOUT = 20
"""Rows of a run where nobody says how many."""


class StepTable:
    """Prints a row every so many steps, and at every validation.

    Args:
        every: steps between two rows; None makes about twenty of the whole run.
    """

    def __init__(self, console: Console, *, every: int | None, total: int) -> None:
        self._console = console
        self._every = every or max(1, total // ABOUT)
        self._total = total
        self._begun = False

    def add(self, row: Row) -> None:
        """Print the row if it is its turn; the headings stand above the first."""
        if row["step"] % self._every and row["step"] != self._total and row.get("held_out_loss") is None:
            return
        if not self._begun:
            self._print("".join(name.rjust(width) for name, width, _ in COLUMNS))
            self._begun = True
        self._print("".join(words(row).rjust(width) for _, width, words in COLUMNS))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
