"""What is known of SD 1.5 and SDXL besides their weights, so that a single file works with no network.

The values are those of the `config.json` files published beside the weights, and are used where such a file is.
"""

from typing import Any

from brushwork.models.spec import Family

Config = dict[str, Any]

CLIP_L: Config = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 768,
    "eos_token_id": 2,
}
"""OpenAI's CLIP ViT-L/14: the text encoder of SD 1.5 and the first of SDXL."""

CLIP_BIG_G: Config = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 1280,
    "eos_token_id": 2,
}
"""OpenCLIP ViT-bigG/14: the second text encoder of SDXL, with its projection."""

TEXT_ENCODERS: dict[Family, dict[str, Config]] = {
    "sd15": {"text_encoder": CLIP_L},
    "sdxl": {"text_encoder": CLIP_L, "text_encoder_2": CLIP_BIG_G},
}

_AUTOENCODER: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "act_fn": "silu",
    "norm_num_groups": 32,
}
VAE: dict[Family, Config] = {
    "sd15": {**_AUTOENCODER, "sample_size": 512, "scaling_factor": 0.18215},
    "sdxl": {**_AUTOENCODER, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
}

_SCHEDULER: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
SCHEDULER: dict[Family, Config] = {
    "sd15": {"_class_name": "DDIMScheduler", **_SCHEDULER},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", **_SCHEDULER},
}
