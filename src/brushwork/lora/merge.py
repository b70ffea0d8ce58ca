"""An adapter becomes part of the weights.

Shapes in this file:  I width in   O width out   R rank   kh, kw kernel of a convolution
"""

import torch
from torch import Tensor

from brushwork.errors import UserError
from brushwork.lora.inject import fitted, refuse_unused
from brushwork.lora.layers import LoRAWeights, base_layer
from brushwork.lora.state import AdapterState, Components, named_layers
from brushwork.models.rounded import is_rounded


def delta(weights: LoRAWeights) -> Tensor:
    """What the adapter adds to a weight: (O, I) or (O, I, kh, kw), fp32."""
    product = weights.up.flatten(1) @ weights.down.flatten(1)  # (O, I * kh * kw)
    return (product * (weights.alpha / weights.rank)).reshape(weights.up.shape[0], *weights.down.shape[1:])


def fuse(components: Components, state: AdapterState, *, strength: float = 1.0) -> int:
    """Add the adapter to the base's own weights, rounded once to their type; the number of layers that changed.

    Nothing is added where one layer of `state` has no place. There is no way back but to load the base again.
    """
    refuse_unused(components, state)
    for name, _, layer in named_layers(components):
        if name in state:
            if is_rounded(base_layer(layer)):
                raise UserError(
                    "an adapter cannot be added to weights that are kept in fewer bits, or that come and go: it "
                    "would be rounded away, or left behind.",
                    fix="leave --fuse out, or --set model.quantize=off --set train.stream=off",
                )
            weight = base_layer(layer).weight
            assert isinstance(weight, Tensor)
            change = delta(fitted(state[name], layer, name)).to(weight.device)
            with torch.no_grad():
                weight.copy_(weight.float() + strength * change)
    return len(state)
