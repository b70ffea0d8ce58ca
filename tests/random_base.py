"""The tiny base with random weights: a whole SDXL folder that stays the same when the bundled one is trained anew.

Weights are drawn from fixed seeds, the same bytes on every machine.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from brushwork.atomic import write_bytes, write_text
from brushwork.models.bundled import AUTOENCODER as BUNDLED_AUTOENCODER
from brushwork.models.bundled import MODEL_INDEX, NUM_MERGES, PADDING, TEXT_ENCODER, TEXT_ENCODER_2
from brushwork.models.configs import SCHEDULER, Config
from brushwork.models.spec import TINY, UNetSpec
from brushwork.models.text import canonical_name, empty_text_encoder
from brushwork.models.unet import UNet
from brushwork.models.vae import empty_autoencoder
from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary
from brushwork.runtime import generator

AUTOENCODER: Config = {
    **BUNDLED_AUTOENCODER,
    "block_out_channels": [16, 32, 64, 64],
    "scaling_factor": 2.2,
}
"""Random weights make small latents: with this factor they are about as large as a trained autoencoder's."""

SMALL_LOG_VARIANCE = -8.0
"""A trained VAE is nearly sure of its latents: a deviation of about 0.02."""


SMALL_SD15 = UNetSpec(
    channels=(32, 64, 64, 64),
    attention_depth=(1, 1, 1, 0),
    mid_depth=1,
    heads=(8, 8, 8, 8),
    layers_per_block=1,
    context_width=96,
    linear_projection=False,
    pooled_width=None,
    time_id_width=None,
    sample_size=64,
)
"""As small as the tiny base, in the family of SD 1.5: one text encoder, no sizes."""


def write_random_base(folder: Path, *, autoencoder: Config = AUTOENCODER, spec: UNetSpec = TINY) -> None:
    """Write the whole model into `folder`, the same bytes each time.

    Args:
        autoencoder: the bundled model's own where a single file is made of it, which brings no configuration.
        spec: of either family; its context is as wide as the text encoders are.
    """
    is_xl = spec.family == "sdxl"
    texts = {"text_encoder": TEXT_ENCODER} | ({"text_encoder_2": TEXT_ENCODER_2} if is_xl else {})
    one_text = {name: value for name, value in MODEL_INDEX.items() if not name.endswith("_2")}
    configs = {
        "model_index.json": MODEL_INDEX if is_xl else one_text | {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": SCHEDULER[spec.family],
        "unet/config.json": spec.to_config(),
        "vae/config.json": autoencoder,
        **{f"{part}/config.json": config for part, config in texts.items()},
    }
    for file, config in configs.items():
        write_text(folder / file, json.dumps(config, indent=2) + "\n")
    for part, padding in PADDING.items():
        if is_xl or not part.endswith("_2"):
            write_vocabulary(packaged_vocabulary(padding=padding, num_merges=NUM_MERGES), folder / part)
    with torch.device("meta"):
        unet = UNet(spec)
    _write_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", unet.state_dict())
    vae = empty_autoencoder(autoencoder)
    _write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", vae.state_dict())
    for part, config in texts.items():
        empty = empty_text_encoder(config, with_projection=part == "text_encoder_2")
        shapes = {canonical_name(empty, path): tensor for path, tensor in empty.state_dict().items()}
        _write_weights(folder / part / "model.safetensors", shapes)


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
