"""The `unet/config.json` of a diffusers folder: what is read from it, and what is refused by its key and value.

The class of diffusers builds many networks that Brushwork does not. So every key is looked at: one that would change
the network and is not understood must not be passed over.
"""

from collections.abc import Mapping
from typing import Any

from brushwork.errors import UserError

NUM_TIME_IDS = 6
"""SDXL is told six numbers: original height and width, crop top and left, target height and width."""

DOWN_BLOCKS = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
UP_BLOCKS = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}

_READ = {
    *("sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels"),
    *("layers_per_block", "transformer_layers_per_block", "attention_head_dim", "cross_attention_dim"),
    *("use_linear_projection", "norm_num_groups", "norm_eps"),
    *("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim"),
}

# Keys that diffusers writes and that change nothing here: the heads of another kind of added embedding, and attention
# in float32, which scaled_dot_product_attention does inside by itself (diffusers ignores the key with it, too).
_WITHOUT_EFFECT = {"addition_embed_type_num_heads", "upcast_attention"}

_BUILT: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu", "swish"),
    "attention_type": ("default",),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "dropout": (0.0,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "resnet_out_scale_factor": (1.0,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
}
"""The one form that is built where diffusers knows several; every key not named here must be null or false."""


def spec_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `UNetSpec` as a diffusers `unet/config.json` tells them."""
    _refuse_unknown(config)
    channels = _integers(config, "block_out_channels")
    num_levels = len(channels)
    depths = _integers(config, "transformer_layers_per_block", num_levels, default=1)
    layers = _integers(config, "layers_per_block", num_levels, default=2)
    contexts = _integers(config, "cross_attention_dim", num_levels)
    for key, values in (("layers_per_block", layers), ("cross_attention_dim", contexts)):
        if len(set(values)) > 1:
            raise _refusal(key, config[key], "UNets with the same number at every level")
    added_width, time_id_width = _added(config)
    norm_eps = config.get("norm_eps", 1e-5)
    if not isinstance(norm_eps, float):
        raise _refusal("norm_eps", norm_eps, "from a small number")
    return {
        "channels": channels,
        "attention_depth": tuple(
            depth if attends else 0
            for depth, attends in zip(depths, _attending_levels(config, num_levels), strict=True)
        ),
        "mid_depth": depths[-1],
        "heads": _integers(config, "attention_head_dim", num_levels, default=8),
        "layers_per_block": layers[0],
        "context_width": contexts[0],
        "linear_projection": bool(config.get("use_linear_projection", False)),
        "pooled_width": None if added_width is None else added_width - NUM_TIME_IDS * time_id_width,
        "time_id_width": None if added_width is None else time_id_width,
        "sample_size": _sample_size(config, default=64 if added_width is None else 128),
        "norm_groups": _integer(config, "norm_num_groups", default=32),
        "norm_eps": norm_eps,
        "in_channels": _integer(config, "in_channels", default=4),
        "out_channels": _integer(config, "out_channels", default=4),
    }


def _refusal(key: str, value: object, expected: str) -> UserError:
    return UserError(
        f"the UNet's config says {key} = {value!r}; Brushwork can build only {expected}.",
        fix="take a Stable Diffusion 1.5 or SDXL base model, or one fine-tuned from them",
    )


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    class_name = config.get("_class_name", "UNet2DConditionModel")
    if class_name != "UNet2DConditionModel":
        raise _refusal("_class_name", class_name, "a UNet2DConditionModel")
    for key, value in config.items():
        if key.startswith("_") or key in _READ or key in _WITHOUT_EFFECT:
            continue
        allowed = _BUILT.get(key, (None, False))
        if value not in allowed:
            raise _refusal(key, value, f"{key} = {allowed[0]!r}" if key in _BUILT else "UNets without it")


def _integer(config: Mapping[str, Any], key: str, *, default: int | None = None) -> int:
    value = config.get(key, default)
    if type(value) is not int or value <= 0:
        raise _refusal(key, value, "from a whole number")
    return value


def _integers(
    config: Mapping[str, Any], key: str, count: int | None = None, *, default: int | None = None
) -> tuple[int, ...]:
    """A number, or a list of numbers, as one number per level."""
    value = config.get(key, default)
    many = [value] * (count or 1) if isinstance(value, int) else value
    if not isinstance(many, list | tuple) or not many or not all(type(each) is int and each > 0 for each in many):
        raise _refusal(key, value, "from a whole number, or one for each level")
    if count is not None and len(many) != count:
        raise _refusal(key, value, f"from {count} numbers here, as many as in block_out_channels")
    return tuple(many)


def _attending_levels(config: Mapping[str, Any], num_levels: int) -> list[bool]:
    for key, names in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        types = config.get(key)
        if not isinstance(types, list | tuple) or len(types) != num_levels or not set(types) <= set(names.values()):
            raise _refusal(key, types, f"{num_levels} blocks of types {names[True]} and {names[False]}")
    attends = [name == DOWN_BLOCKS[True] for name in config["down_block_types"]]
    if [name == UP_BLOCKS[True] for name in config["up_block_types"]] != attends[::-1]:
        raise _refusal("up_block_types", config["up_block_types"], "the mirror image of down_block_types")
    return attends


def _added(config: Mapping[str, Any]) -> tuple[int | None, int]:
    """Width of SDXL's added embedding (None in SD 1.5) and of the code of one size in it."""
    kind = config.get("addition_embed_type")
    if kind is None:
        return None, 0
    if kind != "text_time":
        raise _refusal("addition_embed_type", kind, "'text_time' (SDXL) or null (SD 1.5)")
    return _integer(config, "projection_class_embeddings_input_dim"), _integer(config, "addition_time_embed_dim")


def _sample_size(config: Mapping[str, Any], *, default: int) -> int:
    if config.get("sample_size") is None:
        return default
    return max(_integers(config, "sample_size"))
