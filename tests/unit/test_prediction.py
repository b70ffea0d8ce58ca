"""Laws of noising: what is put together can be taken apart, at every level, in float32."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from brushwork.diffusion.prediction import (
    Prediction,
    add_noise,
    check_prediction,
    target,
    to_latents,
    to_noise,
)
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError

TIMESTEPS = torch.arange(1000)


def latents_and_noise() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 4, 2, 3, generator=generator), torch.randn(1000, 4, 2, 3, generator=generator)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_a_right_output_gives_back_latents_and_noise(prediction: Prediction, zero_terminal_snr: bool) -> None:
    timesteps = TIMESTEPS[:-1] if prediction == "epsilon" and zero_terminal_snr else TIMESTEPS
    latents, noise = (tensor[timesteps] for tensor in latents_and_noise())
    alpha, sigma = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr).alpha_sigma(timesteps)
    noisy = add_noise(latents, noise, alpha, sigma)

    output = target(prediction, latents, noise, alpha, sigma)

    torch.testing.assert_close(to_noise(prediction, output, noisy, alpha, sigma), noise, rtol=1e-5, atol=1e-6)
    found = to_latents(prediction, output, noisy, alpha, sigma)
    if prediction == "v":
        torch.testing.assert_close(found, latents, rtol=1e-5, atol=1e-6)
    else:  # division by alpha: the rounding of `noisy` grows by as much
        torch.testing.assert_close(found * alpha, latents * alpha, rtol=1e-5, atol=1e-6)


def test_velocity_is_the_change_of_the_noisy_latents_with_the_angle() -> None:
    """v = d noisy / d angle, where alpha = cos(angle) and sigma = sin(angle)."""
    latents, noise = (tensor.double() for tensor in latents_and_noise())
    angle, small = torch.linspace(0, torch.pi / 2, 1000, dtype=torch.float64)[:, None, None, None], 1e-6
    ahead = add_noise(latents, noise, (angle + small).cos(), (angle + small).sin())
    behind = add_noise(latents, noise, (angle - small).cos(), (angle - small).sin())

    velocity = target("v", latents, noise, angle.cos(), angle.sin())

    torch.testing.assert_close(velocity, (ahead - behind) / (2 * small), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_the_variance_is_preserved(zero_terminal_snr: bool) -> None:
    alpha, sigma = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr).alpha_sigma(TIMESTEPS)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000, 1, 1, 1), rtol=0, atol=2e-7)
    assert alpha.dtype == sigma.dtype == torch.float32


def test_every_timestep_is_noisier_than_the_one_before() -> None:
    for zero_terminal_snr in (False, True):
        schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)
        assert (schedule.snr(TIMESTEPS).diff() < 0).all()
        alpha, sigma = schedule.alpha_sigma(TIMESTEPS)
        torch.testing.assert_close(schedule.snr(TIMESTEPS), (alpha / sigma).square().flatten(), rtol=2e-6, atol=0)


def test_a_zero_terminal_schedule_ends_in_noise_and_begins_as_the_plain_one() -> None:
    plain, rescaled = (NoiseSchedule.scaled_linear(zero_terminal_snr=on) for on in (False, True))
    torch.testing.assert_close(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0], rtol=1e-15, atol=0)
    alpha, sigma = rescaled.alpha_sigma(torch.tensor([999]))
    assert (alpha.item(), sigma.item(), rescaled.snr(torch.tensor([999])).item()) == (0, 1, 0)


def test_the_end_of_the_schedule_is_the_known_one() -> None:
    """sigma / alpha of SD runs from 0.02917 to 14.6146: what k-diffusion's programs call sigma_min and sigma_max."""
    alpha, sigma = NoiseSchedule.scaled_linear().alpha_sigma(torch.tensor([0, 999]))
    torch.testing.assert_close((sigma / alpha).flatten(), torch.tensor([0.02917, 14.6146]), rtol=1e-4, atol=0)


def test_noise_prediction_on_a_schedule_that_ends_in_noise_is_refused() -> None:
    with pytest.raises(UserError, match="zero terminal SNR"):
        check_prediction("epsilon", NoiseSchedule.scaled_linear(zero_terminal_snr=True))
    check_prediction("v", NoiseSchedule.scaled_linear(zero_terminal_snr=True))
    check_prediction("epsilon", NoiseSchedule.scaled_linear())


def test_a_timestep_outside_the_schedule_is_refused() -> None:
    with pytest.raises(IndexError):
        NoiseSchedule.scaled_linear().alpha_sigma(torch.tensor([1000]))


def test_tables_are_made_on_the_device_of_the_timesteps() -> None:
    """The meta device stands for any other: it would refuse a table left on the CPU."""
    schedule = NoiseSchedule.scaled_linear()
    timesteps = torch.zeros(3, dtype=torch.long, device="meta")
    alpha, sigma = schedule.alpha_sigma(timesteps)
    assert alpha.device == sigma.device == schedule.snr(timesteps).device == timesteps.device
    assert alpha.shape == sigma.shape == (3, 1, 1, 1)
