"""How far off the network is, and how much each noise level counts.

Shapes in this file:  B batch   C, H, W channels and size of the latents
"""

from torch import Tensor

from brushwork.config.schema import LossConfig
from brushwork.diffusion.prediction import Prediction
from brushwork.diffusion.schedule import NoiseSchedule

LARGEST_SNR = 1000.0
"""Above it the debiased weights no longer change, so that nearly clean levels keep some."""

SMALLEST_SHARE = 1e-3
"""A mask that lets less of a picture count than this is not made up for in full: one latent would shout."""


def error(output: Tensor, target: Tensor, timesteps: Tensor, *, schedule: NoiseSchedule, loss: LossConfig) -> Tensor:
    """Two (B, C, H, W) and (B,) -> (B, C, H, W) float32: how far off each number is, by the kind of loss."""
    difference = output.float() - target.float()
    if loss.kind == "mse":
        return difference.square()
    if loss.kind == "l1":
        return difference.abs()
    c = huber_c(timesteps, schedule=schedule, loss=loss)
    return pseudo_huber(difference, c) if loss.kind == "huber" else pseudo_huber(difference, c) / c


def masked(errors: Tensor, masks: Tensor, *, loss: LossConfig) -> Tensor:
    """(B, C, H, W) and (B, 1, H, W) -> (B, C, H, W): each place counts as much as the mask says.

    As kohya does it, what a mask leaves out counts as no error, so a picture with a small mask weighs less;
    `normalise_masks` gives it the weight of a whole one.
    """
    counts = loss.unmasked_weight + (1 - loss.unmasked_weight) * masks
    if loss.normalise_masks:
        counts = counts / counts.mean(dim=(2, 3), keepdim=True).clamp_min(SMALLEST_SHARE)
    return errors * counts


def pseudo_huber(difference: Tensor, c: Tensor) -> Tensor:
    """(B, C, H, W) and (B, 1, 1, 1) -> (B, C, H, W): the square where it is far below c, 2c times the size far above.

    A few wild pictures then pull less. Divided by c, it is the smooth L1.
    """
    return 2 * c * ((difference.square() + c.square()).sqrt() - c)  # arXiv:2403.16728


def huber_c(timesteps: Tensor, *, schedule: NoiseSchedule, loss: LossConfig) -> Tensor:
    """(B,) -> (B, 1, 1, 1): where the square ends. Near 1 for clean latents, near `huber_c` for noise."""
    alpha, sigma = schedule.alpha_sigma(timesteps)
    if loss.huber_schedule == "snr":  # 1 / (1 + sigma / alpha)^2, without a division by 0 in pure noise
        return (1 - loss.huber_c) * (alpha / (alpha + sigma)).square() + loss.huber_c
    if loss.huber_schedule == "exponential":  # arXiv:2403.16728
        share = timesteps.float() / schedule.num_timesteps
        return (loss.huber_c**share)[:, None, None, None]
    return alpha.new_full(alpha.shape, loss.huber_c)


def weight(snr: Tensor, prediction: Prediction, *, loss: LossConfig) -> Tensor | float:
    """(B,) -> (B,): what the loss of each picture is multiplied by; at most one of the weightings is on."""
    if loss.min_snr_gamma is not None:
        return min_snr(snr, loss.min_snr_gamma, prediction)
    if loss.debiased:
        return debiased(snr, prediction)
    if loss.scale_v_like_noise:
        return v_like_noise(snr)
    return 1.0


def min_snr(snr: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """(B,) -> (B,): weights under which nearly clean levels no longer outweigh the others.

    The paper bounds the weight of the error in the latents by gamma. An error in epsilon is that error times snr,
    one in v times (snr + 1). In pure noise (snr 0) the weight is 1 for epsilon and 0 for v.
    """
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)  # = min(snr, gamma) / snr, without 0 / 0; arXiv:2303.09556
    return snr.clamp(max=gamma) / (snr + 1)


def debiased(snr: Tensor, prediction: Prediction) -> Tensor:
    """(B,) -> (B,): weights that lift the noisiest levels, whose latents are hardest to tell."""
    bounded = snr.clamp(max=LARGEST_SNR)
    if prediction == "epsilon":
        return bounded.rsqrt()  # arXiv:2310.08442
    return 1 / (bounded + 1)  # kohya-ss/sd-scripts#1058: for v


def v_like_noise(snr: Tensor) -> Tensor:
    """(B,) -> (B,): weights under which an error of v counts as the error of epsilon that it amounts to.

    epsilon = sigma * noisy + alpha * v, so that error is alpha times the one of v; squared, snr / (snr + 1).
    """
    bounded = snr.clamp(max=LARGEST_SNR)  # as kohya's trainer, whose snr may be infinite
    return bounded / (bounded + 1)
