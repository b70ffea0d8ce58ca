"""The file that is named the best, in the folder that it came from, and a person's own choice, which goes before.

best.safetensors   a copy of the chosen file
best.json          which it is, at which strength, and why
pick.json          what a person chose; as long as it is there, `best` is that
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brushwork.atomic import write_text, written_beside
from brushwork.errors import UserError, nearest
from brushwork.evaluation.candidates import BEST, Candidate

ABOUT, PICK = "best.json", "pick.json"


@dataclass(frozen=True)
class Pick:
    """What a person chose."""

    name: str
    file: str
    strength: float
    picked_at: str


def read_pick(folder: Path) -> Pick | None:
    """A person's choice, if there is one."""
    file = folder / PICK
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Pick(str(told["name"]), str(told["file"]), float(told["strength"]), str(told["picked_at"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}).", fix=f"choose anew with --pick NAME, or remove {file}"
        ) from error


def pick(folder: Path, name: str) -> Pick:
    """Record a person's choice, and make it the best: `luca-000004`, or `luca-000004:0.8` at another strength."""
    wanted, colon, strength = name.removesuffix(".safetensors").partition(":")
    files = {file.stem: file for file in sorted(folder.glob("*.safetensors")) if file.name != BEST}
    if wanted.removesuffix(".safetensors") not in files:
        near = nearest(wanted, files)
        raise UserError(
            f"--pick {name}: {folder} holds no {wanted}.safetensors.",
            fix=f"did you mean {near}?" if near else f"one of {', '.join(files) or 'no file at all'}",
        )
    try:
        number = float(strength) if colon else 1.0
    except ValueError as error:
        raise UserError(f"--pick {name}: {strength!r} is no strength.", fix=f"--pick {wanted}:0.8") from error
    chosen = Pick(
        name.removesuffix(".safetensors"), files[wanted].name, number, datetime.now(UTC).isoformat(timespec="seconds")
    )
    write_text(folder / PICK, json.dumps(vars(chosen), indent=2) + "\n")
    write_best(folder, files[wanted], name=chosen.name, strength=number, reason="a person picked it", by="person")
    return chosen


def write_best(folder: Path, file: Path, *, name: str, strength: float, reason: str, by: str) -> Path:
    """Copy a file to `best.safetensors`, and write down which it is."""
    best = folder / BEST
    with written_beside(best) as partial:
        shutil.copyfile(file, partial)
    told: dict[str, Any] = {"name": name, "file": file.name, "strength": strength, "chosen_by": by, "reason": reason}
    write_text(folder / ABOUT, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return best


def name_best(folder: Path, chosen: Candidate | None, reason: str) -> Path | None:
    """Make the machine's choice the best, unless a person has chosen; -> `best.safetensors`."""
    picked = read_pick(folder)
    if picked is not None:
        return folder / BEST if (folder / BEST).is_file() else pick_again(folder, picked)
    if chosen is None or chosen.file is None:
        return None
    return write_best(folder, chosen.file, name=chosen.name, strength=chosen.strength, reason=reason, by="evaluation")


def pick_again(folder: Path, picked: Pick) -> Path | None:
    """Write the copy of what was picked once more; None where that file is gone."""
    file = folder / picked.file
    if not file.is_file():
        return None
    return write_best(
        folder, file, name=picked.name, strength=picked.strength, reason="a person picked it", by="person"
    )
