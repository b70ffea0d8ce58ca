"""Which base an adapter was made for, found from its names and shapes; or what else it is, where none of ours."""

import math
import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from brushwork.errors import UserError, nearest
from brushwork.lora.keys import Part
from brushwork.lora.names import canonical, spellings_of, unet_layers
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec

Modules = Mapping[str, Mapping[Part, Tensor]]

NAMED = {"SD 1.5": SD15, "SDXL": SDXL, "the bundled model": TINY}

_OTHER_NETWORKS = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux"),
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"lora_prior_unet|down_blocks_\d+_\d+_(mapper|attention)", "Stable Cascade"),
    (r"lora_te3_|t5xxl", "a model with a T5 text encoder"),
    (r"^transformer\.", "a diffusion transformer, not a UNet"),
)


def resolve(
    modules: Modules, *, spec: UNetSpec | None, metadata: Mapping[str, str], source: str
) -> tuple[UNetSpec, dict[str, str]]:
    """The spec that every module of the file fits, and the canonical name of each.

    Args:
        modules: the parts of each layer, by the layer's name as the file spells it.
        spec: the base that it must fit; None tries the named ones.
    """
    if other := _other_network(modules):
        raise UserError(
            f"{source} was made for {other}; Brushwork works with SD 1.5 and SDXL.",
            fix="take an adapter that was trained on SD 1.5 or SDXL",
        )
    candidates = list(NAMED.values()) if spec is None else [spec]
    if spec is None and _says_sdxl(modules, metadata):
        candidates = [SDXL, TINY]
    for candidate in candidates:
        names = {spelled: canonical(spelled, candidate) for spelled in modules}
        if all(name and _fits(modules[spelled], unet_layers(candidate).get(name)) for spelled, name in names.items()):
            return candidate, {spelled: name for spelled, name in names.items() if name}
    raise _fits_nowhere(modules, candidates, given=spec, source=source)


def describe(spec: UNetSpec) -> str:
    """The name of a spec, for messages."""
    known = next((name for name, named in NAMED.items() if named == spec), None)
    return known or f"a model of the family {spec.family} with {spec.channels} channels"


def _says_sdxl(modules: Modules, metadata: Mapping[str, str]) -> bool:
    """A file with nothing but the first text encoder fits both families by its names; its metadata may tell."""
    told = metadata.get("modelspec.architecture", "") + metadata.get("ss_base_model_version", "")
    return ("xl" in told) and all(spelled.startswith("text_encoder.") for spelled in modules)


def _fits(parts: Mapping[Part, Tensor], shape: Sequence[int] | None) -> bool:
    """Whether down and up multiply to a weight of this shape; the shapes of text encoders are seen when applied."""
    if shape is None:
        return True
    rank, (outputs, *inputs) = parts["down"].shape[0], shape
    return parts["down"].numel() == rank * math.prod(inputs) and parts["up"].numel() == outputs * rank


def _fits_nowhere(
    modules: Modules, candidates: Sequence[UNetSpec], *, given: UNetSpec | None, source: str
) -> UserError:
    if given is not None:
        for name, other_spec in NAMED.items():
            if other_spec != given and _count_fitting(modules, other_spec) == len(modules):
                return UserError(
                    f"{source} is an adapter for {name}; the base is {describe(given)}.",
                    fix=f"use a base of {name}, or an adapter for {describe(given)}",
                )
    closest = max(candidates, key=lambda candidate: _count_fitting(modules, candidate))
    unknown = [spelled for spelled in modules if canonical(spelled, closest) is None]
    if unknown:
        close = nearest(unknown[0], spellings_of(closest))
        return UserError(
            f"{len(unknown)} of the {len(modules)} modules in {source} are not in {describe(closest)}; the first is "
            f"{unknown[0]}" + (f" (nearest: {close})." if close else "."),
            fix="nothing of it was used; take an adapter that was trained on SD 1.5 or SDXL",
        )
    odd, shape = next(
        (spelled, shape)
        for spelled in modules
        if not _fits(modules[spelled], shape := unet_layers(closest).get(canonical(spelled, closest) or ""))
    )
    down, up = (tuple(modules[odd][part].shape) for part in ("down", "up"))
    return UserError(
        f"{source}: {odd} is {down} and {up}, and the layer of {describe(closest)} is {tuple(shape or ())}.",
        fix="nothing of it was used; take an adapter that was trained on this base",
    )


def _count_fitting(modules: Modules, spec: UNetSpec) -> int:
    names = {spelled: canonical(spelled, spec) for spelled in modules}
    return sum(
        name is not None and _fits(modules[spelled], unet_layers(spec).get(name)) for spelled, name in names.items()
    )


def _other_network(modules: Modules) -> str | None:
    for pattern, network in _OTHER_NETWORKS:
        if any(re.search(pattern, spelled) for spelled in modules):
            return network
    context = _width(modules, r"attn2[._]to_k$")
    if context == 1024 or _width(modules, r"^(lora_te_|text_encoder\.).*self_attn[._]q_proj$") == 1024:
        return "Stable Diffusion 2 (text states 1024 wide)"
    if context == 1280:
        return "the SDXL refiner (text states 1280 wide)"
    return None


def _width(modules: Modules, pattern: str) -> int | None:
    """The inputs of the first layer whose name matches."""
    return next((parts["down"].shape[1] for spelled, parts in modules.items() if re.search(pattern, spelled)), None)
