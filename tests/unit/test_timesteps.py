"""Which noise levels are trained: their shares are those of the closed forms, and the range is kept."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from brushwork.config.schema import LossConfig
from brushwork.diffusion.timesteps import draw
from brushwork.runtime import generator

COUNT = 200_000


def drawn(**settings: Any) -> Tensor:
    return draw(COUNT, loss=LossConfig.model_validate(settings), generator=generator(0, "timestep"))


def cumulative(timesteps: Tensor) -> Tensor:
    """-> (1000,): the share of draws below 1, 2, ... 1000."""
    return torch.bincount(timesteps, minlength=1000).cumsum(0) / COUNT


PLACES = torch.arange(1, 1001, dtype=torch.float64) / 1000
SPREAD = 1.95 / math.sqrt(COUNT)
"""Kolmogorov's bound: a right sampler strays further once in a thousand seeds."""


def test_uniform_is_what_it_was_before_there_were_others() -> None:
    expected = torch.randint(1000, (COUNT,), generator=generator(0, "timestep"))
    torch.testing.assert_close(drawn(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.5), (-1.0, 2.0)])
def test_logit_normal_has_the_distribution_of_its_name(mean: float, deviation: float) -> None:
    found = cumulative(drawn(timesteps="logit_normal", logit_mean=mean, logit_deviation=deviation))
    expected = torch.special.ndtr((torch.logit(PLACES) - mean) / deviation)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=SPREAD)


@pytest.mark.parametrize("scale", [1.29, 0.0, -1.0, 1.75])
def test_mode_has_the_distribution_of_the_paper(scale: float) -> None:
    """f falls from 1 to 0, so the share below f(u) is 1 - u."""
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    f = 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)  # eq. of sec. 3.1, arXiv:2403.03206
    expected = 1 - u.flip(0)[torch.searchsorted(f.flip(0), PLACES).clamp(max=100_000)]
    found = cumulative(drawn(timesteps="mode", mode_scale=scale))
    # where f is flat, a float32 place falls on either side of a timestep's edge
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2 * SPREAD)


@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal", "mode"])
def test_no_timestep_outside_the_range_is_drawn_and_every_one_inside_is(timesteps: str) -> None:
    found = drawn(timesteps=timesteps, min_timestep=200, max_timestep=260, logit_deviation=3.0)
    assert found.dtype == torch.int64
    assert found.unique().tolist() == list(range(200, 260))


def test_a_range_of_one_timestep_trains_that_one() -> None:
    for timesteps in ("uniform", "logit_normal", "mode"):
        assert set(drawn(timesteps=timesteps, min_timestep=999, max_timestep=1000).tolist()) == {999}


def test_a_place_that_is_rounded_to_the_end_stays_in_the_schedule() -> None:
    assert drawn(timesteps="logit_normal", logit_mean=50.0).unique().tolist() == [999]
    assert drawn(timesteps="logit_normal", logit_mean=-50.0).unique().tolist() == [0]
