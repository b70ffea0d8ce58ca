"""A whole model in one file, with the keys of its first publication: LDM for SD 1.5, sgm for SDXL.

Such a file brings no configuration. The UNet is known from its shapes; text encoders and VAE are those that the
family was published with, whose configurations and vocabulary are in the package. So nothing is fetched.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from brushwork.errors import UserError
from brushwork.models import bundled, configs
from brushwork.models.checkpoint_file import TensorFile, open_tensors
from brushwork.models.detect import UNET, VAE, is_besides, refuse_other_kinds, refuse_other_than_vae
from brushwork.models.folder import Prediction
from brushwork.models.naming import Origin, clip_origins, open_clip_origins, unet_origins, vae_origins
from brushwork.models.part import Part, refuse_doubles
from brushwork.models.spec import Family, UNetSpec

Config = Mapping[str, Any]
Naming = Callable[[Iterable[str]], dict[str, Origin]]

_ENCODERS: dict[Family, dict[str, tuple[str, Naming]]] = {
    "sd15": {"text_encoder": ("cond_stage_model.transformer.", clip_origins)},
    "sdxl": {
        "text_encoder": ("conditioner.embedders.0.transformer.", clip_origins),
        "text_encoder_2": ("conditioner.embedders.1.model.", open_clip_origins),
    },
}
_KNOWN_ENCODERS = (configs.CLIP_L, configs.CLIP_BIG_G, bundled.TEXT_ENCODER, bundled.TEXT_ENCODER_2)


def read_single_file(path: Path, *, with_vae: bool) -> tuple[UNetSpec, dict[str, Part], TensorFile]:
    """The network and the parts of a checkpoint, from its header; what is no SD 1.5 or SDXL checkpoint is refused.

    Args:
        with_vae: whether the file's own VAE is wanted; without, it may be missing.
    """
    file = open_tensors(path)
    refuse_other_kinds(path, file.headers)
    unet = _part("unet", file, UNET, unet_origins, {})
    try:
        spec = UNetSpec.from_shapes(unet.shapes())
    except UserError as error:
        raise UserError(f"{path}: {error.problem}", fix=error.fix) from error
    parts = {"unet": Part("unet", file, unet.origins, spec.to_config())}
    encoders = _ENCODERS[spec.family]
    for name, (prefix, naming) in encoders.items():
        part = _part(name, file, prefix, naming, {})
        parts[name] = Part(name, file, part.origins, _encoder_config(part))
    if with_vae:
        part = _part("vae", file, VAE, vae_origins, {})
        parts["vae"] = Part("vae", file, part.origins, vae_config(part, spec.family))
    _refuse_unexpected(path, file, [UNET, VAE, *(prefix for prefix, _ in encoders.values())])
    return spec, parts, file


def read_single_vae(path: Path, family: Family) -> Part:
    """The VAE of a file that holds one: alone or in a checkpoint, in LDM names or in diffusers names."""
    file = open_tensors(path)
    refuse_other_than_vae(path, file.headers)
    prefix = VAE if any(key.startswith(VAE) for key in file.headers) else ""
    part = _part("vae", file, prefix, vae_origins, {})
    return Part("vae", file, part.origins, vae_config(part, family))


def vae_config(part: Part, family: Family) -> Config:
    """The configuration of the family's VAE, or of the bundled one where the shapes are its."""
    shapes = part.shapes()
    shape = shapes.get("encoder.conv_in.weight")
    known = (configs.VAE[family], bundled.AUTOENCODER)
    config = next((each for each in known if shape is not None and each["block_out_channels"][0] == shape[0]), None)
    if config is None:
        raise UserError(
            f"{part.place} is no VAE of SD 1.5 or SDXL: its first layer is {shape or 'missing'}.",
            fix="give the VAE as a folder in the diffusers layout, with its config.json",
        )
    return config


def marked_prediction(file: TensorFile) -> tuple[Prediction, str]:
    """What the network predicts, and what told it: a key that other programs read, else the file's metadata."""
    if "v_pred" in file.headers:
        return "v", "the key v_pred"
    for name in ("modelspec.prediction_type", "modelspec.predict_key"):
        value = file.metadata.get(name, "").lower()
        if value in ("v", "v_prediction", "v-prediction"):
            return "v", f"the metadata {name}"
        if value in ("epsilon", "eps"):
            return "epsilon", f"the metadata {name}"
    return "epsilon", "nothing says otherwise"


def marked_zero_terminal_snr(file: TensorFile) -> bool:
    """Whether the file says that its noise schedule ends in pure noise."""
    return "ztsnr" in file.headers


def _part(name: str, file: TensorFile, prefix: str, naming: Naming, config: Config) -> Part:
    keys = {key[len(prefix) :] for key in file.headers if key.startswith(prefix) and not is_besides(key)}
    if not keys:
        missing = {"vae": "--vae FILE gives it another one"}.get(name, "take a whole checkpoint")
        raise UserError(f"{file.paths[0]} has no {name} (no keys {prefix}...).", fix=missing)
    origins = naming(keys)
    refuse_doubles(str(file.paths[0]), keys, origins)
    return Part(name, file, {ours: Origin(prefix + o.key, o.cut) for ours, o in origins.items()}, config)


def _encoder_config(part: Part) -> Config:
    shapes = part.shapes()
    embedding = shapes.get("text_model.embeddings.token_embedding.weight")
    layers = {found[1] for name in shapes if (found := re.match(r"text_model\.encoder\.layers\.(\d+)\.", name))}
    for config in _KNOWN_ENCODERS:
        size = (config["vocab_size"], config["hidden_size"])
        if embedding == size and len(layers) == config["num_hidden_layers"]:
            return config
    raise UserError(
        f"{part.place} is not the one of SD 1.5 or SDXL: {len(layers)} layers, embeddings {embedding or 'missing'}.",
        fix="take the file from where it was first published, or the model in the diffusers layout",
    )


def _refuse_unexpected(path: Path, file: TensorFile, prefixes: list[str]) -> None:
    unexpected = [key for key in file.headers if not key.startswith(tuple(prefixes)) and not is_besides(key)]
    if unexpected:
        raise UserError(
            f"{path} holds {len(unexpected)} keys that no checkpoint of this kind has, such as {min(unexpected)!r}.",
            fix="take the file from where it was first published",
        )
