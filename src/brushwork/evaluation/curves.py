"""The figures as drawings for the report: SVG, sharp at any size and part of the page."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from brushwork.evaluation.choice import Result
from brushwork.evaluation.resampling import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

INK, SOFT, BEST, BAD = "#2b2730", "#8a8290", "#2e7d4f", "#b3402a"
COLOURS = {
    "score": "#2b2730",
    "identity": "#c8471f",
    "variety": "#2f5d8a",
    "style": "#7a5aa6",
    "adherence": "#2f8a6b",
    "quality": "#a37a1c",
    "copying": "#b3402a",
}


def draw_parts(results: Sequence[Result], base: Result | None, parts: Sequence[str], best: Result | None) -> Markup:
    """The score, each part and the leaning to the training pictures over the steps, each with its interval."""
    names = ["score", *parts]
    if all(each.leaning is not None for each in results):
        names.append("copying")
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    sheet = _sheet(3.0 * columns, 2.3 * rows)
    panels = sheet.subplots(rows, columns, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        _draw_panel(panel, name, results, base, best)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    return _as_svg(sheet)


def draw_pareto(results: Sequence[Result], pareto: Sequence[Result], best: Result | None) -> Markup | None:
    """Identity against variety, and how much is copied as colour; who is beaten by nobody has a ring."""
    from matplotlib.colors import LinearSegmentedColormap

    if not all("identity" in each.parts and "variety" in each.parts for each in results):
        return None
    sheet = _sheet(6.4, 4.2)
    axes = sheet.subplots()
    known = all(each.leaning is not None for each in results)
    across = [each.part("variety").value for each in results]
    up = [each.part("identity").value for each in results]
    shade = [0.0 if each.leaning is None else float(each.leaning[0]) for each in results]
    ring = [INK if each in pareto else "none" for each in results]
    colours = LinearSegmentedColormap.from_list("copies", ["#8fb3c9", "#e8b04a", "#b3402a"])
    points = axes.scatter(across, up, c=shade, cmap=colours, vmin=0, vmax=1, s=90, edgecolors=ring, linewidths=1.8)
    for each, x, y in zip(results, across, up, strict=True):
        axes.annotate(
            _short(each),
            (x, y),
            (6, 5),
            textcoords="offset points",
            fontsize=8,
            color=BEST if each is best else INK,
            fontweight="bold" if each is best else "normal",
        )
    axes.set_xlabel("variety")
    axes.set_ylabel("identity")
    axes.margins(0.12)
    _plain(axes)
    if known:
        bar = sheet.colorbar(points, ax=axes, shrink=0.8)
        bar.set_label("leaning to what was trained on", color=SOFT, fontsize=8)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=SOFT, labelsize=8, length=0)
    return _as_svg(sheet)


def _draw_panel(axes: "Axes", name: str, results: Sequence[Result], base: Result | None, best: Result | None) -> None:
    found = [_figure(each, name) for each in results]
    places = [each.candidate.place for each in results]
    by_steps = all(place is not None for place in places) and len(set(places)) == len(places)
    across = [float(place[1]) for place in places if place is not None] if by_steps else list(range(len(results)))
    colour = COLOURS[name]
    axes.fill_between(across, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.16, linewidth=0)
    axes.plot(across, [f.value for f in found], color=colour, marker="o", markersize=3.5, linewidth=1.6)
    if base is not None and (name in base.parts or name != "copying" or base.leaning is not None):
        axes.axhline(_figure(base, name).value, color=SOFT, linewidth=1, linestyle=":")
    if best is not None and best in results:
        at = results.index(best)
        axes.plot(
            [across[at]],
            [found[at].value],
            marker="o",
            markersize=9,
            color=BEST,
            fillstyle="none",
            markeredgewidth=1.8,
        )
    if name == "copying" and results:
        axes.axhline(0.5, color=SOFT, linewidth=1, linestyle="--")
    axes.set_title(
        name if name != "copying" else "leaning to what was trained on", fontsize=10, color=colour, loc="left"
    )
    axes.set_ylim(-0.03, 1.03)
    if by_steps:
        axes.set_xlabel(next(place[0] for place in places if place is not None), fontsize=8, color=SOFT)
    else:
        axes.set_xticks(across, [_short(each) for each in results], rotation=60, ha="right")
    _plain(axes)


def _figure(result: Result, name: str) -> Figure:
    if name == "score":
        return result.score
    if name == "copying":
        assert result.leans is not None
        return result.leans
    return result.part(name)


def short_name(result: Result) -> str:
    """`step 800`, `800 x 0.8`: what a file is called where there is little room."""
    place = result.candidate.place
    return result.candidate.name if place is None else f"{place[0]} {_short(result)}"


def _short(result: Result) -> str:
    place = result.candidate.place
    name = result.candidate.name
    if place is None:
        return name
    extra = ("" if result.candidate.strength == 1 else f" x {result.candidate.strength:g}") + (
        " ema" if result.candidate.ema else ""
    )
    return f"{place[1]:,}{extra}"


def _sheet(width: float, height: float) -> "Sheet":
    from matplotlib.figure import Figure as Sheet

    return Sheet(figsize=(width, height), layout="constrained", facecolor="none")


def _plain(axes: "Axes") -> None:
    axes.set_facecolor("none")
    axes.grid(color="#eee7dc", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=8, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)


def _as_svg(sheet: "Sheet") -> Markup:
    """The drawing as text for a page; letters stay letters, and nothing in it follows from the clock."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    data = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "brushwork", "font.family": "DejaVu Sans"}):
        FigureCanvasSVG(sheet).print_svg(data, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", data.getvalue(), flags=re.DOTALL)
    return Markup(text[text.index("<svg") :])
