"""Rows of the table: how the weights move, and how fast."""

from typing import Any

from brushwork.config.describe import fields, text_choices
from brushwork.config.kohya.arguments import parse_arguments
from brushwork.config.kohya.key import NOTHING, Convert, Given, Meaning, aside, needless, turned, unmet
from brushwork.config.kohya.network import decides_text_encoder, text_encoder_decision

OPTIMIZERS = {
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "pagedadamw8bit": "paged_adamw8bit",
    "pagedadamw": "paged_adamw",
    "pagedadamw32bit": "paged_adamw",
    "adafactor": "adafactor",
    "lion": "lion",
    "lion8bit": "lion8bit",
    "pagedlion8bit": "paged_lion8bit",
    "prodigy": "prodigy",
    "adamwschedulefree": "schedulefree",
    "muon": "muon",
}
"""kohya's names in small letters, and ours."""

OWN_DECAY = 0.0
"""The weight decay of every rule but AdamW where none is said; AdamW's is 0.01, as ours."""


def optimizer_name(given: Given) -> str:
    """The rule, in small letters and without its package."""
    said = str(given["optimizer_type"] or "").lower().rpartition(".")[2]
    if said:
        return said
    return "adamw8bit" if given["use_8bit_adam"] else "lion" if given["use_lion_optimizer"] else "adamw"


def _optimizer(value: Any, given: Given) -> Meaning:
    ours = OPTIMIZERS.get(optimizer_name(given))
    if ours is not None:
        return Meaning({"optimizer.name": ours})
    have = ", ".join(text_choices(fields()["optimizer.name"]))
    return Meaning(undecided=f"this optimizer is not among {have}", choice="optimizer.name=adamw")


def _optimizer_arguments(value: Any, given: Given) -> Meaning:
    found = parse_arguments("optimizer_args", value or [])
    name, instead = optimizer_name(given), ""
    settings: dict[str, Any] = {}
    if "adamw" not in name or "schedulefree" in name:
        settings["optimizer.weight_decay"] = OWN_DECAY
    if name == "adafactor":
        instead = _adafactor(found)
    if "schedulefree" in name:
        settings["schedule.warmup_steps"] = found.pop("warmup_steps", 0)
    for ours in ("weight_decay", "betas", "eps"):
        if ours in found and not (ours == "eps" and isinstance(found[ours], (tuple, list))):  # Adafactor has a pair
            settings[f"optimizer.{ours}"] = found.pop(ours)
    if found:
        settings["optimizer.arguments"] = found
    return Meaning(settings, instead=instead)


def _adafactor(found: dict[str, Any]) -> str:
    """Take out of Adafactor's arguments what the schedule decides here, and say what is lost by that."""
    finds_its_rate = found.pop("relative_step", True) or found.get("warmup_init")
    found.pop("warmup_init", None)
    found.setdefault("scale_parameter", True)
    if not finds_its_rate:
        return ""
    return "relative_step, by which kohya's Adafactor finds its own rate: here learning_rate and the schedule count"


def _default_rate(value: Any, given: Given) -> Meaning:
    """The rate of whatever has none of its own."""
    if given["unet_lr"] is not None:
        return NOTHING
    return Meaning({"optimizer.learning_rate": value})


def _unet_rate(value: Any, given: Given) -> Meaning:
    if value is None:
        return NOTHING
    if value == 0:
        alone = decides_text_encoder("unet_lr", given)
        idle = "" if alone else "0 lets the UNet rest, and the text encoders rest too"
        return Meaning(alone, undecided=idle, choice="optimizer.learning_rate=1e-4")
    return Meaning({"optimizer.learning_rate": value})


def _text_rates(value: Any, given: Given) -> Meaning:
    settings = decides_text_encoder("text_encoder_lr", given)
    rates = [rate for rate in (value if isinstance(value, list) else [value]) if rate is not None]
    _, learns = text_encoder_decision(given)
    if not learns:
        return Meaning(settings)
    if not rates:  # kohya takes learning_rate, not unet_lr
        rate = given["learning_rate"] if given["unet_lr"] is not None else None
        return Meaning({"optimizer.text_encoder_learning_rate": rate})
    settings["optimizer.text_encoder_learning_rate"] = rates[0] or None
    if len(rates) > 1 and rates[1] != rates[0]:
        if not all(rates):
            return Meaning(
                undecided="one text encoder learns and the other rests: both learn here, or neither",
                choice="optimizer.text_encoder_learning_rate=6e-5",
            )
        settings["optimizer.text_encoder_2_learning_rate"] = rates[1]
    return Meaning(settings)


SCHEDULES = {
    "constant_with_warmup": "constant",
    "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "cosine",
    "adafactor": "constant",
}
"""kohya's names, and ours for the same curve."""

WITH_MINIMUM = ("cosine_with_min_lr", "warmup_stable_decay")


def _schedule(value: Any, given: Given) -> Meaning:
    if given["lr_scheduler_type"]:
        return NOTHING
    if "schedulefree" in optimizer_name(given):
        return Meaning({"schedule.name": "constant"})
    have = text_choices(fields()["schedule.name"])
    name = str(value).lower()
    ours = name if name in have else SCHEDULES.get(name)
    if ours is not None:
        return Meaning({"schedule.name": ours})
    return Meaning(undecided=f"this schedule is not among {', '.join(have)}", choice="schedule.name=cosine")


def _foreign_schedule(value: Any, given: Given) -> Meaning:
    if not value:
        return NOTHING
    return Meaning(undecided="schedules of other libraries are not called", choice="schedule.name=cosine")


def _warmup(value: Any, given: Given) -> Meaning:
    if "schedulefree" in optimizer_name(given):
        return (
            Meaning(remark="kohya's schedule-free rules look at warmup_steps of optimizer_args alone")
            if value
            else NOTHING
        )
    return Meaning({"schedule.warmup_steps": value if 0 < value < 1 else int(value)})


def _only_for(schedules: tuple[str, ...], setting: str) -> Convert:
    """A number that only some schedules look at, as there."""

    def convert(value: Any, given: Given) -> Meaning:
        return Meaning({setting: value}) if value and given["lr_scheduler"] in schedules else NOTHING

    return convert


def _cycles(value: Any, given: Given) -> Meaning:
    again = "restarts" in str(given["lr_scheduler"])
    if not again:
        return Meaning(remark="only cosine_with_restarts begins again") if value > 1 else NOTHING
    return Meaning({"schedule.cycles": max(1, value)})


def _max_norm(value: Any, given: Given) -> Meaning:
    return Meaning({"optimizer.max_grad_norm": value or None})


OPTIMIZER = [
    turned(
        "optimizer_type", "text", "", ("optimizer.name",), _optimizer,
        "AdamW, AdamW8bit, Lion, Adafactor, Prodigy and others, in large or small letters; left out is AdamW",
    ),
    aside("use_8bit_adam", "flag", False, "the old way to say optimizer_type = AdamW8bit, and understood"),
    aside("use_lion_optimizer", "flag", False, "the old way to say optimizer_type = Lion, and understood"),
    turned(
        "optimizer_args", "texts", None,
        (
            "optimizer.weight_decay", "optimizer.betas", "optimizer.eps", "optimizer.arguments",
            "schedule.warmup_steps",
        ),
        _optimizer_arguments,
        "weight_decay, betas and eps are settings; the rest goes to the optimizer as it is",
    ),
    turned(
        "learning_rate", "number", 2e-6, ("optimizer.learning_rate",), _default_rate,
        "for whatever has no rate of its own",
        surprise="kohya's learning rate is 2e-6 where the file says none: fifty times less than is usual for a LoRA",
    ),
    turned(
        "unet_lr", "number", None, ("optimizer.learning_rate", "lora.text_encoder"), _unet_rate,
        "goes before learning_rate; 0 lets the UNet rest",
    ),
    turned(
        "text_encoder_lr", "numbers", None,
        ("optimizer.text_encoder_learning_rate", "optimizer.text_encoder_2_learning_rate", "lora.text_encoder"),
        _text_rates,
        "one number, or one for each encoder of SDXL; 0 lets them rest; left out is learning_rate",
    ),
    turned("max_grad_norm", "number", 1.0, ("optimizer.max_grad_norm",), _max_norm, "0 is off"),
    turned(
        "lr_scheduler", "text", "constant", ("schedule.name",), _schedule,
        "`constant_with_warmup` is constant, `cosine_with_min_lr` and `warmup_stable_decay` are cosine",
        surprise="kohya's learning rate stays constant where the file names no schedule",
    ),
    turned("lr_scheduler_type", "text", "", (), _foreign_schedule, "schedules of other libraries are not called"),
    unmet("lr_scheduler_args", "texts", None, "belongs to the schedules of other libraries"),
    turned(
        "lr_warmup_steps", "number", 0, ("schedule.warmup_steps",), _warmup,
        "steps, or below 1 a share of all, as there",
    ),
    turned("lr_scheduler_num_cycles", "whole", 1, ("schedule.cycles",), _cycles, "for cosine_with_restarts"),
    turned(
        "lr_decay_steps", "number", 0, ("schedule.decay_steps",),
        _only_for(("warmup_stable_decay",), "schedule.decay_steps"), "for warmup_stable_decay",
    ),
    turned(
        "lr_scheduler_power", "number", 1.0, ("schedule.power",), _only_for(("polynomial",), "schedule.power"),
        "for polynomial",
    ),
    unmet("lr_scheduler_timescale", "whole", None, "belongs to inverse_sqrt, which is not here"),
    turned(
        "lr_scheduler_min_lr_ratio", "number", None, ("schedule.min_factor",),
        _only_for(WITH_MINIMUM, "schedule.min_factor"), "for cosine_with_min_lr and warmup_stable_decay",
    ),
    needless("fused_backward_pass", "flag", False, "the gradients of an adapter are small"),
]  # fmt: skip
