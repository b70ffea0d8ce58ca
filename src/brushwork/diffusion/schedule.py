"""How much of the picture and how much noise there is at each timestep.

The process is variance preserving: noisy = alpha * latents + sigma * noise, with alpha^2 + sigma^2 = 1, and
alphas_cumprod = alpha^2. Timestep 0 is nearly clean, T - 1 nearly (zero-terminal: entirely) noise.

Shapes in this file:  B batch   T timesteps of the schedule
"""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise level of every timestep that the network was trained with.

    Args:
        alphas_cumprod: (T,) float64, falling. The rescaling to zero terminal SNR subtracts nearly equal numbers: in
            float32 its last timesteps would be off by 4e-5 of themselves.
    """

    alphas_cumprod: Tensor
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def scaled_linear(
        cls,
        *,
        num_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        zero_terminal_snr: bool = False,
    ) -> Self:
        """The schedule of SD 1.5 and SDXL: the square root of beta rises linearly."""
        # The published configurations of both; the schedule of the code of arXiv:2112.10752.
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64) ** 2
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        return cls(end_in_noise(alphas_cumprod) if zero_terminal_snr else alphas_cumprod)

    @property
    def num_timesteps(self) -> int:
        """T"""
        return len(self.alphas_cumprod)

    @property
    def zero_terminal(self) -> bool:
        """Whether the last timestep is noise alone."""
        return self.alphas_cumprod[-1].item() == 0

    def alpha_sigma(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) whole numbers -> two (B, 1, 1, 1) float32: the share of the latents and that of the noise."""
        alpha, sigma, _ = self._table(timesteps.device)[:, timesteps]
        return alpha[:, None, None, None], sigma[:, None, None, None]

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) whole numbers -> (B,) float32: alpha^2 / sigma^2, the signal-to-noise ratio."""
        return self._table(timesteps.device)[2, timesteps]

    def _table(self, device: torch.device) -> Tensor:
        """(3, T) float32: alpha, sigma, snr. Copied to a device once, so that a training step never waits for it."""
        if device not in self._tables:
            signal, noise = self.alphas_cumprod, 1 - self.alphas_cumprod
            self._tables[device] = torch.stack([signal.sqrt(), noise.sqrt(), signal / noise]).float().to(device)
        return self._tables[device]


def end_in_noise(alphas_cumprod: Tensor) -> Tensor:
    """(T,) -> (T,): the schedule shifted and scaled so that its last timestep is noise alone and its first stays."""
    alpha = alphas_cumprod.sqrt()  # algorithm 1, arXiv:2305.08891
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
