"""The tiny base model that comes with the package, in the layout of a real SDXL folder.

Everything that works on it works on SDXL: two text encoders (of different widths, so that a mix-up of the two cannot
pass), their tokenizers, a UNet of three levels and an AutoencoderKL, for pictures of 128 x 128.

Until a trained one lies in the package, its weights are drawn from fixed seeds and written once to the user's cache.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from brushwork.atomic import PARTIAL_SUFFIX, write_bytes, write_text
from brushwork.errors import UserError
from brushwork.models.configs import SCHEDULER, Config
from brushwork.models.spec import TINY
from brushwork.models.text import canonical_name, empty_text_encoder
from brushwork.models.unet import UNet
from brushwork.models.vae import empty_autoencoder
from brushwork.models.vocabulary import END, PAD_OF_BIG_G, packaged_vocabulary, write_vocabulary
from brushwork.places import user_cache_folder
from brushwork.runtime import generator

DRAWING = 1
"""Counted up when the weights are drawn in another way."""

NUM_MERGES = 3582
"""CLIP's most frequent merges: with the bytes 4,096 tokens, so that the embeddings take 2 MB in fp16 and not 25.
Every text can still be read; a rare word falls in more pieces."""

SMALL_LOG_VARIANCE = -8.0
"""A trained VAE is nearly sure of its latents: a deviation of about 0.02."""

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


def is_trained() -> bool:
    """Whether the package holds a trained base, and not only the shape of one."""
    return (_packaged() / "model_index.json").is_file()


def bundled_folder() -> Path:
    """The folder of the bundled base model; written on first use as long as no trained one is in the package."""
    if is_trained():
        return _packaged()
    folder = user_cache_folder() / f"bundled-{_version()}"
    if not folder.is_dir():
        _write_whole(folder)
    return folder


def _packaged() -> Path:
    return Path(str(files("brushwork") / "assets" / "tiny"))


def _write_whole(folder: Path) -> None:
    """Written beside and renamed: another process sees all of it or nothing, and of two that race one wins."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name, suffix=PARTIAL_SUFFIX))
    except OSError as error:
        raise UserError(
            f"the bundled model cannot be written to {folder.parent}: {error.strerror}.",
            fix="name a folder that can be written to: export BRUSHWORK_CACHE=DIR",
        ) from error
    try:
        write_bundled(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bundled(folder: Path) -> None:
    """Write the whole model into `folder`, the same bytes each time."""
    for file, config in _configs().items():
        write_text(folder / file, json.dumps(config, indent=2) + "\n")
    for part, padding in PADDING.items():
        write_vocabulary(packaged_vocabulary(padding=padding, num_merges=NUM_MERGES), folder / part)
    with torch.device("meta"):
        unet = UNet(TINY)
    _write_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", unet.state_dict())
    _write_weights(
        folder / "vae" / "diffusion_pytorch_model.safetensors", empty_autoencoder(AUTOENCODER).state_dict()
    )
    for part, config in (("text_encoder", TEXT_ENCODER), ("text_encoder_2", TEXT_ENCODER_2)):
        empty = empty_text_encoder(config, with_projection=part == "text_encoder_2")
        shapes = {canonical_name(empty, path): tensor for path, tensor in empty.state_dict().items()}
        _write_weights(folder / part / "model.safetensors", shapes)


def _configs() -> dict[str, Config]:
    return {
        "model_index.json": MODEL_INDEX,
        "scheduler/scheduler_config.json": SCHEDULER["sdxl"],
        "unet/config.json": TINY.to_config(),
        "vae/config.json": AUTOENCODER,
        "text_encoder/config.json": TEXT_ENCODER,
        "text_encoder_2/config.json": TEXT_ENCODER_2,
    }


def _version() -> str:
    """Changes with the configurations and with how weights are drawn, so that an older folder is left alone."""
    recipe: list[Any] = [DRAWING, NUM_MERGES, _configs()]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def _write_weights(path: Path, shapes: Mapping[str, Tensor]) -> None:
    """Weights for these names and shapes, in fp16: random, of size 1 / sqrt(inputs); biases 0, factors of norms 1."""
    tensors = {}
    for name, placeholder in shapes.items():
        shape = placeholder.shape
        if name.endswith(".bias"):
            tensor = torch.zeros(shape)
            if name == "quant_conv.bias":
                tensor[shape[0] // 2 :] = SMALL_LOG_VARIANCE
        elif len(shape) == 1:
            tensor = torch.ones(shape)
        else:
            tensor = torch.randn(shape, generator=generator(0, f"{path.parent.name}/{name}"))
            tensor *= shape[1:].numel() ** -0.5
        tensors[name] = tensor.half()
    write_bytes(path, save(tensors, metadata={"format": "pt"}))
