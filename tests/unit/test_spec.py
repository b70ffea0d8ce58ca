"""A spec is read from real configs and from shapes, and what cannot be built is refused by name."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from brushwork.errors import UserError
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.models.unet import UNet

# unet/config.json as published with stable-diffusion-v1-5: written by an early diffusers, few keys.
SD15_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}

# As published with stable-diffusion-xl-base-1.0: all keys that diffusers 0.19 had.
SDXL_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}

# What later writers of configs add, all of it without effect.
LATER_KEYS: dict[str, Any] = {
    "_name_or_path": "somewhere/else",
    "attention_type": "default",
    "dropout": 0.0,
    "reverse_transformer_layers_per_block": None,
    "upcast_attention": False,
    "transformer_layers_per_block": 1,
    "attention_head_dim": [8, 8, 8, 8],
}

SD2_CONFIG = SD15_CONFIG | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
    "sample_size": 96,
}

REFINER_CONFIG = SDXL_CONFIG | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}

MODELS = pytest.mark.parametrize("spec", [SD15, SDXL, TINY], ids=["sd15", "sdxl", "tiny"])


def shapes_of(spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in UNet(spec).state_dict().items()}


def test_published_configs_give_the_named_specs() -> None:
    assert UNetSpec.from_config(SD15_CONFIG) == SD15
    assert UNetSpec.from_config(SD15_CONFIG | LATER_KEYS) == SD15
    assert UNetSpec.from_config(SDXL_CONFIG) == SDXL


@MODELS
def test_a_spec_survives_being_written_as_a_config(spec: UNetSpec) -> None:
    assert UNetSpec.from_config(spec.to_config()) == spec


@MODELS
def test_a_spec_is_read_back_from_the_shapes_of_its_network(spec: UNetSpec) -> None:
    assert UNetSpec.from_shapes(shapes_of(spec)) == spec


@pytest.mark.parametrize(
    "spec",
    [
        replace(SD15, channels=(32, 64, 64, 64), context_width=48),
        replace(SDXL, channels=(64, 128, 192), heads=(1, 2, 3), context_width=96, pooled_width=64),
        replace(SDXL, attention_depth=(0, 2, 4), mid_depth=4, layers_per_block=1),
    ],
    ids=["sd15", "sdxl", "shallow sdxl"],
)
def test_small_variants_are_read_from_shapes_with_the_habits_of_their_family(spec: UNetSpec) -> None:
    assert UNetSpec.from_shapes(shapes_of(spec)) == spec


def test_family_and_native_resolution_follow_from_the_spec() -> None:
    assert [spec.family for spec in (SD15, SDXL, TINY)] == ["sd15", "sdxl", "sdxl"]
    assert [spec.native_resolution for spec in (SD15, SDXL, TINY)] == [512, 1024, 128]


def test_the_tiny_model_is_small_enough_to_come_with_the_package() -> None:
    with torch.device("meta"):
        assert sum(weight.numel() for weight in UNet(TINY).parameters()) < 8_000_000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "FluxTransformer2DModel"),
        ("act_fn", "gelu"),
        ("addition_embed_type", "text_image"),
        ("addition_time_embed_dim", None),
        ("attention_head_dim", [5, 10]),
        ("attention_head_dim", "8"),
        ("attention_type", "gated"),
        ("block_out_channels", None),
        ("center_input_sample", True),
        ("class_embed_type", "projection"),
        ("conv_in_kernel", 1),
        ("cross_attention_dim", [2048, 1024, 2048]),
        ("cross_attention_dim", None),
        ("down_block_types", ["DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"]),
        ("dual_cross_attention", True),
        ("dropout", 0.1),
        ("encoder_hid_dim", 4096),
        ("flip_sin_to_cos", False),
        ("in_channels", [4]),
        ("layers_per_block", [2, 2, 1]),
        ("mid_block_type", None),
        ("norm_eps", None),
        ("norm_num_groups", 0),
        ("only_cross_attention", True),
        ("projection_class_embeddings_input_dim", None),
        ("resnet_time_scale_shift", "scale_shift"),
        ("time_cond_proj_dim", 256),
        ("transformer_layers_per_block", [[0], [2, 1], [1]]),
        ("a_key_of_the_future", "on"),
        ("up_block_types", ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_with_its_key_and_value(key: str, value: object) -> None:
    with pytest.raises(UserError) as error:
        UNetSpec.from_config(SDXL_CONFIG | {key: value})
    assert f"{key} = {value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SD2_CONFIG, "Stable Diffusion 2 model (cross_attention_dim = 1024)"),
        (REFINER_CONFIG, "SDXL refiner"),
        (SD15_CONFIG | {"in_channels": 9}, "inpainting model (in_channels = 9"),
        (SDXL_CONFIG | {"in_channels": 9}, "inpainting model (in_channels = 9"),
        (SD15_CONFIG | {"in_channels": 8}, "InstructPix2Pix"),
        (SD15_CONFIG | {"in_channels": 12}, "in_channels = 12"),
        (SD15_CONFIG | {"out_channels": 8}, "out_channels = 8"),
        (SDXL_CONFIG | {"projection_class_embeddings_input_dim": 512}, "projection_class_embeddings_input_dim = 512"),
    ],
)
def test_other_models_are_refused_for_what_they_are(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r"Brushwork trains SD 1\.5 and SDXL") as error:
        UNetSpec.from_config(config)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (replace(SD15, context_width=1024, linear_projection=True), "Stable Diffusion 2 model"),
        (replace(SD15, in_channels=9), "inpainting model"),
        (replace(SDXL, in_channels=9), "inpainting model"),
        (replace(SD15, in_channels=8), "InstructPix2Pix"),
        (
            replace(
                SDXL,
                channels=(384, 768, 1536, 1536),
                attention_depth=(0, 4, 4, 0),
                mid_depth=4,
                heads=(6, 12, 24, 24),
                context_width=1280,
                pooled_width=1024,
            ),
            "SDXL refiner",
        ),
    ],
)
def test_shapes_of_other_models_are_refused_for_what_they_are(spec: UNetSpec, words: str) -> None:
    with pytest.raises(UserError, match=r"Brushwork trains SD 1\.5 and SDXL") as error:
        UNetSpec.from_shapes(shapes_of(spec))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "missing", ["conv_in.weight", "conv_out.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
)
def test_a_missing_weight_is_named_when_shapes_are_read(missing: str) -> None:
    shapes = shapes_of(SD15)
    del shapes[missing]
    with pytest.raises(UserError, match=missing):
        UNetSpec.from_shapes(shapes)


def test_widths_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(UserError, match="320 channels cannot be cut into 7 heads"):
        UNetSpec.from_config(SD15_CONFIG | {"attention_head_dim": 7})


def test_something_that_is_no_unet_at_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"not the UNet of SD 1\.5 or SDXL"):
        UNetSpec.from_shapes({"model.layers.0.weight": (4, 4)})
