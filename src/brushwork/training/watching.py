"""The live view of runs in a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from brushwork.training.monitor import View, look, page, pause, table

EVERY = 2.0
"""Seconds between two looks."""

GOING_ON = {"starting", "training"}


def shown(views: Sequence[View], console: Console) -> list[str]:
    """One run as a page, several as a table."""
    if len(views) > 1:
        return table(views)
    return page(views[0], width=min(100, console.width), unicode=console.encoding.startswith("utf"))


def watch(runs: Sequence[Path], console: Console) -> None:
    """Look again and again, until none of the runs goes on or the user has seen enough."""
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                views = [look(run) for run in runs]
                lines = shown(views, console)
                live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
                if not any(view.summary["state"] in GOING_ON for view in views):
                    return
                pause(EVERY)
        except KeyboardInterrupt:
            return
