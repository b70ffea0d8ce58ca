"""How well `brushwork curate` chooses, on a drawn film whose truth is known.

    python -m benchmarks.curation --frames 5000 --out bench
    python -m benchmarks.curation --frames 5000 --out other --seed 77
    python -m benchmarks.curation --frames 5000 --out bench --encoder openai/clip-vit-large-patch14

Draws the film, references of the lead and counter-examples of the others (frames that the film does not hold),
curates, and prints: precision and recall of what passes and of what is kept; what each reason refused; what choosing
a set brings beside a random one and beside the most similar frames; how many frames a second each step takes. The
figures are also in OUT/curation.json. Without --encoder it is the bundled tiny CLIP, which has not seen the lead.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from brushwork.atomic import write_text
from brushwork.config.load import resolve
from brushwork.config.schema import Settings
from brushwork.curation.choice import choose, coverage
from brushwork.curation.decisions import Found
from brushwork.curation.run import look
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.film.scene import cast_without_lead
from brushwork.film.shots import draw_film
from brushwork.records import Row, read_rows
from brushwork.runtime import generator, pick_dtype
from brushwork.vision.embeddings import embed_files
from brushwork.vision.encoder import Encoder, load_encoder
from brushwork.vision.measures import measure_files

GOOD = frozenset({"near_duplicate", "exact_duplicate", "not_chosen"})
"""Reasons of frames that are good themselves."""
GOAL_PRECISION, GOAL_RECALL = 0.98, 0.9
VARIED = ("place", "pose", "expression", "outfit", "headwear", "camera", "time")
"""What two frames of a set should differ in."""

FAULTS = {
    "motion_blur": {"motion blur"},
    "blurred": {"defocus", "low resolution"},
    "black": {"black", "dark"},
    "dark": {"dark"},
    "over_bright": {"over-bright"},
    "flat": {"flat"},
    "upscaled": {"low resolution"},
    "compressed": {"compression"},
    "noisy": {"noise"},
    "bars": {"letterbox"},
    "subtitles": {"subtitles"},
    "low_contrast": {"dark", "flat"},
    "dissolve": {"dissolve"},
}
"""Reason -> what the film may have done to such a frame."""


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.curation", description="How well `brushwork curate` chooses.")
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--references", type=int, default=32)
    parser.add_argument("--others", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1, help="another film, with examples of its own")
    parser.add_argument("--keep", type=int, default=400)
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(words)
    draw(asked.out, asked.frames, asked.references, asked.others, seed=asked.seed)
    settings = resolve(overrides=[f"curation.encoder={json.dumps(asked.encoder)}", "curation.min_side=96"]).settings
    figures = measure(asked.out, settings, keep=asked.keep)
    write_text(asked.out / "curation.json", json.dumps(figures, indent=1) + "\n")
    print(table(figures))
    return 0


def draw(out: Path, frames: int, references: int, others: int, *, seed: int = 1) -> None:
    """The film, and examples that are no frames of it; what is there already is taken.

    Raises:
        UserError: what is there was drawn with another seed.
    """
    first = (seed - 1) * 1000  # of the examples: each film has its own
    drawn = out / "seed.txt"
    before = int(drawn.read_text()) if drawn.is_file() else 1 if (out / "film" / "truth.jsonl").is_file() else seed
    if before != seed:
        raise UserError(f"{out} holds the film of seed {before}, not {seed}.", fix="name another --out")
    write_text(drawn, f"{seed}\n")
    marks = {"film": frames, "references": references, "others": others}
    work: dict[str, Callable[[Path], None]] = {
        "film": lambda folder: draw_film(folder, frames, seed=seed),
        "references": lambda folder: draw_folder(folder, references, seed=900_000 + first, style="flat"),
        "others": lambda folder: draw_folder(
            folder, others, seed=910_000 + first, style="flat", characters=cast_without_lead()
        ),
    }
    for name, count in marks.items():
        folder = out / name
        if not (folder / "truth.jsonl").is_file() or len(read_rows(folder / "truth.jsonl")) != count:
            work[name](folder)


def measure(out: Path, settings: Settings, *, keep: int) -> dict[str, Any]:
    """All figures, with counter-examples and without."""
    truth = {row["file"]: row for row in read_rows(out / "film" / "truth.jsonl")}
    found = {others: _look(out, settings, others=others) for others in (True, False)}
    vectors = _vectors(out, settings, found[True])
    with_others = found[True]
    return {
        "frames": len(truth),
        "good": sum(row["good"] for row in truth.values()),
        "encoder": settings.curation.encoder,
        "references": len(with_others.references.files),
        "counter-examples": len(with_others.others.files) if with_others.others else 0,
        "chosen": {
            "with counter-examples": outcome(with_others, truth),
            "without": outcome(found[False], truth),
        },
        "identity": {
            "with counter-examples": identity(_confidence(with_others), truth),
            "without": identity(
                dict(zip(found[False].readable, found[False].likeness.scores.tolist(), strict=True)), truth
            ),
        },
        "reasons": by_reason(with_others, truth),
        "sets": sets(with_others, vectors, truth, keep),
        "frames a second of one core": speed(out, settings, vectors),
    }


def _look(out: Path, settings: Settings, *, others: bool) -> Found:
    return look(
        out / "film",
        references=out / "references",
        others=out / "others" if others else None,
        settings=settings,
        offline=False,
        group=Group(),
        console=Console(stderr=True),
    )


def _encoder(settings: Settings) -> Encoder:
    device = torch.device("cpu")
    return load_encoder(settings.curation.encoder, device=device, dtype=pick_dtype("auto", device))


def _vectors(out: Path, settings: Settings, found: Found) -> torch.Tensor:
    """(N, D) of the readable frames, from the cache."""
    from brushwork.cache.store import cache_folder

    return embed_files(
        _encoder(settings),
        [out / "film" / name for name in found.readable],
        cache_folder=cache_folder(settings.cache.folder),
        batch_size=settings.curation.batch_size,
    )


def _confidence(found: Found) -> dict[str, float]:
    assert found.likeness.confidence is not None
    return dict(zip(found.readable, found.likeness.confidence.tolist(), strict=True))


def outcome(found: Found, truth: Mapping[str, Row]) -> dict[str, float]:
    """Precision and recall of what passes every check, and of what is kept of that."""
    passed = [name for name, each in found.decisions.items() if {reason.code for reason in each.reasons} <= GOOD]
    good = sum(row["good"] for row in truth.values())
    right = sum(truth[name]["good"] for name in passed)
    kept = found.kept
    good_shots = {row["shot"] for row in truth.values() if row["good"]}
    kept_shots = {truth[name]["shot"] for name in kept if truth[name]["good"]}
    halves = Counter(truth[name]["twin"] for name in kept)
    return {
        "passed": len(passed),
        "precision of what passes": right / max(1, len(passed)),
        "recall of what passes": right / good,
        "kept": len(kept),
        "precision of what is kept": sum(truth[name]["good"] for name in kept) / max(1, len(kept)),
        "shots with a good frame that are kept": len(kept_shots) / len(good_shots),
        "half seconds kept twice": sum(count - 1 for count in halves.values()),
    }


def identity(scores: Mapping[str, float], truth: Mapping[str, Row]) -> dict[str, float]:
    """How well the scores alone tell the lead, among frames that nothing was done to."""
    names = [name for name in scores if not truth[name]["spoiled"]]
    order = sorted(names, key=lambda name: -scores[name])
    is_lead = [truth[name]["character"] == "fox" for name in order]
    total, seen, best = sum(is_lead), 0, {"precision at recall 0.9": 0.0, "recall at precision 0.98": 0.0}
    for count, lead in enumerate(is_lead, start=1):
        seen += lead
        if seen / total >= GOAL_RECALL and not best["precision at recall 0.9"]:
            best["precision at recall 0.9"] = seen / count
        if seen / count >= GOAL_PRECISION:
            best["recall at precision 0.98"] = seen / total
    return best


def by_reason(found: Found, truth: Mapping[str, Row]) -> list[dict[str, Any]]:
    """For each reason: how many frames it refused first, and how many of those it should have."""
    rows = []
    for code, count in found.counts().items():
        if code in GOOD:
            continue
        names = found.refused(code)
        right = sum(_is_right(code, truth[name]) for name in names)
        bad = sum(not truth[name]["good"] for name in names)
        rows.append({"reason": code, "refused": count, "rightly": right / count, "no loss": bad / count})
    return rows


def _is_right(code: str, row: Row) -> bool:
    if code in ("unlike_references", "like_others"):
        return bool(row["character"] != "fox")
    return bool(FAULTS.get(code, set()) & {done["kind"] for done in row["spoiled"]})


def sets(found: Found, vectors: torch.Tensor, truth: Mapping[str, Row], keep: int) -> dict[str, dict[str, float]]:
    """Of all good-looking frames, so many: by coverage, farthest, at random, and the most similar ones."""
    places = {name: place for place, name in enumerate(found.readable)}
    names = [name for name, each in found.decisions.items() if {reason.code for reason in each.reasons} <= GOOD]
    some = vectors[[places[name] for name in names]]
    scores = found.likeness.scores[[places[name] for name in names]]
    drawn = torch.randperm(len(names), generator=generator(0, "a random set")).tolist()[:keep]
    ways = {
        "coverage": choose(some, keep, way="coverage"),
        "farthest": choose(some, keep, way="farthest"),
        "random": drawn,
        "most similar": scores.argsort(descending=True, stable=True).tolist()[:keep],
    }
    return {
        way: variety([names[place] for place in chosen], truth) | {"coverage": coverage(some, chosen)}
        for way, chosen in ways.items()
    }


def variety(names: Iterable[str], truth: Mapping[str, Row]) -> dict[str, float]:
    """What a set shows: how many shots, half seconds and different scenes."""
    rows = [truth[name] for name in names]
    scenes = {tuple(row[key] for key in VARIED) for row in rows}
    return {
        "frames": len(rows),
        "shots": len({row["shot"] for row in rows}),
        "half seconds": len({row["twin"] for row in rows}),
        "different scenes": len(scenes),
    }


def speed(out: Path, settings: Settings, vectors: torch.Tensor, *, count: int = 200) -> dict[str, float]:
    """Frames a second of one core, without the cache, by the time of the process alone: others may be at work."""
    files = {path.name: path for path in sorted((out / "film").glob("*.png"))[:count]}
    encoder, paths = _encoder(settings), list(files.values())
    steps: dict[str, Callable[[], object]] = {
        "decoding and measuring": lambda: measure_files(files, processes=1),
        "decoding and embedding": lambda: embed_files(encoder, paths, cache_folder=None, batch_size=16),
    }
    found = {}
    for name, step in steps.items():
        begin = time.process_time()
        step()
        found[name] = len(files) / (time.process_time() - begin)
    begin = time.process_time()
    choose(vectors, 400, way="coverage")
    return found | {f"choosing 400 of {len(vectors)}, seconds": time.process_time() - begin}


def table(figures: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{figures['frames']} frames, {figures['good']} of them good; {figures['encoder']}, {figures['references']} "
        f"references, {figures['counter-examples']} counter-examples"
    ]
    for part in ("chosen", "identity", "sets"):
        rows = figures[part]
        keys = list(next(iter(rows.values())))
        lines += ["", f"| {part} | " + " | ".join(rows) + " |", "| --- |" + " --- |" * len(rows)]
        lines += [f"| {key} | " + " | ".join(_number(row[key]) for row in rows.values()) + " |" for key in keys]
    lines += ["", "| reason | refused | rightly | no good frame lost |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['reason']} | {row['refused']} | {row['rightly']:.3f} | {row['no loss']:.3f} |"
        for row in figures["reasons"]
    ]
    lines += [""] + [f"{name}: {value:.1f}" for name, value in figures["frames a second of one core"].items()]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value}" if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
