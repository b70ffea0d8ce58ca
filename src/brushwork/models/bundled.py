"""The tiny base model that lies in the package, in the layout of a real SDXL folder, and what its parts are made of.

Everything that works on it works on SDXL: two text encoders (of different widths, so that a mix-up of the two cannot
pass), their tokenizers, a UNet of three levels and an AutoencoderKL, for pictures of 128 x 128. The scripts in
`bundled/` have trained it.
"""

from pathlib import Path

from brushwork.models.configs import SCHEDULER, Config
from brushwork.models.vocabulary import END, PAD_OF_BIG_G
from brushwork.places import packaged

NUM_MERGES = 3582
"""CLIP's most frequent merges: with the bytes 4,096 tokens, so that the embeddings take 2 MB in fp16 and not 25.
Every text can still be read; a rare word falls in more pieces."""

PADDING = {"tokenizer": END, "tokenizer_2": PAD_OF_BIG_G}
"""As SDXL has it."""

_NUM_TOKENS = 2 * 256 + NUM_MERGES + 2
_CLIP: Config = {
    "model_type": "clip_text_model",
    "vocab_size": _NUM_TOKENS,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "projection_dim": 128,
    "bos_token_id": _NUM_TOKENS - 2,
    "eos_token_id": _NUM_TOKENS - 1,
}
TEXT_ENCODER: Config = {
    **_CLIP,
    "architectures": ["CLIPTextModel"],
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
    "pad_token_id": _NUM_TOKENS - 1,
}
TEXT_ENCODER_2: Config = {
    **_CLIP,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 160,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
AUTOENCODER: Config = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [16, 32, 64, 96],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "act_fn": "silu",
    "norm_num_groups": 8,
    "sample_size": 128,
    "scaling_factor": 0.2156,
}
MODEL_INDEX: Config = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.35.0",
    "force_zeros_for_empty_prompt": False,
    "scheduler": ["diffusers", SCHEDULER["sdxl"]["_class_name"]],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def bundled_folder() -> Path:
    """The folder of the bundled base model."""
    return packaged("tiny")
