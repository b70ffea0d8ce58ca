"""The heart: one batch of pictures becomes one loss for each of them.

A pure function of (weights, batch, draws). The draws are made by `draw` from (seed, step, microbatch) alone, so a
run that is stopped and continued sees the numbers that it would have seen.

Shapes in this file:  B pictures   h, w size of the latents   L tokens   W width of the text states   P pooled width
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from brushwork.config.schema import LossConfig
from brushwork.diffusion import noise as noises
from brushwork.diffusion import timesteps as levels
from brushwork.diffusion.prediction import Prediction, add_noise, target
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.diffusion.weighting import error, masked, weight
from brushwork.lean.network import LeanUNet
from brushwork.models.unet import UNet
from brushwork.runtime import generator

Network = UNet | LeanUNet
"""Both are called with latents, timesteps, context, pooled text and sizes, and give the same numbers."""


@dataclass(frozen=True)
class Batch:
    """What the network is shown: pictures as the VAE's distribution of latents, and what steers them."""

    mean: Tensor  # (B, 4, h, w), not scaled
    deviation: Tensor  # (B, 4, h, w)
    context: Tensor  # (B, L, W)
    pooled: Tensor | None  # (B, P); SDXL only
    time_ids: Tensor | None  # (B, 6): original size, crop corner, target size; SDXL only
    names: tuple[str, ...]  # the files, for messages
    masks: Tensor | None = None  # (B, 1, h, w): how much each latent counts; None where all count alike
    weights: Tensor | None = None  # (B,): of each picture's loss; None where all count alike

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return Batch(
            mean=self.mean.to(device, non_blocking=True),
            deviation=self.deviation.to(device, non_blocking=True),
            context=self.context.to(device, non_blocking=True),
            pooled=None if self.pooled is None else self.pooled.to(device, non_blocking=True),
            time_ids=None if self.time_ids is None else self.time_ids.to(device, non_blocking=True),
            names=self.names,
            masks=None if self.masks is None else self.masks.to(device, non_blocking=True),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Draws:
    """Everything random in a step, in float32."""

    timesteps: Tensor  # (B,) whole numbers
    latent_noise: Tensor  # (B, 4, h, w): picks one latent from the VAE's distribution
    noise: noises.Noise  # what the network learns to tell from the picture

    def to(self, device: torch.device) -> "Draws":
        """The same draws on `device`."""
        return Draws(
            timesteps=self.timesteps.to(device, non_blocking=True),
            latent_noise=self.latent_noise.to(device, non_blocking=True),
            noise=self.noise.to(device),
        )


@dataclass(frozen=True)
class Objective:
    """What is asked of the network: fixed for a run."""

    schedule: NoiseSchedule
    prediction: Prediction
    scaling_factor: float
    """Latents are multiplied by this, so that their deviation is near 1."""
    loss: LossConfig = field(default_factory=LossConfig)
    """By default the plain mean squared error, at all noise levels alike."""


def draw(shape: torch.Size, objective: Objective, *, seed: int, step: int, microbatch: int) -> Draws:
    """Draw timesteps and noise for a batch of latents of `shape` (B, 4, h, w), on the CPU."""

    def source(purpose: str) -> torch.Generator:
        return generator(seed, purpose, step, microbatch)

    return Draws(
        timesteps=levels.draw(shape[0], loss=objective.loss, generator=source("timestep")),
        latent_noise=torch.randn(shape, generator=source("latent")),
        noise=noises.draw(shape, loss=objective.loss, source=source),
    )


def loss_per_picture(
    network: Network, batch: Batch, draws: Draws, objective: Objective, *, dtype: torch.dtype
) -> Tensor:
    """Noise the pictures, let the network predict, compare: -> (B,) float32.

    The network computes in `dtype`; the noising, the comparison and the weights are float32.
    """
    schedule, loss = objective.schedule, objective.loss
    latents = (batch.mean + batch.deviation * draws.latent_noise) * objective.scaling_factor  # (B, 4, h, w)
    alpha, sigma = schedule.alpha_sigma(draws.timesteps)  # (B, 1, 1, 1) each
    noise = noises.mixed(draws.noise, latents, loss=loss)
    noisy = add_noise(latents, noises.perturbed(noise, draws.noise), alpha, sigma)
    pooled = None if batch.pooled is None else batch.pooled.to(dtype)

    output = network(noisy.to(dtype), draws.timesteps, batch.context.to(dtype), pooled, batch.time_ids)

    wanted = target(objective.prediction, latents, noise, alpha, sigma)
    errors = error(output, wanted, draws.timesteps, schedule=schedule, loss=loss)  # (B, 4, h, w)
    if batch.masks is not None:
        errors = masked(errors, batch.masks, loss=loss)
    losses = errors.flatten(1).mean(dim=1) * weight(schedule.snr(draws.timesteps), objective.prediction, loss=loss)
    return losses if batch.weights is None else losses * batch.weights
