"""`brushwork evaluate`: every file of a run draws the same prompts, and the best is named, with the reason.

OUT/pictures/NAME/01-seed20000-3f2a....png   what each candidate drew, told apart by all that decides it
OUT/report.json   OUT/report.html            the figures, and the page that shows them
RUN/best.safetensors   RUN/best.json         the file that is named, and why
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from brushwork.config.load import resolve
from brushwork.config.schema import EvaluationConfig, Settings
from brushwork.distributed import Group, current, joined, voice
from brushwork.errors import UserError
from brushwork.evaluation.best import name_best, read_pick
from brushwork.evaluation.candidates import BASE, Candidate, Folder, candidates, open_folder
from brushwork.evaluation.choice import Choice, Result, Verdict, choose, judge
from brushwork.evaluation.drawing import Studio, draw_missing
from brushwork.evaluation.kept import Conditions, keep
from brushwork.evaluation.parts import PARTS, Measured, Scale, Seen, copies_by_chance, measure, score, weights
from brushwork.evaluation.prompts import Cell, cells, read_asked, without_trigger
from brushwork.evaluation.report import Story, write_report
from brushwork.evaluation.resampling import draws
from brushwork.evaluation.samples import common, read_samples
from brushwork.evaluation.seeing import Eyes, open_eyes, shown_file
from brushwork.evaluation.subjects import Subjects, read_subjects
from brushwork.generation.generate import ahead_for
from brushwork.generation.prompts import Request
from brushwork.models.weights import open_configured
from brushwork.runtime import pick_device, pick_dtype

FOLDER = "evaluation"


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Args:
        best: `best.safetensors`, where one was written.
        picked: the name of a person's choice, which goes before.
        notes: what was left out, and why.
    """

    folder: Path
    report: Path
    choice: Choice
    verdict: Verdict
    best: Path | None
    picked: str | None
    notes: tuple[str, ...]
    num_pictures: int


@dataclass(frozen=True)
class Drawn:
    """The pictures of every candidate, cell by cell, in one order for all.

    Args:
        prompts: of each cell, its position among `texts`.
        texts: what is shown as the prompt.
        plain: the prompts without the trigger; empty where their words are not known.
        kinds: of each prompt.
        seeds: of each cell.
    """

    files: Mapping[Candidate, Sequence[Path]]
    prompts: Sequence[int]
    texts: Sequence[str]
    plain: Sequence[str]
    kinds: Sequence[str]
    seeds: Sequence[int]
    notes: Sequence[str] = ()

    def of(self, candidate: Candidate) -> Sequence[Path]:
        return self.files[candidate]


@joined()
def evaluate(
    run: str | Path | None = None,
    *,
    references: str | Path | None = None,
    base: str | None = None,
    training: str | Path | None = None,
    trigger: str | None = None,
    samples: str | Path | None = None,
    size: int | None = None,
    out: str | Path | None = None,
    base_pictures: str | Path | None = None,
    low_memory: bool = False,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Evaluated:
    """Let every file of a run draw the same prompts at the same seeds, measure the pictures, and name the best file.

    What is drawn already is not drawn again, so a call that was killed goes on where it was.

    Args:
        run: a run folder, or any folder of LoRAs. May be left out where `samples` are named.
        references: pictures of the subject that were not trained on; by default those that the run held out.
        base: the base model; by default the run's.
        training: what was trained on, where `run` does not tell.
        trigger: the word that calls the subject; by default the run's.
        samples: pictures that are already drawn, to be measured instead.
        size: side of the pictures in pixels; by default what the run was trained at, else the base's own.
        out: where pictures and report go; by default `evaluation` in the run.
        base_pictures: where the base's pictures are kept, for several evaluations to draw them once; by default
            with the others.
        low_memory: draw with the least memory rather than in the least time, as `generate` does with it. Pictures of
            more than 512 pixels, which leave the VAE in tiles then, are told from those drawn otherwise.
        overrides: changed settings as `key=value`, above all of the section `evaluation`.
        console: where progress is shown; by default the error stream.
    """
    group = current()
    console = voice(group, console)
    folder = None if run is None else open_folder(Path(run))
    settings = _settings(folder, base, overrides, draws=samples is None)
    place = _place(folder, samples, out)
    subjects = read_subjects(
        folder,
        references=_path(references or settings.evaluation.references),
        training=_path(training),
    )
    word = settings.trigger if trigger is None else trigger
    if samples is not None:
        drawn = _already_drawn(Path(samples), trigger=word)
    elif folder is not None:
        drawn = _draw(
            folder,
            settings,
            place,
            trigger=word,
            size=size,
            base_pictures=_path(base_pictures),
            low_memory=low_memory,
            group=group,
            console=console,
        )
    else:
        raise UserError("there is nothing to evaluate.", fix="brushwork evaluate RUN, or --samples DIR")
    found = None
    if group.is_first:
        known = base is not None or (folder is not None and folder.settings is not None)
        eyes = open_eyes(
            settings.evaluation,
            base=settings.model.base if known else None,
            device=pick_device(settings.train.device),
            offline=settings.model.offline,
            console=console,
        )
        found = weigh(folder, settings.evaluation, place, subjects, drawn, eyes)
    return cast(Evaluated, group.from_first(found))


def picture_requests(settings: Settings, *, trigger: str, side: int) -> tuple[list[Cell], Drawn]:
    """What each candidate draws, and how it is called."""
    sample, evaluation = settings.sample, settings.evaluation
    asked = read_asked(_path(evaluation.prompts), trigger=trigger)
    defaults = Request(
        prompt="",
        width=side,
        height=side,
        seed=evaluation.seed,
        steps=sample.steps,
        guidance=sample.guidance,
        sampler=sample.sampler,
    )
    wanted = cells(asked, defaults, evaluation)
    return wanted, Drawn(
        files={},
        prompts=[cell.prompt for cell in wanted],
        texts=[each.text for each in asked],
        plain=[each.plain for each in asked],
        kinds=[each.kind for each in asked],
        seeds=[cell.request.seed for cell in wanted],
    )


def _path(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place).expanduser()


def _settings(folder: Folder | None, base: str | None, overrides: Sequence[str], *, draws: bool) -> Settings:
    """The run's, computed here; of any other folder, the defaults and the base that is named."""
    files = [folder.path / "settings.toml"] if folder is not None and folder.settings is not None else []
    here = ["train.device=auto", "train.precision=auto", "train.stream=off", "sample.cuda_graphs=auto"]
    if base is not None:
        here += [
            "model.vae=off",
            "model.prediction=auto",
            "model.zero_terminal_snr=auto",
            f"model.base={json.dumps(base)}",
        ]
    elif folder is not None and folder.settings is None and draws:
        raise UserError(
            f"{folder.path} is no run of Brushwork, so nothing tells which base its LoRAs belong to.",
            fix="--base sdxl.safetensors",
        )
    return resolve(files=files, overrides=[*here, *overrides]).settings


def _place(folder: Folder | None, samples: str | Path | None, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if folder is not None:
        return folder.path / FOLDER
    return Path(samples or ".") / FOLDER


def _draw(
    folder: Folder,
    settings: Settings,
    place: Path,
    *,
    trigger: str,
    size: int | None,
    base_pictures: Path | None,
    low_memory: bool,
    group: Group,
    console: Console,
) -> Drawn:
    """Let every candidate and the base draw; who cannot is left out, with the reason."""
    evaluation = settings.evaluation
    asked = candidates(folder, strengths=evaluation.strengths, ema=evaluation.ema)
    opened = open_configured(settings.model)
    device = pick_device(settings.train.device)
    side = size or settings.data.resolution or opened.spec.native_resolution
    wanted, drawn = picture_requests(settings, trigger=trigger, side=side)
    studio = Studio(
        base=opened,
        model=settings.model,
        dtype=pick_dtype(settings.train.precision, device),
        device=device,
        folder=place / "pictures",
        cells=wanted,
        batch_size=evaluation.batch_size,
        sample=settings.sample,
        folder_of_base=base_pictures,
        low_memory=low_memory,
        ahead=ahead_for(settings.train, device, low_memory=low_memory, fuse=False),
    )
    everybody = [Candidate(BASE), *asked]
    missing = sum(len(studio.missing(each)) for each in everybody)
    console.print(
        f"{len(asked)} files and the base, {len(wanted)} pictures each ({len(drawn.texts)} prompts): "
        f"{missing} to draw, {len(everybody) * len(wanted) - missing} there already",
        highlight=False,
        soft_wrap=True,
    )
    problems = draw_missing(studio, everybody, group=group, console=console)
    return collected(studio, everybody, drawn, problems)


def collected(studio: Studio, everybody: Sequence[Candidate], drawn: Drawn, problems: Mapping[str, str]) -> Drawn:
    """What was drawn, of those that drew all of it."""
    whole = {each: studio.files(each) for each in everybody if not studio.missing(each)}
    notes = [f"{name} could not draw and is left out: {problem}" for name, problem in problems.items()]
    if not any(not each.is_base for each in whole):
        raise UserError(
            "no file could draw its pictures: " + " ".join(notes),
            fix="look at the LoRAs with `brushwork inspect FILE`",
        )
    return replace(drawn, files=whole, notes=[*drawn.notes, *notes])


def _already_drawn(samples: Path, *, trigger: str) -> Drawn:
    """Pictures that lie there, brought into one order."""
    found = read_samples(samples)
    keys, notes = common(found)
    first = {sample.key: sample for sample in next(iter(found.values()))}
    texts = list(dict.fromkeys(key[0] for key in keys))
    known = all(first[key].known for key in keys)
    if not known:
        notes.append("adherence is left out: not every picture has the words that it was asked for beside it (.txt)")
    return Drawn(
        files={
            candidate: [{sample.key: sample.file for sample in own}[key] for key in keys]
            for candidate, own in found.items()
        },
        prompts=[texts.index(key[0]) for key in keys],
        texts=texts,
        plain=[without_trigger(text, trigger) for text in texts] if known else [],
        kinds=[""] * len(texts),
        seeds=[key[1] for key in keys],
        notes=notes,
    )


def weigh(
    folder: Folder | None,
    settings: EvaluationConfig,
    place: Path,
    subjects: Subjects,
    drawn: Drawn,
    eyes: Eyes,
) -> Evaluated:
    """Look at everything, score what was drawn, choose, and write the report and the best file."""
    seen = {each: eyes.see(each.name, [shown_file(file) for file in files]) for each, files in drawn.files.items()}
    scale = Scale(
        references=eyes.see("references", subjects.references),
        training=eyes.see_learned(subjects.training) if subjects.training else None,
        prompts=torch.tensor(list(drawn.prompts)),
        texts=eyes.texts(drawn.plain) if drawn.plain else None,
    )
    keep(place, seen, scale, _conditions(subjects, drawn, eyes, settings))
    measured, shares, chance = _scored(seen, scale, drawn, settings)
    base = next((each for each in measured if each.is_base), None)
    results = {
        each: Result(
            candidate=each,
            drawn=score(found, shares),
            parts=found.drawn,
            copies=found.copies,
            chance=chance,
            confidence=settings.confidence,
            leaning=found.leaning,
            leaning_of_base=None if base is None else measured[base].leaning,
        )
        for each, found in measured.items()
    }
    trained = [result for each, result in results.items() if not each.is_base]
    choice = choose(trained, None if base is None else results[base])
    verdict = judge(_one_strength(trained, choice.best), choice.best)
    notes = [*drawn.notes, *eyes.notes, *_left_out(shares, subjects, base)]
    target = folder.path if folder is not None else None
    best = None
    if target is not None and choice.best is not None:
        best = name_best(target, choice.best.candidate, choice.reason)
    picked = None if target is None else read_pick(target)
    story = Story(
        title=folder.name if folder is not None else place.parent.name,
        subjects=subjects,
        drawn_texts=drawn.texts,
        kinds=drawn.kinds,
        prompts=drawn.prompts,
        seeds=drawn.seeds,
        files=drawn.files,
        results=results,
        measured=measured,
        shares=shares,
        choice=choice,
        verdict=verdict,
        picked=None if picked is None else picked.name,
        run=target,
        notes=notes,
        settings=settings,
        encoder=None if eyes.encoder is None else eyes.encoder.name,
        scale=scale,
        chance=chance,
    )
    report = write_report(story, place)
    return Evaluated(
        folder=place,
        report=report,
        choice=choice,
        verdict=verdict,
        best=best,
        picked=story.picked,
        notes=tuple(notes),
        num_pictures=sum(len(files) for files in drawn.files.values()),
    )


def _conditions(subjects: Subjects, drawn: Drawn, eyes: Eyes, settings: EvaluationConfig) -> Conditions:
    """What another run must have in common with this one to be compared with it."""
    words = drawn.plain or drawn.texts
    return Conditions(
        prompts=tuple(words[number] for number in drawn.prompts),
        seeds=tuple(drawn.seeds),
        references=tuple(each.digest for each in subjects.references),
        encoder="" if eyes.encoder is None else eyes.encoder.fingerprint,
        reader="" if eyes.reader is None else eyes.reader.fingerprint,
        detector="" if eyes.detector is None else str(settings.face_detector),
        encoder_name="" if eyes.encoder is None else eyes.encoder.name,
        settings=settings,
    )


def _scored(
    seen: Mapping[Candidate, Seen], scale: Scale, drawn: Drawn, settings: EvaluationConfig
) -> tuple[dict[Candidate, Measured], dict[str, float], float]:
    """Every candidate in numbers, the weight of each part that all of them have, and the copies that are chance."""
    counts = draws(drawn.prompts, resamples=settings.resamples, seed=settings.seed)
    bases = [found for each, found in seen.items() if each.is_base]
    measured = {each: measure(found, bases, scale, counts, settings) for each, found in seen.items()}
    common_parts = [part for part in PARTS if all(part in found.drawn for found in measured.values())]
    if not common_parts:
        raise UserError(
            "nothing could be measured of these pictures.", fix="name more references, or another encoder"
        )
    return measured, weights(settings, common_parts), copies_by_chance(scale, settings)


def _one_strength(results: Sequence[Result], best: Result | None) -> list[Result]:
    """The files of a run one after another, at the strength and in the form (EMA or not) of the best."""
    if best is None:
        return []
    form = (best.candidate.strength, best.candidate.ema)
    return [each for each in results if (each.candidate.strength, each.candidate.ema) == form]


def _left_out(shares: Mapping[str, float], subjects: Subjects, base: Candidate | None) -> list[str]:
    """What is not in the score, and what that means for the rest."""
    notes = []
    missing = [part for part in PARTS if part not in shares]
    if missing:
        rest = ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())
        notes.append(f"not in the score: {', '.join(missing)}; the others weigh {rest}")
    if not subjects.training:
        notes.append(
            "the training pictures are not known (--training DIR), so nothing can be said about copying, and nobody "
            "has looked whether the references were trained on"
        )
    if base is None:
        notes.append("there are no pictures of the base, so identity is measured from nothing alike at all")
    return notes
