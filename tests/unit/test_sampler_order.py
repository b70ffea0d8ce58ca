"""Samplers against a case that can be solved on paper: pictures whose every number is Gaussian.

With latents ~ N(mean, deviation^2) the noisy latents are N(alpha mean, S^2), S^2 = alpha^2 deviation^2 + sigma^2, the
best network is linear, and the probability flow keeps the standard score: x = alpha mean + S z, with z constant.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor

from brushwork.diffusion.prediction import Prediction
from brushwork.diffusion.samplers import SAMPLERS, STOCHASTIC, Level, levels_for, sample, solve, timesteps_for
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError

MEAN, DEVIATION = 0.7, 0.4


def spread(level: Level) -> float:
    return math.hypot(level.alpha * DEVIATION, level.sigma)


def best_network(levels: list[Level], prediction: Prediction) -> Callable[[Tensor, Tensor], Tensor]:
    """The conditional mean of epsilon or v, given the noisy latents; knows a level by its timestep."""
    by_timestep = {round(level.timestep, 3): level for level in levels[:-1]}

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        level = by_timestep[round(timestep.item(), 3)]
        noise = level.sigma * (x - level.alpha * MEAN) / spread(level) ** 2
        if prediction == "epsilon":
            return noise
        latents = MEAN + level.alpha * DEVIATION**2 * (x - level.alpha * MEAN) / spread(level) ** 2
        return level.alpha * noise - level.sigma * latents

    return predict


def even_levels(num_steps: int) -> list[Level]:
    """Even in log-SNR from 0.07 to 7 times as much signal as noise; the "timestep" is the index."""
    log_snrs = torch.linspace(math.log(0.07), math.log(7), num_steps + 1, dtype=torch.float64)
    return [
        Level(i, math.cos(angle), math.sin(angle)) for i, angle in enumerate(torch.exp(-log_snrs).atan().tolist())
    ]


def error_of(sampler: str, num_steps: int, prediction: Prediction) -> float:
    """The largest distance from the exact end of the flow, over standard scores from -2 to 2."""
    levels = even_levels(num_steps)
    score = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(1, 1, 1, 5)
    start, exact = (level.alpha * MEAN + spread(level) * score for level in (levels[0], levels[-1]))
    found = solve(sampler, best_network(levels, prediction), start, levels, prediction=prediction)
    return (found - exact).abs().max().item()


@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("euler", 1), ("dpmpp_2m", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(
    sampler: str, order: int, prediction: Prediction
) -> None:
    errors = [error_of(sampler, num_steps, prediction) for num_steps in (160, 320, 640, 1280)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([order] * 3, abs=0.05)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - set(STOCHASTIC)))
def test_more_steps_of_the_real_schedule_come_closer_to_the_exact_flow(sampler: str, zero_terminal_snr: bool) -> None:
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)
    score = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(1, 1, 1, 5)
    errors = []
    for num_steps in (50, 250):
        levels = levels_for(sampler, schedule=schedule, num_steps=num_steps)
        start, exact = (level.alpha * MEAN + spread(level) * score for level in (levels[0], levels[-1]))
        network = best_network(levels, "v")
        found = sample(sampler, network, start, schedule=schedule, prediction="v", num_steps=num_steps)
        errors.append((found - exact).abs().max().item())
    # Measured: 0.07 to 0.018 at worst (Euler with zero terminal SNR, whose last leap does not shrink in step).
    assert errors[0] < 0.08
    assert errors[1] < errors[0] / 3.5


def moments(levels: list[Level]) -> tuple[float, float]:
    """Mean and variance at the end of an ancestral trajectory that begins with unit noise, by recursion.

    Each step is the posterior q(x_there | x_here, x0) of eqs. 6 and 7, arXiv:2006.11239, with the best estimate of
    x0: linear in x, so that mean and variance obey x -> gain * x + shift, plus fresh noise.
    """
    mean, variance = 0.0, 1.0
    for here, there in itertools.pairwise(levels):
        ratio = here.alpha / there.alpha
        towards_latents = there.alpha * (1 - ratio**2) / here.sigma**2
        towards_noisy = ratio * there.sigma**2 / here.sigma**2
        pull = here.alpha * DEVIATION**2 / spread(here) ** 2  # E[x0 | x] = MEAN + pull * (x - alpha MEAN)
        gain = towards_noisy + towards_latents * pull
        mean = gain * mean + towards_latents * (1 - pull * here.alpha) * MEAN
        variance = gain**2 * variance + (1 - ratio**2) * there.sigma**2 / here.sigma**2
    return mean, variance


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_many_stochastic_samples_have_the_exact_mean_and_variance(sampler: str, zero_terminal_snr: bool) -> None:
    schedule, num_steps, count = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr), 50, 100_000
    levels = levels_for(sampler, schedule=schedule, num_steps=num_steps)
    generator = torch.Generator().manual_seed(3)
    found = sample(
        sampler,
        best_network(levels, "v"),
        torch.randn(count, 1, 1, 1, generator=generator),
        schedule=schedule,
        prediction="v",
        num_steps=num_steps,
        draw_noise=lambda i: torch.randn(count, 1, 1, 1, generator=generator),
    )
    mean, variance = moments(levels)
    # Four standard errors of each.
    assert found.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
    assert found.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / count))


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_stochastic_samples_approach_the_distribution_of_the_pictures(sampler: str) -> None:
    """A step forgets how uncertain its estimate was: the variance is too small, by less the shorter the steps."""
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True)
    lacks = []
    for num_steps in (50, 125, 250, 500, 1000):
        mean, variance = moments(levels_for(sampler, schedule=schedule, num_steps=num_steps))
        assert mean == pytest.approx(MEAN, abs=0.01)
        lacks.append(1 - variance / DEVIATION**2)
    # Measured: 22, 13, 8, 5, 3 % of the variance.
    assert all(fine < 0.65 * coarse for coarse, fine in itertools.pairwise(lacks)), lacks
    assert 0 < lacks[-1] < 0.03, lacks


def counting(asked: list[int]) -> Callable[[int], Tensor]:
    def draw(i: int) -> Tensor:
        asked.append(i)
        return torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(i))

    return draw


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_drawn_only_where_a_step_needs_it(sampler: str) -> None:
    asked: list[int] = []
    schedule, start = NoiseSchedule.scaled_linear(), torch.ones(1, 4, 2, 2)
    sample(sampler, lambda x, t: x, start, schedule=schedule, prediction="v", num_steps=4, draw_noise=counting(asked))
    assert asked == ([0, 1, 2] if sampler in STOCHASTIC else [])


def test_the_hook_sees_each_step_and_what_it_reached() -> None:
    seen: list[tuple[int, int, Tensor]] = []
    final = sample(
        "ddim",
        lambda x, t: x,
        torch.ones(1, 4, 2, 2),
        schedule=NoiseSchedule.scaled_linear(),
        prediction="v",
        num_steps=3,
        on_step=lambda i, num_steps, x: seen.append((i, num_steps, x)),
    )
    assert [entry[:2] for entry in seen] == [(0, 3), (1, 3), (2, 3)]
    assert seen[-1][2] is final


@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_network_in_bfloat16_rounds_its_output_and_nothing_else(sampler: str, prediction: Prediction) -> None:
    draw, schedule = counting([]), NoiseSchedule.scaled_linear()

    def picture(predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        start = draw(9)
        return sample(sampler, predict, start, schedule=schedule, prediction=prediction, num_steps=3, draw_noise=draw)

    def rounded(x: Tensor, timestep: Tensor) -> Tensor:
        assert (x.dtype, timestep.dtype, timestep.shape) == (torch.float32, torch.float32, ())
        return torch.sin(x).bfloat16()

    expected = picture(lambda x, timestep: rounded(x, timestep).float())
    torch.testing.assert_close(picture(rounded), expected, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_alone_and_in_a_batch(sampler: str) -> None:
    schedule = NoiseSchedule.scaled_linear()

    def pictures(which: list[int]) -> Tensor:
        def draw(i: int) -> Tensor:
            generators = [torch.Generator().manual_seed(1000 * picture + i + 1) for picture in which]
            return torch.cat([torch.randn(1, 4, 2, 2, generator=generator) for generator in generators])

        return sample(
            sampler,
            lambda x, t: torch.tanh(x) * torch.cos(t / 300),
            draw(-1),
            schedule=schedule,
            prediction="epsilon",
            num_steps=6,
            draw_noise=draw,
        )

    alone = torch.cat([pictures([picture]) for picture in (0, 1, 2)])
    torch.testing.assert_close(pictures([0, 1, 2]), alone, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_a_right_network_is_believed_at_any_number_of_steps(
    sampler: str, karras: bool, zero_terminal_snr: bool
) -> None:
    """Where the network knows the picture, every sampler ends in it, finite at every step."""
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)
    picture = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(8))
    for num_steps in (2, 3, 10, 999):
        levels = levels_for(sampler, schedule=schedule, num_steps=num_steps, karras=karras)
        at = iter(levels)

        def predict(x: Tensor, timestep: Tensor, at: Iterator[Level] = at) -> Tensor:
            level = next(at)
            return (level.alpha * x - picture) / level.sigma

        found = solve(sampler, predict, counting([])(77), levels, prediction="v", draw_noise=counting([]))
        left = levels[-1].sigma  # DDIM of SD stops where a little noise is left
        torch.testing.assert_close(found, picture, rtol=0, atol=1e-4 + 4 * left)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_reads_a_number_back_from_the_device(sampler: str) -> None:
    """The meta device has shapes and no numbers, so that reading one, as waiting for a card would, is an error."""

    def blank(i: int) -> Tensor:
        return torch.empty(1, 4, 2, 2, device="meta")

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.device == x.device
        return x * timestep

    schedule = NoiseSchedule.scaled_linear()
    found = sample(sampler, predict, blank(0), schedule=schedule, prediction="v", num_steps=4, draw_noise=blank)
    assert found.device.type == "meta"


def test_ddim_and_euler_differ_in_their_last_level_alone() -> None:
    schedule = NoiseSchedule.scaled_linear()
    ddim, euler = (levels_for(name, schedule=schedule, num_steps=25) for name in ("ddim", "euler"))
    assert ddim[:-1] == euler[:-1]
    assert (ddim[-1].sigma, euler[-1].sigma) == (pytest.approx(0.02915, abs=1e-5), 0)


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean euler_ancestral"):
        timesteps_for("euler_ancestor", schedule=NoiseSchedule.scaled_linear(), num_steps=10)
    with pytest.raises(UserError, match="use ddpm, ddim, euler, euler_ancestral, dpmpp_2m"):
        timesteps_for("plms", schedule=NoiseSchedule.scaled_linear(), num_steps=10)


@pytest.mark.parametrize(("sampler", "num_steps"), [("euler", 0), ("euler", 1001), ("dpmpp_2m", 1000)])
def test_a_number_of_steps_that_the_schedule_has_not_is_refused(sampler: str, num_steps: int) -> None:
    with pytest.raises(UserError, match=f"{num_steps} steps: {sampler} takes 1 to"):
        timesteps_for(sampler, schedule=NoiseSchedule.scaled_linear(), num_steps=num_steps)


def test_noise_prediction_from_pure_noise_is_refused() -> None:
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True)
    with pytest.raises(UserError, match="zero terminal SNR"):
        sample("ddim", lambda x, t: x, torch.ones(1, 4, 2, 2), schedule=schedule, prediction="epsilon", num_steps=4)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_stochastic_sampler_without_noise_to_draw_is_a_callers_mistake(sampler: str) -> None:
    schedule = NoiseSchedule.scaled_linear()
    with pytest.raises(ValueError, match="pass draw_noise"):
        sample(sampler, lambda x, t: x, torch.ones(1, 4, 2, 2), schedule=schedule, prediction="v", num_steps=4)
