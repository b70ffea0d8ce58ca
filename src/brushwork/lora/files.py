"""Adapter files: read in every layout of the field, written in three.

Shapes in this file:  I width in   O width out   R rank   kh, kw kernel of a convolution
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from brushwork.errors import UserError
from brushwork.lora.diffusers_layout import ConfiguredAlphas, config_fields, diffusers_tensors, fold_all, peft_tensors
from brushwork.lora.family import resolve
from brushwork.lora.keys import Layout, Part, split_keys
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.metadata import metadata_for_layout
from brushwork.lora.names import kohya_name
from brushwork.lora.state import AdapterState
from brushwork.models.spec import Family, UNetSpec
from brushwork.runtime import precision_name
from brushwork.tensor_file import read_tensors, write_tensors

WrittenLayout = Literal["kohya", "diffusers", "peft"]

FILE_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls an adapter in a folder."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as it was read: the canonical state, and what the file told besides.

    Args:
        spec: the base that all its modules fit.
        dtype: the type of the numbers in the file.
    """

    state: AdapterState
    spec: UNetSpec
    layout: Layout
    metadata: dict[str, str]
    dtype: torch.dtype

    @property
    def family(self) -> Family:
        """`sd15` or `sdxl`"""
        return self.spec.family


def read_adapter(path: Path, *, spec: UNetSpec | None = None) -> AdapterFile:
    """Read an adapter whole, or refuse it by name: nothing in the file stays unused.

    Args:
        path: a file, or a folder as diffusers writes it.
        spec: the base that it must fit; None tries SD 1.5, SDXL and the bundled model.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if path.suffix in (".pt", ".bin", ".ckpt", ".pth"):
        raise UserError(
            f"{path} is a pickle, which can run programs when it is opened; Brushwork reads adapters as safetensors.",
            fix="save it as .safetensors in the program that made it",
        )
    tensors, metadata = read_tensors(path)
    source = str(path)
    _refuse_bad_numbers(tensors, source)
    modules, layout = split_keys(tensors, source)
    spec, names = resolve(modules, spec=spec, metadata=metadata, source=source)
    alphas = ConfiguredAlphas(config_fields(metadata, source) or _config_beside(path, modules), source)
    state: AdapterState = {}
    for spelled, parts in modules.items():
        if names[spelled] in state:
            raise UserError(
                f"{source} holds {names[spelled]} under two names.", fix="it cannot be read; take another"
            )
        state[names[spelled]] = _weights(parts, names[spelled], alphas)
    dtype = next(tensor.dtype for key, tensor in tensors.items() if not key.endswith(".alpha"))
    return AdapterFile(dict(sorted(state.items())), spec, layout, metadata, dtype)


def write_adapter(
    path: Path,
    state: AdapterState,
    *,
    spec: UNetSpec,
    layout: WrittenLayout = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an adapter as a whole file; the same state and metadata always give the same bytes.

    Args:
        metadata: of the run (see `metadata.py`); what belongs to the layout and the hashes is added here.
    """
    if layout == "kohya":
        tensors: dict[str, Tensor] = {}
        for name, weights in state.items():
            tensors |= _kohya_tensors(kohya_name(name, spec), weights, dtype)
    elif layout == "diffusers":
        state = fold_all(state)
        tensors = {key: tensor.to(dtype) for key, tensor in diffusers_tensors(state).items()}
    else:
        tensors = {key: tensor.to(dtype) for key, tensor in peft_tensors(state).items()}
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{key} has numbers that {precision_name(dtype)} cannot hold; {path} was not written.",
                fix="--set save.precision=fp32",
            )
    write_tensors(path, tensors, metadata_for_layout(layout, tensors, state, spec, metadata or {}))


def convert_adapter(
    source: Path, out: Path, *, layout: WrittenLayout, spec: UNetSpec | None = None, dtype: torch.dtype | None = None
) -> AdapterFile:
    """Write `source` again in another layout, with its metadata and, unless one is given, the type of its numbers."""
    file = read_adapter(source, spec=spec)
    write_adapter(
        out, file.state, spec=file.spec, layout=layout, metadata=file.metadata, dtype=dtype or _written(file.dtype)
    )
    return file


def _kohya_tensors(module: str, weights: LoRAWeights, dtype: torch.dtype) -> dict[str, Tensor]:
    alpha = torch.tensor(weights.alpha, dtype=torch.float32)
    # kohya writes alpha in the type of the weights; where that would change it, it stays fp32: readers take both.
    return {
        f"{module}.lora_down.weight": weights.down.to(dtype),
        f"{module}.lora_up.weight": weights.up.to(dtype),
        f"{module}.alpha": alpha.to(dtype) if alpha.to(dtype).float() == alpha else alpha,
    }


def _written(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32


def _weights(parts: Mapping[Part, Tensor], name: str, alphas: ConfiguredAlphas) -> LoRAWeights:
    down, up = parts["down"].float(), parts["up"].float()
    if "alpha" not in parts:
        return LoRAWeights(down, up, alphas.alpha(name, down.shape[0]))
    # kohya takes an alpha of 0 as none given.
    return LoRAWeights(down, up, float(parts["alpha"]) or float(down.shape[0]))


def _config_beside(path: Path, modules: Mapping[str, object]) -> dict[str, Any]:
    """PEFT's own `save_pretrained` puts alpha into a file of its own."""
    config = path.with_name("adapter_config.json")
    if not all(spelled.startswith("base_model.model.") for spelled in modules) or not config.exists():
        return {}
    fields = json.loads(config.read_text(encoding="utf-8"))
    return fields if isinstance(fields, dict) else {}


def _refuse_bad_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{source}: {key} is of the type {tensor.dtype}.", fix="write it as fp16, bf16 or fp32")
        if not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"{source}: {key} holds numbers that are not finite; it would give black pictures.",
                fix="take an earlier file of the run",
            )
