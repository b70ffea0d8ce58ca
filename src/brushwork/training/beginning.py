"""The adapter that a run teaches: made as the settings say, or like a file, and begun with that file's weights."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from brushwork.config.schema import LoRAConfig
from brushwork.errors import UserError
from brushwork.generation.adapters import adapter_file
from brushwork.lora.files import read_adapter
from brushwork.lora.inject import Adapter, begin_as, inject
from brushwork.lora.layers import Dropout, LoRAWeights
from brushwork.lora.state import TEXT_ENCODERS, AdapterState, component_of
from brushwork.models.spec import UNetSpec


def make_adapter(components: Mapping[str, nn.Module], lora: LoRAConfig, spec: UNetSpec, *, seed: int) -> Adapter:
    """Freeze the components, and put an untrained adapter beside them.

    Args:
        components: the UNet, and the text encoders where they learn.
        spec: of the base, which `lora.begin_with` must fit.
    """
    dropout = Dropout(inner=lora.dropout, rank=lora.rank_dropout, module=lora.module_dropout)
    if lora.as_in_file:
        state = read_beginning(lora, spec)
        _refuse_other_parts(lora, state)
        # `up` is zero until `begin` fills it: the pictures of the base are drawn before.
        silent = {name: LoRAWeights(each.down, torch.zeros_like(each.up), each.alpha) for name, each in state.items()}
        return begin_as(components, silent, dropout=dropout)
    if lora.text_encoder == "only":
        components["unet"].requires_grad_(False)
        components = {name: component for name, component in components.items() if name != "unet"}
    return inject(
        components,
        targets=lora.targets,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=dropout,
        conv_rank=lora.conv_rank,
        conv_alpha=lora.conv_alpha,
        rslora=lora.rslora,
        text_encoder=bool(lora.text_encoder),
        seed=seed,
    )


def read_beginning(lora: LoRAConfig, spec: UNetSpec) -> AdapterState:
    """The adapter that `lora.begin_with` names, a file or a run folder; refused where it is for another base."""
    assert lora.begin_with is not None
    return read_adapter(adapter_file(Path(lora.begin_with)), spec=spec).state


@torch.no_grad()
def begin(adapter: Adapter, lora: LoRAConfig, spec: UNetSpec) -> None:
    """Give the adapter the weights of `lora.begin_with`, if it names a file; what that does not hold stays untrained.

    Raises:
        UserError: the file has a layer that the adapter has not, or with another rank or strength.
    """
    if lora.begin_with is None:
        return
    state = read_beginning(lora, spec)
    for name, weights in state.items():
        if name not in adapter.layers:
            raise UserError(
                f"lora.begin_with: {lora.begin_with} teaches {name}, which these settings do not.",
                fix="--set lora.as_in_file=true, or the lora.targets and lora.text_encoder that it was trained with",
            )
        layer = adapter.layers[name]
        rank, alpha = layer.down.shape[0], layer.alpha
        if weights.rank != rank or not math.isclose(weights.alpha, alpha, rel_tol=1e-6):  # alpha stands there as fp32
            raise UserError(
                f"lora.begin_with: {name} has rank {weights.rank} and alpha {weights.alpha:g} in {lora.begin_with}; "
                f"these settings make it rank {rank} and alpha {alpha:g}.",
                fix="--set lora.as_in_file=true, or the lora.rank and lora.alpha that it was trained with",
            )
        layer.down.copy_(weights.down.reshape(layer.down.shape))
        layer.up.copy_(weights.up.reshape(layer.up.shape))


def _refuse_other_parts(lora: LoRAConfig, state: AdapterState) -> None:
    """Stop where the file teaches other parts of the base than the settings."""
    parts = {component_of(name) for name in state}
    with_text, with_unet = not parts.isdisjoint(TEXT_ENCODERS), "unet" in parts
    if with_text == bool(lora.text_encoder) and with_unet == (lora.text_encoder != "only"):
        return
    told = str(lora.text_encoder).lower()
    raise UserError(
        f"lora.begin_with: {lora.begin_with} teaches {' and '.join(sorted(parts))}, which is not what "
        f"lora.text_encoder = {told} says.",
        fix=f"--set lora.text_encoder={'only' if not with_unet else str(with_text).lower()}",
    )
