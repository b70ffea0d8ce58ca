"""The live view of runs in a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from brushwork.training.monitor import look, page, pause, table

EVERY = 2.0
"""Seconds between two looks."""

GOING_ON = {"starting", "training"}


def shown(runs: Sequence[Path], console: Console) -> list[str]:
    """One run as a page, several as a table."""
    views = [look(run) for run in runs]
    if len(views) > 1:
        return table(views)
    return page(views[0], width=min(100, console.width), unicode=console.encoding.startswith("utf"))


def watch(runs: Sequence[Path], console: Console) -> None:
    """Look again and again, until none of the runs goes on or the user has seen enough."""
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                going_on = any(look(run).summary["state"] in GOING_ON for run in runs)
                lines = shown(runs, console)
                live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
                if not going_on:
                    return
                pause(EVERY)
        except KeyboardInterrupt:
            return
