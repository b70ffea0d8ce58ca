"""The loss as a picture."""

from collections.abc import Sequence
from pathlib import Path

from brushwork.atomic import written_beside
from brushwork.records import Row


def draw_curve(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Plot each step's loss, its running mean, the held-out loss where measured, and the learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, [row["loss"] for row in rows], color="#c9c2b8", linewidth=0.8, label="loss of each step")
    axes.plot(steps, [row["smoothed_loss"] for row in rows], color="#2f5d8a", linewidth=2, label="smoothed")
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if row.get("held_out_loss") is not None]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="#b5482a", marker="o", linewidth=1.5, label="held out")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(color="#eeeeee")
    rate = axes.twinx()
    rates = [row["learning_rate"] for row in rows]
    rate.plot(steps, rates, color="#7a9a5a", linewidth=1, linestyle=":", label="learning rate")
    rate.set_ylim(0, 1.1 * max(rates, default=1.0) or 1.0)
    rate.set_ylabel("learning rate")
    handles, labels = axes.get_legend_handles_labels()
    more_handles, more_labels = rate.get_legend_handles_labels()
    axes.legend(handles + more_handles, labels + more_labels, loc="upper right", frameon=False)
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
