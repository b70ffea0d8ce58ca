"""Tells what a picture of the film shows: a small network that learned it from frames whose truth is known.

With it one can count how often a drawn picture shows what its prompt asked for. It is a judge and no part of the base
model, so unlike the base it has seen everything: the lead, and the combinations that are held out.

Shapes in this file:  B pictures   S side   C channels   N values of all attributes together
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.film.scene import ATTRIBUTES
from brushwork.places import packaged

WIDTHS = (24, 48, 96, 128, 160)
SIDE = 128
GROUPS = 8

_SIZES = {name: len(values) for name, values in ATTRIBUTES.items()}


class Scorer(nn.Module):
    """Pictures become a score for each value of each attribute, in the order of `ATTRIBUTES`."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.halve = nn.ModuleList(
            nn.Conv2d(C, wider, 4, stride=2, padding=1) for C, wider in zip(inputs, WIDTHS, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, wider) for wider in WIDTHS)
        self.scores = nn.Linear(2 * WIDTHS[-1], sum(_SIZES.values()))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(B, 3, S, S) in [-1, 1] -> for each attribute (B, its values)"""
        x = pictures
        for halve, norm in zip(self.halve, self.norms, strict=True):
            x = F.silu(norm(halve(x)))  # (B, C, S / 2, S / 2)
        seen = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)  # (B, 2 C)
        scores = self.scores(seen).split(list(_SIZES.values()), dim=1)
        return dict(zip(_SIZES, scores, strict=True))


def packaged_scorer() -> Scorer:
    """The trained scorer that comes with the package."""
    return load_scorer(packaged("scorer.safetensors"))


def load_scorer(path: Path) -> Scorer:
    """A trained scorer from its file."""
    scorer = Scorer()
    try:
        scorer.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} is no file of a scorer: {error}.") from error
    return scorer.eval().requires_grad_(False)


@torch.no_grad()
def judge(scorer: Scorer, pictures: Tensor, *, at_once: int = 64) -> list[dict[str, str | None]]:
    """What each picture shows: (B, 3, S, S) in [-1, 1] -> for each, the likeliest value of every attribute"""
    device = scorer.scores.weight.device
    found: list[dict[str, str | None]] = []
    for part in torch.split(pictures, at_once):
        best = {name: scores.argmax(dim=1).tolist() for name, scores in scorer(part.to(device)).items()}
        found += [{name: ATTRIBUTES[name][best[name][row]] for name in best} for row in range(len(part))]
    return found


def as_pictures(images: Iterable[Image.Image]) -> Tensor:
    """Pictures of any size -> (B, 3, 128, 128) in [-1, 1], as the scorer has learned them"""
    small: Sequence[Image.Image] = [
        image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in images
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in small]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
