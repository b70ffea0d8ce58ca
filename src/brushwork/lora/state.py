"""The one form that every adapter has in memory, and the names in it.

A canonical name is the component, a dot, and the path of the layer: `unet.` + the diffusers path, `text_encoder.` or
`text_encoder_2.` + the path in the published checkpoints, `text_model.encoder.layers.0...`. Names are never taken
from an installed library: transformers 5 dropped `text_model.` from CLIPTextModel and kept it in
CLIPTextModelWithProjection, while every file of the field has it.
"""

from collections.abc import Iterator, Mapping

from torch import nn

from brushwork.lora.layers import LoRALayer, LoRAWeights

AdapterState = dict[str, LoRAWeights]
Components = Mapping[str, nn.Module]

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_WRAPPER = "text_model."


def canonical_name(component: str, path: str) -> str:
    """The canonical name of the layer that this installation has at `path` of `component`."""
    if component in TEXT_ENCODERS and path.startswith(("encoder.", "embeddings.", "final_layer_norm")):
        path = _WRAPPER + path
    return f"{component}.{path}"


def component_of(name: str) -> str:
    """`unet`, `text_encoder` or `text_encoder_2`: the part before the first dot of a canonical name."""
    return name.partition(".")[0]


def named_layers(components: Components) -> Iterator[tuple[str, str, nn.Module]]:
    """Every layer of the base that could carry a LoRA: canonical name, path in its component, module."""
    for component, root in components.items():
        yield from ((canonical_name(component, path), path, layer) for path, layer in _walk(root, ""))


def _walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Linear and Conv2d layers below `module`; a layer that carries a LoRA already is one layer, not four."""
    if isinstance(module, LoRALayer | nn.Linear | nn.Conv2d):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _walk(child, f"{path}.{name}" if path else name)
