"""How long a run takes to its first step: from the command to the first row of its metrics.

    python -m benchmarks.start_up --out runs/start-up
    python -m benchmarks.start_up --base sdxl.safetensors --pictures 20 --resolution 1024 --out runs/start-up

A drawn folder of pictures is trained on for one step: once with nothing in the cache, then with all of it there. Each
time is that of a process of its own, as a user starts it; beside the clock stand its processor seconds, which other
work on the machine hardly changes. `brushwork --help` is what a typing mistake costs.

    OUT/start_up.json     every time, with versions, machine and date
    OUT/start_up.md       the table
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.step import machine
from brushwork.atomic import write_text
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.runtime import pick_device
from bundled.stage import run_script

OFTEN = 0.02
"""Seconds between two looks at a process."""


def until(command: Sequence[str], seen: Callable[[], bool]) -> dict[str, float]:
    """Seconds of clock and processor that a command takes until something is seen, or until its end."""
    found: dict[str, float] = {}
    used, started = 0.0, time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen([sys.executable, "-m", "brushwork", *command], stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            with suppress(psutil.Error):  # it may have ended just now
                times = process.cpu_times()
                used = times.user + times.system
            if not found and seen():
                found = {"seconds": time.perf_counter() - started, "processor_seconds": used}
            time.sleep(OFTEN)
        if process.returncode:
            said.seek(0)
            raise UserError(f"brushwork {command[0]} failed: {said.read().decode()}", fix="put that right")
    return found or {"seconds": time.perf_counter() - started, "processor_seconds": used}


def first_step(data: Path, run: Path, cache: Path, settings: Sequence[str]) -> dict[str, float]:
    """A run of one step."""
    shutil.rmtree(run, ignore_errors=True)
    overrides = [f"cache.folder={cache}", "train.max_steps=1", *settings]
    words = [word for override in overrides for word in ("--set", override)]
    metrics = run / "metrics.jsonl"
    return until(
        ["train", str(data), "--out", str(run), *words], lambda: metrics.exists() and metrics.stat().st_size > 0
    )


def measure(out: Path, *, pictures: int, rounds: int, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every time of every case."""
    data, cache, run = out / "pictures", out / "cache", out / "run"
    shutil.rmtree(data, ignore_errors=True)
    draw_folder(data, count=pictures, size=256, seed=0)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        shutil.rmtree(cache, ignore_errors=True)
        for name, taken in (
            ("brushwork --help", lambda: until(["--help"], lambda: False)),
            ("first step, nothing cached", lambda: first_step(data, run, cache, settings)),
            ("first step, all cached", lambda: first_step(data, run, cache, settings)),
        ):
            row = found.setdefault(name, {"seconds": [], "processor_seconds": []})
            for kind, value in taken().items():
                row[kind].append(value)
            print(f"{name}: {row['seconds'][-1]:.2f} s", flush=True)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each case, medians."""
    lines = ["| | s by the clock | processor s |", "| --- " * 3 + "|"]
    for name, row in found.items():
        medians = [statistics.median(row[kind]) for kind in ("seconds", "processor_seconds")]
        lines.append(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure how long a run takes to its first step."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--base", default="bundled")
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    device = pick_device(given.device)
    settings = [
        f"model.base={given.base}",
        f"data.resolution={given.resolution}",
        f"train.device={given.device}",
        "save.every_epochs=off",
    ]
    found = measure(given.out, pictures=given.pictures, rounds=given.rounds, settings=settings)
    asked = {"base": given.base, "pictures": given.pictures, "resolution": given.resolution}
    write_text(given.out / "start_up.json", json.dumps({**machine(device), **asked, "cases": found}, indent=1) + "\n")
    write_text(given.out / "start_up.md", table(found))
    print(table(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_script(main)
