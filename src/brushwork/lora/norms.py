"""Max-norm: no layer's update grows beyond a limit (kohya's `scale_weight_norms`).

Shapes in this file:  I inputs of a weight   O outputs   R rank
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from brushwork.lora.layers import LoRALayer


@torch.no_grad()
def limit_norms(layers: Iterable[LoRALayer], *, largest: float) -> None:
    """Scale each update whose Frobenius norm is above `largest` down to it, both factors alike, in place."""
    for layer in layers:
        # No value is looked at: asking a card for the norm would make it stand still for each layer.
        factor = (largest / norm(layer)).clamp(max=1.0).sqrt()
        layer.down.mul_(factor)
        layer.up.mul_(factor)


def norm(layer: LoRALayer) -> Tensor:
    """Frobenius norm of alpha / rank * up @ down, without the product: ||U D||^2 = sum of (U^T U) * (D D^T). -> ()"""
    down, up = layer.down.flatten(1), layer.up.flatten(1)  # (R, I), (O, R)
    squared = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0.0)  # (R, R) each
    return squared.sqrt() * (layer.alpha / layer.down.shape[0])
