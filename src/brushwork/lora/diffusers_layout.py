"""The layouts of diffusers and PEFT: how alpha is kept there, and the adapter metadata that goes with the tensors.

Neither has an alpha tensor for each layer. The diffusers layout (`unet.PATH.lora.down.weight`) is read by programs
that know no alpha at all, so alpha / rank is multiplied into the weights. The PEFT layout (`unet.PATH.lora_A.weight`)
keeps them as they are and alpha in the metadata, where diffusers asks for every field of a PEFT LoraConfig.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from brushwork.errors import UserError
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.names import components_of
from brushwork.lora.state import TEXT_ENCODERS, AdapterState, component_of

METADATA_KEY = "lora_adapter_metadata"

_FIELDS: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": False,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 0,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "qalora_group_size": 16,
    "r": 0,
    "rank_pattern": {},
    "revision": None,
    "target_modules": [],
    "target_parameters": None,
    "task_type": None,
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}
"""LoraConfig.to_dict() of PEFT 0.17, the oldest that diffusers takes. Later PEFTs fill in what they added since; a
field that an older one does not know would end the load there."""


def folded(weights: LoRAWeights) -> LoRAWeights:
    """The same update with alpha = rank.

    The factor goes into `down`, whose numbers stay near 1/sqrt(I); those of `up` begin at 0, where fp16 is coarse.
    """
    return LoRAWeights(weights.down * (weights.alpha / weights.rank), weights.up, float(weights.rank))


def fold_all(state: AdapterState) -> AdapterState:
    """Every layer with alpha = rank."""
    return {name: folded(weights) for name, weights in state.items()}


def diffusers_tensors(state: AdapterState) -> dict[str, Tensor]:
    """The tensors under diffusers' own names; fold first.

    diffusers renames all keys or none, by the first it meets, so one ending is used throughout a component.
    """
    tensors = {}
    for name, weights in state.items():
        ending = "lora_linear_layer" if component_of(name) in TEXT_ENCODERS else "lora"
        if name.endswith(".text_projection"):
            ending = "lora"
        tensors[f"{name}.{ending}.down.weight"] = weights.down
        tensors[f"{name}.{ending}.up.weight"] = weights.up
    return tensors


def peft_tensors(state: AdapterState) -> dict[str, Tensor]:
    """The tensors under PEFT's names."""
    downs = {f"{name}.lora_A.weight": weights.down for name, weights in state.items()}
    return downs | {f"{name}.lora_B.weight": weights.up for name, weights in state.items()}


def adapter_metadata(state: AdapterState) -> str:
    """A whole LoraConfig for each component, as JSON, in the form in which diffusers writes it."""
    fields: dict[str, Any] = {}
    for component in components_of(state):
        layers = {_peft_path(name): weights for name, weights in state.items() if component_of(name) == component}
        rank, ranks = _common_and_others({path: weights.rank for path, weights in layers.items()})
        alpha, alphas = _common_and_others({path: _number(weights.alpha) for path, weights in layers.items()})
        own = {"r": rank, "rank_pattern": ranks, "lora_alpha": alpha, "alpha_pattern": alphas}
        own["target_modules"] = sorted(layers)
        fields |= {f"{component}.{key}": value for key, value in {**_FIELDS, **own}.items()}
    return json.dumps(fields, indent=2, sort_keys=True)


def config_fields(metadata: Mapping[str, str], source: str) -> dict[str, Any]:
    """The LoraConfigs in the metadata of a file; empty where there are none."""
    try:
        fields = json.loads(metadata.get(METADATA_KEY) or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: its {METADATA_KEY} is not JSON ({error}).", fix="write the file again") from error
    if not isinstance(fields, dict):
        raise UserError(f"{source}: its {METADATA_KEY} is not a JSON object.", fix="write the file again")
    return fields


class ConfiguredAlphas:
    """The alphas that the adapter metadata of a file tells, for layers without an alpha tensor.

    Args:
        fields: of a LoraConfig, each after its component and a dot.
        source: the file, for errors.
    """

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        self._fields = fields
        self._source = source
        for key, value in fields.items():
            if key.rpartition(".")[2] == "use_dora" and value:
                raise UserError(
                    f"{source} is a DoRA ({key} in its metadata). Brushwork applies plain LoRA only.",
                    fix="merge it into a base model in the program that made it",
                )

    def alpha(self, name: str, rank: int) -> float:
        """What alpha a layer of this rank has; alpha = rank where nothing is told."""
        component, _, path = name.partition(".")
        pattern = self._field(component, "alpha_pattern") or {}
        matched = next((key for key in pattern if _matches(key, path)), None)
        told = self._field(component, "lora_alpha") if matched is None else pattern[matched]
        if told is None:
            return float(rank)
        try:
            alpha = float(told)
        except (TypeError, ValueError):
            raise UserError(f"{self._source}: alpha of {name} is {told!r}.", fix="write the file again") from None
        # Rank-stabilised LoRA (arXiv:2312.03732) multiplies by alpha / sqrt(rank).
        return alpha * math.sqrt(rank) if self._field(component, "use_rslora") else alpha

    def _field(self, component: str, field: str) -> Any:
        """`unet.lora_alpha`, or `lora_alpha` where a file of the UNet alone has no prefixes."""
        return self._fields.get(f"{component}.{field}", self._fields.get(field) if component == "unet" else None)


def _matches(pattern: str, path: str) -> bool:
    """As PEFT matches: the end of the path, from a dot on; the pattern is a regular expression."""
    try:
        return any(re.match(rf"(.*\.)?({pattern})$", known) for known in (path, path.removeprefix("text_model.")))
    except re.error:
        return False


def _peft_path(name: str) -> str:
    """The path without `text_model.`: PEFT matches ends of paths, so it is found under transformers 4 and 5."""
    return name.partition(".")[2].removeprefix("text_model.")


def _common_and_others(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    counts = Counter(values.values())
    common = min(counts, key=lambda value: (-counts[value], value))  # of equally common ones the smallest
    return common, {path: value for path, value in sorted(values.items()) if value != common}


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
