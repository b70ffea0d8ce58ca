"""The two names that every weight has: diffusers' (ours) and that of the single files (LDM for SD 1.5, sgm for SDXL).

Both schemes count the same blocks differently: diffusers by level, the single files from end to end. So the names
follow from the number of levels and of layers in each, and nothing has to be listed. Only the text encoder
of OpenCLIP and the middle of the VAE also lay their numbers out differently; `Origin.cut` says how.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from brushwork.models.spec import UNetSpec

Cut = Literal["whole", "matrix", "transposed", "first third", "second third", "last third"]

CUTS: dict[Cut, Callable[[Tensor], Tensor]] = {
    "whole": lambda tensor: tensor,
    "matrix": lambda tensor: tensor.reshape(tensor.shape[:2]),  # a 1x1 convolution (O, I, 1, 1) -> (O, I)
    "transposed": lambda tensor: tensor.t(),
    "first third": lambda tensor: tensor.chunk(3)[0],  # OpenCLIP keeps q, k and v in one: (3*W, W) -> (W, W)
    "second third": lambda tensor: tensor.chunk(3)[1],
    "last third": lambda tensor: tensor.chunk(3)[2],
}

THIRDS: tuple[Cut, ...] = ("first third", "second third", "last third")


@dataclass(frozen=True)
class Origin:
    """Where one of our tensors lies in a file: under which key, and which part of it."""

    key: str
    cut: Cut = "whole"


# The UNet

_LDM_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_LDM_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_DIFFUSERS_ENDS = {ldm: ours for ours, ldm in _LDM_ENDS.items()}
_DIFFUSERS_RESNET = {ldm: ours for ours, ldm in _LDM_RESNET.items()}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_DIFFUSERS_MIDDLE = {ldm: ours for ours, ldm in _MIDDLE.items()}


def module_to_ldm(path: str, spec: UNetSpec) -> str:
    """The single-file name of a UNet module or parameter, without `model.diffusion_model.`.

    `down_blocks.1.attentions.0.proj_in` -> `input_blocks.4.1.proj_in`
    """
    layers = spec.layers_per_block
    if found := re.fullmatch(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(.*)", path):
        block = int(found[1]) * (layers + 1) + int(found[3]) + 1
        return f"input_blocks.{block}.{_ldm_inside(found[2], found[4])}"
    if found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv(.*)", path):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op{found[2]}"
    if found := re.fullmatch(r"mid_block\.((resnets|attentions)\.[01])(.*)", path):
        number = _MIDDLE.get(found[1])
        if number is not None:
            return f"middle_block.{number}{_ldm_inside(found[2], found[3])[1:]}"
    if found := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(.*)", path):
        block = int(found[1]) * (layers + 1) + int(found[3])
        return f"output_blocks.{block}.{_ldm_inside(found[2], found[4])}"
    if found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv(.*)", path):
        level = int(found[1])
        has_attention = spec.attention_depth[len(spec.channels) - 1 - level] > 0
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if has_attention else 1}.conv{found[2]}"
    return _renamed_head(path, _LDM_ENDS)


def unet_origins(keys: Iterable[str]) -> dict[str, Origin]:
    """Our name -> where it lies, for UNet keys as single files have them (the prefix taken off).

    The number of layers in a level is read off the keys: the first downsampler closes the first level. Keys that
    no UNet has keep their name, so that whoever compares them with a network sees what is too much.
    """
    keys = list(keys)
    closing = [int(found[1]) for key in keys if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.", key))]
    layers = min(closing, default=3) - 1
    origins = {}
    for key in keys:
        try:
            origins[module_to_diffusers(key, layers_per_block=layers)] = Origin(key)
        except ValueError:
            origins[key] = Origin(key)
    return origins


def module_to_diffusers(path: str, *, layers_per_block: int) -> str:
    """The diffusers name of a UNet module or parameter, from its single-file name: `module_to_ldm` turned round."""
    layers = layers_per_block
    if found := re.fullmatch(r"input_blocks\.(\d+)\.(\d)(.*)", path):
        block, place = int(found[1]), int(found[2])
        level, layer = divmod(block - 1, layers + 1)
        if block > 0 and layer == layers and place == 0 and re.match(r"\.op(\.|$)", found[3]):
            return f"down_blocks.{level}.downsamplers.0.conv{found[3][3:]}"
        if block > 0 and layer < layers and place < 2:
            return f"down_blocks.{level}.{_diffusers_inside(place, layer, found[3])}"
    if (found := re.fullmatch(r"middle_block\.(\d)(.*)", path)) and found[1] in _DIFFUSERS_MIDDLE:
        kind, number = _DIFFUSERS_MIDDLE[found[1]].split(".")
        return f"mid_block.{_diffusers_inside(0 if kind == 'resnets' else 1, int(number), found[2])}"
    if found := re.fullmatch(r"output_blocks\.(\d+)\.(\d)(.*)", path):
        level, layer = divmod(int(found[1]), layers + 1)
        place = int(found[2])
        if layer == layers and place in (1, 2) and re.match(r"\.conv(\.|$)", found[3]):
            return f"up_blocks.{level}.upsamplers.0{found[3]}"
        if place < 2:
            return f"up_blocks.{level}.{_diffusers_inside(place, layer, found[3])}"
    return _renamed_head(path, _DIFFUSERS_ENDS)


def _ldm_inside(kind: str, rest: str) -> str:
    """`rest` is empty or begins with a dot, here and below."""
    if kind == "attentions":
        return f"1{rest}"
    return f"0.{_renamed_head(rest[1:], _LDM_RESNET)}" if rest else "0"


def _diffusers_inside(place: int, layer: int, rest: str) -> str:
    if place == 1:
        return f"attentions.{layer}{rest}"
    return f"resnets.{layer}.{_renamed_head(rest[1:], _DIFFUSERS_RESNET)}" if rest else f"resnets.{layer}"


def _renamed_head(path: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if path == old or path.startswith(f"{old}."):
            return new + path[len(old) :]
    raise ValueError(f"no part of a UNet is called {path!r}")


# The VAE

_VAE_RESNET = {"nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def vae_origins(keys: Iterable[str]) -> dict[str, Origin]:
    """Our name -> where it lies, for VAE keys in LDM names (prefix taken off) or diffusers names, old and new."""
    keys = list(keys)
    ups = [int(found[1]) for key in keys if (found := re.match(r"decoder\.up\.(\d+)\.", key))]
    top = max(ups, default=0)
    origins = {}
    for key in keys:
        name = _vae_name(key, top)
        is_matrix = re.search(r"\.attentions\.0\.to_(q|k|v|out\.0)\.weight$", name)
        origins[name] = Origin(key, "matrix" if is_matrix else "whole")
    return origins


def _vae_name(key: str, top: int) -> str:
    """`top` is the number of the decoder's highest level: single files count its levels from the picture inwards."""
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.(\w+)(.*)", key):
        layer = _VAE_RESNET.get(found[3], found[3])
        return f"encoder.down_blocks.{found[1]}.resnets.{found[2]}.{layer}{found[4]}"
    if found := re.fullmatch(r"decoder\.up\.(\d+)\.block\.(\d+)\.(\w+)(.*)", key):
        layer = _VAE_RESNET.get(found[3], found[3])
        return f"decoder.up_blocks.{top - int(found[1])}.resnets.{found[2]}.{layer}{found[4]}"
    if found := re.fullmatch(r"encoder\.down\.(\d+)\.downsample\.(.*)", key):
        return f"encoder.down_blocks.{found[1]}.downsamplers.0.{found[2]}"
    if found := re.fullmatch(r"decoder\.up\.(\d+)\.upsample\.(.*)", key):
        return f"decoder.up_blocks.{top - int(found[1])}.upsamplers.0.{found[2]}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid\.block_([12])\.(.*)", key):
        return f"{found[1]}.mid_block.resnets.{int(found[2]) - 1}.{found[3]}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(\w+)\.(weight|bias)", key):
        layer = _VAE_ATTENTION.get(found[2], found[2])
        return f"{found[1]}.mid_block.attentions.0.{layer}.{found[3]}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(\w+)\.(weight|bias)", key):
        layer = _OLD_VAE_ATTENTION.get(found[2], found[2])
        return f"{found[1]}.mid_block.attentions.0.{layer}.{found[3]}"
    return re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", key)


# The text encoders


def clip_origins(keys: Iterable[str]) -> dict[str, Origin]:
    """Our name -> where it lies, for a text encoder in transformers' names.

    Ours always begin with `text_model.`, whatever the version of transformers (or the merging tool) that wrote the
    keys: some leave it out.
    """
    outside = ("text_model.", "text_projection.")
    return {key if key.startswith(outside) else f"text_model.{key}": Origin(key) for key in keys}


_OPEN_CLIP_ENDS: dict[str, tuple[str, Cut]] = {
    "positional_embedding": ("text_model.embeddings.position_embedding.weight", "whole"),
    "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", "whole"),
    "ln_final.weight": ("text_model.final_layer_norm.weight", "whole"),
    "ln_final.bias": ("text_model.final_layer_norm.bias", "whole"),
    "text_projection": ("text_projection.weight", "transposed"),
    "text_projection.weight": ("text_projection.weight", "whole"),  # written by programs that made it a Linear
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def open_clip_origins(keys: Iterable[str]) -> dict[str, Origin]:
    """Our name -> where it lies, for a text encoder in OpenCLIP's names (the second of SDXL)."""
    origins = {}
    for key in keys:
        if key in _OPEN_CLIP_ENDS:
            name, cut = _OPEN_CLIP_ENDS[key]
            origins[name] = Origin(key, cut)
        elif found := re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", key):
            for letter, third in zip("qkv", THIRDS, strict=True):
                name = f"text_model.encoder.layers.{found[1]}.self_attn.{letter}_proj.{found[2]}"
                origins[name] = Origin(key, third)
        elif found := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", key):
            layer = _OPEN_CLIP_LAYER.get(found[2], found[2])
            origins[f"text_model.encoder.layers.{found[1]}.{layer}.{found[3]}"] = Origin(key)
        else:
            origins[key] = Origin(key)
    return origins
