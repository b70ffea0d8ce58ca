"""Errors and weights of the loss: the formulas of the papers and of kohya's trainer, their ends, what they mean."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from brushwork.config.schema import LossConfig
from brushwork.diffusion.prediction import Prediction, add_noise, target, to_latents, to_noise
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.diffusion.weighting import debiased, error, huber_c, min_snr, pseudo_huber, v_like_noise, weight

SNR = NoiseSchedule.scaled_linear().snr(torch.arange(1000))


def quantities() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, noise, a mistake of the network, and alpha^2, at every timestep, in float64."""
    generator = torch.Generator().manual_seed(0)
    latents, noise, mistake = (torch.randn(1000, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    return latents, noise, mistake, NoiseSchedule.scaled_linear().alphas_cumprod[:, None, None, None]


def test_weights_are_the_formulas_of_the_paper() -> None:
    bounded = torch.minimum(SNR, torch.tensor(5.0))
    torch.testing.assert_close(min_snr(SNR, 5.0, "epsilon"), bounded / SNR, rtol=1e-6, atol=0)
    torch.testing.assert_close(min_snr(SNR, 5.0, "v"), bounded / (SNR + 1), rtol=1e-6, atol=0)


def test_weights_at_the_ends_are_limits_and_not_nan() -> None:
    ends = torch.tensor([0.0, torch.inf])
    torch.testing.assert_close(min_snr(ends, 5.0, "epsilon"), torch.tensor([1.0, 0.0]), rtol=0, atol=0)
    torch.testing.assert_close(min_snr(ends, 5.0, "v"), torch.tensor([0.0, 0.0]), rtol=0, atol=0)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_weighted_error_is_the_error_of_the_latents_times_the_bounded_snr(prediction: Prediction) -> None:
    """What min-SNR means, whichever quantity the network predicts."""
    latents, noise, mistake, share = quantities()
    alpha, sigma, snr = share.sqrt(), (1 - share).sqrt(), (share / (1 - share)).flatten()
    noisy, right = add_noise(latents, noise, alpha, sigma), target(prediction, latents, noise, alpha, sigma)

    weighted = min_snr(snr, 5.0, prediction) * mistake.square().flatten(1).mean(dim=1)

    found = to_latents(prediction, right + mistake, noisy, alpha, sigma)
    error = (found - latents).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(weighted, snr.clamp(max=5.0) * error, rtol=1e-8, atol=0)


def test_debiased_weights_are_those_of_kohyas_trainer() -> None:
    """1 / sqrt(snr) for epsilon (arXiv:2310.08442), 1 / (snr + 1) for v, with snr no larger than 1000."""
    bounded = torch.minimum(SNR, torch.full_like(SNR, 1000.0))
    torch.testing.assert_close(debiased(SNR, "epsilon"), 1 / torch.sqrt(bounded), rtol=1e-6, atol=0)
    torch.testing.assert_close(debiased(SNR, "v"), 1 / (bounded + 1), rtol=1e-6, atol=0)


def test_v_scaled_like_noise_weighs_as_kohyas_trainer() -> None:
    bounded = torch.minimum(SNR, torch.full_like(SNR, 1000.0))
    torch.testing.assert_close(v_like_noise(SNR), bounded / (bounded + 1), rtol=1e-6, atol=0)


def test_an_error_of_v_scaled_like_noise_is_the_error_of_the_noise() -> None:
    """Above its bound, snr 1000, 0.1 % apart: there kohya's weight stays where it is."""
    latents, noise, mistake, share = quantities()
    alpha, sigma, snr = share.sqrt(), (1 - share).sqrt(), (share / (1 - share)).flatten()
    noisy, right = add_noise(latents, noise, alpha, sigma), target("v", latents, noise, alpha, sigma)

    weighted = v_like_noise(snr) * mistake.square().flatten(1).mean(dim=1)

    error_of_noise = (to_noise("v", right + mistake, noisy, alpha, sigma) - noise).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(weighted, error_of_noise, rtol=1e-3, atol=0)
    torch.testing.assert_close(weighted[snr < 1000], error_of_noise[snr < 1000], rtol=1e-8, atol=0)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_weight_is_that_of_the_setting(prediction: Prediction) -> None:
    assert weight(SNR, prediction, loss=LossConfig()) == 1.0
    for loss, expected in (
        (LossConfig(min_snr_gamma=3.0), min_snr(SNR, 3.0, prediction)),
        (LossConfig(debiased=True), debiased(SNR, prediction)),
        (LossConfig(scale_v_like_noise=True), v_like_noise(SNR)),
    ):
        torch.testing.assert_close(weight(SNR, prediction, loss=loss), expected, rtol=0, atol=0)


def test_all_weights_are_finite_where_the_schedule_ends_in_noise() -> None:
    snr = NoiseSchedule.scaled_linear(zero_terminal_snr=True).snr(torch.arange(1000))
    for loss in (LossConfig(min_snr_gamma=5.0), LossConfig(debiased=True), LossConfig(scale_v_like_noise=True)):
        found = weight(snr, "v", loss=loss)
        assert isinstance(found, torch.Tensor)
        assert bool(found.isfinite().all())


def kohyas_huber_c(loss: LossConfig, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The formula of kohya's trainer, at huber_scale 1."""
    if loss.huber_schedule == "exponential":
        return torch.exp(-(-math.log(loss.huber_c) / 1000) * timesteps)
    if loss.huber_schedule == "snr":
        sigmas = ((1.0 - alphas_cumprod[timesteps]) / alphas_cumprod[timesteps]) ** 0.5
        return (1 - loss.huber_c) / (1 + sigmas) ** 2 + loss.huber_c
    return torch.full((len(timesteps),), loss.huber_c)


@pytest.mark.parametrize("huber_schedule", ["snr", "exponential", "constant"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("kind", ["huber", "smooth_l1"])
def test_huber_losses_are_those_of_kohyas_trainer(kind: str, zero_terminal_snr: bool, huber_schedule: str) -> None:
    loss = LossConfig.model_validate({"kind": kind, "huber_schedule": huber_schedule, "huber_c": 0.2})
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)
    generator, timesteps = torch.Generator().manual_seed(1), torch.arange(1000)
    output, aim = (3 * torch.randn(1000, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))

    c = kohyas_huber_c(loss, timesteps, schedule.alphas_cumprod).double()[:, None, None, None]
    expected = (2 * c if kind == "huber" else 2) * (torch.sqrt((output - aim) ** 2 + c**2) - c)

    found = error(output, aim, timesteps, schedule=schedule, loss=loss)
    # sqrt(d^2 + c^2) - c loses digits in float32 where d is small against c: an absolute error of 1e-7 c or so
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("huber_schedule", ["snr", "exponential"])
def test_the_place_where_the_square_ends_falls_from_1_to_the_setting(huber_schedule: str) -> None:
    loss = LossConfig.model_validate({"kind": "huber", "huber_schedule": huber_schedule, "huber_c": 0.1})
    c = huber_c(torch.arange(1000), schedule=NoiseSchedule.scaled_linear(), loss=loss).flatten()
    assert bool((c.diff() < 0).all())
    assert c[0] == pytest.approx(1.0, abs=0.06)
    assert c[-1] == pytest.approx(0.1, abs=0.01)


def test_a_small_error_is_squared_and_a_large_one_is_not() -> None:
    difference, c = torch.tensor([1e-2, 1e3], dtype=torch.float64).reshape(2, 1, 1, 1), torch.tensor(0.5).double()
    found = pseudo_huber(difference, c).flatten()
    torch.testing.assert_close(found, torch.tensor([1e-4, 1e3 - 0.5]).double(), rtol=1e-3, atol=0)


def test_the_plain_errors_are_those_of_each_number_in_float32() -> None:
    output = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.bfloat16).reshape(2, 1, 1, 2)
    aim = torch.tensor([[1.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    for kind, expected in (("mse", [[0.0, 4.0], [9.0, 16.0]]), ("l1", [[0.0, 2.0], [3.0, 4.0]])):
        loss = LossConfig.model_validate({"kind": kind})
        found = error(output, aim, torch.tensor([3, 5]), schedule=NoiseSchedule.scaled_linear(), loss=loss)
        torch.testing.assert_close(found, torch.tensor(expected).reshape(2, 1, 1, 2), rtol=0, atol=0)
