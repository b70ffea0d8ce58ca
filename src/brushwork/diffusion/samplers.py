"""From noise to latents: five samplers, three kinds of step, one loop.

A sampler is a list of noise levels and a function that moves the latents from one level to the next. There is no
scheduler object: what a step needs from the one before is a local variable of the loop, so nothing can be left over
from another picture. DDIM and Euler take the same step, and so do DDPM and Euler ancestral (docs/math.md shows why);
the members of a pair differ in their levels alone.

Coefficients are Python floats, made in float64 before the loop: no step waits for the device.

Shapes in this file:  B batch   C channels   H, W size of the latents   N steps   T timesteps of the schedule
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brushwork.diffusion.prediction import Prediction, check_prediction, to_latents, to_noise
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError, nearest

SAMPLERS = ("ddpm", "ddim", "euler", "euler_ancestral", "dpmpp_2m")
STOCHASTIC = ("ddpm", "euler_ancestral")

Array = NDArray[np.float64]
Predict = Callable[[Tensor, Tensor], Tensor]
"""(B, C, H, W), () -> (B, C, H, W): the network's (guided) output for noisy latents at a timestep."""


@dataclass(frozen=True)
class Level:
    """A point of the trajectory: noisy = alpha * latents + sigma * noise, told to the network as `timestep`."""

    timestep: float
    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """Half the logarithm of the signal-to-noise ratio, lambda in the papers on solvers."""
        return math.log(self.alpha / self.sigma)


@dataclass(frozen=True)
class Estimate:
    """The noisy latents at a level, and what the network takes them to be made of; three (B, C, H, W)."""

    level: Level
    noisy: Tensor
    latents: Tensor
    noise: Tensor


def ddim_step(here: Estimate, there: Level) -> Tensor:
    """Mixes the estimated latents and noise anew, for less noise."""
    return there.alpha * here.latents + there.sigma * here.noise  # eq. 12 with sigma_t = 0, arXiv:2010.02502


def ancestral_step(here: Estimate, there: Level, fresh: Tensor) -> Tensor:
    """The same with as much of the noise exchanged for fresh noise as the forward process added on this way."""
    kept = (there.sigma / there.alpha) * (here.level.alpha / here.level.sigma)  # eq. 7, arXiv:2006.11239
    noise = kept * here.noise + math.sqrt(1 - kept**2) * fresh
    return there.alpha * here.latents + there.sigma * noise


def dpmpp_2m_step(here: Estimate, there: Level, before: Estimate | None) -> Tensor:
    """DDIM's step towards latents extrapolated from this estimate and the one before."""
    latents = here.latents
    if before is not None and there.sigma > 0:  # the first step has no past, the last would leap to infinity
        stride = there.log_snr - here.level.log_snr
        last_stride = here.level.log_snr - before.level.log_snr
        latents = latents + stride / (2 * last_stride) * (latents - before.latents)  # alg. 2, arXiv:2211.01095
    noise = (here.noisy - here.level.alpha * latents) / here.level.sigma
    return there.alpha * latents + there.sigma * noise


def solve(
    sampler: str,
    predict: Predict,
    noise: Tensor,
    levels: Sequence[Level],
    *,
    prediction: Prediction,
    draw_noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): follows the levels, N + 1 of them, from the first to the last.

    Args:
        draw_noise: gives the fresh noise of step i; asked only where a step needs it.
        on_step: called after each step with its index, N, and the latents at the level reached.
    """
    x, before = noise, None
    timesteps = torch.tensor([level.timestep for level in levels], dtype=torch.float32, device=noise.device)
    num_steps = len(levels) - 1
    for i, (level, there) in enumerate(itertools.pairwise(levels)):
        output = predict(x, timesteps[i]).to(x.dtype)
        here = Estimate(
            level,
            noisy=x,
            latents=to_latents(prediction, output, x, level.alpha, level.sigma),
            noise=to_noise(prediction, output, x, level.alpha, level.sigma),
        )
        if sampler == "dpmpp_2m":
            x = dpmpp_2m_step(here, there, before)
        elif sampler in STOCHASTIC and there.sigma > 0:
            if draw_noise is None:
                raise ValueError(f"{sampler} needs fresh noise in every step but the last: pass draw_noise")
            x = ancestral_step(here, there, draw_noise(i))
        else:
            x = ddim_step(here, there)
        before = here
        if on_step is not None:
            on_step(i, num_steps, x)
    return x


def sample(
    sampler: str,
    predict: Predict,
    noise: Tensor,
    *,
    schedule: NoiseSchedule,
    prediction: Prediction,
    num_steps: int,
    draw_noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int, Tensor], None] | None = None,
    karras: bool = False,
) -> Tensor:
    """(B, C, H, W) unit Gaussian noise -> (B, C, H, W) latents. See `solve` and `levels_for`."""
    check_prediction(prediction, schedule)
    levels = levels_for(sampler, schedule=schedule, num_steps=num_steps, karras=karras)
    return solve(sampler, predict, noise, levels, prediction=prediction, draw_noise=draw_noise, on_step=on_step)


def timesteps_for(sampler: str, *, schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """The N timesteps at which the network is asked, noisiest first, spaced as diffusers does it for SD and SDXL.

    A schedule that ends in pure noise is followed from its end ("trailing", table 2 of arXiv:2305.08891). The others
    take every (T // N)-th timestep, one later than 0 ("leading", steps_offset 1), and so begin below T - 1; DPM++
    counts as if there were N + 1 and leaves the last to its leap to zero noise.
    """
    if sampler not in SAMPLERS:
        near = nearest(sampler, SAMPLERS)
        hint = f"did you mean {near}?" if near else "use " + ", ".join(SAMPLERS)
        raise UserError(f"unknown sampler {sampler!r}.", fix=hint)
    total, drop = schedule.num_timesteps, int(sampler == "dpmpp_2m" and not schedule.zero_terminal)
    if not 1 <= num_steps <= total - drop:
        raise UserError(
            f"{num_steps} steps: {sampler} takes 1 to {total - drop} steps.", fix="25 steps are usual, 50 are many"
        )
    if schedule.zero_terminal:
        spaced = np.arange(total, 0, -total / num_steps)[:num_steps]  # arange may yield one more, by rounding
        return [int(timestep) - 1 for timestep in spaced.round()]
    stride = total // (num_steps + drop)
    offset = min(1, total - 1 - (num_steps - 1 + drop) * stride)  # 0 where all timesteps are asked for
    return [i * stride + offset for i in reversed(range(drop, num_steps + drop))]


def levels_for(sampler: str, *, schedule: NoiseSchedule, num_steps: int, karras: bool = False) -> list[Level]:
    """The N + 1 levels of a trajectory: where the network is asked, and where it ends.

    Args:
        karras: space the levels evenly in (sigma / alpha)^(1/7) over the whole schedule instead.
    """
    whole = timesteps_for(sampler, schedule=schedule, num_steps=num_steps)
    signal = schedule.alphas_cumprod.numpy(force=True)
    if karras or sampler not in ("ddpm", "ddim"):
        # These reckon with sigma / alpha, infinite in pure noise: 2^-24 is what diffusers takes for no signal.
        signal = np.maximum(signal, 2.0**-24)
    if karras:
        timesteps, signal_there = _karras(signal, num_steps, whole=sampler == "dpmpp_2m")
    else:
        timesteps, signal_there = np.array(whole, dtype=np.float64), signal[whole]
    end = signal[0] if sampler == "ddim" else 1.0  # DDIM of SD stops at timestep 0 (set_alpha_to_one = false)
    pairs = zip([*timesteps, 0], [*signal_there, end], strict=True)
    return [Level(float(timestep), math.sqrt(share), math.sqrt(1 - share)) for timestep, share in pairs]


def _karras(signal: Array, num_steps: int, *, whole: bool) -> tuple[Array, Array]:
    """(T,) -> N timesteps and (N,) alpha^2, evenly spaced in ratio^(1/7) for ratio = sigma / alpha.

    Where a ratio lies between two timesteps, the network is told a fraction, or the nearest (diffusers' DPM++).
    """
    ratios = np.sqrt((1 - signal) / signal)
    wanted = np.linspace(ratios[-1] ** (1 / 7), ratios[0] ** (1 / 7), num_steps) ** 7  # eq. 5, arXiv:2206.00364
    timesteps = np.interp(np.log(wanted), np.log(ratios), np.arange(len(ratios)))
    return timesteps.round() if whole else timesteps, 1 / (1 + wanted**2)
