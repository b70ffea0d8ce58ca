"""From the same noise, prompts and weights, diffusers' pipelines draw the same pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.generation.pipeline import Pipeline
from brushwork.generation.prompts import Request
from brushwork.models.spec import SD15, SDXL
from brushwork.models.text import TextEncoders
from brushwork.models.unet import UNet
from brushwork.models.vae import VAE
from brushwork.models.vocabulary import PAD_OF_BIG_G, packaged_vocabulary
from brushwork.runtime import generator

SMALL = {"channels": (32, 64), "mid_depth": 1, "layers_per_block": 1, "heads": (2, 4)}
SPECS = {
    "sd15": replace(SD15, **SMALL, attention_depth=(1, 0), context_width=32),
    "sdxl": replace(SDXL, **SMALL, attention_depth=(0, 1), context_width=64, pooled_width=16, time_id_width=8),
}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SAMPLERS: dict[str, Callable[[], Any]] = {
    "ddim": lambda: diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
    "dpmpp_2m": lambda: diffusers.DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="leading"),
}
REQUEST = Request("a photo of a corgi, wearing a red hat", 64, 96, 7, "blurry, dark", steps=6, guidance=5.0)


def text_encoder(with_projection: bool) -> torch.nn.Module:
    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=16,
        hidden_act="gelu" if with_projection else "quick_gelu",
        bos_token_id=49406,
        eos_token_id=49407,
    )
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config).eval()


def tokenizer(**padding: str) -> CLIPTokenizer:
    known = packaged_vocabulary()
    return CLIPTokenizer(vocab=known.ids, merges=list(known.merges), model_max_length=77, **padding)


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.18215,
    ).eval()


def both(family: str, sampler: str) -> tuple[Any, Pipeline]:
    """diffusers' pipeline and ours, of the same weights."""
    torch.manual_seed(0)
    spec = SPECS[family]
    unet = diffusers.UNet2DConditionModel.from_config(spec.to_config()).eval()
    parts: dict[str, Any] = {"vae": vae(), "unet": unet, "scheduler": SAMPLERS[sampler]()}
    parts |= {"text_encoder": text_encoder(False), "tokenizer": tokenizer(pad_token="<|endoftext|>")}
    vocabularies = {"text_encoder": packaged_vocabulary()}
    if family == "sdxl":
        parts |= {"text_encoder_2": text_encoder(True), "tokenizer_2": tokenizer(pad_token="!")}
        vocabularies["text_encoder_2"] = packaged_vocabulary(padding=PAD_OF_BIG_G)
        theirs = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        theirs = diffusers.StableDiffusionPipeline(**parts, **nothing)
    theirs.set_progress_bar_config(disable=True)

    own = UNet(spec).eval()
    own.load_state_dict(unet.state_dict(), strict=True)
    encoders = {name: parts[name] for name in vocabularies}
    ours = Pipeline(
        unet=own,
        schedule=NoiseSchedule.scaled_linear(),
        prediction="epsilon",
        encode=TextEncoders(encoders, vocabularies).encode,
        decode=VAE(parts["vae"]).decode,
    )
    return theirs, ours


def their_output(theirs: Any, request: Request, kind: str) -> Any:
    shape = (1, 4, request.height // 8, request.width // 8)
    return theirs(
        request.prompt,
        negative_prompt=request.negative,
        height=request.height,
        width=request.width,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        latents=torch.randn(shape, generator=generator(request.seed, "picture")),
        output_type=kind,
    ).images


@pytest.mark.parametrize("negative", ["blurry, dark", ""])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_latents_and_picture_are_those_of_diffusers(family: str, sampler: str, negative: str) -> None:
    theirs, ours = both(family, sampler)
    request = replace(REQUEST, sampler=sampler, negative=negative)

    latents = ours.latents([request])
    torch.testing.assert_close(latents, their_output(theirs, request, "latent"), rtol=1e-4, atol=1e-4)

    pixels = (ours.decode(latents) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pixels, their_output(theirs, request, "np"), rtol=0, atol=1e-4)
    (image,) = ours.draw([request])
    difference = np.asarray(image).astype(int) - np.asarray(their_output(theirs, request, "pil")[0]).astype(int)
    assert np.abs(difference).max() <= 1  # of 255: rounding may fall to either side


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_picture_without_guidance_is_that_of_diffusers(family: str) -> None:
    theirs, ours = both(family, "euler")
    request = replace(REQUEST, sampler="euler", guidance=1.0)
    torch.testing.assert_close(ours.latents([request]), their_output(theirs, request, "latent"), rtol=1e-4, atol=1e-4)
