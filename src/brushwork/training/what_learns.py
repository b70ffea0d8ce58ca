"""What of a base the settings let learn, known from networks without weights."""

import math

import torch
from torch import nn

from brushwork.lora.state import component_of
from brushwork.lora.targets import find_targets, is_pointwise
from brushwork.models.spec import UNetSpec
from brushwork.models.text import empty_text_encoder
from brushwork.models.unet import UNet
from brushwork.training.beginning import begin, make_adapter
from brushwork.training.prepare import Preparation


def count_what_learns(preparation: Preparation) -> dict[str, tuple[int, int]]:
    """Modules and parameters by component."""
    counts: dict[str, tuple[int, int]] = {}
    for name, shape in learning_shapes(preparation).items():
        modules, parameters = counts.get(component_of(name), (0, 0))
        counts[component_of(name)] = (modules + (not name.endswith(".up")), parameters + math.prod(shape))
    return counts


def learning_shapes(preparation: Preparation) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that the settings let learn, from networks without weights."""
    lora = preparation.settings.lora
    if preparation.settings.train.mode == "full":
        weights = meta_unet(preparation.base.spec).named_parameters()
        return {f"unet.{name}": tuple(weight.shape) for name, weight in weights}
    components = meta_components(preparation)
    if lora.as_in_file:
        layers = make_adapter(components, lora, preparation.base.spec, seed=0).layers
        halves = {f"{name}.{half}": getattr(layer, half) for name, layer in layers.items() for half in ("down", "up")}
        return {name: tuple(half.shape) for name, half in halves.items()}
    if lora.text_encoder == "only":
        del components["unet"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, path in find_targets(components, lora.targets, text_encoder=bool(lora.text_encoder)).items():
        layer = components[component_of(name)].get_submodule(path)
        outputs, *inputs = layer.weight.shape  # type: ignore[misc]
        rank = lora.rank if is_pointwise(layer) else lora.conv_rank or lora.rank
        shapes[f"{name}.down"] = (rank, *inputs)
        shapes[f"{name}.up"] = (outputs, rank, *(1 for _ in inputs[1:]))
    return shapes


def meta_components(preparation: Preparation) -> dict[str, nn.Module]:
    """The UNet, and the text encoders where they learn: shapes without weights."""
    components: dict[str, nn.Module] = {"unet": meta_unet(preparation.base.spec)}
    if preparation.settings.lora.text_encoder:
        components |= {
            name: empty_text_encoder(part.config, with_projection=name == "text_encoder_2")
            for name, part in preparation.base.text_parts.items()
        }
    return components


def meta_unet(spec: UNetSpec) -> UNet:
    """A UNet with shapes and without weights."""
    with torch.device("meta"):
        return UNet(spec)


def check_beginning(preparation: Preparation) -> None:
    """Refuse a file to begin with that does not fit, before anything long starts."""
    lora, spec = preparation.settings.lora, preparation.base.spec
    if lora.begin_with is not None:
        begin(make_adapter(meta_components(preparation), lora, spec, seed=0), lora, spec)
