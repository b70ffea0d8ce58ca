"""How the files of other programs spell the names of layers.

Every spelling is computed from the UNet's spec and looked up: turning underscores back into dots by rules is how
other readers lose layers in silence.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import torch

from brushwork.lora.inject import weight_shape
from brushwork.lora.state import canonical_name, component_of, named_layers
from brushwork.models.naming import module_to_ldm
from brushwork.models.spec import Family, UNetSpec
from brushwork.models.unet import UNet

KOHYA_PREFIXES: dict[Family, dict[str, str]] = {
    "sd15": {"unet": "lora_unet", "text_encoder": "lora_te"},
    "sdxl": {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
}
"""te1 is CLIP-L (768 wide), te2 is OpenCLIP bigG (1280): so in kohya's code; its documentation swaps them."""

_TEXT_LAYER = re.compile(r"(?:text_model\.)?(encoder\.layers\.\d+\.(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12]))")
_TEXT_FLAT = re.compile(r"text_model_encoder_layers_(\d+)_(self_attn|mlp)_((?:q|k|v|out)_proj|fc[12])")


@lru_cache(maxsize=8)
def unet_layers(spec: UNetSpec) -> Mapping[str, tuple[int, ...]]:
    """Canonical name -> shape of the weight of every Linear and Conv2d of the UNet."""
    with torch.device("meta"):
        unet = UNet(spec)
    return {name: weight_shape(layer) for name, _, layer in named_layers({"unet": unet})}


@lru_cache(maxsize=8)
def _unet_spellings(spec: UNetSpec) -> Mapping[str, str]:
    """Every way in which files write a layer of the UNet -> its canonical name."""
    spellings: dict[str, str] = {}
    for name in unet_layers(spec):
        path = name.removeprefix("unet.")
        ldm = module_to_ldm(path, spec)
        flat, flat_ldm = _flat(path), _flat(ldm)
        # kohya trains SDXL under sgm names; diffusers' export to kohya's layout keeps diffusers' names.
        spellings |= dict.fromkeys((f"lora_unet_{flat}", f"lora_unet_{flat_ldm}", f"lycoris_{flat}"), name)
        spellings |= dict.fromkeys((name, path, f"base_model.model.{path}"), name)
        spellings |= dict.fromkeys((f"diffusion_model.{ldm}", f"model.diffusion_model.{ldm}"), name)
    return spellings


def canonical(spelled: str, spec: UNetSpec) -> str | None:
    """The canonical name of a layer as a file spells it, or None where no layer of this family is called so."""
    for component, prefix in KOHYA_PREFIXES[spec.family].items():
        if component != "unet" and spelled.startswith((f"{prefix}_", f"{component}.")):
            return _canonical_text(component, spelled.removeprefix(f"{prefix}_").removeprefix(f"{component}."))
    return _unet_spellings(spec).get(spelled)


def _canonical_text(component: str, path: str) -> str | None:
    if path == "text_projection":
        return canonical_name(component, path)
    path = _TEXT_FLAT.sub(r"encoder.layers.\1.\2.\3", path)
    found = _TEXT_LAYER.fullmatch(path)
    return canonical_name(component, found[1]) if found else None


def spellings_of(spec: UNetSpec) -> list[str]:
    """All known spellings of the UNet's layers, to suggest one."""
    return list(_unet_spellings(spec))


def kohya_name(name: str, spec: UNetSpec) -> str:
    """How kohya's trainer writes a canonical name: SD 1.5 under diffusers' block names, SDXL under sgm's."""
    component, _, path = name.partition(".")
    prefix = KOHYA_PREFIXES[spec.family].get(component)
    if prefix is None:
        raise ValueError(f"an adapter of the family {spec.family} has no component {component!r}")
    if component == "unet" and spec.family == "sdxl":
        path = module_to_ldm(path, spec)
    return f"{prefix}_{_flat(path)}"


def components_of(names: Mapping[str, object]) -> list[str]:
    """The components that an adapter changes, in a fixed order."""
    present = {component_of(name) for name in names}
    return [component for component in ("unet", "text_encoder", "text_encoder_2") if component in present]


def _flat(path: str) -> str:
    return path.replace(".", "_")
