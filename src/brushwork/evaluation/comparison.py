"""The report of a comparison: `report.json` for programs, `report.html` for people, which opens without a server."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from brushwork import __version__, pages
from brushwork.amounts import duration
from brushwork.atomic import write_text
from brushwork.evaluation.advice import Advice
from brushwork.evaluation.contest import Contest, Entry, Pair
from brushwork.evaluation.report import Picture, embedded, link_to


def write_comparison(contest: Contest, advice: Sequence[Advice], folder: Path) -> Path:
    """Write `report.json` and `report.html`; -> the page."""
    write_text(folder / "report.json", json.dumps(as_json(contest, advice), indent=2, ensure_ascii=False) + "\n")
    page = folder / "report.html"
    write_text(page, render(contest, advice, folder))
    return page


def as_json(contest: Contest, advice: Sequence[Advice]) -> dict[str, Any]:
    """Every figure; the same runs are the same text."""
    return {
        "brushwork": __version__,
        "ranking": [each.name for each in contest.ranking],
        "runs": [_entry_row(contest, each) for each in contest.entries],
        "pairs": [_pair_row(pair) for pair in contest.pairs],
        "advice": [{"use": each.use, "take": list(each.take), "why": each.why} for each in advice],
        "settings_that_differ": {key: list(values) for key, values in contest.settings.items()},
        "weights": {part: round(share, 4) for part, share in contest.shares.items()},
        "confidence": contest.confidence,
        "encoder": contest.encoder,
        "num_references": contest.num_references,
        "num_bases": contest.num_bases,
        "prompts": list(contest.texts),
        "cells": [
            {"prompt": prompt, "seed": seed} for prompt, seed in zip(contest.prompts, contest.seeds, strict=True)
        ],
        "notes": list(contest.notes),
    }


def render(contest: Contest, advice: Sequence[Advice], folder: Path) -> str:
    """The page."""
    return pages.render(
        "evaluation/comparison.html",
        {
            "contest": contest,
            "advice": advice,
            "parts": list(contest.shares),
            "grid": _grid(contest, folder),
            "reports": [link_to(each.path / "evaluation" / "report.html", folder) for each in contest.entries],
            "version": __version__,
        },
        filters={"setting": setting, "duration": duration},
    )


def table(contest: Contest) -> list[list[list[str]]]:
    """What a terminal shows, a column for each run, the best first: the figures, and the settings that differ."""
    ranking = contest.ranking
    columns = [_column(contest, each) for each in ranking]
    names = ["", "file", "score", *contest.shares, "copies", "trained", "memory"]
    figures = [[name, *(column[row] for column in columns)] for row, name in enumerate(names)]
    order = [contest.entries.index(each) for each in ranking]
    settings = [[key, *(setting(values[place]) for place in order)] for key, values in contest.settings.items()]
    return [figures, settings] if settings else [figures]


def setting(value: Any) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column(contest: Contest, each: Entry) -> list[str]:
    score, cost = each.result.score, each.cost
    copies = "?" if each.result.copying is None else f"{100 * each.result.copying.value:.0f} %"
    return [
        each.name,
        each.file,
        f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})",
        *(f"{each.result.part(part).value:.2f}" for part in contest.shares),
        f"{copies}, too much" if each.result.copies_too_much else copies,
        "?" if cost is None else f"{cost.steps:,} steps, {duration(cost.seconds)}",
        "?" if cost is None or cost.memory_gib is None else f"{cost.memory_gib:.1f} GiB",
    ]


def _entry_row(contest: Contest, each: Entry) -> dict[str, Any]:
    result, cost = each.result, each.cost
    return {
        "name": each.name,
        "file": each.file,
        "picked": each.is_picked,
        "base": each.base,
        "family": each.family,
        "size": None if each.size is None else list(each.size),
        "score": result.score.row(),
        "parts": {part: result.part(part).row() for part in contest.shares},
        "copies": None if result.copying is None else result.copying.row(),
        "leaning": None if result.leans is None else result.leans.row(),
        "copies_too_much": result.copies_too_much,
        "training": None if cost is None else vars(cost),
    }


def _pair_row(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first.name,
        "second": pair.second.name,
        "words": pair.words,
        "score": pair.score.row(),
        "parts": {part: found.row() for part, found in pair.parts.items()},
    }


def _grid(contest: Contest, folder: Path) -> list[dict[str, Any]]:
    """A row for each prompt: the pictures of its seeds by every run."""
    rows = []
    for number, text in enumerate(contest.texts):
        places = [place for place, prompt in enumerate(contest.prompts) if prompt == number]
        cells = [[_picture(each, place, contest, folder) for place in places] for each in contest.entries]
        rows.append({"text": text, "cells": cells})
    return rows


def _picture(each: Entry, place: int, contest: Contest, folder: Path) -> Picture | None:
    """None where it is no longer there: the figures were kept."""
    file = each.pictures[place]
    if not file.is_file():
        return None
    with Image.open(file) as image:
        words = f"{each.name}: {contest.texts[contest.prompts[place]]} (seed {contest.seeds[place]})"
        return Picture(embedded(image), link_to(file, folder), words)
