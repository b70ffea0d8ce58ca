"""`brushwork demo`: the whole way on drawn pictures and the bundled model, and a report of what came of it.

Every part keeps what is there already, so the same command goes on where it was stopped.

    OUT/pictures/         24 frames of the lead, with captions
    OUT/run/              the run that learned from them, as `brushwork train` writes it
    OUT/strength-1/       what was asked for, drawn with the LoRA at this strength: 0 (before), 0.5, 1, 1.5
    OUT/others-0/, -1/    the rest of the cast, before and after
    OUT/figures.json      what the scorer found
    OUT/report.html       all of it on one page
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from brushwork.atomic import PARTIAL_SUFFIX, write_text
from brushwork.config.load import resolve
from brushwork.demonstration.judgement import Answers, answers, count
from brushwork.demonstration.report import Shown, Story, render
from brushwork.demonstration.scenes import (
    ASKED,
    NUM_FRAMES,
    OTHERS,
    TRIGGER,
    as_drawn_by_the_film,
    draw_learned,
)
from brushwork.errors import UserError
from brushwork.film.captions import caption
from brushwork.film.frames import draw_scene
from brushwork.film.scene import Scene
from brushwork.film.scorer import Scorer, packaged_scorer
from brushwork.generation.generate import generate
from brushwork.progress import progress_bar
from brushwork.training.run import RunResult, train

SIZE = 128
RECIPE = "tiny"
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
OTHER_STRENGTHS = (0.0, 1.0)
PICTURES_AT_ONCE = 8

Figures = dict[str, Any]


@dataclass(frozen=True)
class Demonstration:
    """What `demo` made."""

    folder: Path
    run: RunResult
    report: Path | None
    """None if the run was interrupted before its end."""
    figures: Figures | None
    """What the scorer counted; None where there is no report."""


def demo(
    out: str | Path = "runs/demo", *, overrides: Sequence[str] = (), console: Console | None = None
) -> Demonstration:
    """Draw frames of the lead, train a LoRA on them, draw with it, and write the report.

    Args:
        out: the folder for all of it; one that was begun is continued.
        overrides: changed settings as `key=value`, for training and drawing.
        console: where progress is shown; by default the error stream.
    """
    console = console or Console(stderr=True)
    folder = Path(out)
    given = ["name='fox'", f"trigger={TRIGGER!r}", f"data.resolution={SIZE}", *overrides]
    _check(given)
    _tell(console, 1, f"{NUM_FRAMES} pictures of {TRIGGER}")
    with progress_bar(console, "drawing", NUM_FRAMES) as advance:
        draw_learned(folder / "pictures", size=SIZE, on_progress=advance)
    _tell(console, 2, "a LoRA learns from them")
    run = train(folder / "pictures", out=folder / "run", recipe=RECIPE, overrides=given, console=console)
    if not run.finished:
        return Demonstration(folder, run, None, None)
    _tell(console, 3, "the same prompts and seeds, without the LoRA and with it")
    drawn = {
        strength: _drawn(folder / f"strength-{strength:g}", ASKED, run, strength, overrides, console)
        for strength in STRENGTHS
    }
    others = {
        strength: _drawn(folder / f"others-{strength:g}", OTHERS, run, strength, overrides, console)
        for strength in OTHER_STRENGTHS
    }
    _tell(console, 4, "what came of it")
    return _reported(folder, run, drawn, others)


def _check(given: Sequence[str]) -> None:
    """Refuse settings of a run that makes no LoRA."""
    if resolve(recipe=RECIPE, overrides=given).settings.train.mode != "lora":
        raise UserError(
            "the demo draws with a LoRA at several strengths, and train.mode = full makes none.",
            fix="brushwork demo without it, then: brushwork train DIR/pictures --recipe tiny --set train.mode=full",
        )


def _tell(console: Console, number: int, what: str) -> None:
    console.print(f"\n{number} of 4: {what}", highlight=False, markup=False)


def _drawn(
    folder: Path,
    scenes: Sequence[Scene],
    run: RunResult,
    strength: float,
    overrides: Sequence[str],
    console: Console,
) -> list[Image.Image]:
    """The prompts of the scenes, drawn with the LoRA at this strength: each from the same seed at any strength.

    A folder comes about as a whole: in a batch of other pictures, sums round otherwise, so a folder that was
    stopped in its middle would end with other bits.
    """
    console.print(f"strength {strength:g}", highlight=False, markup=False)
    place = folder if folder.exists() else folder.with_name(folder.name + PARTIAL_SUFFIX)
    if place != folder:
        shutil.rmtree(place, ignore_errors=True)
    made = generate(
        out=place,
        prompt=[caption(scene) for scene in scenes],
        loras=[(run.folder, strength)],
        size=SIZE,
        batch_size=PICTURES_AT_ONCE,
        overrides=overrides,
        console=console,
    )
    if place != folder:
        place.rename(folder)
    return [_opened(folder / path.name) for path in made.pictures]


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _reported(
    folder: Path,
    run: RunResult,
    drawn: dict[float, list[Image.Image]],
    others: dict[float, list[Image.Image]],
) -> Demonstration:
    """Judge the pictures, and write the figures and the report."""
    scorer = packaged_scorer()
    found = {strength: answers(scorer, ASKED, images) for strength, images in drawn.items()}
    found_others = {strength: answers(scorer, OTHERS, images) for strength, images in others.items()}
    figures = _figures(scorer, found, found_others)
    story = Story(
        learned=[
            (path.with_suffix(".txt").read_text(encoding="utf-8").strip(), _opened(path))
            for path in sorted((folder / "pictures").glob("*.png"))
        ],
        asked=_shown(ASKED, drawn, found),
        others=_shown(OTHERS, others, found_others),
        figures=figures,
        curve=_opened(run.curve),
        num_steps=run.total_steps,
    )
    report = folder / "report.html"
    write_text(folder / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(report, render(story))
    return Demonstration(folder, run, report, figures)


def _figures(scorer: Scorer, found: dict[float, list[Answers]], others: dict[float, list[Answers]]) -> Figures:
    """Counts for each strength, and for the film's own frames of the same scenes: how far the scorer is to be
    trusted."""
    true = as_drawn_by_the_film(ASKED)
    return {
        "the film's own frames": count(answers(scorer, true, [draw_scene(scene, SIZE) for scene in true])),
        "asked": {f"{strength:g}": count(each) for strength, each in found.items()},
        "others": {f"{strength:g}": count(each) for strength, each in others.items()},
    }


def _shown(
    scenes: Sequence[Scene], drawn: dict[float, list[Image.Image]], found: dict[float, list[Answers]]
) -> list[Shown]:
    """For each prompt, its pictures by strength."""
    shown = []
    for number, scene in enumerate(scenes):
        pictures = {strength: images[number] for strength, images in drawn.items()}
        answered = {strength: each[number] for strength, each in found.items()}
        shown.append(Shown(caption(scene), pictures, answered))
    return shown
