"""What can be seen of runs from outside, from their folders alone: `brushwork monitor`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.amounts import duration
from brushwork.config.load import read_toml
from brushwork.errors import UserError
from brushwork.records import Row, read_rows
from brushwork.run_files import DESCRIPTION_FILE, SETTINGS_FILE, is_run
from brushwork.training.plot import plot
from brushwork.training.run_folder import RunFolder
from brushwork.training.standing import summarise

RECENT = 50
"""Steps from whose time the time left is reckoned."""

TAIL = 64 * 1024
"""Bytes at the end of the log in which its last lines are looked for."""


@dataclass(frozen=True)
class View:
    """A run as it stands now."""

    summary: dict[str, Any]
    rows: list[Row]
    log: list[str]

    def described(self) -> dict[str, Any]:
        """As plain values, for programs."""
        return {**self.summary, "log": self.log}


def runs_in(path: Path) -> list[Path]:
    """`path` itself if it is a run, else the runs in the folders below it, by name."""
    if is_run(path):
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} is not a folder.", fix="name a run folder, or a folder that holds runs")
    runs = sorted(file.parent for file in path.glob(f"*/{DESCRIPTION_FILE}") if is_run(file.parent))
    if not runs:
        raise UserError(f"there is no run in {path}.", fix="name a folder that `brushwork train` made")
    return runs


def look(run: Path) -> View:
    """Read what the run has written."""
    folder = RunFolder(run, read_toml(run / SETTINGS_FILE).name)
    summary = summarise(run)
    rows = read_rows(folder.metrics_file) if folder.metrics_file.exists() else []
    running = folder.is_running()
    done = max(summary["step"], summary["logged_step"] if running else 0)
    pictures = sorted(folder.samples.rglob("*-prompt*.png"), key=lambda path: path.stat().st_mtime)
    more = {
        "state": _state(summary, running=running, begun=bool(rows)),
        "step": done,
        "seconds_left": seconds_left(rows, summary["total_steps"] - done) if running else None,
        "newest_sample": str(pictures[-1]) if pictures else None,
    }
    return View({**summary, **more}, rows, last_lines(folder.log_file, 4))


def _state(summary: dict[str, Any], *, running: bool, begun: bool) -> str:
    if running:
        return "training" if begun else "starting"
    return "finished" if summary["finished"] else "stopped"


def seconds_left(rows: Sequence[Row], steps: int) -> float | None:
    """At the speed of the last steps; what is saved and drawn in between is not in it."""
    recent = [row["seconds"] for row in rows[-RECENT:] if "seconds" in row]
    return sum(recent) / len(recent) * steps if recent else None


def last_lines(log: Path, count: int) -> list[str]:
    """The last messages of a log, without the lines of single steps."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [line for line in lines if line[:2] == "20" and " DEBUG " not in line][-count:]


def page(view: View, *, width: int, unicode: bool) -> list[str]:
    """One run as lines of text: where it stands, its curves, what it said last."""
    told = view.summary
    lines = [
        f"{told['name']}  {told['folder']}",
        f"{told['state']}, {progress(told)}",
        ", ".join(_losses(told)),
    ]
    for title, key in (("smoothed loss", "smoothed_loss"), ("held-out loss", "held_out_loss")):
        points = [(row["step"], row[key]) for row in view.rows if row.get(key) is not None]
        if len(points) > 1:
            lines += ["", f"{title}, steps {points[0][0]} to {points[-1][0]}"]
            lines += plot(points, width=width, height=8, unicode=unicode)
    if told["newest_sample"] is not None:
        lines += ["", f"{told['samples']} samples, the newest {told['newest_sample']}"]
    return [*lines, "", *view.log]


def table(views: Sequence[View]) -> list[str]:
    """Several runs, a line each."""
    rows = [["run", "state", "progress", "loss", "held out", "verdict"]]
    for view in views:
        told = view.summary
        rows.append(
            [
                Path(told["folder"]).name,
                told["state"],
                progress(told),
                _number(told["smoothed_loss"]),
                _number(told["held_out_loss"]),
                told["verdict"] or "",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def progress(told: dict[str, Any]) -> str:
    """`step 340 of 2000, 1 h 12 min left`"""
    left = told["seconds_left"]
    return f"step {told['step']} of {told['total_steps']}" + ("" if left is None else f", {duration(left)} left")


def _losses(told: dict[str, Any]) -> list[str]:
    named = (("loss", "smoothed_loss"), ("held out", "held_out_loss"), ("training part", "train_part_loss"))
    found = [f"{name} {told[key]:.4f}" for name, key in named if told[key] is not None]
    return [*found, told["verdict"]] if told["verdict"] else found or ["no step yet"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def pause(seconds: float) -> None:
    """Wait before the next look."""
    time.sleep(seconds)
