"""The step with a network that can be seen through: what it is shown, what it is asked for, and what each setting of
the loss changes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brushwork.config.describe import fields
from brushwork.config.schema import LossConfig
from brushwork.diffusion.prediction import Prediction
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.training.step import Batch, Draws, Objective, draw, loss_per_picture

SHAPE = torch.Size([6, 4, 8, 8])
SCHEDULE = NoiseSchedule.scaled_linear()


class Halved(nn.Module):
    """A network that says half of what it sees, and remembers it."""

    def forward(self, noisy: Tensor, timesteps: Tensor, *others: Tensor | None) -> Tensor:
        self.noisy, self.timesteps = noisy, timesteps
        return noisy / 2


def batch() -> Batch:
    random = torch.Generator().manual_seed(3)
    mean = torch.randn(SHAPE, generator=random) + 0.5
    deviation = 0.1 * torch.rand(SHAPE, generator=random)
    return Batch(mean, deviation, torch.zeros(6, 77, 8), None, None, tuple("abcdef"))


def objective(prediction: Prediction = "epsilon", **settings: Any) -> Objective:
    return Objective(SCHEDULE, prediction, scaling_factor=0.8, loss=LossConfig.model_validate(settings))


def losses(asked: Objective, *, seed: int = 0, step: int = 0, microbatch: int = 0) -> Tensor:
    draws = draw(SHAPE, asked, seed=seed, step=step, microbatch=microbatch)
    return loss_per_picture(Halved(), batch(), draws, asked, dtype=torch.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_loss_is_its_formula_with_everything_on(prediction: Prediction) -> None:
    asked = objective(
        prediction,
        kind="huber",
        huber_schedule="constant",
        min_snr_gamma=5.0,
        noise_offset=0.1,
        input_perturbation=0.2,
    )
    draws, unet = draw(SHAPE, asked, seed=0, step=0, microbatch=0), Halved()

    found = loss_per_picture(unet, batch(), draws, asked, dtype=torch.float32)  # type: ignore[arg-type]

    latents = (batch().mean + batch().deviation * draws.latent_noise) * 0.8
    parts = draws.noise
    assert parts.offset is not None
    assert parts.perturbation is not None
    share = SCHEDULE.alphas_cumprod[draws.timesteps].float()[:, None, None, None]
    noise = parts.white + 0.1 * parts.offset
    noisy = share.sqrt() * latents + (1 - share).sqrt() * (noise + parts.perturbation)
    wanted = noise if prediction == "epsilon" else share.sqrt() * noise - (1 - share).sqrt() * latents
    huber = 2 * 0.1 * (torch.sqrt((noisy / 2 - wanted) ** 2 + 0.1**2) - 0.1)
    snr = (share / (1 - share)).flatten()
    weight = snr.clamp(max=5.0) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(unet.noisy, noisy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, huber.mean(dim=(1, 2, 3)) * weight, rtol=1e-5, atol=1e-6)


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kind": ({}, {"kind": "l1"}),
    "huber_c": ({"kind": "huber"}, {"huber_c": 0.3}),
    "huber_schedule": ({"kind": "smooth_l1"}, {"huber_schedule": "exponential"}),
    "min_snr_gamma": ({}, {"min_snr_gamma": 1.0}),
    "debiased": ({}, {"debiased": True}),
    "scale_v_like_noise": ({}, {"scale_v_like_noise": True}),
    "noise_offset": ({}, {"noise_offset": 0.2}),
    "noise_offset_random": ({"noise_offset": 0.2}, {"noise_offset_random": True}),
    "adaptive_noise_scale": ({"noise_offset": 0.2}, {"adaptive_noise_scale": 0.5}),
    "multires_iterations": ({}, {"multires_iterations": 4}),
    "multires_discount": ({"multires_iterations": 4}, {"multires_discount": 0.8}),
    "input_perturbation": ({}, {"input_perturbation": 0.2}),
    "input_perturbation_random": ({"input_perturbation": 0.2}, {"input_perturbation_random": True}),
    "timesteps": ({}, {"timesteps": "logit_normal"}),
    "logit_mean": ({"timesteps": "logit_normal"}, {"logit_mean": 1.0}),
    "logit_deviation": ({"timesteps": "logit_normal"}, {"logit_deviation": 2.0}),
    "mode_scale": ({"timesteps": "mode"}, {"mode_scale": 0.5}),
    "min_timestep": ({}, {"min_timestep": 500}),
    "max_timestep": ({}, {"max_timestep": 500}),
}
"""For each setting: what has to be on, and the change."""

ELSEWHERE = {"prior_weight", "unmasked_weight", "normalise_masks"}
"""Settings of the section that act on what is not here: regularisation pictures and masks."""


def test_every_setting_of_the_loss_is_tried() -> None:
    settings = {key.removeprefix("loss.") for key in fields() if key.startswith("loss.")}
    assert settings == set(CHANGES) | ELSEWHERE


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_of_the_loss_changes_it(name: str) -> None:
    before, change = CHANGES[name]
    one, other = losses(objective("v", **before)), losses(objective("v", **before, **change))
    assert bool(one.isfinite().all() and other.isfinite().all())
    assert not torch.equal(one, other)


def test_a_step_sees_the_same_numbers_whenever_it_is_taken() -> None:
    """What makes stopping and going on the same as never stopping."""
    everything = objective(
        noise_offset=0.1,
        noise_offset_random=True,
        adaptive_noise_scale=0.1,
        multires_iterations=5,
        input_perturbation=0.1,
        input_perturbation_random=True,
        timesteps="logit_normal",
    )
    first = losses(everything, step=7, microbatch=1)
    losses(everything, step=8)
    torch.testing.assert_close(losses(everything, step=7, microbatch=1), first, rtol=0, atol=0)
    for other in ({"step": 8, "microbatch": 1}, {"step": 7}, {"step": 7, "microbatch": 1, "seed": 1}):
        assert not torch.equal(losses(everything, **other), first)


def test_draws_move_as_a_whole() -> None:
    everything = objective(noise_offset=0.1, multires_iterations=2, input_perturbation=0.1)
    moved: Draws = draw(SHAPE, everything, seed=0, step=0, microbatch=0).to(torch.device("meta"))
    assert moved.timesteps.device.type == moved.latent_noise.device.type == moved.noise.white.device.type == "meta"
