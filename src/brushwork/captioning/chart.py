"""How often each tag stands in the captions of a set, as a picture."""

from collections.abc import Mapping
from pathlib import Path

from brushwork.atomic import written_beside
from brushwork.errors import UserError

LONGEST_NAME = 48
"""Letters of a tag that are shown."""


def draw_tags(
    tags: Mapping[str, int], path: Path, *, num_captions: int, top: int, inside: Path | None = None
) -> None:
    """Bars for the most frequent tags, the most frequent above.

    Args:
        tags: in how many captions each stands, the most frequent first.
        inside: the set: a chart in it would be taken for one of its pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if inside is not None and inside.resolve() in path.resolve().parents:
        raise UserError(
            f"{path}: a chart inside the set would be taken for one of its pictures.",
            fix=f"--chart {inside.resolve().name}-{path.name}",
        )
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a chart is written as PNG.", fix=f"--chart {path.with_suffix('.png')}")
    shown = dict(list(tags.items())[: max(1, top)])
    if not shown:
        raise UserError("there is no caption, so there are no tags to draw.", fix="brushwork caption SET writes some")
    names = [tag if len(tag) <= LONGEST_NAME else tag[: LONGEST_NAME - 3] + "..." for tag in shown]
    figure = Figure(figsize=(9, 1.1 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown), 0, -1)
    colours = ["#b5482a" if count == num_captions else "#2f5d8a" for count in shown.values()]
    axes.barh(places, list(shown.values()), color=colours, height=0.72)
    # A "$" in a tag is no formula.
    axes.set_yticks(list(places), [name.replace("$", r"\$") for name in names], fontsize=9)
    for place, count in zip(places, shown.values(), strict=True):
        axes.annotate(f"{count}", (count, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    rest = f", {len(tags) - len(shown)} further tags are rarer" if len(tags) > len(shown) else ""
    everywhere = "; red stands in all" if num_captions in shown.values() else ""
    axes.set_title(f"tags of {num_captions} captions{everywhere}{rest}", fontsize=10)
    axes.set_xlabel("captions")
    axes.set_ylim(0.3, len(shown) + 0.7)
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
