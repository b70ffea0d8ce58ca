"""What a file of weights is, told by its keys: only the base models of SD 1.5 and SDXL go further than this file."""

import re
from collections.abc import Collection
from pathlib import Path

from brushwork.errors import UserError

TAKE_A_BASE = "take a base model of SD 1.5 or SDXL: one .safetensors file, or a folder in the diffusers layout"
USE_AS_LORA = "name the base model it was made for as the base, and give this file as --lora"

# The first pattern found in any key decides; so the special stands before the general.
_OTHER_KINDS: tuple[tuple[str, str, str], ...] = (
    (r"\.(hada_w1|lokr_w[12]|lora_(down|up|A|B)|lora\.(down|up))\b", "a LoRA", USE_AS_LORA),
    (r"^lora_(unet|te\d?)_|\.lora_linear_layer\.|^lycoris_", "a LoRA", USE_AS_LORA),
    (r"\.(absmax|quant_map|quant_state|scale_weight|weight_scale)\b|^scaled_fp8$", "a quantised model", TAKE_A_BASE),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet", TAKE_A_BASE),
    (r"motion_modules\.", "an AnimateDiff motion module", TAKE_A_BASE),
    (r"^(image_proj|ip_adapter)\.", "an IP-Adapter", TAKE_A_BASE),
    (r"^(model\.diffusion_model\.)?joint_blocks\.", "a Stable Diffusion 3 model", TAKE_A_BASE),
    (r"^(model\.diffusion_model\.)?double_blocks\.", "a Flux model", TAKE_A_BASE),
    (r"^(model\.diffusion_model\.)?(double_layers|cond_seq_linear)\.", "an AuraFlow model", TAKE_A_BASE),
    (r"^clip_txt_mapper\.|\.channelwise\.", "a Stable Cascade model", TAKE_A_BASE),
    (
        r"^(model\.diffusion_model\.)?(patchify_proj|txt_in|cap_embedder|x_embedder)\.",
        "a transformer model",
        TAKE_A_BASE,
    ),
    (r"^edm_(mean|std)$", "a Playground 2.5 model, whose noise schedule is another (EDM)", TAKE_A_BASE),
    (r"^edm_vpred\.", "a CosXL model, whose noise schedule is another (EDM)", TAKE_A_BASE),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2 model", TAKE_A_BASE),
    (r"^conditioner\.embedders\.0\.model\.", "the SDXL refiner, which only finishes pictures", TAKE_A_BASE),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual inversion embedding", TAKE_A_BASE),
)
_HALVES: tuple[tuple[str, str, str], ...] = (
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid)", "a VAE alone", "give it as --vae, beside a base"),
    (
        r"^(down_blocks|input_blocks)\.",
        "a UNet alone, without text encoders and VAE",
        "put it into the `unet` folder of a base in the diffusers layout, or take the whole checkpoint",
    ),
    (r"^(text_model|transformer\.resblocks|encoder\.block)\.", "a text encoder alone", TAKE_A_BASE),
)

UNET = "model.diffusion_model."
VAE = "first_stage_model."

# What real files carry besides the weights: averages kept by the trainer, the noise schedule's tables, counters,
# marks for other programs, and numbers that are constant or that only image search reads.
_BESIDES = re.compile(
    r"""^(
        model_ema\..* | (first_stage_model|cond_stage_model)\.model_ema\..*
        | betas | (sqrt_|log_one_minus_|posterior_).* | alphas_cumprod(_prev)? | logvar | lvlb_weights
        | (model\.)?scale_factor | denoiser\..* | global_step | epoch | v_pred | ztsnr
        | first_stage_model\.loss\..*
        | (cond_stage_model|conditioner\.embedders\.\d|text_encoders?)\..*(position_ids|logit_scale|attn_mask)
        | (cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?text_projection(\.weight)?
    )$""",
    re.VERBOSE,
)


def is_besides(key: str) -> bool:
    """Whether a key of a single file is one that real files carry and that nothing needs."""
    return _BESIDES.match(key) is not None


def refuse_other_kinds(path: Path, keys: Collection[str]) -> None:
    """Refuse what is no whole SD 1.5 or SDXL checkpoint, saying what it is."""
    _refuse(path, keys, _OTHER_KINDS)
    if not any(key.startswith(UNET) for key in keys):
        _refuse(path, keys, _HALVES)
        example = min(keys, default="")
        raise UserError(
            f"{path} is no Stable Diffusion checkpoint: it holds keys such as {example!r}.", fix=TAKE_A_BASE
        )


def refuse_other_than_vae(path: Path, keys: Collection[str]) -> None:
    """Refuse a file given as VAE that is another thing."""
    _refuse(path, keys, _OTHER_KINDS)
    if not any(re.match(r"(first_stage_model\.)?decoder\.", key) for key in keys):
        raise UserError(
            f"{path} is no VAE: it has no decoder.", fix="give a VAE file, a VAE folder, or a checkpoint that has one"
        )


def _refuse(path: Path, keys: Collection[str], kinds: tuple[tuple[str, str, str], ...]) -> None:
    for pattern, kind, fix in kinds:
        search = re.compile(pattern).search
        if found := next((key for key in keys if search(key)), None):
            raise UserError(f"{path} is {kind}, not a base model of SD 1.5 or SDXL (key {found!r}).", fix=fix)
