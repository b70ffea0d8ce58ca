"""The table and the picture of `step.py`, made of its results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from brushwork.atomic import written_beside

PEERS = ("diffusers", "diffusers, checkpointing")
THEIRS = ("diffusers", "kohya")

ACROSS = 3
"""Panels side by side."""

HEAD = (
    "model",
    "px",
    "batch",
    "mode",
    "s a step",
    "faster than diffusers",
    "than with checkpointing",
    "GiB beside",
    "GiB in all",
    "of the plan's",
    "TFLOP",
    "calls",
    "kernels",
)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each mode of each size, with how many times as fast as diffusers without and with
    checkpointing it is. Calls are counted, kernels are a card's own."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- " * len(HEAD) + "|"]
    for result in results:
        for name in dict.fromkeys([*result["timed"], *result["counted"]]):
            cells = [result["model"], result["resolution"], result["batch"], name, *_figures(result, name)]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _figures(result: Mapping[str, Any], name: str) -> list[str]:
    times = {each: row["median_seconds"] for each, row in result["timed"].items()}
    time, timed, counts = times.get(name), result["timed"].get(name, {}), result["counted"].get(name, {})
    found = [f"{time:.3g}" if time is not None and time < 1 else f"{time:.2f}" if time is not None else ""]
    found += [f"{times[peer] / time:.2f}x" if peer in times and time is not None else "" for peer in PEERS]
    beside = timed.get("peak_gib", counts.get("peak_gib"))
    found.append("" if beside is None else f"{beside:.2f}")
    whole = memory_of(timed or counts)
    found.append("" if whole is None else f"{whole:.2f}")
    planned = memory_of(counts)
    measured = "kernels" in timed  # on a card; elsewhere it is the plan's own count
    found.append(f"{whole / planned:.2f}" if measured and whole is not None and planned else "")
    found += [f"{counts['tflop']:.2f}", f"{counts['calls'] + counts['update_calls']}"] if counts else ["", ""]
    return [*found, str(timed.get("kernels") or "")]


def memory_of(row: Mapping[str, Any]) -> float | None:
    """GiB: what is held all the time, the network's weights first of all, and the most in a step beside it."""
    if "held_gib" not in row:
        return None
    return float(row["held_gib"] + row["peak_gib"])


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Seconds against memory, a panel for each size, a point for each mode. Left and low is good."""
    panels = [result for result in results if result["timed"]]
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(8.0 * across, 5.0 * down), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).flatten()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for result, axes in zip(panels, places, strict=False):
        for name, row in result["timed"].items():
            gib, ours = memory_of(row), not name.startswith(THEIRS)
            if gib is None:
                continue
            colour = "tab:blue" if ours else "tab:orange"
            axes.plot(gib, row["median_seconds"], "o" if ours else "s", color=colour)
            place: dict[str, Any] = {"xytext": (-6, -11), "ha": "right"}
            if not ours:
                place = {"xytext": (6, 4) if name.startswith("kohya") else (6, -11)}
            axes.annotate(
                name, (gib, row["median_seconds"]), textcoords="offset points", fontsize=9, color=colour, **place
            )  # each party on a side of its own, so that names at one place can be read
        title = f"{result['model']}, {result['resolution']} px, batch {result['batch']}"
        axes.set(title=title, xlabel="GiB in all, with the weights", ylabel="seconds a step")
        axes.set(xlim=(0, axes.get_xlim()[1] * 1.25), ylim=(0, axes.get_ylim()[1] * 1.1))
        axes.grid(color="#eeeeee")
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
