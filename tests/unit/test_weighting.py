"""Weights of the loss: the paper's formula, its ends, and what it bounds."""

from typing import get_args

import pytest
import torch

from brushwork.diffusion.prediction import Prediction, add_noise, target, to_latents
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.diffusion.weighting import mean_squared_error, min_snr

SNR = NoiseSchedule.scaled_linear().snr(torch.arange(1000))


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
    generator = torch.Generator().manual_seed(0)
    latents, noise, mistake = (torch.randn(1000, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    schedule = NoiseSchedule.scaled_linear()
    share = schedule.alphas_cumprod[:, None, None, None]
    alpha, sigma, snr = share.sqrt(), (1 - share).sqrt(), (share / (1 - share)).flatten()
    noisy, right = add_noise(latents, noise, alpha, sigma), target(prediction, latents, noise, alpha, sigma)

    weighted = min_snr(snr, 5.0, prediction) * mistake.square().flatten(1).mean(dim=1)

    found = to_latents(prediction, right + mistake, noisy, alpha, sigma)
    error = (found - latents).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(weighted, snr.clamp(max=5.0) * error, rtol=1e-8, atol=0)


def test_the_squared_error_is_that_of_each_picture_in_float32() -> None:
    output = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.bfloat16).reshape(2, 1, 1, 2)
    aim = torch.tensor([[1.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    error = mean_squared_error(output, aim)
    torch.testing.assert_close(error, torch.tensor([2.0, 12.5]), rtol=0, atol=0)
