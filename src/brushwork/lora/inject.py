"""An adapter goes beside the base's layers, and comes off again.

Shapes in this file:  I width in   O width out   R rank   kh, kw kernel of a convolution
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from brushwork.errors import UserError, nearest
from brushwork.lora.layers import Dropout, LoRAConv2d, LoRALayer, LoRALinear, LoRAWeights, base_layer
from brushwork.lora.state import AdapterState, Components, component_of, named_layers
from brushwork.lora.targets import find_targets, is_pointwise
from brushwork.runtime import generator


class Adapter:
    """The LoRA layers of one adapter, in place in the components they were put into.

    Args:
        components: the networks, by component name.
        paths: canonical name -> path of the layer in its component.
        layers: canonical name -> the LoRA layer that stands there now.
    """

    def __init__(self, components: Components, paths: Mapping[str, str], layers: Mapping[str, LoRALayer]) -> None:
        self._components = components
        self._paths = dict(paths)
        self.layers = dict(layers)

    @property
    def num_modules(self) -> int:
        """How many layers of the base this adapter changes."""
        return len(self.layers)

    def parameters(self, component: str | None = None) -> list[nn.Parameter]:
        """Every fp32 weight, or those of one component: `unet`, `text_encoder`, `text_encoder_2`."""
        chosen = (layer for name, layer in self.layers.items() if component in (None, component_of(name)))
        return [part for layer in chosen for part in (layer.down, layer.up)]

    def state(self) -> AdapterState:
        """Copies of all weights, on the CPU."""
        return {name: layer.weights() for name, layer in self.layers.items()}

    def load(self, state: AdapterState) -> None:
        """Take the weights of `state`, which must have the same layers, ranks and shapes; alpha stays what it is."""
        _require_same_names(state, self.layers)
        for name, layer in self.layers.items():
            weights = state[name]
            if weights.down.shape != layer.down.shape or weights.up.shape != layer.up.shape:
                raise UserError(
                    f"{name} has rank {weights.rank} and shapes {_shapes(weights.down, weights.up)} in the file; "
                    f"this adapter has rank {layer.down.shape[0]} and {_shapes(layer.down, layer.up)}.",
                    fix=f"--set lora.rank={weights.rank}",
                )
            with torch.no_grad():
                layer.down.copy_(weights.down)
                layer.up.copy_(weights.up)

    def set_dropout_key(self, key: int | None) -> None:
        """Draw dropout masks from this key from now on (one for each step); None switches dropout off."""
        for layer in self.layers.values():
            if layer.dropout != Dropout():  # a number that changes makes a compiled block be compiled again
                layer.dropout_key = key

    def set_strength(self, strength: float) -> None:
        """Multiply the whole update: 0 is the base, 1 the adapter as trained."""
        for layer in self.layers.values():
            layer.strength = strength

    def detach(self) -> None:
        """Put the base's own layers back, also from under adapters that were put on later."""
        for name, layer in self.layers.items():
            parent, attribute = _place(self._components[component_of(name)], self._paths[name])
            standing = getattr(parent, attribute)
            if standing is layer:
                setattr(parent, attribute, layer.base)
                continue
            while isinstance(standing, LoRALayer) and standing.base is not layer:
                standing = standing.base
            if isinstance(standing, LoRALayer):
                standing.base = layer.base


def inject(
    components: Components,
    *,
    targets: str | Sequence[str],
    rank: int,
    alpha: float | None = None,
    dropout: Dropout = Dropout(),
    conv_rank: int | None = None,
    conv_alpha: float | None = None,
    rslora: bool = False,
    text_encoder: bool = False,
    seed: int = 0,
) -> Adapter:
    """Freeze the base, then put an untrained adapter beside the target layers; it changes nothing yet.

    Args:
        rank: of Linear layers and 1 x 1 convolutions; alpha None means alpha = rank.
        conv_rank: of larger convolutions; None means `rank`, and conv_alpha None means the factor alpha / rank.
        rslora: divide alpha by the root of the rank and not by the rank.
        seed: the start of `down` follows from it and the layer's name alone.
    """
    for component in components.values():
        component.requires_grad_(False)
    alpha = float(rank if alpha is None else alpha)
    conv_rank = rank if conv_rank is None else conv_rank
    conv_alpha = alpha / rank * conv_rank if conv_alpha is None else conv_alpha
    paths = find_targets(components, targets, text_encoder=text_encoder)
    state = {}
    for name, path in paths.items():
        layer = components[component_of(name)].get_submodule(path)
        own_rank, own_alpha = (rank, alpha) if is_pointwise(layer) else (conv_rank, conv_alpha)
        if rslora:
            own_alpha *= math.sqrt(own_rank)  # as every program understands it: alpha / sqrt(r) = alpha sqrt(r) / r
        state[name] = untrained(weight_shape(layer), rank=own_rank, alpha=own_alpha, seed=seed, name=name)
    return _put(components, paths, state, dropout=dropout)


def begin_as(components: Components, start: AdapterState, *, dropout: Dropout = Dropout()) -> Adapter:
    """Freeze the base, then put an adapter with the layers, ranks, alphas and weights of `start` beside it."""
    for component in components.values():
        component.requires_grad_(False)
    refuse_unused(components, start)
    paths = {name: path for name, path, _ in named_layers(components) if name in start}
    return _put(components, paths, start, dropout=dropout)


def untrained(shape: Sequence[int], *, rank: int, alpha: float, seed: int, name: str) -> LoRAWeights:
    """The start of training: `down` uniform in +-1/sqrt(inputs), as kohya and PEFT draw it, and `up` zero."""
    outputs, *inputs = shape
    bound = 1 / math.sqrt(math.prod(inputs))
    down = torch.rand((rank, *inputs), generator=generator(seed, f"lora/{name}")) * (2 * bound) - bound
    return LoRAWeights(down=down, up=torch.zeros(outputs, rank, *[1] * (len(inputs) - 1)), alpha=alpha)


def apply(components: Components, state: AdapterState, *, strength: float = 1.0) -> Adapter:
    """Put a finished adapter beside the layers it was made for; every one of its layers is used, or none."""
    paths = {name: path for name, path, _ in named_layers(components) if name in state}
    refuse_unused(components, state)
    ordered = {name: state[name] for name in paths}
    adapter = _put(components, paths, ordered, dropout=Dropout())
    for parameter in adapter.parameters():
        parameter.requires_grad_(False)
    adapter.set_strength(strength)
    return adapter


def refuse_unused(components: Components, state: AdapterState) -> None:
    """Stop where a layer of `state` is not in the components, or has another shape there."""
    layers = {name: layer for name, _, layer in named_layers(components)}
    unused = [name for name in state if name not in layers]
    if unused:
        close = nearest(unused[0], layers)
        raise UserError(
            f"{len(unused)} of the adapter's {len(state)} modules are not in this base, the first is {unused[0]}"
            + (f" (nearest here: {close})." if close else "."),
            fix="use the base family that the adapter was trained on (`brushwork inspect FILE` tells)",
        )
    for name, weights in state.items():
        fitted(weights, layers[name], name)


def fitted(weights: LoRAWeights, layer: nn.Module, name: str) -> LoRAWeights:
    """The weights in the shape of their layer: a 1 x 1 convolution may be written as a Linear, and the reverse."""
    outputs, *inputs = weight_shape(layer)
    ones = [1] * (len(inputs) - 1)
    wanted = (weights.rank, *inputs), (outputs, weights.rank, *ones)
    if math.prod(wanted[0]) != weights.down.numel() or math.prod(wanted[1]) != weights.up.numel():
        raise UserError(
            f"{name} is {_shapes(weights.down, weights.up)} in the adapter, and the base's layer needs "
            f"{wanted[0]} and {wanted[1]}: the adapter was made for another model.",
            fix="use the base family that the adapter was trained on (`brushwork inspect FILE` tells)",
        )
    return LoRAWeights(weights.down.reshape(wanted[0]), weights.up.reshape(wanted[1]), weights.alpha)


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """(O, I) or (O, I, kh, kw): from what the layer does, since a quantised weight is packed into another shape."""
    layer = base_layer(layer)
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    assert isinstance(layer, nn.Conv2d)
    return layer.out_channels, layer.in_channels, *layer.kernel_size


def _put(components: Components, paths: Mapping[str, str], state: AdapterState, *, dropout: Dropout) -> Adapter:
    layers: dict[str, LoRALayer] = {}
    for index, (name, path) in enumerate(paths.items()):
        parent, attribute = _place(components[component_of(name)], path)
        standing = getattr(parent, attribute)
        kind = LoRAConv2d if isinstance(base_layer(standing), nn.Conv2d) else LoRALinear
        layers[name] = kind(standing, fitted(state[name], standing, name), dropout=dropout, index=index)
        setattr(parent, attribute, layers[name])
    return Adapter(components, paths, layers)


def _place(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, attribute = path.rpartition(".")
    return root.get_submodule(parent), attribute


def _shapes(*tensors: Tensor) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _require_same_names(state: AdapterState, layers: Mapping[str, LoRALayer]) -> None:
    missing = [name for name in layers if name not in state]
    unused = [name for name in state if name not in layers]
    if missing or unused:
        first = (missing or unused)[0]
        raise UserError(
            f"the adapter in the file has {len(state)} modules, this one {len(layers)}; "
            f"{first} is only in {'this one' if missing else 'the file'}.",
            fix="use the same lora.targets and lora.text_encoder as the run that wrote it",
        )
