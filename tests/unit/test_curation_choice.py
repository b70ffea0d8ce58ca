"""Choosing a set: greedy against every choice there is, quotas, and against the best ones and a random draw."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brushwork.curation.choice import choose, coverage, shares
from brushwork.errors import UserError
from brushwork.runtime import generator


def cloud(count: int, width: int = 8, purpose: str = "cloud") -> Tensor:
    return F.normalize(torch.randn(count, width, generator=generator(0, purpose)), dim=1)


def groups(sizes: list[int]) -> Tensor:
    """Frames in tight groups, each in a direction of its own."""
    noise = 0.05 * torch.randn(sum(sizes), 8, generator=generator(0, "groups"))
    return F.normalize(torch.eye(8)[: len(sizes)].repeat_interleave(torch.tensor(sizes), dim=0) + noise, dim=1)


def plain_greedy(vectors: Tensor, count: int) -> list[int]:
    """Facility location without laziness: every gain anew in every step."""
    alike = (vectors @ vectors.T).clamp(min=0).double()
    covered, chosen = torch.zeros(len(vectors), dtype=torch.float64), []
    for _ in range(count):
        gains = (alike - covered[:, None]).clamp(min=0).sum(dim=0)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = torch.maximum(covered, alike[:, chosen[-1]])
    return chosen


def test_lazy_greedy_takes_what_plain_greedy_takes() -> None:
    vectors = cloud(60)
    assert choose(vectors, 12, way="coverage") == plain_greedy(vectors, 12)


def test_the_choice_is_near_the_best_of_all_choices() -> None:
    vectors = cloud(12, width=3)
    best = max(coverage(vectors, each) for each in combinations(range(12), 3))
    assert coverage(vectors, choose(vectors, 3, way="coverage")) >= 0.97 * best  # greedy guarantees 0.63


@pytest.mark.parametrize("way", ["coverage", "farthest"])
def test_every_group_is_there_before_any_has_two(way: str) -> None:
    vectors = groups([40, 3, 2, 1])
    of = torch.arange(4).repeat_interleave(torch.tensor([40, 3, 2, 1]))
    assert sorted(of[choose(vectors, 4, way=way)].tolist()) == [0, 1, 2, 3]


def test_the_choice_covers_more_than_the_best_ones_and_than_a_random_draw() -> None:
    vectors = cloud(400)
    nearest = (vectors @ vectors[0]).argsort(descending=True)[:40].tolist()
    drawn = torch.randperm(400, generator=generator(0, "drawn"))[:40].tolist()
    chosen = coverage(vectors, choose(vectors, 40, way="coverage"))
    assert chosen > coverage(vectors, drawn) > coverage(vectors, nearest)


def test_farthest_point_takes_what_is_least_like_those_taken() -> None:
    vectors = cloud(30)
    chosen = choose(vectors, 6, way="farthest")
    assert chosen[0] == int((vectors @ vectors.mean(dim=0)).argmax())
    for step in range(1, 6):
        nearest = (vectors @ vectors[chosen[:step]].T).amax(dim=1)
        assert chosen[step] == int(nearest.argmin())


@pytest.mark.parametrize("way", ["coverage", "farthest"])
def test_quotas_are_kept_and_what_a_kind_lacks_is_taken_from_all(way: str) -> None:
    vectors = cloud(40)
    kinds = ["portrait"] * 30 + ["full"] * 8 + ["wide"] * 2

    even = choose(vectors, 10, way=way, kinds=kinds, quotas={"portrait": 0.3, "full": 0.7})
    short = choose(vectors, 10, way=way, kinds=kinds, quotas={"full": 0.5, "wide": 0.5})

    assert [sum(kinds[place] == kind for place in even) for kind in ("portrait", "full", "wide")] == [3, 7, 0]
    assert sum(kinds[place] == "full" for place in short) >= 5
    assert sum(kinds[place] == "wide" for place in short) == 2
    assert len(set(short)) == len(short) == 10


@pytest.mark.parametrize("way", ["coverage", "farthest"])
def test_more_than_there_are_is_all_and_none_is_none(way: str) -> None:
    assert sorted(choose(cloud(5), 9, way=way)) == [0, 1, 2, 3, 4]
    assert choose(torch.empty(0, 8), 3, way=way) == []
    assert choose(cloud(5), 0, way=way) == []


def test_equal_frames_are_taken_in_their_order() -> None:
    assert choose(cloud(1).repeat(6, 1), 3, way="coverage") == [0, 1, 2]


def test_quotas_are_read_and_nonsense_is_told() -> None:
    assert shares(["a portrait=0.3", "x = y=0.5"]) == {"a portrait": 0.3, "x = y": 0.5}
    for entry in ("portrait", "portrait=much", "=0.4", "portrait=0", "portrait=1.4"):
        with pytest.raises(UserError, match="a share from 0 to 1"):
            shares([entry])
    with pytest.raises(UserError, match=r"the shares make 1\.2"):
        shares(["a=0.6", "b=0.6"])
