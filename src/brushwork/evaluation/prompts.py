"""What every file is asked to draw: the same prompts at the same seeds.

A file of prompts has one a line, as `brushwork generate` reads it; `{trigger}` stands where the subject is called:

    # portrait
    close-up portrait of {trigger}, smiling --w 768

A comment above a group of prompts names its kind.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from brushwork.config.schema import EvaluationConfig
from brushwork.errors import UserError
from brushwork.generation.prompts import PromptLine, Request, parse_line, read_lines

MARK = "{trigger}"
TABLES = {".toml", ".json"}


@dataclass(frozen=True)
class Asked:
    """One prompt of the evaluation.

    Args:
        text: with the trigger in its place.
        plain: without it: what an encoder that has never heard the trigger can be asked about.
        kind: `portrait`, `light`: the group that it stands in.
    """

    text: str
    plain: str
    kind: str
    line: PromptLine


@dataclass(frozen=True)
class Cell:
    """One prompt at one seed: every file draws one picture for it."""

    prompt: int
    """Position among the prompts."""
    request: Request


def read_asked(file: Path | None, *, trigger: str) -> list[Asked]:
    """The prompts of a file, by default Brushwork's own, with the trigger in its place."""
    lines = _grouped(file)
    if not trigger and any(MARK in line.prompt for _, line in lines):
        raise UserError(
            f"the prompts hold {MARK}, and nothing says which word calls the subject.", fix='--trigger "luca"'
        )
    return [
        Asked(
            text=" ".join(line.prompt.replace(MARK, trigger).split()),
            plain=without_trigger(line.prompt, trigger),
            kind=kind,
            line=line,
        )
        for kind, line in lines
    ]


def cells(asked: Sequence[Asked], defaults: Request, settings: EvaluationConfig) -> list[Cell]:
    """Every prompt at each of its seeds; a prompt with a seed of its own (`--d`) begins there."""
    found = []
    for number, each in enumerate(asked):
        line = PromptLine(each.text, each.line.given, each.line.where)
        for again in range(settings.seeds):
            request = line.request(defaults, index=number * settings.seeds + again, again=again)
            found.append(Cell(number, request))
    return found


def without_trigger(prompt: str, trigger: str) -> str:
    """The prompt as somebody reads it who does not know the subject: "close-up portrait, smiling"."""
    called = [re.escape(MARK), *([rf"(?<!\w){re.escape(trigger)}(?!\w)"] if trigger else [])]
    text = re.sub(rf"(?:\b(?:of|with|showing)\s+)?(?:{'|'.join(called)})", " ", prompt, flags=re.IGNORECASE)
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part) or prompt


def _grouped(file: Path | None) -> list[tuple[str, PromptLine]]:
    """Every prompt line with the comment that stands above its group."""
    if file is None:
        text, where = files("brushwork.evaluation").joinpath("prompts.txt").read_text(encoding="utf-8"), "prompts.txt"
    else:
        lines = read_lines(file)  # tells what is wrong with the file
        if file.suffix.lower() in TABLES:
            return [("", line) for line in lines]
        text, where = file.read_bytes().decode("utf-8-sig"), str(file)
    kind, found = "", []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            kind = line.strip().lstrip("#").strip()
        elif line.strip():
            found.append((kind, parse_line(line, where=f"{where}, line {number}")))
    return found
