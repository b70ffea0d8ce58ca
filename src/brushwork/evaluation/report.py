"""The report: `report.json` for programs, `report.html` for people, which opens without a server or the network.

Small pictures stand in the page; each leads to the whole one beside it.
"""

import base64
import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

from brushwork import __version__, pages
from brushwork.atomic import write_text
from brushwork.config.schema import EvaluationConfig
from brushwork.evaluation.candidates import Candidate
from brushwork.evaluation.choice import LEANS, Choice, Result, Verdict
from brushwork.evaluation.curves import draw_pareto, draw_parts, short_name
from brushwork.evaluation.parts import Measured, Scale
from brushwork.evaluation.subjects import Subjects

THUMBNAIL = 144
QUALITY = 80
MOST_PAIRS = 8
MOST_SHOWN = 6
MOST_REFERENCES = 24


@dataclass(frozen=True, eq=False)
class Story:
    """All that the report tells."""

    title: str
    subjects: Subjects
    drawn_texts: Sequence[str]
    kinds: Sequence[str]
    prompts: Sequence[int]
    seeds: Sequence[int]
    files: Mapping[Candidate, Sequence[Path]]
    results: Mapping[Candidate, Result]
    measured: Mapping[Candidate, Measured]
    shares: Mapping[str, float]
    choice: Choice
    verdict: Verdict
    picked: str | None
    run: Path | None
    """The folder whose best file is named; None: pictures alone were judged."""
    notes: Sequence[str]
    settings: EvaluationConfig
    encoder: str | None
    scale: Scale
    chance: float

    def pick_command(self, candidate: Candidate) -> str | None:
        """What to type to choose it; None where there is no file to choose."""
        if self.run is None or candidate.file is None:
            return None
        return f"brushwork evaluate {shlex.quote(str(self.run))} --pick {shlex.quote(candidate.name)}"

    @property
    def base(self) -> Result | None:
        return next((result for each, result in self.results.items() if each.is_base), None)

    @property
    def trained(self) -> list[Result]:
        """Without the base, from the earliest to the latest."""
        return [result for each, result in self.results.items() if not each.is_base]

    @cached_property
    def short(self) -> Mapping[str, str]:
        """What the candidates are called where there is little room."""
        return {each.name: short_name(result) for each, result in self.results.items()}


@dataclass(frozen=True)
class Picture:
    """One picture on the page."""

    small: Markup
    link: str
    words: str
    value: float | None = None


@dataclass(frozen=True)
class Pair:
    """A drawn picture beside the training picture that it is nearest to."""

    drawn: Picture
    learned: Picture
    name: str
    is_copy: bool
    content: float | None
    pixels: float


def write_report(story: Story, folder: Path) -> Path:
    """Write `report.json` and `report.html`; -> the page."""
    write_text(folder / "report.json", json.dumps(as_json(story, folder), indent=2, ensure_ascii=False) + "\n")
    page = folder / "report.html"
    write_text(page, render(story, folder))
    return page


def as_json(story: Story, folder: Path) -> dict[str, Any]:
    """Every figure; the same story is the same text."""
    best = story.choice.best
    return {
        "brushwork": __version__,
        "title": story.title,
        "best": None if best is None else best.candidate.name,
        "reason": story.choice.reason,
        "picked": story.picked,
        "ties": [each.candidate.name for each in story.choice.ties],
        "pareto": [each.candidate.name for each in story.choice.pareto],
        "verdict": {"kind": story.verdict.kind, "text": story.verdict.text, "since_step": story.verdict.since},
        "notes": list(story.notes),
        "weights": {part: round(share, 4) for part, share in story.shares.items()},
        "confidence": story.settings.confidence,
        "encoder": story.encoder,
        "references": {"source": story.subjects.source, "files": [each.name for each in story.subjects.references]},
        "num_training_pictures": len(story.subjects.training),
        "copies_by_chance": round(story.chance, 4),
        "prompts": [{"text": text, "kind": kind} for text, kind in zip(story.drawn_texts, story.kinds, strict=True)],
        "cells": [{"prompt": prompt, "seed": seed} for prompt, seed in zip(story.prompts, story.seeds, strict=True)],
        "candidates": [_candidate_row(story, each, folder) for each in story.results],
    }


def render(story: Story, folder: Path) -> str:
    """The page."""
    best = story.choice.best
    return pages.render(
        "evaluation/report.html",
        {
            "story": story,
            "best": best,
            "base": story.base,
            "trained": story.trained,
            "parts": list(story.shares),
            "curves": draw_parts(story.trained, story.base, list(story.shares), best),
            "pareto": draw_pareto(story.trained, story.choice.pareto, best),
            "grid": _grid(story, folder),
            "references": [_of_subject(each) for each in story.subjects.references[:MOST_REFERENCES]],
            "extremes": _extremes(story, folder),
            "pairs": _pairs(story, folder),
            "version": __version__,
            "lean_limit": LEANS,
            "can_pick": any(story.pick_command(each) for each in story.results),
        },
    )


def _candidate_row(story: Story, candidate: Candidate, folder: Path) -> dict[str, Any]:
    result, measured = story.results[candidate], story.measured[candidate]
    row: dict[str, Any] = {
        "name": candidate.name,
        "file": None if candidate.file is None else candidate.file.name,
        "step": candidate.step,
        "epoch": candidate.epoch,
        "strength": candidate.strength,
        "ema": candidate.ema,
        "also": list(candidate.also),
        "sha256_of_the_tensors": candidate.digest or None,
        "score": result.score.row(),
        "parts": {part: result.part(part).row() for part in story.shares},
        "raw": {name: round(value, 4) for name, value in measured.raw.items()},
        "copies": None if result.copying is None else result.copying.row(),
        "leaning": None if result.leans is None else result.leans.row(),
        "copies_too_much": result.copies_too_much,
        "pictures": [
            _picture_row(story, measured, place, file, folder) for place, file in enumerate(story.files[candidate])
        ],
    }
    if story.choice.best is not None and not candidate.is_base:
        row["against_the_best"] = result.against(story.choice.best).row()
    return row


def _picture_row(story: Story, measured: Measured, place: int, file: Path, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"file": link_to(file, folder, quoted=False)}
    row |= {
        part: None if values[place].isnan() else round(float(values[place]), 4)
        for part, values in measured.per_picture.items()
    }
    found = measured.copying
    if found is not None:
        row["nearest_training_picture"] = story.subjects.training[int(found.which[place])].name
        row["similarity_of_pixels"] = round(float(found.pixels.similarity[place]), 4)
        if found.content is not None:
            row["similarity_of_content"] = round(float(found.content.similarity[place]), 4)
        row["copy"] = bool(found.is_copy[place])
        row["leaning"] = round(float(found.leaning[place]), 4)
    return row


def _grid(story: Story, folder: Path) -> list[dict[str, Any]]:
    """A row for each prompt: the pictures of its first seed by every candidate."""
    rows = []
    for number, text in enumerate(story.drawn_texts):
        places = [place for place, prompt in enumerate(story.prompts) if prompt == number]
        cells = {
            each.name: [_drawn(story.files[each][place], text, story.seeds[place], folder) for place in places]
            for each in story.results
        }
        rows.append({"text": text, "kind": story.kinds[number], "cells": cells})
    return rows


def _extremes(story: Story, folder: Path) -> list[dict[str, Any]]:
    """For each part, the pictures of the best candidate that have most and least of it."""
    if story.choice.best is None:
        return []
    candidate = story.choice.best.candidate
    found = []
    for part in ("identity", "style", "adherence", "quality"):
        values = story.measured[candidate].per_picture.get(part)
        if values is None or part not in story.shares:
            continue
        order = [place for place in values.argsort(descending=True).tolist() if not values[place].isnan()]
        count = min(MOST_SHOWN, len(order) // 2)
        found.append(
            {
                "part": part,
                "most": [_cell(story, candidate, place, folder, float(values[place])) for place in order[:count]],
                "least": [
                    _cell(story, candidate, place, folder, float(values[place])) for place in order[::-1][:count]
                ],
            }
        )
    return found


def _pairs(story: Story, folder: Path) -> list[Pair]:
    """The pictures that are nearest to a training picture: the worst of all candidates, and of each one its worst."""
    ranked = sorted(
        (
            (float(found.copying.nearness[place]), order, place, each)
            for order, (each, found) in enumerate(story.measured.items())
            if found.copying is not None and not each.is_base
            for place in range(len(story.files[each]))
        ),
        key=lambda entry: (-entry[0], entry[1], entry[2]),
    )
    best = None if story.choice.best is None else story.choice.best.candidate
    worst = ranked[:MOST_PAIRS]
    own = [entry for entry in ranked if entry[3] == best and entry not in worst][: MOST_PAIRS // 2]
    return [_pair(story, each, place, folder) for _, _, place, each in [*worst, *own]]


def _pair(story: Story, candidate: Candidate, place: int, folder: Path) -> Pair:
    found = story.measured[candidate].copying
    assert found is not None
    return Pair(
        drawn=_cell(story, candidate, place, folder),
        learned=_of_subject(story.subjects.training[int(found.which[place])]),
        name=candidate.name,
        is_copy=bool(found.is_copy[place]),
        content=None if found.content is None else float(found.content.similarity[place]),
        pixels=float(found.pixels.similarity[place]),
    )


def _cell(story: Story, candidate: Candidate, place: int, folder: Path, value: float | None = None) -> Picture:
    text, seed = story.drawn_texts[story.prompts[place]], story.seeds[place]
    return _drawn(story.files[candidate][place], text, seed, folder, value)


def _drawn(file: Path, text: str, seed: int, folder: Path, value: float | None = None) -> Picture:
    with Image.open(file) as image:
        return Picture(embedded(image), link_to(file, folder), f"{text} (seed {seed})", value)


def _of_subject(shown: Any) -> Picture:
    return Picture(embedded(shown.image), "", shown.name)


def link_to(file: Path, folder: Path, *, quoted: bool = True) -> str:
    """From the page to a picture; of another drive, its whole place."""
    try:
        way = Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        way = file.resolve().as_uri()
    return quote(way, safe="/:@") if quoted else way


def embedded(image: Image.Image) -> Markup:
    """A small picture as the address of itself."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, format="WEBP", quality=QUALITY, method=4)
    return Markup("data:image/webp;base64,") + base64.b64encode(data.getvalue()).decode()
