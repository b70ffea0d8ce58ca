"""Checkpoints in one file, as they are published, made in tests from tensors in diffusers names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from brushwork.models.naming import module_to_ldm
from brushwork.models.spec import UNetSpec
from brushwork.models.unet import UNet

Tensors = dict[str, Tensor]

VAE_TO_LDM = (
    (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)\.", r"encoder.down.\1.block.\2."),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}."),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.up.{3 - int(m[1])}.upsample."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
OPEN_CLIP = (
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)


def unet_paths(spec: UNetSpec) -> dict[str, str]:
    """Every parameter of the UNet: diffusers name -> single-file name without `model.diffusion_model.`."""
    with torch.device("meta"):
        unet = UNet(spec)
    return {name: module_to_ldm(name, spec) for name in unet.state_dict()}


def unet_in_ldm(tensors: Mapping[str, Tensor], spec: UNetSpec) -> Tensors:
    return {f"model.diffusion_model.{module_to_ldm(name, spec)}": tensor for name, tensor in tensors.items()}


def vae_in_ldm(tensors: Mapping[str, Tensor], prefix: str = "first_stage_model.") -> Tensors:
    state = {}
    for name, tensor in tensors.items():
        is_convolution = ".attentions." in name and tensor.dim() == 2
        state[prefix + _replaced(name, VAE_TO_LDM)] = tensor[:, :, None, None] if is_convolution else tensor
    return state


def open_clip(tensors: Mapping[str, Tensor], prefix: str = "conditioner.embedders.1.model.") -> Tensors:
    state = {}
    for name, tensor in tensors.items():
        if name == "text_projection.weight":
            state[f"{prefix}text_projection"] = tensor.t().contiguous()
        elif found := re.match(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            state[f"{prefix}transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(parts)
        elif not re.search(r"\.self_attn\.[kv]_proj\.", name):
            state[prefix + _replaced(name, OPEN_CLIP)] = tensor
    return state


def besides() -> Tensors:
    """What real files carry besides the weights of the family."""
    return {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.diffusion_modelinput_blocks00weight": torch.ones(4, 4),
        "betas": torch.linspace(0.00085, 0.012, 1000),
        "alphas_cumprod": torch.ones(1000),
        "alphas_cumprod_prev": torch.ones(1000),
        "sqrt_one_minus_alphas_cumprod": torch.ones(1000),
        "log_one_minus_alphas_cumprod": torch.ones(1000),
        "posterior_mean_coef1": torch.ones(1000),
        "logvar": torch.zeros(1000),
        "denoiser.sigmas": torch.ones(1000),
        "global_step": torch.tensor(470000),
        "first_stage_model.loss.logvar": torch.tensor(0.0),
        "first_stage_model.loss.discriminator.main.0.weight": torch.ones(2, 2),
    }


def sdxl_file(unet: Tensors, vae: Tensors, text: Tensors, text_2: Tensors, spec: UNetSpec) -> Tensors:
    """A whole SDXL checkpoint, in sgm's keys."""
    state = unet_in_ldm(unet, spec) | vae_in_ldm(vae) | open_clip(text_2) | besides()
    state |= {f"conditioner.embedders.0.transformer.{name}": tensor for name, tensor in text.items()}
    state["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    return state


def sd15_file(unet: Tensors, vae: Tensors, text: Tensors, spec: UNetSpec) -> Tensors:
    """A whole SD 1.5 checkpoint, in LDM's keys."""
    state = unet_in_ldm(unet, spec) | vae_in_ldm(vae) | besides()
    state |= {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return state


def _replaced(name: str, rules: tuple) -> str:  # type: ignore[type-arg]
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
