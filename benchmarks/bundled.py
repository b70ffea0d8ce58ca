"""Every figure of the bundled model, from one command, each beside its goal.

    python -m benchmarks.bundled --out OUT

    OUT/figures.json     every figure
    OUT/figures.md       the same as a table
    OUT/measured/        what bundled.measure drew: pictures of held-out combinations, and their sheet
    OUT/demo/            `brushwork demo`, made anew, with its report

It ends with an error where a goal is missed: so a change that makes the model, or the training on it, worse is told.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.atomic import write_text
from brushwork.demonstration.run import demo
from brushwork.models.bundled import bundled_folder
from bundled.measure import command_line, measure
from bundled.stage import run_script


@dataclass(frozen=True)
class Goal:
    """What a figure should be at least, or at most."""

    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether the figure is good enough."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


GOALS: dict[str, Goal] = {
    "size in MB": Goal(most=30),
    "VAE: dB on unseen frames": Goal(least=30),
    "CLIP: clip finds caption of 64": Goal(least=0.9),
    "CLIP: text_encoder_2 finds caption of 64": Goal(least=0.9),
    "scorer on unseen frames of anybody: character": Goal(least=0.97),
    "scorer on unseen frames of anybody: place": Goal(least=0.97),
    "scorer on unseen frames of anybody: camera": Goal(least=0.95),
    "held-out prompts: character and place and camera": Goal(least=0.8),
    "demo: the fox before": Goal(most=0.2),
    "demo: the fox after": Goal(least=0.8),
    "demo: place after": Goal(least=0.75),
    "demo: camera after": Goal(least=0.75),
    "demo: minutes": Goal(most=3),
}
"""The demo's shares are of 16 pictures: their goals leave room for another machine's sums."""


def all_figures(out: Path, *more: str) -> dict[str, Any]:
    """Measure the model in the package, and what a LoRA makes of it.

    Args:
        more: for `bundled.measure`.
    """
    assets = str(bundled_folder().parent)
    given = command_line().parse_args(["--assets", assets, "--out", str(out / "measured"), *more])
    return {**measure(given), "demo": demo_figures(out / "demo", f"train.device='{given.device}'")}


def demo_figures(out: Path, *overrides: str) -> dict[str, float]:
    """The shares that the demo's scorer found before and after, and the minutes that all of it took."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    figures = demo(out, overrides=overrides).figures
    minutes = (time.monotonic() - started) / 60
    assert figures is not None
    before, after = (
        {name: count / counts["of"] for name, count in counts.items()}
        for counts in (figures["asked"]["0"], figures["asked"]["1"])
    )
    others = figures["others"]["1"]
    return {
        "the fox before": before["character"],
        "the fox after": after["character"],
        **{f"{name} after": after[name] for name in ("place", "camera", "clothes", "all")},
        "others still themselves": others["character"] / others["of"],
        "minutes": minutes,
    }


def flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures one by one: `CLIP: clip finds caption of 64`."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}: ")
        else:
            yield before + name, value


def table(figures: Mapping[str, Any]) -> str:
    """The figures in Markdown: those with a goal first."""
    found = dict(flat(figures))
    rows = ["| figure | found | goal | |", "| --- | --- | --- | --- |"]
    for name, goal in GOALS.items():
        told = "met" if goal.is_met(found[name]) else "**missed**"
        rows.append(f"| {name} | {shown(found[name])} | {goal} | {told} |")
    rows += [f"| {name} | {shown(value)} | | |" for name, value in found.items() if name not in GOALS]
    return "\n".join(rows) + "\n"


def shown(value: Any) -> str:
    """A figure as it is read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def missed(figures: Mapping[str, Any]) -> list[str]:
    """The figures that do not reach their goal."""
    found = dict(flat(figures))
    return [name for name, goal in GOALS.items() if not goal.is_met(found[name])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the bundled model; what else is said goes to bundled.measure (--count 64, --device cpu)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bundled"))
    given, more = parser.parse_known_args(arguments)
    figures = all_figures(given.out, *more)
    write_text(given.out / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(given.out / "figures.md", table(figures))
    print(table(figures))
    if failed := missed(figures):
        raise SystemExit(f"{len(failed)} of {len(GOALS)} goals missed: {', '.join(failed)}")


if __name__ == "__main__":
    run_script(main)
