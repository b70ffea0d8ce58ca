"""Rows of the table: the loop, the loss, precision and memory."""

from typing import Any

from brushwork.config.kohya.key import NOTHING, Given, Meaning, needless, same, turned, unmet


def _steps(value: Any, given: Given) -> Meaning:
    if given["max_train_epochs"]:
        return NOTHING
    return Meaning({"train.max_steps": value, "train.epochs": None})


def _epochs(value: Any, given: Given) -> Meaning:
    if not value:
        return NOTHING
    return Meaning({"train.epochs": value, "train.max_steps": None})


def _mixed(value: Any, given: Given) -> Meaning:
    if given["full_bf16"] or given["full_fp16"]:
        return NOTHING
    precision = "fp32" if value == "no" else value
    remark = 'fp32: slow, and twice the memory of bf16; write mixed_precision = "bf16"' if value == "no" else ""
    return Meaning({"train.precision": precision}, remark if "mixed_precision" in given else "")


def _full(name: str) -> Any:
    def convert(value: Any, given: Given) -> Meaning:
        if not value or (name == "fp16" and given["full_bf16"]):
            return NOTHING
        return Meaning(
            {"train.precision": name},
            remark=f"the frozen base is kept in {name}; what learns stays float32, where small steps are not lost",
        )

    return convert


def _seed(value: Any, given: Given) -> Meaning:
    return Meaning({"train.seed": 0 if value is None else value})


FULL = "for the frozen base; what learns stays float32"
ATTENTION = "attention is torch's own, which takes the fastest way that the card has"

LOOP = [
    turned(
        "max_train_steps", "whole", 1600, ("train.max_steps", "train.epochs"), _steps,
        "optimizer steps, as there; max_train_epochs goes before it",
        surprise="kohya ends after 1,600 steps where the file says neither steps nor epochs",
    ),
    turned("max_train_epochs", "whole", None, ("train.epochs", "train.max_steps"), _epochs, "goes before the steps"),
    same("train_batch_size", "whole", 1, "train.batch_size"),
    same("gradient_accumulation_steps", "whole", 1, "train.accumulation"),
    same("gradient_checkpointing", "flag", False, "train.checkpointing"),
    turned(
        "mixed_precision", "text", "no", ("train.precision",), _mixed, "`no` is fp32",
        surprise="kohya computes in fp32 where the file says nothing: slow, and twice the memory of bf16",
    ),
    turned("full_fp16", "flag", False, ("train.precision",), _full("fp16"), FULL),
    turned("full_bf16", "flag", False, ("train.precision",), _full("bf16"), FULL),
    turned(
        "seed", "whole", None, ("train.seed",), _seed, "left out is 0 here; kohya draws one",
        surprise="kohya draws a seed where the file says none; here it is 0, so that a run can be repeated",
    ),
    needless("initial_epoch", "whole", None, "a run goes on where it stopped", neutral=(0, 1)),
    needless("initial_step", "whole", None, "a run goes on where it stopped", neutral=(0,)),
    needless("skip_until_initial_step", "flag", False, "a run goes on where it stopped"),
    needless("sdpa", "flag", False, ATTENTION),
    needless("xformers", "flag", False, ATTENTION),
    needless("mem_eff_attn", "flag", False, ATTENTION),
    unmet("torch_compile", "flag", False, "the networks are run as they are"),
    needless("dynamo_backend", "text", "inductor", "belongs to torch_compile", neutral=("no",)),
    needless("cpu_offload_checkpointing", "flag", False, "checkpoints stay on the card"),
    needless("lowram", "flag", False, "weights are read part by part"),
    needless("highvram", "flag", False, "memory is not emptied between steps"),
    needless("max_data_loader_n_workers", "whole", 8, "pictures come from the cache, without workers"),
    needless("persistent_data_loader_workers", "flag", False, "pictures come from the cache, without workers"),
    needless("ddp_timeout", "whole", None, "several cards are started by torchrun"),
    needless("ddp_gradient_as_bucket_view", "flag", False, "several cards are started by torchrun"),
    needless("ddp_static_graph", "flag", False, "several cards are started by torchrun"),
]  # fmt: skip


# What is minimised

LOSSES = {"l2": "mse", "l1": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}


def _min_snr(value: Any, given: Given) -> Meaning:
    return Meaning({"loss.min_snr_gamma": value or None})


def _loss(value: Any, given: Given) -> Meaning:
    if value not in LOSSES:
        return Meaning(undecided=f"a loss is one of {', '.join(LOSSES)}", choice="loss.kind=mse")
    return Meaning({"loss.kind": LOSSES[value]})


def _zero(setting: str) -> Any:
    return lambda value, given: Meaning({setting: value or 0.0})


LOSS = [
    turned("min_snr_gamma", "number", None, ("loss.min_snr_gamma",), _min_snr, "0 is off"),
    same("debiased_estimation_loss", "flag", False, "loss.debiased"),
    same("scale_v_pred_loss_like_noise_pred", "flag", False, "loss.scale_v_like_noise"),
    unmet("v_pred_like_loss", "number", None, "the loss is that of the base's own prediction"),
    turned("noise_offset", "number", None, ("loss.noise_offset",), _zero("loss.noise_offset"), "left out is 0"),
    same("noise_offset_random_strength", "flag", False, "loss.noise_offset_random"),
    needless("noise_offset_type", "text", None, "a window's own key; what is set counts", neutral=("Original",)),
    turned(
        "adaptive_noise_scale", "number", None, ("loss.adaptive_noise_scale",),
        lambda value, given: Meaning({"loss.adaptive_noise_scale": value or None}), "0 is off",
    ),
    turned(
        "multires_noise_iterations", "whole", None, ("loss.multires_iterations",),
        lambda value, given: Meaning({"loss.multires_iterations": value or None}),
        "0 is off",
    ),
    same("multires_noise_discount", "number", 0.3, "loss.multires_discount"),
    turned(
        "ip_noise_gamma", "number", None, ("loss.input_perturbation",), _zero("loss.input_perturbation"),
        "left out is 0",
    ),
    same("ip_noise_gamma_random_strength", "flag", False, "loss.input_perturbation_random"),
    same("min_timestep", "whole", None, "loss.min_timestep", unset=0),
    same("max_timestep", "whole", None, "loss.max_timestep", unset=1000),
    turned("loss_type", "text", "l2", ("loss.kind",), _loss, "`l2` is `mse`"),
    same("huber_schedule", "text", "snr", "loss.huber_schedule"),
    same("huber_c", "number", 0.1, "loss.huber_c"),
    unmet("huber_scale", "number", 1.0, "the threshold is huber_c alone"),
    same("prior_loss_weight", "number", 1.0, "loss.prior_weight"),
]  # fmt: skip
