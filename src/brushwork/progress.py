"""How far a long piece of work is: what it calls, not knowing who listens, and the bar that a person sees."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import progress
from rich.console import Console, RenderableType
from rich.text import Text

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


class Advance(Protocol):
    """Tells how much of a long piece of work is done."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def progress_bar(
    console: Console, description: str, total: int, *, done: int = 0, lines: bool = True
) -> Iterator[Advance]:
    """A bar with the time left and a line below it; where there is no terminal, about ten lines instead.

    Args:
        lines: whether these are wanted; what prints lines of its own needs none.
    """
    if not console.is_terminal:
        yield _lines(console, description) if lines else _silent
        return
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=max(4, min(40, console.width - 54))),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with _BarAndNote(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


class _BarAndNote(progress.Progress):
    """The note has a line of its own: in a narrow terminal it would push the bar and the time left away."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {task.fields['note']}", no_wrap=True, overflow="ellipsis")


def _silent(done: int, total: int, note: str = "") -> None:
    """Nobody is shown anything."""


def _lines(console: Console, description: str) -> Advance:
    shown = -1

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal shown
        tenth = done * 10 // total if total else 10
        if tenth != shown:
            shown = tenth
            line = f"{description} {done}/{total} {note}".rstrip()
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return advance
