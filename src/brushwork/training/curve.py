"""The loss as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brushwork.atomic import written_beside
from brushwork.records import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURED = {"held_out_loss": ("held out", "#b5482a"), "train_part_loss": ("part of the training set", "#2f8a6b")}
"""What a validation measures, and how it is drawn."""


def draw_curve(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Plot each step's loss, its running mean and the learning rate; below them, with an axis of their own, what the
    validations measured: it moves far less than the loss of a step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = {key: points for key in MEASURED if (points := _points(rows, key))}
    figure = Figure(figsize=(9, 8 if measured else 5), layout="constrained")
    plots = figure.subplots(2 if measured else 1, squeeze=False, sharex=True)[:, 0]
    _draw_steps(plots[0], rows)
    plots[0].set_title(title)
    if measured:
        _draw_measured(plots[1], measured)
    plots[-1].set_xlabel("step")
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _points(rows: Sequence[Row], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _draw_steps(axes: "Axes", rows: Sequence[Row]) -> None:
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["loss"] for row in rows], color="#c9c2b8", linewidth=0.8, label="loss of each step")
    axes.plot(steps, [row["smoothed_loss"] for row in rows], color="#2f5d8a", linewidth=2, label="smoothed")
    axes.set_ylabel("loss")
    axes.grid(color="#eeeeee")
    rate = axes.twinx()
    rates = [row["learning_rate"] for row in rows]
    rate.plot(steps, rates, color="#7a9a5a", linewidth=1, linestyle=":", label="learning rate")
    rate.set_ylim(0, 1.1 * max(rates, default=1.0) or 1.0)
    rate.set_ylabel("learning rate")
    handles, labels = axes.get_legend_handles_labels()
    more_handles, more_labels = rate.get_legend_handles_labels()
    axes.legend(handles + more_handles, labels + more_labels, loc="upper right", frameon=False)


def _draw_measured(axes: "Axes", measured: dict[str, list[tuple[int, float]]]) -> None:
    axes.margins(x=0.08, y=0.15)
    for key, points in measured.items():
        label, colour = MEASURED[key]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=1.5, label=label)
        step, loss = min(points, key=lambda point: point[1])
        axes.annotate(
            f"lowest: {loss:.4f}, step {step:,}",
            (step, loss),
            (0, -14),
            textcoords="offset points",
            ha=_side(step, *axes.get_xlim()),
            color=colour,
            fontsize=8,
        )
    axes.set_ylabel("loss, always of the same noise")
    axes.grid(color="#eeeeee")
    axes.legend(loc="best", frameon=False)


def _side(step: int, left: float, right: float) -> str:
    """Which end of its words stands at a step, so that they do not run over the frame."""
    place = (step - left) / (right - left)
    return "left" if place < 0.2 else "right" if place > 0.8 else "center"
