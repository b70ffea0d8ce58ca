"""Image encoders of the real classes and the real layout, with few numbers in them."""

import json
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SEES = {**SMALL, "image_size": 32, "patch_size": 8}
READS = {**SMALL, "vocab_size": 600, "max_position_embeddings": 77}
CLIP_WAY = {
    "feature_extractor_type": "CLIPFeatureExtractor",  # the old form, which the published CLIPs still have
    "do_resize": True,
    "size": 32,
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 32,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIGLIP_WAY = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
SIGLIP_2_WAY = {
    "image_processor_type": "Siglip2ImageProcessor",
    "do_resize": True,
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "patch_size": 8,
    "max_num_patches": 16,
}
DINO_WAY = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 36},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}


def write_encoder(folder: Path, kind: str) -> Path:
    """A folder as the hub has it: config.json, model.safetensors, preprocessor_config.json, and CLIP's vocabulary."""
    torch.manual_seed(0)
    siglip_reads = {**READS, "projection_size": 32, "max_position_embeddings": 16}
    models = {
        "clip": lambda: CLIPModel(
            CLIPConfig(
                text_config={**READS, "bos_token_id": 598, "eos_token_id": 599, "pad_token_id": 599},
                vision_config=SEES,
                projection_dim=24,
            )
        ),
        "clip_vision": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**SEES, projection_dim=24)),
        "clip_vision_bare": lambda: CLIPVisionModel(CLIPVisionConfig(**SEES)),
        "siglip": lambda: SiglipModel(SiglipConfig(text_config=siglip_reads, vision_config=SEES)),
        "siglip2": lambda: Siglip2Model(
            Siglip2Config(text_config=siglip_reads, vision_config={**SMALL, "patch_size": 8, "num_patches": 16})
        ),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**{**SEES, "mlp_ratio": 2})),
    }
    ways = {"siglip": SIGLIP_WAY, "siglip2": SIGLIP_2_WAY, "dinov2": DINO_WAY}
    models[kind]().save_pretrained(folder)
    way = ways.get(kind, CLIP_WAY)
    (folder / "preprocessor_config.json").write_text(json.dumps(way))
    if kind in ("clip", "siglip", "siglip2"):
        write_vocabulary(packaged_vocabulary(padding="<|endoftext|>", num_merges=600 - 514), folder)
        CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def gradient(width: int, height: int, *, turn: int = 0) -> Image.Image:
    """A picture in which every place has its colour."""
    red = Image.linear_gradient("L").resize((width, height))
    green = Image.linear_gradient("L").rotate(90).resize((width, height))
    blue = Image.radial_gradient("L").rotate(turn).resize((width, height))
    return Image.merge("RGB", (red, green, blue))
