"""Rows of the table: the base, and the adapter."""

from typing import Any, Literal

from brushwork.config.kohya.arguments import parse_arguments
from brushwork.config.kohya.key import NOTHING, Given, Meaning, needless, same, turned, unmet
from brushwork.errors import UserError, listed, nearest

# The base


def _base(value: Any, given: Given) -> Meaning:
    if value is None:
        return Meaning(remark="the file names no base; `bundled` is taken unless --base says another")
    return Meaning({"model.base": value})


def _second_version(value: Any, given: Given) -> Meaning:
    if not value:
        return NOTHING
    return Meaning(undecided="bases of Stable Diffusion 2 are not trained here, only SD 1.5 and SDXL")


FP8 = "the UNet alone, each output with a scale of its own; `int8` takes as much memory and is nearer to the base"


def _fp8(value: Any, given: Given) -> Meaning:
    return Meaning({"model.quantize": "fp8"}) if value else NOTHING


def _clip_skip(value: Any, given: Given) -> Meaning:
    return Meaning({"model.clip_skip": 1 if value is None else value})


BASE = [
    turned("pretrained_model_name_or_path", "text", None, ("model.base",), _base, "a folder, a file or a hub id"),
    same("vae", "text", None, "model.vae"),
    turned("v2", "flag", False, (), _second_version, "refused: only SD 1.5 and SDXL are trained"),
    turned(
        "v_parameterization",
        "flag",
        False,
        ("model.prediction",),
        lambda value, given: Meaning({"model.prediction": "v" if value else "auto"}),
        "true is `v`; false is `auto`, which reads it from the base, so that a v-prediction base is not spoiled",
    ),
    turned(
        "zero_terminal_snr",
        "flag",
        False,
        ("model.zero_terminal_snr",),
        lambda value, given: Meaning({"model.zero_terminal_snr": "on" if value else "auto"}),
        "true is `on`; false is `auto`, which reads it from the base",
    ),
    turned("clip_skip", "whole", None, ("model.clip_skip",), _clip_skip, "SD 1.5 only, as there"),
    turned(
        "max_token_length",
        "whole",
        None,
        ("model.max_tokens",),
        lambda value, given: Meaning({"model.max_tokens": 75 if value is None else value}),
        "left out is 75",
    ),
    unmet("base_weights", "texts", None, "`brushwork merge` puts adapters into a base; name the merged base instead"),
    unmet("base_weights_multiplier", "numbers", None, "belongs to base_weights"),
    needless("tokenizer_cache_dir", "text", None, "the vocabulary comes with the program"),
    needless("disable_mmap_load_safetensors", "flag", False, "files are read part by part"),
    needless("no_half_vae", "flag", False, "always so: pictures are encoded in float32"),
    turned("fp8_base", "flag", False, ("model.quantize",), _fp8, FP8),
    turned("fp8_base_unet", "flag", False, ("model.quantize",), _fp8, FP8),
]


# The adapter

LYCORIS = ("lycoris.kohya", "lycoris")
ALGORITHMS = ("lora", "locon")
ALL_ARGUMENTS = (
    "conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "dropout", "algo", "preset", "dora_wd",
    "rs_lora", "rslora", "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio",
    *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "block_lr_zero_threshold"),
    *("down_lr_weight", "mid_lr_weight", "up_lr_weight", "disable_conv_cp", "use_tucker", "use_cp", "use_scalar"),
    *("decompose_both", "factor", "train_norm", "bypass_mode", "constraint", "rescaled", "train_t5xxl", "unit"),
)  # fmt: skip
"""What `networks.lora` of kohya and LyCORIS understand in `network_args`."""

HONOURED = {
    "conv_dim",
    "conv_alpha",
    "rank_dropout",
    "module_dropout",
    "rs_lora",
    "rslora",
    "algo",
    "dropout",
    "preset",
}
HONOURED |= {"dora_wd", "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"}


def arguments(given: Given) -> dict[str, Any]:
    """`network_args`, of which every name is known."""
    found = parse_arguments("network_args", given["network_args"] or [])
    for name in found:
        if name not in ALL_ARGUMENTS:
            close = nearest(name, ALL_ARGUMENTS)
            raise UserError(
                f"network_args: nothing is called {name}" + (f"; did you mean {close}?" if close else "."),
                fix=f'"{close}={found[name]}"' if close else "take it out",
            )
    return found


def _module(value: Any, given: Given) -> Meaning:
    algorithm = str(arguments(given).get("algo", "lora")).lower()
    if value not in ("networks.lora", *LYCORIS) or (value in LYCORIS and algorithm not in ALGORITHMS):
        kind = f"{value} (algo={algorithm})" if value in LYCORIS else value
        return Meaning(undecided=f"{kind} is another kind of adapter; here a LoRA learns: write networks.lora")
    remark = ""
    if value in LYCORIS:
        remark = "LyCORIS' lora and locon are the LoRA that is trained here, on the layers of kohya's networks.lora"
    return Meaning({"lora.targets": "kohya_conv" if _conv_rank(given) else "kohya"}, remark)


def _conv_rank(given: Given) -> int | None:
    found = arguments(given)
    rank = found.get("conv_dim")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int)):
        raise UserError(f"network_args: conv_dim={rank} is not a whole number.", fix='network_args = ["conv_dim=8"]')
    if rank is None and given["network_module"] in LYCORIS and str(found.get("algo", "lora")).lower() == "locon":
        rank = given["network_dim"] or 4  # LyCORIS' locon has 3x3 convolutions of the same rank unless told otherwise
    return int(rank) if rank else None


def _arguments(value: Any, given: Given) -> Meaning:
    found = arguments(given)
    settings: dict[str, Any] = {}
    if rank := _conv_rank(given):
        settings["lora.conv_rank"] = rank
        settings["lora.conv_alpha"] = found.get("conv_alpha", 1.0)
    for name, setting in (
        ("rank_dropout", "lora.rank_dropout"),
        ("module_dropout", "lora.module_dropout"),
        ("rs_lora", "lora.rslora"),
        ("rslora", "lora.rslora"),
    ):
        if found.get(name) is not None:
            settings[setting] = found[name]
    both = found.get("loraplus_lr_ratio")
    unet, text = (found.get(f"loraplus_{part}_lr_ratio", both) for part in ("unet", "text_encoder"))
    if unet is not None:
        settings["optimizer.lora_plus_ratio"] = unet
    others = [f"{name}={found[name]}" for name in found if name not in HONOURED and found[name]]
    if text != unet and text_encoder_decision(given)[1]:
        others.append(f"loraplus_text_encoder_lr_ratio={text}")
    reasons = [f"{listed(others)}: all layers have one rank, one kind and one ratio of rates here"] if others else []
    if found.get("dora_wd"):
        reasons.append("dora_wd: no DoRA is trained here, for no file of it works in every program; a LoRA learns")
    return Meaning(settings, instead="; ".join(reasons))


def _rank(value: Any, given: Given) -> Meaning:
    return Meaning({"lora.rank": 4 if value is None else value})


def _alpha(value: Any, given: Given) -> Meaning:
    return Meaning({"lora.alpha": value or None})


def _dropout(value: Any, given: Given) -> Meaning:
    return Meaning({"lora.dropout": value or arguments(given).get("dropout") or 0.0})


def text_encoder_decision(given: Given) -> tuple[str, bool | Literal["only"]]:
    """The key that decides whether the text encoders learn, and what it decides."""
    if given["network_train_text_encoder_only"]:
        return "network_train_text_encoder_only", "only"
    if given["network_train_unet_only"]:
        return "network_train_unet_only", False
    if given["train_text_encoder"] is False:
        return "train_text_encoder", False
    rates = given["text_encoder_lr"]
    if rates not in (None, []) and not any(rates if isinstance(rates, list) else [rates]):
        return "text_encoder_lr", False
    if given["cache_text_encoder_outputs"] or given["cache_text_encoder_outputs_to_disk"]:
        return "cache_text_encoder_outputs", False
    if given["unet_lr"] == 0:
        return "unet_lr", "only"
    return ("train_text_encoder" if given["train_text_encoder"] else "network_train_unet_only"), True


def decides_text_encoder(name: str, given: Given) -> dict[str, Any]:
    """`lora.text_encoder`, for the one key that decides it."""
    key, learns = text_encoder_decision(given)
    return {"lora.text_encoder": learns} if key == name else {}


def _unet_only(value: Any, given: Given) -> Meaning:
    return Meaning(decides_text_encoder("network_train_unet_only", given))


def _train_text_encoder(value: Any, given: Given) -> Meaning:
    if value is None:
        return NOTHING
    return Meaning(
        decides_text_encoder("train_text_encoder", given),
        remark="kohya's program knows no such key and would pass it over; here it does what it says",
    )


def _text_encoder_only(value: Any, given: Given) -> Meaning:
    return Meaning(decides_text_encoder("network_train_text_encoder_only", given))


def _stop_text_encoder(value: Any, given: Given) -> Meaning:
    learns = value and value > 0 and text_encoder_decision(given)[1]
    return Meaning({"train.stop_text_encoder_after": f"{value} steps"}) if learns else NOTHING


ADAPTER = [
    turned(
        "network_module", "text", "networks.lora", ("lora.targets",), _module,
        "`networks.lora` is `lora.targets = kohya`, with a conv_dim `kohya_conv`; LyCORIS' lora and locon too; other "
        "kinds (LoHa, LoKr, OFT, DyLoRA) are refused",
    ),
    turned(
        "network_dim", "whole", None, ("lora.rank",), _rank, "left out is 4",
        surprise="kohya's rank is 4 where the file says none",
    ),
    turned(
        "network_alpha", "number", 1.0, ("lora.alpha",), _alpha, "0 is the rank; left out is 1",
        surprise="kohya's alpha is 1 where the file says none: the adapter has alpha / rank of its strength",
    ),
    turned(
        "network_args", "texts", None,
        (
            "lora.conv_rank", "lora.conv_alpha", "lora.rank_dropout", "lora.module_dropout", "lora.rslora",
            "optimizer.lora_plus_ratio",
        ),
        _arguments,
        "conv_dim, conv_alpha, rank_dropout, module_dropout, the loraplus ratios, rs_lora; ranks and rates block by "
        "block and DoRA are not honoured",
    ),
    turned("network_dropout", "number", None, ("lora.dropout",), _dropout, "left out is 0"),
    turned(
        "network_train_unet_only", "flag", False, ("lora.text_encoder",), _unet_only,
        "kohya trains the text encoders unless told otherwise, and so does a file of kohya's here",
        surprise="the text encoders learn too, as kohya does unless network_train_unet_only = true",
    ),
    turned(
        "network_train_text_encoder_only", "flag", False, ("lora.text_encoder",), _text_encoder_only,
        "`lora.text_encoder = only`",
    ),
    turned(
        "train_text_encoder", "flag", None, ("lora.text_encoder",), _train_text_encoder,
        "no key of kohya's, but found in recipes, and understood",
    ),
    same("network_weights", "text", None, "lora.begin_with"),
    turned(
        "dim_from_weights", "flag", False, ("lora.as_in_file",),
        lambda value, given: Meaning({"lora.as_in_file": True}) if value and given["network_weights"] else NOTHING,
        "with network_weights: layers, ranks and alphas are those of the file",
    ),
    turned(
        "stop_text_encoder_training", "whole", None, ("train.stop_text_encoder_after",), _stop_text_encoder,
        "steps; kohya's program for LoRAs passes it over",
    ),
    turned(
        "scale_weight_norms", "number", None, ("lora.scale_weight_norms",),
        lambda value, given: Meaning({"lora.scale_weight_norms": value or None}), "0 is off",
    ),
]  # fmt: skip
