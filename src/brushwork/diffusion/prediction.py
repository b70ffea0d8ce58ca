"""What the network says, and what follows from it about the latents and the noise.

noisy = alpha * latents + sigma * noise. The network is asked for the noise ("epsilon") or for the velocity
v = alpha * noise - sigma * latents ("v"); either one, with `noisy`, gives both latents and noise.

Shapes in this file: all tensors are (B, C, H, W); alpha and sigma are (B, 1, 1, 1) or plain numbers.
"""

from typing import Literal

from torch import Tensor

from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError

Prediction = Literal["epsilon", "v"]
Share = Tensor | float
"""alpha or sigma: one number for each picture of the batch, or one number for all."""


def add_noise(latents: Tensor, noise: Tensor, alpha: Share, sigma: Share) -> Tensor:
    """The latents at a noise level."""
    return alpha * latents + sigma * noise  # eq. 4, arXiv:2006.11239


def target(prediction: Prediction, latents: Tensor, noise: Tensor, alpha: Share, sigma: Share) -> Tensor:
    """What the network ought to say."""
    if prediction == "epsilon":
        return noise  # eq. 14, arXiv:2006.11239
    return alpha * noise - sigma * latents  # app. D, arXiv:2202.00512


def to_latents(prediction: Prediction, output: Tensor, noisy: Tensor, alpha: Share, sigma: Share) -> Tensor:
    """The clean latents that the network's output amounts to (x0)."""
    if prediction == "epsilon":
        return (noisy - sigma * output) / alpha  # eq. 9, arXiv:2010.02502
    return alpha * noisy - sigma * output  # app. D, arXiv:2202.00512


def to_noise(prediction: Prediction, output: Tensor, noisy: Tensor, alpha: Share, sigma: Share) -> Tensor:
    """The noise that the network's output amounts to (epsilon)."""
    if prediction == "epsilon":
        return output
    return sigma * noisy + alpha * output  # app. D, arXiv:2202.00512


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Refuses to learn or draw from an output that says nothing where there is noise alone."""
    if prediction == "epsilon" and schedule.zero_terminal:
        raise UserError(
            "the prediction is epsilon and the noise schedule has zero terminal SNR: at its last timestep there is "
            "noise alone, and the noise tells nothing about the picture.",
            fix="--set model.prediction=v for a base trained that way, else --set model.zero_terminal_snr=off",
        )
