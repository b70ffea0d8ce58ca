"""Pictures that are already drawn, by whatever program: each folder in a folder of samples is a candidate.

    SAMPLES/base/            the base model's pictures, where there are any
    SAMPLES/000002-epoch/    the pictures of one file; or all pictures lie in SAMPLES itself
    SAMPLES/luca_e000002_01_20260101120000_42.png    as kohya's trainer names them: each epoch is a candidate

What a picture was asked for is in its `.txt`, its seed in its `.json` or its name. Pictures of the same words and
seed are compared with one another; where no words are known, pictures of the same name.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from brushwork.data.layout import CONTACT_SHEET
from brushwork.errors import UserError
from brushwork.evaluation.candidates import BASE, Candidate

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
OWN = "evaluation"
"""Where an evaluation writes: no samples of anybody."""

_KOHYA = re.compile(r"(?P<name>.+)_e(?P<epoch>\d{6})_(?P<prompt>\d{2})_\d{14}_(?P<seed>\d+)")
_SEED = re.compile(r"seed[_-]?(\d+)")
_EPOCH = re.compile(r"(\d+)-epoch|_e(\d{6})_|epoch[_-]?(\d+)", re.IGNORECASE)
_STEP = re.compile(r"step[_-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A picture that was drawn.

    Args:
        prompt: what it was asked for; where nothing tells, its name.
        known: whether those are the words.
    """

    file: Path
    prompt: str
    known: bool
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """Pictures with the same key are of the same cell."""
        return self.prompt, self.seed


def read_samples(folder: Path) -> dict[Candidate, list[Sample]]:
    """The pictures of each candidate, from the earliest to the latest."""
    if not folder.is_dir():
        raise UserError(f"--samples {folder}: there is no such folder.", fix="name a folder of pictures")
    folders = sorted(each for each in folder.iterdir() if each.is_dir() and each.name != OWN and _pictures(each))
    if not folders and (by_epoch := _by_kohyas_names(folder)):
        return by_epoch
    groups = folders or ([folder] if _pictures(folder) else [])
    if not groups:
        raise UserError(
            f"--samples {folder}: no pictures in it, and none in its folders.",
            fix="name a folder of pictures, or one with a folder for each file: base/, 000002-epoch/, ...",
        )
    found = {_candidate(group): [_sample(file) for file in _pictures(group)] for group in groups}
    return dict(sorted(found.items(), key=lambda entry: _place(entry[0])))


def common(found: dict[Candidate, list[Sample]]) -> tuple[list[tuple[str, int]], list[str]]:
    """The cells that every candidate drew, and what is to be said of the others."""
    keys = [list(dict.fromkeys(sample.key for sample in samples)) for samples in found.values()]
    shared = [key for key in keys[0] if all(key in each for each in keys)]
    most = max(map(len, keys))
    if not shared:
        raise UserError(
            f"no prompt and seed was drawn by all of {', '.join(each.name for each in found)}.",
            fix="let each draw the same prompts at the same seeds, with the prompt as .txt beside each picture",
        )
    notes = []
    if len(shared) < most:
        notes.append(f"{len(shared)} of {most} prompts and seeds were drawn by all; the others are left out")
    return shared, notes


def _by_kohyas_names(folder: Path) -> dict[Candidate, list[Sample]]:
    """The epochs in one flat folder; the number of the prompt stands for its words where no text lies beside."""
    found: dict[Candidate, list[Sample]] = {}
    for file in _pictures(folder):
        if (match := _KOHYA.fullmatch(file.stem)) is None:
            return {}
        sample = _sample(file)
        prompt = sample.prompt if sample.known else f"prompt {int(match['prompt']) + 1}"
        candidate = Candidate(f"{match['name']}-{match['epoch']}", epoch=int(match["epoch"]))
        found.setdefault(candidate, []).append(Sample(file, prompt, sample.known, int(match["seed"])))
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in PICTURES and file.name not in (CONTACT_SHEET, "sheet.png") and file.is_file()
    )


def _candidate(group: Path) -> Candidate:
    step, epoch = _STEP.search(group.name), _EPOCH.search(group.name)
    number = next((int(each) for each in epoch.groups() if each), None) if epoch else None
    return Candidate(
        BASE if group.name == BASE else group.name,
        step=int(step[1]) if step else None,
        epoch=number,
    )


def _sample(file: Path) -> Sample:
    text, facts = file.with_suffix(".txt"), file.with_suffix(".json")
    prompt = " ".join(text.read_text(encoding="utf-8", errors="replace").split()) if text.is_file() else ""
    seed: int | None = None
    if facts.is_file():
        try:
            told = json.loads(facts.read_text(encoding="utf-8"))
            seed = int(told["seed"])
            prompt = prompt or str(told.get("prompt", ""))
        except (ValueError, KeyError, TypeError):
            seed = None
    if seed is None:
        named = _SEED.search(file.stem)
        seed = int(named[1]) if named else 0
    return Sample(file, prompt or file.stem, bool(prompt), seed)


def _place(each: Candidate) -> tuple[float, str]:
    at = each.step if each.step is not None else each.epoch
    return (-1.0 if each.is_base else float("inf") if at is None else float(at)), each.name
