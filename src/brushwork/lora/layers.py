"""A layer of the base with a low-rank update beside it.

Shapes in this file:  I width in   O width out   R rank   kh, kw kernel of a convolution
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brushwork.models.rounded import RoundedConv2d, RoundedLinear
from brushwork.runtime import derive_seed


@dataclass(frozen=True)
class LoRAWeights:
    """The update of one layer, in the canonical form: fp32, alpha kept apart. delta = alpha / rank * up @ down.

    Args:
        down: (R, I) or, for a convolution, (R, I, kh, kw).
        up: (O, R) or (O, R, 1, 1).
        alpha: the strength with which it was trained.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """R"""
        return self.down.shape[0]


@dataclass(frozen=True)
class Dropout:
    """What of an update is left out in training, each a share from 0 to below 1.

    Args:
        inner: of the R inner activations at each place; the others are raised in proportion.
        rank: of the R ranks, for each picture of the batch; the others are raised in proportion.
        module: of the layers; a layer that is chosen adds nothing to the whole batch, and nothing is raised for it.
    """

    inner: float = 0.0
    rank: float = 0.0
    module: float = 0.0


class LoRALayer(nn.Module, ABC):
    """base(x) + strength * alpha / rank * up(down(x)): the base is frozen, `down` and `up` are fp32 and may train.

    Args:
        base: the layer of the base model, or another LoRA layer around it.
        weights: what `down`, `up` and `alpha` begin with; copied to the device of the base.
        dropout: what is left out in training, drawn from `dropout_key`; None there leaves out nothing.
        index: the layer's number in its adapter, which gives it dropout masks of its own.
    """

    def __init__(
        self, base: nn.Module, weights: LoRAWeights, *, dropout: Dropout = Dropout(), index: int = 0
    ) -> None:
        super().__init__()
        device = device_of(base_layer(base))
        self.base = base
        self.down = nn.Parameter(weights.down.detach().to(device=device, dtype=torch.float32, copy=True))
        self.up = nn.Parameter(weights.up.detach().to(device=device, dtype=torch.float32, copy=True))
        self.alpha = weights.alpha
        self.strength = 1.0
        self.dropout = dropout
        self.index = index
        self.dropout_key: int | None = None

    @property
    def scale(self) -> float:
        """What the product of `up` and `down` is multiplied by."""
        return self.strength * self.alpha / self.down.shape[0]

    @property
    def weight(self) -> Any:
        """The base's own weight, for code that asks a layer for its type or device."""
        return self.base.weight

    @property
    def bias(self) -> Any:
        """The base's own bias."""
        return self.base.bias

    def weights(self) -> LoRAWeights:
        """A copy of the update as it is now, on the CPU."""
        down, up = (part.detach().to("cpu", torch.float32, copy=True) for part in (self.down, self.up))
        return LoRAWeights(down=down, up=up, alpha=self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., I) -> (B, ..., O), or (B, I, H, W) -> (B, O, H', W')"""
        out: Tensor = self.base(x)
        if self.is_left_out:
            return out
        hidden = self.inner(x)
        if self.dropout_key is not None:
            hidden = self.drop(hidden, self.dropout_key)
        # The scale goes onto the narrow side: R numbers a place, not O.
        return out + self.outer(hidden * self.scale)

    @property
    def is_left_out(self) -> bool:
        """Whether the layer's whole update is dropped under the present key."""
        if self.dropout_key is None or self.dropout.module == 0:
            return False
        source = torch.Generator().manual_seed(derive_seed(self.dropout_key, "module dropout", self.index))
        return float(torch.rand((), generator=source)) < self.dropout.module

    def drop(self, hidden: Tensor, key: int) -> Tensor:
        """The same key gives the same mask, so that a checkpointed block computed twice sees one mask."""
        if self.dropout.inner > 0:
            kept = self._kept(
                hidden.shape, self.dropout.inner, derive_seed(key, "dropout", self.index), hidden.device
            )
            hidden = hidden * kept / (1 - self.dropout.inner)
        if self.dropout.rank > 0:
            seed = derive_seed(key, "rank dropout", self.index)
            kept = self._kept(self._one_for_each_rank(hidden), self.dropout.rank, seed, hidden.device)
            hidden = hidden * kept / (1 - self.dropout.rank)
        return hidden

    def _kept(self, shape: Sequence[int], dropped: float, seed: int, device: torch.device) -> Tensor:
        source = torch.Generator(device).manual_seed(seed)
        return torch.rand(shape, generator=source, device=device) >= dropped

    @abstractmethod
    def _one_for_each_rank(self, hidden: Tensor) -> tuple[int, ...]:
        """The shape of a mask with one number for each picture and rank."""

    @abstractmethod
    def inner(self, x: Tensor) -> Tensor:
        """The product with `down`, in the type of x."""

    @abstractmethod
    def outer(self, hidden: Tensor) -> Tensor:
        """The product with `up`, in the type of `hidden`."""


class LoRALinear(LoRALayer):
    """The update beside an `nn.Linear`."""

    def _one_for_each_rank(self, hidden: Tensor) -> tuple[int, ...]:
        """(B, ..., R) -> (B, 1, ..., R)"""
        return hidden.shape[0], *[1] * (hidden.ndim - 2), hidden.shape[-1]

    def inner(self, x: Tensor) -> Tensor:
        """(B, ..., I) -> (B, ..., R)"""
        return F.linear(x, self.down.to(x.dtype))

    def outer(self, hidden: Tensor) -> Tensor:
        """(B, ..., R) -> (B, ..., O)"""
        return F.linear(hidden, self.up.to(hidden.dtype))


class LoRAConv2d(LoRALayer):
    """The update beside an `nn.Conv2d`: `down` walks over the picture as the base does, `up` is 1 x 1."""

    def __init__(
        self, base: nn.Module, weights: LoRAWeights, *, dropout: Dropout = Dropout(), index: int = 0
    ) -> None:
        super().__init__(base, weights, dropout=dropout, index=index)
        innermost = base_layer(base)
        assert isinstance(innermost, nn.Conv2d)
        if innermost.groups != 1 or innermost.padding_mode != "zeros" or isinstance(innermost.padding, str):
            raise ValueError("only plain convolutions (one group, padding of zeros) can carry a LoRA")
        self.stride, self.padding, self.dilation = innermost.stride, innermost.padding, innermost.dilation

    def _one_for_each_rank(self, hidden: Tensor) -> tuple[int, ...]:
        """(B, R, H', W') -> (B, R, 1, 1)"""
        return *hidden.shape[:2], 1, 1

    def inner(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, R, H', W')"""
        return F.conv2d(x, self.down.to(x.dtype), None, self.stride, self.padding, self.dilation)

    def outer(self, hidden: Tensor) -> Tensor:
        """(B, R, H', W') -> (B, O, H', W')"""
        return F.conv2d(hidden, self.up.to(hidden.dtype))


def device_of(layer: nn.Module) -> torch.device:
    """Where a layer of the base computes; a weight in fewer bits is not spread out for the question."""
    if isinstance(layer, RoundedLinear | RoundedConv2d):
        return layer.stored.device
    assert isinstance(layer.weight, Tensor)
    return layer.weight.device


def base_layer(module: nn.Module) -> nn.Module:
    """The layer of the base model inside any number of LoRA layers."""
    while isinstance(module, LoRALayer):
        module = module.base
    return module
