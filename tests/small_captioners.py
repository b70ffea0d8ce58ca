"""Models that write captions, tiny and with random weights, saved in the layouts of the real ones."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    Florence2Config,
    Florence2ForConditionalGeneration,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

MARKS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the one of Qwen2-VL says where there are pictures and no videos."""

CLIP_LOOK = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 1 / 255,
    "resample": 3,
}


def lively(model: Any) -> Any:
    """Weights as they are drawn are so small that every picture gets the same answer."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return model


def byte_tokenizer(marks: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A token for each byte, and one for each mark: the kind that Qwen, Florence and OPT have, without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return PreTrainedTokenizerFast(tokenizer_object=inner, **settings)


def write_qwen(folder: Path, kind: str = "qwen2_vl", *, seed: int = 0) -> Path:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL with two layers."""
    tokenizer = byte_tokenizer(MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    numbers = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(MARKS), strict=True))
    tokens = {
        "image_token_id": numbers["<|image_pad|>"],
        "video_token_id": numbers["<|video_pad|>"],
        "vision_start_token_id": numbers["<|vision_start|>"],
        "vision_end_token_id": numbers["<|vision_end|>"],
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": numbers["<|endoftext|>"],
        "eos_token_id": numbers["<|im_end|>"],
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
    }
    eyes: dict[str, Any] = {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    torch.manual_seed(seed)
    model: Any
    if kind == "qwen2_vl":
        eyes |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=eyes, **tokens))
    elif kind == "qwen2_5_vl":
        eyes |= {"out_hidden_size": 32, "intermediate_size": 32, "window_size": 56, "fullatt_block_indexes": [1]}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes, **tokens))
    else:
        eyes |= {"patch_size": 16, "out_hidden_size": 32, "intermediate_size": 32, "deepstack_visual_indexes": [0]}
        eyes["num_position_embeddings"] = 64
        text |= {"head_dim": 8}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=eyes, **tokens))
    model.generation_config.eos_token_id = [numbers["<|im_end|>"], numbers["<|endoftext|>"]]
    model.generation_config.pad_token_id = numbers["<|endoftext|>"]
    model.generation_config.update(do_sample=True, temperature=0.01, top_p=0.001, top_k=1)  # as they are published
    lively(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    look = {
        **CLIP_LOOK,
        "min_pixels": 56 * 56,
        "max_pixels": 28 * 28 * 1280,
        "patch_size": eyes["patch_size"],
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(look))
    return folder


def write_blip(folder: Path) -> Path:
    """BLIP as Salesforce/blip-image-captioning-base lies there."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *map(str, range(40)), "a", "cat", "dog", "on"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    numbers = {"bos_token_id": 5, "pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3}
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        **numbers,
    }
    eyes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(1)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=eyes))
    lively(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    look = {**CLIP_LOOK, "size": {"height": 32, "width": 32}, "image_processor_type": "BlipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps({**look, "processor_class": "BlipProcessor"}))
    return folder


def write_blip2(folder: Path) -> Path:
    """BLIP-2 with OPT, as Salesforce/blip2-opt-2.7b lies there."""
    tokenizer = byte_tokenizer(
        ["<pad>", "</s>", "<image>"], bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>"
    )
    start = tokenizer.convert_tokens_to_ids("</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", start)]
    )
    eyes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    query = {
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=start,
        eos_token_id=tokenizer.convert_tokens_to_ids("\u010a"),  # a line's end, as OPT's is in BLIP-2
        pad_token_id=tokenizer.convert_tokens_to_ids("<pad>"),
    )
    torch.manual_seed(2)
    config = Blip2Config(
        vision_config=eyes,
        qformer_config=query,
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    lively(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    look = {**CLIP_LOOK, "size": {"height": 28, "width": 28}, "image_processor_type": "BlipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps({**look, "processor_class": "Blip2Processor"}))
    (folder / "processor_config.json").write_text(
        json.dumps({"num_query_tokens": 4, "processor_class": "Blip2Processor"})
    )
    return folder


def write_florence(folder: Path) -> Path:
    """Florence-2 as florence-community/Florence-2-base lies there."""
    tokenizer = byte_tokenizer(
        ["<s>", "<pad>", "</s>", "<unk>", "<image>"],
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    number = tokenizer.convert_tokens_to_ids
    eyes = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 4,
        "projection_dim": 32,
        "max_position_embeddings": 8,
        "max_temporal_embeddings": 4,
    }
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 256,
        "bos_token_id": number("<s>"),
        "pad_token_id": number("<pad>"),
        "eos_token_id": number("</s>"),
        "decoder_start_token_id": number("</s>"),
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }
    torch.manual_seed(12)
    config = Florence2Config(vision_config=eyes, text_config=text, image_token_id=number("<image>"))
    model = Florence2ForConditionalGeneration(config)
    with torch.no_grad():  # or the word that it begins with, which is also its end, would follow itself
        model.get_input_embeddings().weight[number("</s>")] = 0
    model.generation_config.update(
        eos_token_id=number("</s>"), decoder_start_token_id=number("</s>"), pad_token_id=number("<pad>"), num_beams=3
    )
    lively(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    look = {
        **CLIP_LOOK,
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": 65,
        "processor_class": "Florence2Processor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(look))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Florence2Processor", "num_additional_image_tokens": 0})
    )
    return folder
