"""Which layers learn: the sets that people name, and patterns of their own."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from brushwork.errors import UserError, nearest
from brushwork.lora.layers import base_layer
from brushwork.lora.state import TEXT_ENCODERS, Components, component_of, named_layers

_ATTENTION = re.compile(r"\.attn[12]\.to_[qkv]$")
_ATTENTION_OUT = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")
_TRANSFORMER = re.compile(r"(^|\.)attentions\.\d+\.")
_CONVOLUTION_BLOCK = re.compile(r"(^|\.)(resnets|downsamplers|upsamplers)\.\d+\.")
_TEXT_QKV = re.compile(r"\.self_attn\.[qkv]_proj$")
_TEXT_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_TEXT_ALL = re.compile(r"\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")


def is_pointwise(layer: nn.Module) -> bool:
    """Whether the layer sees one place at a time: a Linear or a 1 x 1 convolution."""
    layer = base_layer(layer)
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _kohya(path: str, layer: nn.Module) -> bool:
    return bool(_TRANSFORMER.search(path)) and is_pointwise(layer)


UNET_TARGETS: dict[str, Callable[[str, nn.Module], bool]] = {
    "attention": lambda path, _: bool(_ATTENTION.search(path)),
    "attention_out": lambda path, _: bool(_ATTENTION_OUT.search(path)),
    "all": lambda _, layer: isinstance(base_layer(layer), nn.Linear),
    "kohya": _kohya,
    "kohya_conv": lambda path, layer: _kohya(path, layer) or bool(_CONVOLUTION_BLOCK.search(path)),
}
"""The named sets of the UNet. `all` is every Linear, as the papers count; kohya's never takes the time embedding."""

TEXT_TARGETS = {"attention": _TEXT_QKV, "attention_out": _TEXT_ATTENTION}
"""What the same words mean in a text encoder; the other sets, and patterns that name none of it, take `_TEXT_ALL`."""


def find_targets(components: Components, targets: str | Sequence[str], *, text_encoder: bool) -> dict[str, str]:
    """Canonical name -> path in its component of every layer that learns, in the order of the network.

    Args:
        targets: the name of a set, or names and patterns: `to_q`, `attn2` or `mid_block.attentions` stands for every
            layer with that in its path, `up_blocks.*.to_k` for what the wildcards match from any dot to the end.
        text_encoder: whether the text encoders among the components learn too.
    """
    layers = [entry for entry in named_layers(components) if text_encoder or component_of(entry[0]) == "unet"]
    if isinstance(targets, str) and targets in UNET_TARGETS:
        chosen = _named_set(layers, targets)
    else:
        patterns = [targets] if isinstance(targets, str) else list(targets)
        chosen = _by_patterns(layers, patterns)
    found = {name: path for name, path, _ in layers if name in chosen}
    if not found:
        raise UserError(
            f"lora.targets = {targets!r} leaves no layer to train.", fix='--set lora.targets="attention_out"'
        )
    return found


def _named_set(layers: Sequence[tuple[str, str, nn.Module]], targets: str) -> set[str]:
    text = TEXT_TARGETS.get(targets, _TEXT_ALL)
    return {
        name
        for name, path, layer in layers
        if (text.search(name) if component_of(name) in TEXT_ENCODERS else UNET_TARGETS[targets](path, layer))
    }


def _by_patterns(layers: Sequence[tuple[str, str, nn.Module]], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {name for name, _, _ in layers if matches(pattern, name)}
        if not matched:
            raise _nothing_matched(pattern, [name for name, _, _ in layers])
        chosen |= matched
    if not any(component_of(name) in TEXT_ENCODERS for name in chosen):
        chosen |= {name for name, _, _ in layers if component_of(name) in TEXT_ENCODERS and _TEXT_ALL.search(name)}
    return chosen


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern means the layer with this canonical name: whole parts of the path, or shell wildcards."""
    if any(letter in pattern for letter in "*?["):
        return fnmatchcase(f".{name}", f"*.{pattern}")
    return f".{pattern}." in f".{name}."


def _nothing_matched(pattern: str, names: Sequence[str]) -> UserError:
    words = set(UNET_TARGETS)
    for name in names:
        pieces = name.split(".")
        words.update([name, *pieces, ".".join(pieces[-2:])])
    close = nearest(pattern, sorted(words))
    fix = f"did you mean {close!r}?" if close else f"use {', '.join(UNET_TARGETS)}, or a list of names such as to_q"
    return UserError(f"lora.targets: no layer of this base is named {pattern!r}.", fix=fix)
