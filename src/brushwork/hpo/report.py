"""What a search found, on one page: the winner and whether it is more than luck, what mattered, and how it went.

STUDY/report.html           everything in it; opens without a server
STUDY/report.json           the same for programs
STUDY/report/               the pictures
"""

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brushwork import pages
from brushwork.atomic import write_text, written_beside
from brushwork.errors import UserError
from brushwork.hpo.space import RATIO
from brushwork.hpo.study import RESULTS

STATES = ("complete", "pruned", "refused", "failed", "running")
COLOURS = {"complete": "#2e7d4f", "pruned": "#c98a1b", "refused": "#b3402a", "failed": "#6d6672", "running": "#888"}

T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753)
"""95 % of Student's t is below this, with 1, 2, ... degrees of freedom; beyond the table 1.7 is close enough."""


@dataclass(frozen=True)
class Gain:
    """The winner against the recipe, both trained with the same other seeds.

    Args:
        pairs: how many seeds.
        mean: by how much the winner is better; below 0 where it is worse.
        least: the lower end: with 95 % confidence the gain is above.
        noise: the standard deviation that seeds alone make, of the recipe; None with a single one.
    """

    pairs: int
    mean: float
    least: float
    noise: float | None

    @property
    def is_real(self) -> bool:
        """Whether it is more than seeds alone make."""
        return self.least > 0


@dataclass(frozen=True)
class Report:
    """All that is told of a search."""

    name: str
    attempts: int
    counts: dict[str, int]
    by_rule: dict[str, int]
    best: dict[str, Any] | None
    gain: Gain | None
    verdict: str
    importance: dict[str, float] | None
    by_choice: dict[str, list[dict[str, Any]]]
    trials: list[dict[str, Any]]
    repeats: dict[str, list[float | None]]
    measure: str = "held-out loss"


def read_results(folder: Path) -> dict[str, Any]:
    """What `brushwork search` wrote into its folder."""
    file = folder / RESULTS
    if not file.is_file():
        raise UserError(
            f"{folder} holds no search: there is no {RESULTS}.", fix="name the --out of a brushwork search"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        known = {"direction", "attempts", "best", "repeats", "trials"} <= set(found)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file} is not what a search wrote: {error}.", fix="run the search again: it writes it anew"
        ) from error
    if not known:
        raise UserError(f"{file} is not what a search wrote.", fix="run the search again: it writes it anew")
    return dict(found)


def make_report(results: Mapping[str, Any], importance: dict[str, float] | None, *, name: str) -> Report:
    """What is to be told, from the results and what Optuna says mattered."""
    trials = list(results["trials"])
    counts = Counter(row["state"] for row in trials)
    rules = Counter(str(row["rule"]) for row in trials if row["state"] == "refused")
    best = next((row for row in trials if row["number"] == results["best"]), None)
    gain = gain_of(results["repeats"], minimize=results["direction"] == "minimize")
    by_score = results.get("about", {}).get("objective") == "score"
    copying = copied_repeats(results["repeats"]) if by_score else ""
    return Report(
        name=name,
        attempts=results["attempts"],
        counts={state: counts[state] for state in STATES if counts[state]},
        by_rule=dict(sorted(rules.items())),
        best=best,
        gain=gain,
        verdict=(verdict(best, gain) if best is not None else why_none(trials, rules)) + copying,
        importance=importance,
        by_choice=compared(trials, minimize=results["direction"] == "minimize"),
        trials=trials,
        repeats=dict(results["repeats"]),
        measure="score" if by_score else "held-out loss",
    )


def gain_of(repeats: Mapping[str, Sequence[float | None]], *, minimize: bool) -> Gain | None:
    """The winner against the recipe, seed by seed; None where they were not both repeated at least twice.

    The trial that won is left out: of many it is the luckiest, and its value would flatter it.
    """
    base, winner = list(repeats.get("base", [])), list(repeats.get("winner", []))
    pairs = [(b, w) for b, w in zip(base, winner, strict=False) if b is not None and w is not None]
    if len(pairs) < 2:
        return None
    sign = 1 if minimize else -1
    differences = [sign * (b - w) for b, w in pairs]
    middle = mean(differences)
    limit = T95[len(pairs) - 2] if len(pairs) - 2 < len(T95) else 1.7
    least = middle - limit * stdev(differences) / math.sqrt(len(pairs))
    return Gain(len(pairs), middle, least, stdev([b for b, _ in pairs]))


def why_none(trials: Sequence[Mapping[str, Any]], rules: Mapping[str, int]) -> str:
    """Why nothing is recommended, and what to do."""
    refused = sum(rules.values())
    if any(row.get("barred") for row in trials):
        return (
            "Every trial that came to its end draws copies of its training pictures, so none is recommended: train "
            "on more pictures, or for fewer steps."
        )
    if trials and refused == len(trials):
        most = max(rules, key=lambda rule: rules[rule])
        return (
            f"All {refused} trials were refused before they trained, most of them by rule {most} ({rules[most]}), so "
            "there is nothing to recommend: the space and the rules do not fit one another. The rules are those of "
            "SD 1.5 and SDXL at their usual rates; for another base give a space and rules of its own (--space FILE "
            "--rules FILE; an empty file refuses nothing), and another --out."
        )
    return "No trial came to its end, so there is nothing to recommend; the table says why."


def copied_repeats(repeats: Mapping[str, Sequence[float | None]]) -> str:
    """What is to be said of repeats that copy; their results are below 0, which no score is."""
    told = []
    for what, name in (("base", "the recipe"), ("winner", "the winner")):
        values = [value for value in repeats.get(what, []) if value is not None]
        if copies := sum(value < 0 for value in values):
            told.append(f"{name} copies training pictures with {copies} of {len(values)} other seeds")
    return f" To be known: {'; '.join(told)}." if told else ""


def verdict(best: Mapping[str, Any], gain: Gain | None) -> str:
    """A sentence that claims no more than was measured."""
    named = f"Trial {best['number']} is the best that was tried"
    if gain is None:
        return (
            f"{named}. Whether that is more than luck was not measured: recipe and winner were not both repeated "
            "with other seeds."
        )
    told = f"with {gain.pairs} other seeds it is better than the recipe by {gain.mean:.4g} in the mean"
    if gain.is_real:
        return f"{named}, and the gain holds: {told}, and by at least {gain.least:.4g} with 95 % confidence."
    if gain.mean > 0:
        return f"{named}, but it is no gain that can be told from noise: {told}, which seeds alone may make."
    return (
        f"{named}, but it is no gain: with {gain.pairs} other seeds it is no better than the recipe "
        f"({gain.mean:.4g}). Keep the recipe."
    )


def compared(trials: Sequence[Mapping[str, Any]], *, minimize: bool) -> dict[str, list[dict[str, Any]]]:
    """For each setting that is drawn from few values: how the trials with each did."""
    done = [row for row in trials if row["state"] == "complete"]
    keys = sorted({key for row in trials for key in row["drawn"]})
    found: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        values = list(dict.fromkeys(row["drawn"][key] for row in trials if key in row["drawn"]))
        if len(values) > 6 or any(isinstance(value, float) and len(values) > 4 for value in values):
            continue
        rows = []
        for value in sorted(values, key=lambda each: (isinstance(each, str), each)):
            results = [row["value"] for row in done if row["drawn"].get(key) == value]
            tried = sum(row["drawn"].get(key) == value for row in trials)
            best = (min(results) if minimize else max(results)) if results else None
            rows.append(
                {"value": value, "attempted": tried, "complete": len(results), "best": best}
                | {"mean": mean(results) if results else None}
            )
        found[key] = rows
    return found


def write_report(report: Report, folder: Path) -> Path:
    """Write page, figures and pictures into the folder of the search; -> the page."""
    pictures = draw(report, folder / "report")
    told = asdict(report) | {"pictures": [f"report/{file.name}" for file in pictures]}
    write_text(folder / "report.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    page = folder / "report.html"
    write_text(page, render(report, pictures))
    return page


def render(report: Report, pictures: Sequence[Path]) -> str:
    """The page as HTML; the same report is the same text."""
    embedded = [(file.stem.replace("-", " "), _embedded(file)) for file in pictures]
    shown = {"report": report, "pictures": embedded}
    return pages.render("hpo/report.html", shown, filters={"number": _number})


# Pictures


def draw(report: Report, folder: Path) -> list[Path]:
    """All pictures that there is something to show in."""
    done = [row for row in report.trials if row["state"] == "complete"]
    made = [_drawn(folder / "history.png", lambda axes: _history(axes, report))]
    if report.importance:
        shares = report.importance
        made.append(_drawn(folder / "importance.png", lambda axes: _importance(axes, shares, len(done))))
    for key in sorted({key for row in done for key in row["drawn"]}):
        made.append(_drawn(folder / f"{key}.png", lambda axes, key=key: _slice(axes, report, done, key)))  # type: ignore[misc]
    ratio = f"lora.alpha{RATIO}"
    both = [row for row in done if ratio in row["drawn"] and "lora.rank" in row["drawn"]]
    if both:
        made.append(_drawn(folder / "rank-and-ratio.png", lambda axes: _plane(axes, report, both, ratio)))
    return made


def _drawn(file: Path, fill: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(5.6, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    fill(axes)
    with written_beside(file) as partial:
        figure.savefig(partial, format="png")
    return file


def _history(axes: Axes, report: Report) -> None:
    axes.margins(y=0.12)
    alike = report.measure == "held-out loss"  # what a trial measures on its way is its result's own kind
    if not alike:
        _bars(axes, report)
    for state in STATES:
        found = [row for row in report.trials if row["state"] == state and not row.get("barred")]
        rows = [(row["number"], _height(row) if alike else row["value"]) for row in found]
        known = [(number, height) for number, height in rows if height is not None]
        marker = "o" if state == "complete" else "x"
        if known:
            numbers, heights = [number for number, _ in known], [height for _, height in known]
            axes.scatter(numbers, heights, label=state, color=COLOURS[state], marker=marker, s=26)
        unknown = [number for number, height in rows if height is None]
        if unknown:  # along the edge: they have no result
            axes.scatter(
                unknown,
                [0.03] * len(unknown),
                label=f"{state}, no result",
                color=COLOURS[state],
                marker="|",
                s=90,
                transform=axes.get_xaxis_transform(),
            )
    base = [value for value in report.repeats.get("base", []) if value is not None]
    if base:
        axes.axhline(mean(base), color="#555", linestyle="--", linewidth=1, label="recipe, other seeds")
        if len(base) > 1:
            axes.axhspan(mean(base) - stdev(base), mean(base) + stdev(base), color="#555", alpha=0.12)
    crosses = "; a cross is the last measurement of a pruned trial" if alike else ""
    axes.set(xlabel="trial", ylabel=report.measure, title=f"History{crosses}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.title.set_fontsize(10)
    axes.legend(fontsize=7)


def _bars(axes: Axes, report: Report) -> None:
    """Trials that copy, which cannot win: below 0, by how much they do."""
    copying = [row for row in report.trials if row.get("barred")]
    if copying:
        numbers, depths = [row["number"] for row in copying], [row["value"] for row in copying]
        axes.scatter(numbers, depths, label="copies, cannot win", color="#b3402a", marker="v", s=26)
        axes.axhline(0, color="#b3402a", linewidth=0.8)


def _height(row: Mapping[str, Any]) -> float | None:
    """Its result, else its last measurement, where there is one."""
    if row["value"] is not None:
        return float(row["value"])
    return float(list(row["curve"].values())[-1]) if row["curve"] else None


def _importance(axes: Axes, importance: Mapping[str, float], num_trials: int) -> None:
    names = sorted(importance, key=lambda name: importance[name])
    axes.barh(names, [importance[name] for name in names], color="#4a6fa5")
    axes.set(
        xlabel="share of what differs (fANOVA)", title=f"What mattered, by {num_trials} trials that came to their end"
    )
    axes.tick_params(axis="y", labelsize=7)


def _slice(axes: Axes, report: Report, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    shown = [row for row in rows if key in row["drawn"]]
    values = [row["drawn"][key] for row in shown]
    number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    places = values if number else [str(value) for value in values]
    axes.scatter(places, [row["value"] for row in shown], c=[row["number"] for row in shown], cmap="viridis", s=26)
    if number and "rate" in key and min(values) > 0:
        axes.set_xscale("log")
    axes.set(xlabel=key, ylabel=report.measure, title=f"{key}: later trials are brighter")


def _plane(axes: Axes, report: Report, rows: Sequence[Mapping[str, Any]], ratio: str) -> None:
    shown = axes.scatter(
        [str(row["drawn"]["lora.rank"]) for row in sorted(rows, key=lambda row: row["drawn"]["lora.rank"])],
        [row["drawn"][ratio] for row in sorted(rows, key=lambda row: row["drawn"]["lora.rank"])],
        c=[row["value"] for row in sorted(rows, key=lambda row: row["drawn"]["lora.rank"])],
        cmap="viridis",
        s=60,
    )
    axes.figure.colorbar(shown, ax=axes, label=report.measure)
    axes.set(xlabel="lora.rank", ylabel="alpha / rank", title="Rank and ratio")


def _embedded(file: Path) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(file.read_bytes()).decode()


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
