"""How far off the network is, and how much each noise level counts.

Shapes in this file:  B batch
"""

from torch import Tensor

from brushwork.diffusion.prediction import Prediction


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Two (B, C, H, W) -> (B,) float32: the error of each picture."""
    return (output.float() - target.float()).square().flatten(1).mean(dim=1)


def min_snr(snr: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """(B,) -> (B,): weights under which nearly clean levels no longer outweigh the others.

    The paper bounds the weight of the error in the latents by gamma. An error in epsilon is that error times snr,
    one in v times (snr + 1). In pure noise (snr 0) the weight is 1 for epsilon and 0 for v.
    """
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)  # = min(snr, gamma) / snr, without 0 / 0; arXiv:2303.09556
    return snr.clamp(max=gamma) / (snr + 1)
