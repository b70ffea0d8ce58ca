"""Choosing a set: frames that together show everything, and not the best ones one by one.

Shapes in this file:  N frames   K chosen   D width of a vector
"""

import heapq
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from brushwork.errors import UserError

AT_ONCE = 1024
"""Frames that are compared with all others at a time."""


def choose(
    vectors: Tensor,
    count: int,
    *,
    way: str,
    kinds: Sequence[str | None] = (),
    quotas: Mapping[str, float] | None = None,
) -> list[int]:
    """Positions of `count` frames, in the order in which they were chosen; of equals, the earlier one.

    Args:
        vectors: (N, D) of length 1.
        way: "coverage" or "farthest".
        kinds: what each frame is, for `quotas`.
        quotas: the share of each kind. What a kind has too few of, and what is left over, is taken from all.
    """
    count = min(count, len(vectors))
    rooms = {kind: round(share * count) for kind, share in (quotas or {}).items()}
    room = _Rooms(list(kinds) or [None] * len(vectors), rooms, count)
    return _coverage(vectors, room) if way == "coverage" else _farthest(vectors, room)


def coverage(vectors: Tensor, chosen: Sequence[int]) -> float:
    """How well a choice stands for all: mean over the frames of the cosine with the nearest chosen one, at least 0.

    The objective of facility location, divided by N: (N, D) -> from 0 to 1
    """
    best = torch.zeros(len(vectors))
    for start in range(0, len(chosen), AT_ONCE):
        picked = vectors[list(chosen[start : start + AT_ONCE])]
        best = torch.maximum(best, (vectors @ picked.T).amax(dim=1))
    return float(best.mean())


class _Rooms:
    """How many may still be taken of each kind: first the quotas are filled, then what is left is taken from all."""

    def __init__(self, kinds: Sequence[str | None], quotas: Mapping[str, int], count: int) -> None:
        self.kinds = kinds
        self.left = dict(quotas)
        self.count = count

    def stages(self) -> list[int]:
        """How many are chosen when each of two stages ends: within the quotas, and altogether."""
        there = {kind: self.kinds.count(kind) for kind in self.left}
        filled = sum(min(room, there[kind]) for kind, room in self.left.items())
        return [min(filled, self.count), self.count]

    def allows(self, place: int, stage: int) -> bool:
        kind = self.kinds[place]
        return stage > 0 or (kind is not None and self.left.get(kind, 0) > 0)

    def take(self, place: int, stage: int) -> None:
        kind = self.kinds[place]
        if stage == 0 and kind is not None:
            self.left[kind] -= 1


def _coverage(vectors: Tensor, room: _Rooms) -> list[int]:
    """Facility location by lazy greedy: each step takes the frame that covers most of what is not yet covered.

    Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978. Gains only shrink, so a
    frame whose old gain is no longer the largest need not be looked at again. Within 1 - 1/e of the best choice.
    """
    covered = torch.zeros(len(vectors))
    gains = torch.cat(
        [(vectors @ part.T).clamp(min=0).double().sum(dim=0) for part in torch.split(vectors, AT_ONCE)]
        or [torch.empty(0, dtype=torch.float64)]
    )
    chosen: list[int] = []
    taken = torch.zeros(len(vectors), dtype=torch.bool)
    for stage, end in enumerate(room.stages()):
        heap = [(-float(gains[place]), place) for place in range(len(vectors)) if not taken[place]]
        heapq.heapify(heap)
        while len(chosen) < end and heap:
            _, place = heapq.heappop(heap)
            if not room.allows(place, stage):
                continue
            alike = (vectors @ vectors[place]).clamp(min=0)
            gain = float((alike - covered).clamp(min=0).double().sum())
            gains[place] = gain
            if heap and (-gain, place) > heap[0]:
                heapq.heappush(heap, (-gain, place))
                continue
            covered = torch.maximum(covered, alike)
            chosen.append(place)
            taken[place] = True
            room.take(place, stage)
    return chosen


def _farthest(vectors: Tensor, room: _Rooms) -> list[int]:
    """Farthest point: each step takes the frame that is least like all that are chosen (Gonzalez, 1985).

    The first is the most usual one. What is rare is sure to be in, and so is what is odd.
    """
    chosen: list[int] = []
    nearest = -(vectors @ vectors.mean(dim=0)) if len(vectors) else torch.empty(0)  # the most usual has the least
    for stage, end in enumerate(room.stages()):
        while len(chosen) < end:
            barred = torch.tensor([not room.allows(place, stage) for place in range(len(vectors))])
            place = int(nearest.masked_fill(barred, math.inf).argmin())
            alike = vectors @ vectors[place]
            nearest = alike if not chosen else torch.maximum(nearest, alike)
            chosen.append(place)
            nearest[chosen] = math.inf
            room.take(place, stage)
    return chosen


def shares(quotas: Sequence[str]) -> dict[str, float]:
    """`["a portrait=0.3", ...]` -> the share of each; together at most 1."""
    found: dict[str, float] = {}
    for entry in quotas:
        words, _, number = entry.rpartition("=")
        try:
            found[words.strip()] = float(number)
        except ValueError:
            words = ""
        if not words.strip() or not 0 < found.get(words.strip(), 0.0) <= 1:
            raise UserError(
                f"curation.quotas: {entry!r}: words, =, and a share from 0 to 1 were expected.",
                fix='--set \'curation.quotas=["a portrait=0.4", "a full body shot=0.6"]\'',
            )
    if sum(found.values()) > 1 + 1e-9:
        raise UserError(
            f"curation.quotas: the shares make {sum(found.values()):g}, more than the whole.",
            fix="lower them until they make 1",
        )
    return found
