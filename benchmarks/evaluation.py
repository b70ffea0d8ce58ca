"""Whether `brushwork evaluate` says what is true, on the film, whose truth is known.

    python -m benchmarks.evaluation --out OUT

    OUT/learns/       24 frames, 40 steps, a file every 4: ten files from knowing nothing to knowing the fox
    OUT/overtrained/  six frames, 1,500 steps, a file every 300: what is too much
    OUT/duel/         the best of the first against the last of the second
    OUT/figures.json  OUT/figures.md

Asked are three things. Does the ranking of the ten files agree with that of the film's scorer, which knows what a
picture shows? Is the overtrained run caught, and a file before it named? And can a file win that has learned its
training pictures by heart? Every part keeps what is there, so the same command goes on where it was stopped.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from brushwork.atomic import write_text
from brushwork.demonstration.scenes import TRIGGER, learned_scenes
from brushwork.errors import UserError
from brushwork.evaluation.run import Evaluated, evaluate
from brushwork.evaluation.variety import vendi
from brushwork.film.captions import caption
from brushwork.film.frames import draw_scene
from brushwork.film.scene import ATTRIBUTES, LEAD, Scene, imagine
from brushwork.film.scorer import Scorer, as_pictures, judge, packaged_scorer
from brushwork.training.run import train
from bundled.stage import run_script

SIZE = 128
NUM_RANKED, NUM_PROMPTS, NUM_REFERENCES, NUM_FEW = 20, 30, 12, 6
DRAWS = {"evaluation.seeds": 1, "evaluation.batch_size": 8}
GOALS = {"Spearman of the ten files": 0.8}

Figures = dict[str, Any]


def scenes(first: int, count: int) -> list[Scene]:
    """Scenes of the fox, drawn as the frames that are learned from are, but anywhere and in any clothes."""

    def fits(scene: Scene) -> bool:
        return scene.view != "behind" and scene.pose != "sleeps"

    fixed = {"style": "flat", "angle": "level", "weather": "clear"}
    return [imagine(first + number, characters=(LEAD,), accept=fits, **fixed) for number in range(count)]


def draw(folder: Path, wanted: Sequence[Scene]) -> Path:
    """Frames with their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(wanted):
        file = folder / f"{number:05d}.png"
        if not file.exists():
            write_text(file.with_suffix(".txt"), caption(scene) + "\n")
            draw_scene(scene, SIZE).save(file)
    return folder


def learn(data: Path, out: Path, *, steps: int, every: int) -> Path:
    """A run of the recipe `tiny`."""
    given = {"name": "'fox'", "trigger": repr(TRIGGER), "data.resolution": SIZE, "train.max_steps": steps}
    given |= {"save.every_steps": every}
    return train(data, out=out, recipe="tiny", overrides=[f"{key}={value}" for key, value in given.items()]).folder


def evaluated(
    run: Path, out: Path, *, count: int = NUM_PROMPTS, base: str | None = None, training: Path | None = None
) -> Evaluated:
    """`brushwork evaluate` with the film's prompts and references."""
    prompts = out / f"prompts-{count}.txt"
    write_text(prompts, "".join(caption(scene).replace(TRIGGER, "{trigger}") + "\n" for scene in scenes(7000, count)))
    settings = {
        **DRAWS,
        "evaluation.prompts": repr(str(prompts)),
        "sample.steps": 12,
        "sample.sampler": "'euler'",
        "sample.guidance": 3.0,
    }
    return evaluate(
        run,
        references=draw(out / "references", scenes(9000, NUM_REFERENCES)),
        base=base,
        training=training,
        trigger=TRIGGER,
        size=SIZE,
        overrides=[f"{key}={value}" for key, value in settings.items()],
    )


def truth(files: Sequence[Path], scorer: Scorer) -> dict[str, float]:
    """What the scorer sees, weighed as the guide weighs what people see: the fox, how different the pictures are, the
    style, and whether place, camera and clothes are those that were asked for."""
    asked = scenes(7000, len(files))
    pictures = as_pictures([_opened(file) for file in files])
    seen = judge(scorer, pictures)
    pairs = list(zip(seen, asked, strict=True))

    def share(*names: str) -> float:
        return sum(all(found[name] == getattr(scene, name) for name in names) for found, scene in pairs) / len(pairs)

    codes = torch.nn.functional.normalize(torch.stack([_code(found) for found in seen]), dim=1)
    wanted = torch.nn.functional.normalize(torch.stack([_code(scene.truth()) for scene in asked]), dim=1)
    told = {
        "fox": share("character"),
        "variety": min(1.0, vendi(codes) / vendi(wanted)),
        "style": share("style"),
        "prompt": (share("place") + share("camera") + share("outfit", "headwear")) / 3,
        "all that was asked for": share("character", "place", "camera"),
    }
    weights = {"fox": 40, "variety": 20, "style": 20, "prompt": 10}
    return {**told, "score": sum(weights[name] * told[name] for name in weights) / sum(weights.values())}


def _code(found: Mapping[str, Any]) -> torch.Tensor:
    """What a picture shows as one number for each value of each attribute, the character aside."""
    names = ("outfit", "headwear", "pose", "prop", "place", "time", "camera")
    return torch.cat([torch.tensor([float(found[name] == value) for value in ATTRIBUTES[name]]) for name in names])


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of the ranks; equal values share the mean of theirs."""
    ranks = torch.stack([_ranks(values) for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(
        [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
    )


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def rows_of(result: Evaluated, scorer: Scorer) -> list[Figures]:
    """Each file of a report beside what the scorer sees in its pictures."""
    told = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    return [
        {
            "name": each["name"],
            "step": each["step"],
            "score": each["score"]["value"],
            **{part: found["value"] for part, found in each["parts"].items()},
            "copies": each["copies"]["value"],
            "leaning": each["leaning"]["value"],
            "too much": each["copies_too_much"],
            "truth": truth([result.folder / picture["file"] for picture in each["pictures"]], scorer),
        }
        for each in told["candidates"]
    ]


def ranking(out: Path, scorer: Scorer) -> Figures:
    """Ten files of a run that goes well."""
    run = learn(draw(out / "frames", learned_scenes()), out / "learns", steps=40, every=4)
    result = evaluated(run, out, count=NUM_RANKED)
    rows = [row for row in rows_of(result, scorer) if row["name"] not in ("base", "fox-lowest-loss")]
    ours, theirs = [row["score"] for row in rows], [row["truth"]["score"] for row in rows]
    foxes, identity = [row["truth"]["fox"] for row in rows], [row["identity"] for row in rows]
    return {
        "files": rows,
        "named": None if result.choice.best is None else result.choice.best.candidate.name,
        "verdict": result.verdict.text,
        "Spearman of the ten files": spearman(ours, theirs),
        "Spearman of identity and the share of foxes": spearman(identity, foxes),
    }


def overtraining(out: Path, scorer: Scorer) -> Figures:
    """A tiny set and many steps."""
    run = learn(draw(out / "few", learned_scenes()[:NUM_FEW]), out / "overtrained", steps=1500, every=300)
    take_base(out, run)
    result = evaluated(run, out)
    rows = rows_of(result, scorer)
    best = result.choice.best
    trained = [row for row in rows if row["name"] != "base"]
    first, last = trained[0], trained[-1]
    return {
        "files": rows,
        "named": None if best is None else best.candidate.name,
        "reason": result.choice.reason,
        "verdict": result.verdict.text,
        "caught": result.verdict.kind == "overtrained" and last["too much"] and last["variety"] < first["variety"],
        "named before": best is not None and not best.copies_too_much and (best.candidate.step or 0) < last["step"],
    }


def take_base(out: Path, run: Path) -> None:
    """What the base draws is the same for all, and is drawn once."""
    pictures = run / "evaluation" / "pictures" / "base"
    if not pictures.exists():
        shutil.copytree(out / "learns" / "evaluation" / "pictures" / "base", pictures)


def duel(out: Path, scorer: Scorer, named: str) -> Figures:
    """One file that has learned the fox, and one that has learned six pictures of it, judged by references that were
    held out; and what would happen if they were the training pictures."""
    folder = out / "duel"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(out / "learns" / f"{named}.safetensors", folder / "learned-the-fox.safetensors")
    shutil.copyfile(out / "overtrained" / "fox.safetensors", folder / "learned-six-pictures.safetensors")
    take_base(out, folder)
    result = evaluated(folder, out, base="bundled", training=out / "few")
    try:
        evaluate(folder, base="bundled", references=out / "few", training=out / "few", trigger=TRIGGER)
        refused = None
    except UserError as error:
        refused = error.problem
    return {
        "files": rows_of(result, scorer),
        "named": None if result.choice.best is None else result.choice.best.candidate.name,
        "reason": result.choice.reason,
        "training pictures as references": refused,
    }


def table(rows: Sequence[Figures]) -> str:
    """Markdown."""
    parts = [part for part in ("identity", "variety", "style", "adherence", "quality") if part in rows[0]]
    heads = ["file", "score", *parts, "copies", "leaning", "truth", "fox", "prompt", "all asked for"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in rows:
        told = row["truth"]
        values = [
            row["score"],
            *(row[part] for part in parts),
            row["copies"],
            row["leaning"],
            told["score"],
            told["fox"],
            told["prompt"],
            told["all that was asked for"],
        ]
        mark = " (copies)" if row["too much"] else ""
        lines.append(f"| {row['name']}{mark} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines) + "\n"


def page(figures: Figures) -> str:
    """All of it in Markdown."""
    ranked, over, fought = figures["ranking"], figures["overtraining"], figures["duel"]
    return (
        f"## Ten files of a run\n\n{table(ranked['files'])}\n"
        f"Named: {ranked['named']}; {ranked['verdict']}\n\n"
        f"Spearman with the scorer: {ranked['Spearman of the ten files']:.2f}; of identity with the share of foxes: "
        f"{ranked['Spearman of identity and the share of foxes']:.2f}\n\n"
        f"## Six frames, 1,500 steps\n\n{table(over['files'])}\n"
        f"Named: {over['named']}; {over['verdict']}\n\nCaught: {over['caught']}; a file before it named: "
        f"{over['named before']}\n\n"
        f"## The fox against six pictures of it\n\n{table(fought['files'])}\n"
        f"Named: {fought['named']}; {fought['reason']}\n\nTraining pictures as references: "
        f"{fought['training pictures as references'] or 'taken (they should have been refused)'}\n"
    )


def missed(figures: Figures) -> list[str]:
    """What is not as it should be."""
    over, fought = figures["overtraining"], figures["duel"]
    found = {
        "the ranking agrees": figures["ranking"]["Spearman of the ten files"] >= GOALS["Spearman of the ten files"],
        "the overtrained run is caught": over["caught"],
        "a file before it is named": over["named before"],
        "who learned pictures by heart does not win": fought["named"] == "learned-the-fox",
        "training pictures are refused as references": fought["training pictures as references"] is not None,
    }
    return [name for name, met in found.items() if not met]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the evaluation itself."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"))
    given = parser.parse_args(arguments)
    scorer = packaged_scorer()
    if scorer is None:
        raise UserError("the package holds no scorer, so nothing is known to be true.")
    ranked = ranking(given.out, scorer)
    over = overtraining(given.out, scorer)
    figures = {"ranking": ranked, "overtraining": over, "duel": duel(given.out, scorer, ranked["named"])}
    write_text(given.out / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(given.out / "figures.md", page(figures))
    print(page(figures))
    if failed := missed(figures):
        raise SystemExit(f"not as it should be: {'; '.join(failed)}")


if __name__ == "__main__":
    run_script(main)
