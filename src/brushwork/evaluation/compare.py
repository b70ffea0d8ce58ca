"""`brushwork compare`: runs that were evaluated, side by side, on what they have in common.

Nothing is drawn and nothing is looked at again: an evaluation keeps what it measured of every picture. The best file
of each run is measured anew on the prompts, seeds and references that all runs share, by one yardstick: 0 is what the
bases draw in the mean, so that SD 1.5 and SDXL, each drawn at its own size, stand on the same scale.

Shapes in this file:  N cells   W draws of the bootstrap
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brushwork.config.load import flatten, read_toml
from brushwork.config.schema import EvaluationConfig, Settings
from brushwork.errors import UserError, listed, nearest
from brushwork.evaluation.advice import Advice, advise
from brushwork.evaluation.best import read_pick
from brushwork.evaluation.candidates import BASE, Candidate
from brushwork.evaluation.choice import Result
from brushwork.evaluation.comparison import write_comparison
from brushwork.evaluation.contest import Contest, Cost, Entry, Pair
from brushwork.evaluation.kept import Kept, read_kept
from brushwork.evaluation.parts import PARTS, Scale, Seen, copies_by_chance, measure, score, weights
from brushwork.evaluation.resampling import draws, figure
from brushwork.evaluation.run import FOLDER
from brushwork.evaluation.subjects import FEWEST
from brushwork.records import read_rows
from brushwork.run_files import DESCRIPTION_FILE, METRICS_FILE, SETTINGS_FILE

FEWEST_PROMPTS = 3
"""With fewer prompts in common nothing can be told from noise."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Args:
        ranking: the runs' names, the highest score first; those that copy last.
        ties: who cannot be told from the first.
        notes: what was left out, and why.
    """

    folder: Path
    report: Path
    ranking: tuple[str, ...]
    ties: tuple[str, ...]
    advice: tuple[Advice, ...]
    notes: tuple[str, ...]
    contest: Contest


@dataclass(frozen=True, eq=False)
class Run:
    """A run that was evaluated.

    Args:
        told: the evaluation's report.
        best: the name of its file: a person's choice, else what the evaluation named.
    """

    path: Path
    name: str
    told: Mapping[str, Any]
    kept: Kept
    best: str
    is_picked: bool
    settings: Settings | None
    description: Mapping[str, Any]

    @property
    def row(self) -> Mapping[str, Any]:
        """What the report says of the file."""
        return next(each for each in self.told["candidates"] if each["name"] == self.best)

    def pictures(self) -> list[Path]:
        """Of each cell, by its place."""
        return [self.path / FOLDER / each["file"] for each in self.row["pictures"]]

    @property
    def again(self) -> str:
        return evaluate_command(self.path)


def compare(*runs: str | Path, out: str | Path | None = None) -> Compared:
    """Compare runs that were evaluated: score and parts with intervals, pair by pair, pictures side by side, what
    differs in their settings, what they cost, and which to take for what.

    Args:
        runs: run folders, or folders of LoRAs; `brushwork evaluate` has been there.
        out: for `report.html` and `report.json`; by default a folder beside the first run.

    Raises:
        UserError: a run that was never evaluated, or runs with nothing in common to compare.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs.", fix="brushwork compare RUN_A RUN_B")
    opened = [open_run(Path(run).expanduser()) for run in runs]
    opened = _told_apart(opened)
    folder = Path(out).expanduser() if out is not None else _place(opened)
    contest = measured_together(opened)
    advice = advise(contest)
    page = write_comparison(contest, advice, folder)
    ranking = contest.ranking
    ties = [each.name for each in ranking[1:] if contest.ties(ranking[0], each) and not each.result.copies_too_much]
    return Compared(
        folder=folder,
        report=page,
        ranking=tuple(each.name for each in ranking),
        ties=tuple(ties),
        advice=tuple(advice),
        notes=contest.notes,
        contest=contest,
    )


def evaluate_command(path: Path) -> str:
    """What to type for a run to be evaluated."""
    return f"brushwork evaluate {path} --references HELD_OUT"


def open_run(path: Path) -> Run:
    """What an evaluation left in a run's folder."""
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder.", fix="brushwork compare runs/A runs/B")
    file = path / FOLDER / "report.json"
    if not file.is_file():
        raise UserError(f"{path} was never evaluated.", fix=evaluate_command(path))
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        names = [each["name"] for each in told["candidates"]]
        named = told["best"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not what an evaluation writes ({error}).", fix=evaluate_command(path)) from error
    picked = read_pick(path)
    best = named if picked is None else picked.name
    if best is None:
        raise UserError(f"the evaluation of {path} named no file.", fix=evaluate_command(path))
    kept = read_kept(path / FOLDER, again=evaluate_command(path))
    if best not in names or best not in kept.seen:
        near = nearest(best, names)
        raise UserError(
            f"{path}: {best} was picked, and is not among what was evaluated.",
            fix=f"{evaluate_command(path)}, or brushwork evaluate {path} --pick {near or names[-1]}",
        )
    is_run = (path / SETTINGS_FILE).is_file() and (path / DESCRIPTION_FILE).is_file()
    return Run(
        path=path,
        name=path.resolve().name,
        told=told,
        kept=kept,
        best=best,
        is_picked=picked is not None,
        settings=read_toml(path / SETTINGS_FILE) if is_run else None,
        description=json.loads((path / DESCRIPTION_FILE).read_text(encoding="utf-8")) if is_run else {},
    )


def measured_together(runs: Sequence[Run]) -> Contest:
    """Every run's file on what all share, with the differences of each pair."""
    notes: list[str] = []
    refuse_other_eyes(runs)
    cells = shared_cells(runs, notes)
    references = shared_references(runs, notes)
    settings = _settings(runs, notes)
    prompts = list(dict.fromkeys(prompt for prompt, _ in cells))
    numbers = [prompts.index(prompt) for prompt, _ in cells]
    counts = draws(numbers, resamples=settings.resamples, seed=settings.seed)
    places = [[run.kept.conditions.cells.index(cell) for cell in cells] for run in runs]
    bases = [_base(run, own) for run, own in zip(runs, places, strict=True)]
    distinct = _distinct([base for base in bases if base is not None])
    notes += [
        f"{run.name} has no pictures of its base, so it is measured from those of the others"
        for run, base in zip(runs, bases, strict=True)
        if base is None
    ]
    reads = len({run.kept.conditions.reader for run in runs}) == 1 and runs[0].kept.texts is not None
    if not reads:
        notes.append("adherence is left out: the prompts were not read by one and the same encoder")
    scales = [
        Scale(
            references=run.kept.references.at(_where(run.kept.conditions.references, references)),
            training=run.kept.training,
            prompts=torch.tensor(numbers),
            texts=_texts(runs[0], places[0], numbers) if reads else None,
        )
        for run in runs
    ]
    seen = [run.kept.seen[run.best].at(own) for run, own in zip(runs, places, strict=True)]
    found = [measure(each, distinct, scale, counts, settings) for each, scale in zip(seen, scales, strict=True)]
    shares = weights(settings, [part for part in PARTS if all(part in each.drawn for each in found)])
    if not shares:
        raise UserError("nothing was measured of all of these runs.", fix=runs[0].again)
    if missing := [part for part in PARTS if part not in shares]:
        notes.append(f"not in the score: {', '.join(missing)}")
    entries = []
    for run, own, base, scale, each in zip(runs, places, bases, scales, found, strict=True):
        leaning = None
        if base is not None and scale.training is not None:
            leaning = measure(base, distinct, scale, counts, settings).leaning
        if scale.training is None:
            notes.append(f"{run.name}: its training pictures are not known, so nothing is said about copying")
        result = Result(
            candidate=Candidate(run.best, step=run.row.get("step"), epoch=run.row.get("epoch")),
            drawn=score(each, shares),
            parts=each.drawn,
            copies=each.copies,
            chance=copies_by_chance(scale, settings),
            confidence=settings.confidence,
            leaning=each.leaning,
            leaning_of_base=leaning,
        )
        entries.append(_entry(run, own, result))
    return Contest(
        entries=tuple(entries),
        pairs=_pairs(entries, list(shares), settings.confidence),
        shares=shares,
        texts=tuple(prompts),
        prompts=tuple(numbers),
        seeds=tuple(seed for _, seed in cells),
        num_references=len(references),
        num_bases=len(distinct),
        encoder=runs[0].kept.conditions.encoder_name,
        confidence=settings.confidence,
        settings=differing(runs),
        notes=tuple(dict.fromkeys(notes)),
    )


# What the runs have in common


def refuse_other_eyes(runs: Sequence[Run]) -> None:
    """Figures by two encoders are two different things."""
    first = runs[0]
    for run in runs[1:]:
        mine, theirs = first.kept.conditions, run.kept.conditions
        if mine.encoder != theirs.encoder:
            names = [each.encoder_name or "no encoder at all" for each in (mine, theirs)]
            other = mine.encoder_name or theirs.encoder_name
            told = f"{first.name} was seen by {names[0]}, {run.name} by {names[1]}"
            if names[0] == names[1]:
                told += ", whose weights are not the same"
            who = run if mine.encoder_name else first
            raise UserError(
                f"{told}: their figures cannot be compared.",
                fix=f"{who.again} --encoder {other}; nothing is drawn again",
            )
        if mine.detector != theirs.detector:
            raise UserError(
                f"identity was measured on faces ({mine.detector or theirs.detector}) in one of {first.name} and "
                f"{run.name}, and otherwise in the other.",
                fix=f"{run.again} --set evaluation.face_detector={mine.detector or 'off'}; nothing is drawn again",
            )


def shared_cells(runs: Sequence[Run], notes: list[str]) -> list[tuple[str, int]]:
    """The prompts, without the trigger, and seeds that all runs drew, in the order of the first."""
    each = [run.kept.conditions.cells for run in runs]
    shared = [cell for cell in dict.fromkeys(each[0]) if all(cell in own for own in each[1:])]
    num_prompts = len({prompt for prompt, _ in shared})
    if num_prompts < FEWEST_PROMPTS:
        words = {prompt for prompt, _ in each[0]}
        same = all(len(words & {prompt for prompt, _ in own}) >= FEWEST_PROMPTS for own in each[1:])
        why = "the same prompts were drawn at other seeds" if same else "they drew other prompts"
        raise UserError(
            f"{', '.join(run.name for run in runs)} have {num_prompts} prompts at the same seeds in common, and "
            f"{FEWEST_PROMPTS} are the fewest: {why}.",
            fix=f"{runs[-1].again}, with the same --prompts, --seeds and evaluation.seed as {runs[0].name}",
        )
    if len(shared) < max(map(len, each)):
        most = max(map(len, each))
        notes.append(f"{len(shared)} of up to {most} pictures of a run are compared: the prompts and seeds of all")
    return shared


def shared_references(runs: Sequence[Run], notes: list[str]) -> list[str]:
    """The references, by their digests, that all runs were measured against."""
    each = [run.kept.conditions.references for run in runs]
    shared = [digest for digest in each[0] if all(digest in own for own in each[1:])]
    if len(shared) < FEWEST:
        raise UserError(
            f"{', '.join(run.name for run in runs)} were measured against other references: {len(shared)} are the "
            f"same, and {FEWEST} are the fewest.",
            fix=f"{runs[-1].again}, the folder that {runs[0].name} was measured against; nothing is drawn again",
        )
    if len(shared) < max(map(len, each)):
        notes.append(f"{len(shared)} references are used, those that all runs were measured against")
    return shared


def _settings(runs: Sequence[Run], notes: list[str]) -> EvaluationConfig:
    """How the first was weighed; the others are weighed alike."""
    first = runs[0].kept.conditions.settings
    words = ("identity", "variety", "style", "adherence", "quality")
    weighed = [tuple(getattr(run.kept.conditions.settings, f"{part}_weight") for part in words) for run in runs]
    if len(set(weighed)) > 1:
        notes.append(
            f"the parts were weighed otherwise in each evaluation; here all are weighed as in {runs[0].name}"
        )
    return first


def _base(run: Run, places: Sequence[int]) -> Seen | None:
    base = run.kept.seen.get(BASE)
    return None if base is None else base.at(places)


def _distinct(bases: Sequence[Seen]) -> list[Seen]:
    """Runs of one base have one and the same pictures of it, which count once."""
    found: list[Seen] = []
    for base in bases:
        if not any(base.layout.equal(other.layout) and base.small.equal(other.small) for other in found):
            found.append(base)
    return found


def _where(digests: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [list(digests).index(digest) for digest in wanted]


def _texts(run: Run, places: Sequence[int], numbers: Sequence[int]) -> Tensor:
    """(P, D): the vector of each prompt, from the first cell that has it"""
    assert run.kept.texts is not None
    firsts = [numbers.index(number) for number in range(max(numbers) + 1)]
    return run.kept.texts[[places[first] for first in firsts]]


# What is told of each, and of each pair


def _entry(run: Run, places: Sequence[int], result: Result) -> Entry:
    files = run.pictures()
    return Entry(
        name=run.name,
        path=run.path,
        file=run.best,
        is_picked=run.is_picked,
        result=result,
        pictures=tuple(files[place] for place in places),
        base=str(run.description.get("base") or run.told.get("base") or "?"),
        family=str(run.description.get("family") or "?"),
        cost=cost_of(run.path) if run.settings is not None else None,
    )


def cost_of(path: Path) -> Cost | None:
    """What a run took, by its own rows; None where it kept none."""
    file = path / METRICS_FILE
    rows = read_rows(file) if file.is_file() else []
    if not rows:
        return None
    memory = [float(row[key]) for row in rows for key in ("memory_gib",) if row.get(key) is not None]
    return Cost(
        steps=int(rows[-1]["step"]),
        seconds=sum(float(row.get("seconds") or 0.0) for row in rows),
        memory_gib=max(memory, default=None),
    )


def _pairs(entries: Sequence[Entry], parts: Sequence[str], confidence: float) -> tuple[Pair, ...]:
    """Each with each, over the same prompts and seeds. With many pairs each interval is wider (Bonferroni), so that
    all of them together are as sure as one."""
    both = list(combinations(entries, 2))
    sure = 1 - (1 - confidence) / len(both)
    return tuple(
        Pair(
            first=one,
            second=other,
            score=figure(one.result.drawn - other.result.drawn, confidence=sure),
            parts={
                part: figure(one.result.parts[part] - other.result.parts[part], confidence=sure) for part in parts
            },
        )
        for one, other in both
    )


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs; what is not known of a run is None."""
    known = [{} if run.settings is None else flatten(run.settings) for run in runs]
    facts = {"num_pictures": "pictures trained on", "resolution": "trained at"}
    for values, run in zip(known, runs, strict=True):
        for key, words in facts.items():
            if key in run.description:
                values[words] = run.description[key]
    keys = list(dict.fromkeys(key for values in known for key in values if key != "name"))
    found = {key: [values.get(key) for values in known] for key in keys}
    told = [values for values in known if values]
    return {key: values for key, values in found.items() if len({repr(each.get(key)) for each in told}) > 1}


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Two runs of one name are told by the folders that they lie in."""
    if len({run.path.resolve() for run in runs}) < len(runs):
        twice = [
            str(run.path) for number, run in enumerate(runs) if run.path in [each.path for each in runs[:number]]
        ]
        raise UserError(f"{listed(twice)} is named twice.", fix="name each run once")
    names = [run.name for run in runs]
    return [
        run
        if names.count(run.name) == 1
        else Run(**{**vars(run), "name": f"{run.path.resolve().parent.name}/{run.name}"})
        for run in runs
    ]


def _place(runs: Sequence[Run]) -> Path:
    """Beside the first run, by the names of all."""
    names = [run.name.replace("/", "-") for run in runs]
    shown = names if len(names) <= 3 else [*names[:3], f"{len(names) - 3}-more"]
    return runs[0].path.absolute().parent / f"compare-{'-'.join(shown)}"
