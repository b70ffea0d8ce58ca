"""The section `[loss]` before a run: which of its settings exclude one another, and what they amount to in words."""

from brushwork.config.schema import LossConfig
from brushwork.diffusion.prediction import Prediction
from brushwork.errors import UserError


def refuse_contradictory_loss(loss: LossConfig) -> None:
    """Stop where settings of the loss exclude one another, or one would be without effect."""
    weightings = [
        ("loss.min_snr_gamma", "off", loss.min_snr_gamma is not None),
        ("loss.debiased", "false", loss.debiased),
        ("loss.scale_v_like_noise", "false", loss.scale_v_like_noise),
    ]
    chosen = [(key, without) for key, without, is_on in weightings if is_on]
    if len(chosen) > 1:
        raise UserError(
            f"{' and '.join(key for key, _ in chosen)}: each is a whole weighting of the noise levels, and a product "
            "of them is none that anybody has derived.",
            fix="keep one: " + " or ".join(f"--set {key}={without}" for key, without in chosen),
        )
    if loss.min_timestep >= loss.max_timestep:
        raise UserError(
            f"loss.min_timestep = {loss.min_timestep} leaves no noise level below "
            f"loss.max_timestep = {loss.max_timestep}.",
            fix="--set loss.min_timestep=0 --set loss.max_timestep=1000 trains all",
        )
    for name, value, amount in (
        ("noise_offset_random", loss.noise_offset_random, "noise_offset"),
        ("adaptive_noise_scale", loss.adaptive_noise_scale, "noise_offset"),
        ("input_perturbation_random", loss.input_perturbation_random, "input_perturbation"),
    ):
        if value and not getattr(loss, amount):
            raise UserError(
                f"loss.{name} = {str(value).lower()} changes loss.{amount}, which is 0: it would do nothing.",
                fix=f"--set loss.{amount}=0.05, or leave loss.{name} out",
            )


def refuse_foreign_loss(loss: LossConfig, prediction: Prediction) -> None:
    """Stop where the loss is made for bases that predict something else."""
    if loss.scale_v_like_noise and prediction != "v":
        raise UserError(
            f"loss.scale_v_like_noise = true is for bases that predict v; this one predicts {prediction}.",
            fix="--set loss.scale_v_like_noise=false",
        )


def loss_in_words(loss: LossConfig) -> str:
    """`huber loss with c = 0.1 (snr), min-SNR 5, noise offset 0.05`: what differs from the plain squared error."""
    kinds = {"mse": "mean squared error", "l1": "mean absolute error"}
    parts = [kinds.get(loss.kind, f"{loss.kind} loss with c = {loss.huber_c:g} ({loss.huber_schedule})")]
    if loss.min_snr_gamma is not None:
        parts.append(f"min-SNR {loss.min_snr_gamma:g}")
    parts += ["debiased"] if loss.debiased else []
    parts += ["v scaled like noise"] if loss.scale_v_like_noise else []
    if loss.noise_offset:
        adaptive = f" + {loss.adaptive_noise_scale:g} x mean" if loss.adaptive_noise_scale is not None else ""
        parts.append(f"noise offset {_up_to(loss.noise_offset_random)}{loss.noise_offset:g}{adaptive}")
    if loss.multires_iterations is not None:
        parts.append(f"multires noise, {loss.multires_iterations} levels, discount {loss.multires_discount:g}")
    if loss.input_perturbation:
        parts.append(f"input off by {_up_to(loss.input_perturbation_random)}{loss.input_perturbation:g}")
    if loss.timesteps == "logit_normal":
        parts.append(f"logit-normal timesteps, mean {loss.logit_mean:g}, deviation {loss.logit_deviation:g}")
    parts += [f"mode timesteps, scale {loss.mode_scale:g}"] if loss.timesteps == "mode" else []
    if (loss.min_timestep, loss.max_timestep) != (0, 1000):
        parts.append(f"timesteps {loss.min_timestep} to {loss.max_timestep - 1}")
    return ", ".join(parts)


def _up_to(random: bool) -> str:
    return "up to " if random else ""
