"""The rules by which weights move, each by its name: where it comes from, what it can be told, what it remembers.

What a rule remembers of each parameter and of all together goes into the state of a run, so that a run that is
continued is the run that never stopped.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from brushwork.config.schema import OptimizerConfig, Settings
from brushwork.errors import UserError, nearest
from brushwork.lean.flat import Flat
from brushwork.lora.state import component_of
from brushwork.training.flat_adamw import FlatAdamW

EXTRA = "optimizers"
"""The extra of the package that brings every rule."""

LEAST_RATE_OF_PRODIGY = 0.01
"""Below this, what Prodigy finds is all but switched off: others' rates were given, and it wants 1."""


@dataclass(frozen=True)
class Rule:
    """One way to move weights.

    Args:
        module, kind: the class.
        bytes_per_weight: what it remembers of each weight, about.
        takes: which of the settings `betas` and `eps` it has; all have `weight_decay`.
        arguments: what else `optimizer.arguments` may tell it.
        fixed: what it is always told.
        group_memory: numbers that it keeps for all parameters of a group together, and changes as it goes.
        needs_whole: why it cannot move a weight of which this process holds some rows (`train.sharding`); None where
            each number of a weight is moved by itself.
    """

    module: str
    kind: str
    bytes_per_weight: float
    takes: tuple[str, ...] = ("betas", "eps")
    arguments: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    group_memory: tuple[str, ...] = ()
    needs_whole: str | None = None


_EIGHT_BIT = ("min_8bit_size",)
_IN_BLOCKS = "it keeps what it remembers in blocks of 256 numbers with a scale for each, which pieces would cut anew"
_IS_PAGED = "it keeps what it remembers in memory that card and CPU share, which has not been tried with pieces"
RULES = {
    "adamw": Rule("torch.optim", "AdamW", 8, arguments=("amsgrad",)),
    "adamw8bit": Rule("bitsandbytes.optim", "AdamW8bit", 2, arguments=_EIGHT_BIT, needs_whole=_IN_BLOCKS),
    "paged_adamw": Rule("bitsandbytes.optim", "PagedAdamW", 8, needs_whole=_IS_PAGED),
    "paged_adamw8bit": Rule("bitsandbytes.optim", "PagedAdamW8bit", 2, arguments=_EIGHT_BIT, needs_whole=_IN_BLOCKS),
    "adafactor": Rule(
        "transformers.optimization",
        "Adafactor",
        0.1,
        takes=(),
        arguments=("eps", "clip_threshold", "decay_rate", "beta1", "scale_parameter"),
        fixed={"relative_step": False, "scale_parameter": False},
        needs_whole="it scales each weight by the means of its whole rows and columns",
    ),
    "lion": Rule("bitsandbytes.optim", "Lion", 4, takes=("betas",)),
    "lion8bit": Rule(
        "bitsandbytes.optim", "Lion8bit", 1, takes=("betas",), arguments=_EIGHT_BIT, needs_whole=_IN_BLOCKS
    ),
    "paged_lion8bit": Rule(
        "bitsandbytes.optim", "PagedLion8bit", 1, takes=("betas",), arguments=_EIGHT_BIT, needs_whole=_IN_BLOCKS
    ),
    "prodigy": Rule(
        "prodigyopt",
        "Prodigy",
        16,
        arguments=(
            "beta3", "d0", "d_coef", "decouple", "growth_rate", "safeguard_warmup", "slice_p", "use_bias_correction",
        ),
        group_memory=("d", "d_max", "d_numerator", "d_denom", "d_hat", "k"),
        needs_whole="it finds one rate from sums over all weights",
    ),
    "schedulefree": Rule(
        "schedulefree",
        "AdamWScheduleFree",
        8,
        arguments=("r", "weight_lr_power"),
        group_memory=("k", "lr_max", "weight_sum", "scheduled_lr", "train_mode"),
    ),
    "muon": Rule(
        "brushwork.training.muon", "Muon", 8, arguments=("momentum",), needs_whole="it works on whole matrices"
    ),
}  # fmt: skip

_OTHERWISE = {
    "lr": "it is optimizer.learning_rate",
    "betas": "it is optimizer.betas",
    "eps": "it is optimizer.eps",
    "weight_decay": "it is optimizer.weight_decay",
    "warmup_steps": "it is schedule.warmup_steps",
    "relative_step": "the schedule alone moves the rate here, so that a run can be stopped anywhere",
    "warmup_init": "the schedule alone moves the rate here, so that a run can be stopped anywhere",
}
"""Arguments that are settings of their own, or none."""


def refuse_unfit_optimizer(settings: Settings) -> None:
    """Stop where the rule is not installed, cannot be told what the settings tell, or does not go with the rest."""
    optimizer = settings.optimizer
    _refuse_lora_plus(settings)
    if settings.train.sharding == "full":
        _refuse_what_needs_whole_weights(optimizer.name)
    if optimizer.name == "prodigy":
        _refuse_rates_beside_prodigy(settings)
    if optimizer.name == "schedulefree":
        _refuse_curves_beside_schedulefree(settings)
    make_optimizer({"unet.x.down": nn.Parameter(torch.zeros(2, 2))}, optimizer)


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], settings: OptimizerConfig, flat: Flat | None = None
) -> torch.optim.Optimizer:
    """The rule that the settings name, over groups of parameters that learn at one rate, their `base_rate`.

    Args:
        flat: the buffer in which the parameters lie, in the order of `in_one_buffer`; a rule that moves each number
            by itself then moves all at once.
    """
    rule = RULES[settings.name]
    _refuse_unknown_arguments(rule, settings)
    told: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, **rule.fixed}
    for name, value in (("betas", settings.betas), ("eps", settings.eps)):
        if value is not None and name not in rule.takes:
            raise UserError(
                f"optimizer.{name} = {value} says nothing to {settings.name}.", fix=f"--set optimizer.{name}=off"
            )
        told |= {} if value is None else {name: value}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Prodigy prints how it decays weights
            kind = partial(FlatAdamW, flat=flat) if flat and settings.name == "adamw" else _class(rule, settings.name)
            made: torch.optim.Optimizer = kind(parameter_groups(parameters, settings), **told | settings.arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{settings.name} refuses what it is told: {error}.", fix="look at [optimizer]") from error
    if hasattr(made, "train"):
        made.train()
    made._cpu_paged_warned = True  # type: ignore[attr-defined]  # the plan tells it
    return made


def parameter_groups(parameters: Mapping[str, nn.Parameter], settings: OptimizerConfig) -> list[dict[str, Any]]:
    """The parameters by the rate at which they learn, those of the network first."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        faster = settings.lora_plus_ratio if name.endswith(".up") else None
        by_rate.setdefault(settings.rate(component_of(name)) * (faster or 1.0), []).append(parameter)
    return [{"params": group, "lr": rate, "base_rate": rate} for rate, group in by_rate.items()]


def in_one_buffer(parameters: Mapping[str, nn.Parameter], settings: OptimizerConfig) -> Flat:
    """Lay parameters into one buffer: those of a rate together, of these the inner halves of layers before the outer.

    So what one product of the network reads, `down` of q, k and v, lies together too.
    """
    places = {id(parameter): place for place, parameter in enumerate(parameters.values())}
    outer = {id(parameter): name.endswith(".up") for name, parameter in parameters.items()}
    groups = [group["params"] for group in parameter_groups(parameters, settings)]
    return Flat([each for group in groups for each in sorted(group, key=lambda p: (outer[id(p)], places[id(p)]))])


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate of the first group; of Prodigy, the one that it has found."""
    first = optimizer.param_groups[0]
    return float(first["lr"] * first.get("d", 1.0))


@contextlib.contextmanager
def used_weights(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Within it, the parameters are what a picture is to be drawn with.

    That is what they are, but for schedule-free rules: they learn at one point and give out the mean of many. Their
    way there and back rounds, so the parameters are kept and put back as they were.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
        for group in optimizer.param_groups:
            group["train_mode"] = True


def mean_of_schedulefree(parameter: Tensor, z: Tensor, beta_1: float) -> Tensor:
    """x of y = (1 - b) z + b x: what schedule-free gives out, of what it learns at (arXiv:2405.15682, eq. 4)."""
    return parameter.lerp(z, 1 - 1 / beta_1)


def _class(rule: Rule, name: str) -> Any:
    """The rule's class; its package is imported here and nowhere else."""
    package = rule.module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        like_it = "adamw" if "adamw" in name else None
        instead = f", or --set optimizer.name={like_it}: the same rule, with more memory" if like_it else ""
        raise UserError(
            f"optimizer.name = {name} needs the package {package}, which is not installed.",
            fix=f"pip install 'brushwork[{EXTRA}]'{instead}",
        )
    logging.getLogger(package).setLevel(logging.ERROR)  # bitsandbytes tells what speeds up other things
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(rule.module), rule.kind)


def _refuse_unknown_arguments(rule: Rule, settings: OptimizerConfig) -> None:
    for name in settings.arguments:
        if name in rule.arguments:
            continue
        if name in _OTHERWISE:
            raise UserError(
                f"optimizer.arguments.{name}: {_OTHERWISE[name]}.", fix=f"take {name} out of optimizer.arguments"
            )
        known = ", ".join(rule.arguments) or "none"
        close = nearest(name, rule.arguments)
        raise UserError(
            f"optimizer.arguments.{name}: {settings.name} has no such argument; it has {known}.",
            fix=f"did you mean {close}?" if close else f"take {name} out of optimizer.arguments",
        )


def _refuse_lora_plus(settings: Settings) -> None:
    if settings.optimizer.lora_plus_ratio is not None and settings.train.mode == "full":
        raise UserError(
            "optimizer.lora_plus_ratio is about the two halves of an adapter; train.mode = full has none.",
            fix="--set optimizer.lora_plus_ratio=off",
        )


def _refuse_what_needs_whole_weights(name: str) -> None:
    why = RULES[name].needs_whole
    if why is None:
        return
    others = ", ".join(other for other, rule in RULES.items() if rule.needs_whole is None)
    raise UserError(
        "train.sharding = full gives each process some rows of every weight; "
        f"optimizer.name = {name} needs more, for {why}.",
        fix=f"--set optimizer.name=adamw (of those that move each number by itself: {others}), or "
        "--set train.sharding=off",
    )


def _refuse_rates_beside_prodigy(settings: Settings) -> None:
    optimizer = settings.optimizer
    if optimizer.learning_rate < LEAST_RATE_OF_PRODIGY:
        raise UserError(
            f"prodigy finds the rate itself and multiplies it by optimizer.learning_rate, which is "
            f"{optimizer.learning_rate:g}: next to nothing would be learned.",
            fix="--set optimizer.learning_rate=1",
        )
    text = {optimizer.rate(name) for name in ("text_encoder", "text_encoder_2")} if settings.lora.text_encoder else {}
    if {optimizer.learning_rate, *text} != {optimizer.learning_rate} or optimizer.lora_plus_ratio is not None:
        raise UserError(
            "prodigy finds one rate for all that learns; optimizer.text_encoder_learning_rate and "
            "optimizer.lora_plus_ratio cannot stand beside it.",
            fix="--set optimizer.text_encoder_learning_rate=off --set optimizer.lora_plus_ratio=off",
        )


def _refuse_curves_beside_schedulefree(settings: Settings) -> None:
    asked = {
        f"schedule.name = {settings.schedule.name}": settings.schedule.name != "constant",
        f"train.ema_decay = {settings.train.ema_decay}": settings.train.ema_decay is not None,
        f"lora.scale_weight_norms = {settings.lora.scale_weight_norms}": settings.lora.scale_weight_norms is not None,
    }
    fixes = ("schedule.name=constant", "train.ema_decay=off", "lora.scale_weight_norms=off")
    for (setting, is_asked), fix in zip(asked.items(), fixes, strict=True):
        if is_asked:
            raise UserError(
                f"schedulefree takes the mean of all weights on the way in place of a falling rate; {setting} "
                "would act on something else than what it gives out.",
                fix=f"--set {fix}",
            )
