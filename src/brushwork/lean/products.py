"""A frozen weight and the adapters beside it, as the functions of the lean path take them.

Shapes in this file:  B pictures   N rows   I width in   O width out   R rank   H, W height and width
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from brushwork.lora.layers import LoRAConv2d, LoRALayer, base_layer
from brushwork.models.rounded import Rounded


class FrozenWeight(Protocol):
    """A weight of the base that does not learn. Functions keep this and not the tensor, so that what is stored in
    fewer bits is spread out where it is used, forward and backward, and never kept between."""

    def dense(self) -> Tensor:
        """The weight in the type of the computation."""


@dataclass(frozen=True)
class Dense:
    """A weight that is stored as it is used."""

    tensor: Tensor

    def dense(self) -> Tensor:
        """The weight itself."""
        return self.tensor


@dataclass(frozen=True)
class Stacked:
    """Weights in fewer bits of several layers that read the same: (O, I), one below the other."""

    parts: Sequence[Rounded]

    def dense(self) -> Tensor:
        """Spread out into one tensor."""
        rows = [part.shape[0] for part in self.parts]
        first = self.parts[0]
        together = torch.empty(sum(rows), *first.shape[1:], dtype=first.dtype, device=first.device)
        for part, own in zip(self.parts, torch.split(together, rows), strict=True):
            part.spread(own)
        return together


@dataclass(frozen=True)
class Branch:
    """One adapter's update of one layer: scale * (mask * x down^T) up^T.

    `down` and `up` are handed to the functions beside it, since autograd must see them.

    Args:
        layer: which of the layers of its product it belongs to.
        rank: R
        scale: strength * alpha / rank.
        mask: gives the mask of dropout for values of the shape that the plain layer drops; None: no dropout.
    """

    layer: int
    rank: int
    scale: float
    mask: Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Product:
    """A frozen layer, or several that read the same input, with every adapter beside them.

    Args:
        weight: (O, I), of several layers one below the other; a larger convolution's is (O, I, kh, kw).
        bias: (O,)
        widths: outputs of each layer, in sum O.
        branches: one for each adapter of each layer.
        factors: down and up of each branch in turn, float32.
    """

    weight: FrozenWeight
    bias: Tensor | None
    widths: tuple[int, ...]
    branches: tuple[Branch, ...]
    factors: tuple[Tensor, ...]

    @property
    def learns(self) -> bool:
        """Whether an adapter beside it asks for a gradient."""
        return any(factor.requires_grad for factor in self.factors)


def product_of(
    weight: FrozenWeight, layers: Sequence[nn.Module], *, on_map: tuple[int, int] | None = None
) -> Product:
    """What the layers compute now: strengths and dropout are those of this moment.

    Args:
        on_map: height and width, where a 1 x 1 convolution is computed as a Linear over the places of a map.
    """
    branches: list[Branch] = []
    factors: list[Tensor] = []
    for number, layer in enumerate(layers):
        for lora in adapters_of(layer):
            if not lora.is_left_out:
                branches.append(Branch(number, lora.down.shape[0], lora.scale, mask_of(lora, on_map)))
                factors += [lora.down, lora.up]
    bias = base_layer(layers[0]).bias if len(layers) == 1 else None
    assert bias is None or isinstance(bias, Tensor)
    return Product(weight, bias, tuple(num_outputs(layer) for layer in layers), tuple(branches), tuple(factors))


def num_outputs(layer: nn.Module) -> int:
    """O of a Linear or a convolution."""
    layer = base_layer(layer)
    if isinstance(layer, nn.Linear):
        return layer.out_features
    assert isinstance(layer, nn.Conv2d)
    return layer.out_channels


def adapters_of(layer: nn.Module) -> Iterator[LoRALayer]:
    """Every adapter around a layer of the base, the outermost first."""
    while isinstance(layer, LoRALayer):
        yield layer
        layer = layer.base


def mask_of(lora: LoRALayer, on_map: tuple[int, int] | None) -> Callable[[Tensor], Tensor] | None:
    """Dropout's mask under the layer's present key, with what is raised for it: the same whenever it is asked."""
    key = lora.dropout_key
    if key is None or (lora.dropout.inner == 0 and lora.dropout.rank == 0):
        return None
    if on_map is None or not isinstance(lora, LoRAConv2d):
        return lambda hidden: lora.drop(torch.ones_like(hidden), key)

    def as_tokens(hidden: Tensor) -> Tensor:
        """(B, H * W, R), drawn as the convolution draws it: (B, R, H, W)"""
        ones = hidden.new_ones(len(hidden), hidden.shape[-1], *on_map)
        return lora.drop(ones, key).flatten(2).transpose(1, 2)

    return as_tokens
