"""Qwen2-VL-2B by its published configuration: every width of the real one, and all of its weights counted."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from brushwork.captioning.captioner import Asked
from brushwork.captioning.local import load_model
from small_captioners import CHAT_TEMPLATE, MARKS, byte_tokenizer

pytestmark = pytest.mark.full

PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
"""config.json of Qwen/Qwen2-VL-2B-Instruct."""

PUBLISHED_BYTES = 4_417_971_200
"""`total_size` of its weights, in bf16."""


def test_the_published_configuration_makes_a_model_of_the_published_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))

    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(tmp_path))

    assert 2 * sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED_BYTES


def test_two_layers_of_every_published_width_are_read_and_answer_in_bf16(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    number = tokenizer.convert_tokens_to_ids
    config = copy.deepcopy(PUBLISHED)
    config |= {"num_hidden_layers": 2, "eos_token_id": number("<|im_end|>"), "bos_token_id": number("<|endoftext|>")}
    config |= {"image_token_id": number("<|image_pad|>"), "video_token_id": number("<|video_pad|>")}
    config |= {"vision_start_token_id": number("<|vision_start|>"), "vision_end_token_id": number("<|vision_end|>")}
    config["vision_config"]["depth"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    theirs = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(tmp_path)).to(torch.bfloat16).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="400MB")
    (tmp_path / "config.json").write_text(json.dumps(config))  # as it is published, not as it is saved today
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    look = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(look))
    assert len(list(tmp_path.glob("model-*.safetensors"))) >= 2

    ours = load_model(
        str(tmp_path), device=torch.device("cpu"), dtype=torch.bfloat16, batch_size=2, side=448, offline=True
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    asked = [Asked("a.png", "description", ours.prepare(picture), "Describe it.", 6, 0.0, 0)]
    inputs = ours.inputs(asked)
    expected = theirs.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]

    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["image_grid_thw"].tolist() == [[1, 22, 28]]
    assert ours.ask(asked)[0].text == tokenizer.decode(expected, skip_special_tokens=True)
