"""A base model in the diffusers layout: a folder for each part, its config.json and weights, whole or in shards."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from brushwork.errors import UserError
from brushwork.models.checkpoint_file import AGAIN, Shards, TensorFile, open_tensors
from brushwork.models.naming import Origin, clip_origins, vae_origins
from brushwork.models.part import Part, refuse_doubles
from brushwork.models.spec import UNetSpec

Prediction = Literal["epsilon", "v"]

_OF_DIFFUSERS = (("diffusion_pytorch_model", "safetensors"), ("diffusion_pytorch_model", "bin"))
_OF_TRANSFORMERS = (("model", "safetensors"), ("pytorch_model", "bin"))
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")

_STEMS = {
    "unet": _OF_DIFFUSERS,
    "vae": _OF_DIFFUSERS,
    "text_encoder": _OF_TRANSFORMERS,
    "text_encoder_2": _OF_TRANSFORMERS,
}
"""How a part's file is called, as safetensors and as pickle."""

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}
_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "trained_betas": None,
}
"""The noise schedule of both families. A base made for another one would be taught the wrong thing."""

_UNUSED_TENSORS = re.compile(r"\.position_ids$|^logit_scale$")


def read_folder(folder: Path, *, with_vae: bool, variant: str | None) -> tuple[UNetSpec, dict[str, Part]]:
    """The network and the parts of a base, from configurations and headers.

    Args:
        with_vae: whether the folder's own VAE is wanted; without, it may be missing.
        variant: e.g. "fp16" for `*.fp16.safetensors`. None takes the plain files, and where there are none, fp16.
    """
    if not (folder / "unet").is_dir():
        kind = read_json(folder / "model_index.json").get("_class_name", "no diffusers model")
        raise UserError(
            f"{folder} has no folder `unet`: it is {kind}.",
            fix="give the folder that holds unet/, vae/ and text_encoder/, or a single .safetensors file",
        )
    unet = read_part(folder / "unet", "unet", variant=variant)
    try:
        spec = UNetSpec.from_config(unet.config)
    except UserError as error:
        raise UserError(f"{folder / 'unet' / 'config.json'}: {error.problem}", fix=error.fix) from error
    names = ["text_encoder", *(["text_encoder_2"] if spec.family == "sdxl" else []), *(["vae"] if with_vae else [])]
    return spec, {"unet": unet} | {name: read_part(folder / name, name, variant=variant) for name in names}


def read_part(folder: Path, name: str, *, variant: str | None) -> Part:
    """One part of a base, e.g. its `vae` folder."""
    config = read_json(folder / "config.json")
    if not config:
        raise UserError(f"{folder / 'config.json'} is missing.", fix="download the base again, as a whole")
    file = find_weights(folder, name, variant=variant)
    keys = {key for key in file.headers if not _UNUSED_TENSORS.search(key)}
    if name == "vae":
        origins = vae_origins(keys)
    elif name == "unet":
        origins = {key: Origin(key) for key in keys}
    else:
        if name == "text_encoder":
            keys -= {"text_projection.weight"}  # some folders hold the first encoder with one; nothing reads it
        origins = clip_origins(keys)
    refuse_doubles(str(file.paths[0]), keys, origins)
    return Part(name, file, origins, config)


def find_weights(folder: Path, name: str, *, variant: str | None) -> TensorFile:
    """Open a part's weights: safetensors before pickle, the whole before shards, plain before variants."""
    path = folder / choose_weights([path.name for path in folder.iterdir()], name, variant=variant, where=str(folder))
    return Shards(path) if path.suffix == ".json" else open_tensors(path)


def choose_weights(files: Iterable[str], name: str, *, variant: str | None, where: str) -> str:
    """Which of the files in a part's folder holds its weights, or is the index of their shards."""
    files = sorted(files)
    there: set[str] = set()
    for stem, ending in _STEMS[name]:
        found = _variants(files, stem, ending)
        wanted = variant or _preferred(found)
        if wanted in found:
            return found[wanted]
        there |= found.keys()
    if not there:
        stem, ending = _STEMS[name][0]
        raise UserError(f"{where} has no weights ({stem}.{ending}).", fix="download the base again, as a whole")
    listed = ", ".join(sorted(each or "plain" for each in there))
    wish = f"has no variant {variant!r}" if variant else "has several variants and no plain weights"
    raise UserError(f"{where} {wish}; there: {listed}.", fix="ask for one that is there")


def _variants(files: list[str], stem: str, ending: str) -> dict[str, str]:
    """The file of each variant, or the index of its shards; that of the plain one is under the empty name."""
    whole = re.compile(rf"{stem}(?:\.(\w+))?\.{ending}")
    index = re.compile(rf"{stem}\.{ending}\.index(?:\.(\w+))?\.json")
    found: dict[str, str] = {}
    for pattern in (whole, index):
        for file in files:
            if match := pattern.fullmatch(file):
                found.setdefault(match[1] or "", file)
    return found


def _preferred(found: Mapping[str, str]) -> str:
    return next((name for name in ("", "fp16") if name in found), next(iter(found), "") if len(found) == 1 else "")


def read_prediction(folder: Path) -> tuple[Prediction, bool]:
    """What the network predicts, and whether its noise schedule ends in pure noise, by `scheduler_config.json`."""
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    kind = str(config.get("_class_name", ""))
    if kind.startswith(("EDM", "FlowMatch")):
        raise UserError(
            f"{path} names {kind}: the base was trained with another noise schedule than SD 1.5 and SDXL.",
            fix="take a base of SD 1.5 or SDXL; --set model.prediction does not help here",
        )
    for key, expected in _SCHEDULE.items():
        value = config.get(key, expected)
        are_numbers = isinstance(value, int | float) and isinstance(expected, float)
        same = math.isclose(value, expected) if are_numbers else value == expected
        if not same:
            raise UserError(
                f"{path} says {key} = {value!r}; bases of SD 1.5 and SDXL have {expected!r}.",
                fix="if the file is wrong, correct it there",
            )
    named = str(config.get("prediction_type", "epsilon"))
    if named not in _PREDICTIONS:
        raise UserError(
            f"{path} says prediction_type = {named!r}; expected epsilon or v_prediction.",
            fix="if the file is wrong, correct it there",
        )
    return _PREDICTIONS[named], bool(config.get("rescale_betas_zero_snr", False))


def read_json(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file, empty where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.", fix=AGAIN) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object.", fix=AGAIN)
    return content
