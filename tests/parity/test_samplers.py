"""Whole trajectories equal those of diffusers' schedulers: same noise, same (invented, nonlinear) network."""

import functools
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from diffusers.schedulers import scheduling_ddpm, scheduling_euler_ancestral_discrete
from torch import Tensor

from brushwork.diffusion.prediction import Prediction
from brushwork.diffusion.samplers import SAMPLERS, sample
from brushwork.diffusion.schedule import NoiseSchedule

# The published scheduler_config.json of SD 1.5 and SDXL, as far as it steers these schedulers.
PUBLISHED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
ZERO_TERMINAL = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
REFERENCES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
}
SHAPE = (2, 4, 6, 5)
STEPS = range(1, 51)
KERNEL = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(1)) / 6


@functools.cache
def draw(i: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + i))


def network(x: Tensor, timestep: Tensor) -> Tensor:
    """Neither linear nor the same at two timesteps; mixes channels and neighbours."""
    phase = timestep.float() / 160
    return torch.tanh(F.conv2d(x, KERNEL, padding=1) + 0.3 * torch.sin(phase)) + 0.4 * torch.cos(phase) * x


def reference(sampler: str, prediction: Prediction, **settings: Any) -> Any:
    scheduler, own = REFERENCES[sampler]
    name = "epsilon" if prediction == "epsilon" else "v_prediction"
    return scheduler(**{**PUBLISHED, **own, **settings}, prediction_type=name)


def their_trajectory(
    scheduler: Any, num_steps: int, monkeypatch: pytest.MonkeyPatch, *, unit_start: bool = False
) -> list[Tensor]:
    """Their latents after every step, brought to the variance-preserving form where theirs are divided by alpha.

    Args:
        unit_start: begin with noise of deviation 1 in that form. In "linspace" their Euler begins 0.2 % lower.
    """
    scheduler.set_timesteps(num_steps)
    over_alpha = isinstance(scheduler, EulerDiscreteScheduler | EulerAncestralDiscreteScheduler)
    x = draw(-1) * scheduler.init_noise_sigma
    if unit_start and over_alpha:
        x = draw(-1) * (1 + scheduler.sigmas[0] ** 2).sqrt()
    trajectory = []
    for i, timestep in enumerate(scheduler.timesteps):
        for module in (scheduling_ddpm, scheduling_euler_ancestral_discrete):
            monkeypatch.setattr(module, "randn_tensor", lambda *_, i=i, **__: draw(i))
        output = network(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x).prev_sample
        trajectory.append(x / (1 + scheduler.sigmas[i + 1] ** 2).sqrt() if over_alpha else x)
    return trajectory


def our_trajectory(sampler: str, prediction: Prediction, schedule: NoiseSchedule, num_steps: int, **more: Any) -> Any:
    trajectory: list[Tensor] = []
    final = sample(
        sampler,
        network,
        draw(-1),
        schedule=schedule,
        prediction=prediction,
        num_steps=num_steps,
        draw_noise=draw,
        on_step=lambda i, num_steps, x: trajectory.append(x),
        **more,
    )
    assert final is trajectory[-1]
    return trajectory


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    # With this untrained network epsilon leads to latents of 90, where neighbouring float32 numbers are 8e-6 apart.
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-5, atol=4e-5)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_that_of_diffusers(
    sampler: str, prediction: Prediction, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = their_trajectory(reference(sampler, prediction), num_steps, monkeypatch)
    assert_same(our_trajectory(sampler, prediction, NoiseSchedule.scaled_linear(), num_steps), theirs)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_from_pure_noise_is_that_of_diffusers(
    sampler: str, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler == "ddim" and 1000 % num_steps:
        # Their DDIM steps to timestep - 1000 // num_steps, which is not the next timestep. Ours goes to the next,
        # as their Euler does; that is the same step (docs/math.md), but for the last, which goes to zero noise.
        theirs = their_trajectory(reference("euler", "v", **ZERO_TERMINAL), num_steps, monkeypatch)[:-1]
    else:
        theirs = their_trajectory(reference(sampler, "v", **ZERO_TERMINAL), num_steps, monkeypatch)
    # Their Euler begins at 4,096 times the noise, where neighbouring float32 numbers are 5e-4 apart.
    tolerance = 1e-5 if sampler in ("ddpm", "dpmpp_2m") or (sampler == "ddim" and 1000 % num_steps == 0) else 1e-3
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=True)

    ours = our_trajectory(sampler, "v", schedule, num_steps)[: len(theirs)]

    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("num_steps", [2, 10, 25])
@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_every_step_over_karras_levels_is_that_of_diffusers(
    sampler: str, prediction: Prediction, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = reference(sampler, prediction, timestep_spacing="linspace", use_karras_sigmas=True)
    theirs = their_trajectory(theirs, num_steps, monkeypatch, unit_start=True)
    ours = our_trajectory(sampler, prediction, NoiseSchedule.scaled_linear(), num_steps, karras=True)
    assert_same(ours, theirs)


def test_two_pictures_in_a_row_are_drawn_alike() -> None:
    """Samplers keep nothing: the second trajectory repeats the first, bit for bit."""
    for sampler in SAMPLERS:
        first, second = (our_trajectory(sampler, "epsilon", NoiseSchedule.scaled_linear(), 5) for _ in range(2))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
