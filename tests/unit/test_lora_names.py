"""The names and shapes that kohya's trainer gives its modules, against ours: every one of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from brushwork.lora.inject import inject
from brushwork.lora.names import canonical, kohya_name
from brushwork.models.spec import SD15, SDXL, TINY, Family, UNetSpec
from brushwork.models.unet import UNet

ORACLE = json.loads(gzip.decompress((Path(__file__).parents[1] / "oracles" / "kohya_modules.json.gz").read_bytes()))
SPECS: dict[Family, UNetSpec] = {"sd15": SD15, "sdxl": SDXL}
COUNTS = {("sd15", "kohya"): 264, ("sd15", "kohya_conv"): 350, ("sdxl", "kohya"): 986, ("sdxl", "kohya_conv"): 1052}


def components(family: Family) -> dict[str, nn.Module]:
    """The networks of a family at full size, without memory."""
    wide = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"unet": UNet(SPECS[family]), "text_encoder": CLIPTextModel(CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        ))}  # fmt: skip
        if family == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**wide))
    return parts


@pytest.mark.parametrize(("family", "targets"), COUNTS, ids=str)
def test_every_module_has_the_name_and_the_shapes_of_kohyas(family: Family, targets: str) -> None:
    expected: dict[str, Any] = {
        name: (inside, outside)
        for name, (inside, outside, only_conv) in ORACLE[family].items()
        if targets == "kohya_conv" or not only_conv
    }

    adapter = inject(components(family), targets=targets, rank=4, text_encoder=True)

    found = {
        kohya_name(name, SPECS[family]): (list(layer.down.shape[1:]), layer.up.shape[0])
        for name, layer in adapter.layers.items()
    }
    assert found == expected
    assert len(found) == COUNTS[family, targets]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_name_of_kohyas_is_understood_as_it_was_written(family: Family) -> None:
    for name in ORACLE[family]:
        known = canonical(name, SPECS[family])
        assert known is not None, name
        assert kohya_name(known, SPECS[family]) == name


def test_one_layer_is_known_under_every_spelling_of_the_field() -> None:
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    for spelled in (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",  # kohya
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",  # diffusers' export to kohya
        f"unet.{layer}",  # diffusers and PEFT in diffusers
        layer,  # the UNet alone
        f"base_model.model.{layer}",  # PEFT's own files
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",  # ComfyUI's
    ):
        assert canonical(spelled, SDXL) == f"unet.{layer}", spelled
    for spelled in (
        "lora_te2_text_model_encoder_layers_31_self_attn_out_proj",
        "text_encoder_2.text_model.encoder.layers.31.self_attn.out_proj",
        "text_encoder_2.encoder.layers.31.self_attn.out_proj",
    ):
        assert canonical(spelled, SDXL) == "text_encoder_2.text_model.encoder.layers.31.self_attn.out_proj", spelled


def test_names_of_another_family_are_unknown() -> None:
    assert canonical("lora_te_text_model_encoder_layers_0_mlp_fc1", SDXL) is None
    assert canonical("lora_te1_text_model_encoder_layers_0_mlp_fc1", SD15) is None
    assert canonical("lora_unet_down_blocks_0_attentions_0_proj_in", SDXL) is None
    assert canonical("lora_unet_middle_block_1_transformer_blocks_9_ff_net_2", SD15) is None
    assert canonical("lora_unet_middle_block_1_transformer_blocks_9_ff_net_2", SDXL) is not None


def test_small_models_of_the_layout_of_sdxl_are_named_as_sdxl() -> None:
    name = "unet.up_blocks.0.attentions.2.transformer_blocks.1.ff.net.0.proj"
    assert kohya_name(name, TINY) == "lora_unet_output_blocks_2_1_transformer_blocks_1_ff_net_0_proj"
    assert canonical(kohya_name(name, TINY), TINY) == name
