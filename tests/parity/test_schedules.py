"""The tables and the spacing of timesteps equal those of diffusers' schedulers."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from torch import Tensor

from brushwork.diffusion.prediction import add_noise, target
from brushwork.diffusion.samplers import levels_for, timesteps_for
from brushwork.diffusion.schedule import NoiseSchedule

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
LEADING = {**SD, "timestep_spacing": "leading", "steps_offset": 1}
TRAILING = {**SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
REFERENCES = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}


def latents_and_noise() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 4, 2, 2, generator=generator), torch.randn(1000, 4, 2, 2, generator=generator)


def test_the_schedule_is_that_of_diffusers() -> None:
    theirs = DDPMScheduler(**SD).alphas_cumprod
    ours = NoiseSchedule.scaled_linear().alphas_cumprod
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-6, atol=0)


def test_the_zero_terminal_schedule_is_that_of_diffusers() -> None:
    theirs = DDPMScheduler(**TRAILING).alphas_cumprod
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True)
    assert schedule.zero_terminal
    assert schedule.alphas_cumprod[-1] == 0
    # Theirs subtracts nearly equal float32 numbers: near the end, where abar is 1e-6, it is off by 4e-5 of that.
    torch.testing.assert_close(schedule.alphas_cumprod.float(), theirs, rtol=5e-5, atol=0)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_noising_and_velocity_equal_those_of_diffusers_at_every_timestep(zero_terminal_snr: bool) -> None:
    reference = DDPMScheduler(**(TRAILING if zero_terminal_snr else SD))
    latents, noise = latents_and_noise()
    timesteps = torch.arange(1000)
    alpha, sigma = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr).alpha_sigma(timesteps)

    ours = add_noise(latents, noise, alpha, sigma)
    velocity = target("v", latents, noise, alpha, sigma)

    torch.testing.assert_close(ours, reference.add_noise(latents, noise, timesteps), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(velocity, reference.get_velocity(latents, noise, timesteps), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("sampler", list(REFERENCES))
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_timesteps_are_those_of_diffusers_for_every_number_of_steps(sampler: str, zero_terminal_snr: bool) -> None:
    theirs = REFERENCES[sampler](**(TRAILING if zero_terminal_snr else LEADING))
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)
    for num_steps in range(
        1, 999
    ):  # with 999 (DPM++) or 1000 steps theirs asks for timestep 1000, which is not there
        theirs.set_timesteps(num_steps)
        expected = theirs.timesteps.tolist()
        if expected[-1] == -1:  # a fractional stride yields one timestep too many where it rounds badly
            expected.pop()
        assert timesteps_for(sampler, schedule=schedule, num_steps=num_steps) == expected, num_steps


@pytest.mark.parametrize(("sampler", "most"), [("ddpm", 1000), ("dpmpp_2m", 999)])
def test_a_step_for_each_timestep_stays_within_the_schedule(sampler: str, most: int) -> None:
    timesteps = timesteps_for(sampler, schedule=NoiseSchedule.scaled_linear(), num_steps=most)
    assert timesteps == list(range(999, 999 - most, -1))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("num_steps", [2, 3, 10, 25, 50])
def test_karras_levels_are_those_of_diffusers(sampler: str, zero_terminal_snr: bool, num_steps: int) -> None:
    # "linspace" makes their Euler span the whole schedule, as their DPM++ and k-diffusion do.
    settings = {**SD, "rescale_betas_zero_snr": zero_terminal_snr, "use_karras_sigmas": True}
    theirs = REFERENCES[sampler](**settings, timestep_spacing="linspace")
    theirs.set_timesteps(num_steps)
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=zero_terminal_snr)

    levels = levels_for(sampler, schedule=schedule, num_steps=num_steps, karras=True)

    ratios = torch.tensor([level.sigma / level.alpha for level in levels])
    timesteps = torch.tensor([level.timestep for level in levels[:-1]])
    torch.testing.assert_close(ratios, theirs.sigmas, rtol=2e-5, atol=0)
    # Near timestep 0 a change of ratio by 1e-6 is one of the timestep by 1e-4, and theirs are made in float32.
    torch.testing.assert_close(timesteps, theirs.timesteps.float(), rtol=1e-5, atol=2e-3)
