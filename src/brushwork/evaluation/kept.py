"""What an evaluation measured of every picture, kept so that runs can be compared without looking again.

OUT/measured.safetensors   `NAME/content`, `NAME/layout`, ... of each candidate; `references`, `training`; `texts`

Shapes in this file:  N cells   D width of a vector
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brushwork.config.schema import EvaluationConfig
from brushwork.errors import UserError
from brushwork.evaluation.candidates import Candidate
from brushwork.evaluation.parts import Learned, Scale, Seen
from brushwork.tensor_file import read_tensors, write_tensors

FILE = "measured.safetensors"
REFERENCES, TRAINING = "references", "training"
_OF = "/"


@dataclass(frozen=True)
class Conditions:
    """What two evaluations must have in common for their figures to be compared.

    Args:
        prompts: of each cell, the words without the trigger, which may be another in each run.
        seeds: of each cell.
        references: SHA-256 of each picture.
        encoder: fingerprint of what sees the pictures; `reader` of what reads the prompts; "" where there is none.
        detector: what finds the faces that identity is measured on; "" where it is measured on whole pictures.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    references: tuple[str, ...]
    encoder: str
    reader: str
    detector: str
    encoder_name: str
    settings: EvaluationConfig

    @property
    def cells(self) -> list[tuple[str, int]]:
        return list(zip(self.prompts, self.seeds, strict=True))


@dataclass(frozen=True, eq=False)
class Kept:
    """What was measured, by the names of the candidates.

    Args:
        texts: (N, D) vectors of the prompt of each cell; None where nothing reads them.
    """

    seen: Mapping[str, Seen]
    references: Seen
    training: Learned | None
    texts: Tensor | None
    conditions: Conditions


def keep(folder: Path, seen: Mapping[Candidate, Seen], scale: Scale, conditions: Conditions) -> None:
    """Write down all that was measured."""
    tensors: dict[str, Tensor] = {}
    for name, each in [*((each.name, found) for each, found in seen.items()), (REFERENCES, scale.references)]:
        tensors |= {f"{name}{_OF}{part}": value for part, value in _parts(each).items()}
    if scale.training is not None:
        learned = {"content": scale.training.content, "small": _bytes(scale.training.small)}
        tensors |= {f"{TRAINING}{_OF}{part}": value for part, value in learned.items() if value is not None}
    if scale.texts is not None:
        tensors["texts"] = scale.texts[scale.prompts].contiguous()
    told = {**vars(conditions), "settings": conditions.settings.model_dump(mode="json")}
    about = {"conditions": json.dumps(told, ensure_ascii=False)}
    write_tensors(folder / FILE, tensors, about)


def read_kept(folder: Path, *, again: str) -> Kept:
    """What an evaluation measured.

    Args:
        again: the command that writes it anew.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(
            f"{folder} has no {FILE}: it was evaluated by an older Brushwork.",
            fix=f"{again} (pictures that are there are not drawn again)",
        )
    tensors, about = read_tensors(file)
    try:
        conditions = _conditions(json.loads(about["conditions"]))
        rows: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            whose, slash, part = name.rpartition(_OF)
            if slash:
                rows.setdefault(whose, {})[part] = value
        training = rows.pop(TRAINING, None)
        return Kept(
            seen={name: _seen(found) for name, found in rows.items() if name != REFERENCES},
            references=_seen(rows[REFERENCES]),
            training=None if training is None else Learned(training.get("content"), _floats(training["small"])),
            texts=tensors.get("texts"),
            conditions=conditions,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not what an evaluation writes ({error}).", fix=again) from error


def _parts(seen: Seen) -> dict[str, Tensor]:
    """Without what is the same under two names."""
    found = {name: value for name, value in vars(seen).items() if value is not None}
    found["small"] = _bytes(seen.small)
    for name in ("subject", "read"):
        if name in found and found[name] is seen.content:
            del found[name]
            found[f"{name}_is_content"] = torch.ones(1, dtype=torch.uint8)
    return {name: value.contiguous() for name, value in found.items()}


def _seen(parts: Mapping[str, Tensor]) -> Seen:
    content = parts.get("content")
    own = {name: content if f"{name}_is_content" in parts else parts.get(name) for name in ("subject", "read")}
    return Seen(
        content=content,
        subject=own["subject"],
        read=own["read"],
        layout=parts["layout"],
        style=parts["style"],
        small=_floats(parts["small"]),
        quality=parts.get("quality"),
    )


def _bytes(small: Tensor) -> Tensor:
    """Small pictures are whole numbers of 255, and so nothing is lost."""
    return (small * 255).round().to(torch.uint8)


def _floats(small: Tensor) -> Tensor:
    return small.float() / 255


def _conditions(told: Mapping[str, Any]) -> Conditions:
    return Conditions(
        prompts=tuple(map(str, told["prompts"])),
        seeds=tuple(map(int, told["seeds"])),
        references=tuple(map(str, told["references"])),
        encoder=str(told["encoder"]),
        reader=str(told["reader"]),
        detector=str(told["detector"]),
        encoder_name=str(told["encoder_name"]),
        settings=EvaluationConfig.model_validate(told["settings"]),
    )
