"""How sure a figure is: what it would have been with other prompts and other seeds of the same kind.

All candidates drew the same prompts at the same seeds, so each draw of the bootstrap takes the same cells for all of
them: what is easy for one is easy for all, and falls out of their difference.

Shapes in this file:  W draws   N cells   P prompts   K seeds of the prompt that has most
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brushwork.runtime import generator


@dataclass(frozen=True)
class Figure:
    """A number with the interval that it lies in."""

    value: float
    low: float
    high: float

    def row(self) -> dict[str, float]:
        """As it stands in the report; what is beyond four places is noise."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def draws(prompts: Sequence[int], *, resamples: int, seed: int) -> Tensor:
    """How often each cell is taken: (W, N), the first row once each, the others drawn anew.

    Prompts are drawn with replacement, and of each drawn prompt its seeds with replacement: pictures of one prompt
    are more alike than others, and count as what they are, fewer pictures (Efron and Tibshirani 1993, sec. 8).
    """
    source = generator(seed, "bootstrap")
    names = sorted(set(prompts))
    members = [[place for place, each in enumerate(prompts) if each == name] for name in names]
    sizes = torch.tensor([len(own) for own in members])
    most = int(sizes.max())
    table = torch.tensor([own + [0] * (most - len(own)) for own in members])  # (P, K)
    chosen = torch.randint(len(names), (resamples, len(names)), generator=source)  # (W, P)
    sizes = sizes[chosen][..., None]  # (W, P, 1)
    which = (torch.rand(*chosen.shape, most, generator=source) * sizes).long()  # (W, P, K)
    taken = table[chosen].gather(2, which)
    is_there = (torch.arange(most) < sizes).double()
    counts = torch.zeros(resamples, len(prompts), dtype=torch.float64)
    counts.scatter_add_(1, taken.flatten(1), is_there.flatten(1))
    return torch.cat([torch.ones(1, len(prompts), dtype=torch.float64), counts])


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """(N,), (W, N) -> (W,): the mean of each draw, over the cells that have a value; no number where none has"""
    there = ~values.isnan()
    counts = counts[:, there]
    total = counts.sum(dim=1)
    return counts @ values[there].double() / torch.where(total > 0, total, torch.nan)


def figure(drawn: Tensor, *, confidence: float) -> Figure:
    """The value of all cells and the interval that holds this share of the draws. (W,) ->"""
    rest = drawn[1:][~drawn[1:].isnan()].double()
    if len(rest) == 0:
        rest = drawn[:1].double()
    tail = (1 - confidence) / 2
    low, high = torch.quantile(rest, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Figure(float(drawn[0]), low, high)


def is_tie(difference: Figure) -> bool:
    """Whether a difference may as well be none."""
    return difference.low <= 0 <= difference.high
