"""Frames that are there twice, or nearly: who stands for whom.

Shapes in this file:  N frames   D width of a vector
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brushwork.config.schema import CurationConfig
from brushwork.curation.rules import Reason, exact_duplicate, near_duplicate
from brushwork.vision.dissolves import in_sequences
from brushwork.vision.duplicates import CLOSE, Looks, bits_of, first_of_each, leaders, mean_over_near
from brushwork.vision.measures import Measured


@dataclass(frozen=True)
class Twins:
    """Frames that show nearly the same, by group."""

    reasons: Mapping[str, Reason]
    """What speaks against each frame for which a better one stands."""
    groups: Mapping[str, int]
    """The number of each frame's group, from 0; frames that are alone have none."""


def find_exact(measured: Mapping[str, Measured]) -> dict[str, Reason]:
    """Every readable frame that another one before it equals, in bytes or in pixels."""
    names = [name for name, found in measured.items() if found.quality is not None]
    first = first_of_each(measured[name].pixels for name in names)
    return {
        name: exact_duplicate(names[of], same_bytes=measured[name].digest == measured[names[of]].digest)
        for place, (name, of) in enumerate(zip(names, first, strict=True))
        if of != place
    }


def judged_together(
    confidence: Tensor, names: Sequence[str], measured: Mapping[str, Measured], curation: CurationConfig
) -> Tensor:
    """How likely each frame is the subject, by itself and by the frames that show nearly the same: (N,) -> (N,)

    What differs between them is chance. The mean is that of the log odds, which add up where chances multiply.
    """
    odds = confidence.double().clamp(1e-9, 1 - 1e-9).logit()
    means = mean_over_near(_looks(names, measured, curation), odds.numpy())
    return torch.from_numpy(means).sigmoid().float()


def _looks(
    names: Sequence[str],
    measured: Mapping[str, Measured],
    curation: CurationConfig,
    *,
    vectors: Tensor | None = None,
) -> Looks:
    """What these frames are compared by; where each stands in time follows from the names of all."""
    moments = {}
    for number, some in enumerate(in_sequences(list(measured))):
        # Folders are far apart.
        moments.update({name: number * (len(measured) + CLOSE + 1) + place for place, name in enumerate(some)})
    return Looks(
        bits_of([bytes.fromhex(measured[name].look) for name in names]),
        curation.near_distance,
        None if vectors is None or curation.near_similarity is None else vectors.float().cpu().numpy(),
        curation.near_similarity or 1.0,
        np.array([moments[name] for name in names], dtype=np.int64),
        curation.near_in_time * curation.near_distance,
    )


def find_near(
    names: Sequence[str],
    measured: Mapping[str, Measured],
    worth: Mapping[str, float],
    curation: CurationConfig,
    *,
    vectors: Tensor | None = None,
) -> Twins:
    """The best of each group stands for it: no two that stand are near-duplicates.

    Args:
        names: N frames, readable all of them.
        worth: how good each is; where two are equal, the earlier one stands.
        vectors: (N, D) of length 1, of these frames; they count where `curation.near_similarity` is set.
    """
    looks = _looks(names, measured, curation, vectors=vectors)
    order = sorted(range(len(names)), key=lambda place: -worth[names[place]])
    leader = leaders(looks, order)
    alone = np.bincount(leader, minlength=len(names)) < 2 if len(names) else np.empty(0, dtype=bool)
    numbers = {of: number for number, of in enumerate(sorted({int(of) for of in leader if not alone[of]}))}
    reasons = {
        names[place]: near_duplicate(names[of], score=worth[names[place]], best=worth[names[of]])
        for place, of in enumerate(leader.tolist())
        if of != place
    }
    groups = {names[place]: numbers[of] for place, of in enumerate(leader.tolist()) if of in numbers}
    return Twins(reasons, groups)
