"""`brushwork merge`: adapters become part of a base, written in the base's own form, tensor by tensor.

Shapes in this file:  I inputs of a weight   O outputs
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brushwork.errors import UserError
from brushwork.generation.adapters import Chosen, Wanted, choose
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.merge import delta
from brushwork.lora.state import component_of
from brushwork.models.checkpoint_file import TensorFile
from brushwork.models.naming import CUTS, Origin
from brushwork.models.part import Part
from brushwork.models.rewrite import write_parts
from brushwork.models.weights import Base, open_base

STALE = ("modelspec.hash_sha256", "modelspec.merged_from", "sshs_model_hash", "sshs_legacy_hash", "brushwork.merged")
"""What a base tells of itself that is no longer true once something is merged into it."""


@dataclass(frozen=True)
class Merged:
    """What was written."""

    out: Path
    loras: tuple[dict[str, Any], ...]
    """Of each: file, strength, sha256, modules."""
    num_changed: int
    """Tensors of the base's files that are no longer what they were."""

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"out": str(self.out), "loras": list(self.loras), "changed_tensors": self.num_changed}


def merge(base: str, loras: Sequence[Wanted], out: str | Path, *, ema: bool = False, offline: bool = False) -> Merged:
    """Write `base` with the adapters added to its weights: a single file becomes a single file, a folder a folder.

    Each weight is read, gets all its updates in float32, and is rounded once to the type that it had; no more than
    one is in memory at a time. What no adapter changes is as it was.

    Args:
        ema: take the running means that lie beside the adapters.
        offline: never ask the hub.

    Raises:
        UserError: an adapter does not fit as a whole, a sum is too large for its type, or `out` is there already.
    """
    opened = open_base(base, offline=offline)
    place = _new_place(Path(out), opened)
    adapters = [choose(lora, spec=opened.spec, ema=ema) for lora in loras]
    if not adapters:
        raise UserError("there is no adapter to merge.", fix="brushwork merge BASE LORA[:STRENGTH]... OUT")
    changes = {name: _Changes(opened.parts[name]) for name in opened.parts}
    for adapter in adapters:
        _add(adapter, changes, opened)
    records = tuple({**each.record(), "modules": len(each.content.state)} for each in adapters)
    by_part = {name: change for name, change in changes.items() if change.updates}
    files = {
        name: _MergedFile(change.part.file, [*_of_one_file(change, by_part)]) for name, change in by_part.items()
    }
    write_parts(opened, files, place, told=_told(opened, records))
    return Merged(place, records, sum(len(change.updates) for change in by_part.values()))


@dataclass(frozen=True)
class _Update:
    """An adapter's update of one layer, with its strength."""

    weights: LoRAWeights
    strength: float


class _Changes:
    """What is to be added to the tensors of one part, by their key in the file."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.updates: dict[str, list[tuple[Origin, _Update]]] = defaultdict(list)

    def add(self, name: str, update: _Update, *, source: Path) -> None:
        """Note the update of our tensor `name`; refuse one of another shape."""
        shape = self.part.shapes()[name] if name in self.part.origins else None
        down, up = update.weights.down, update.weights.up
        if shape is None or up.shape[0] != shape[0] or down[0].numel() != torch.Size(shape[1:]).numel():
            found = "no such layer" if shape is None else f"{tuple(shape)} in the base"
            raise UserError(
                f"{source}: its update of {name} is {tuple(down.shape)} and {tuple(up.shape)}; there is {found}.",
                fix="use the base family that the adapter was trained on (`brushwork inspect FILE` tells)",
            )
        origin = self.part.origins[name]
        self.updates[origin.key].append((origin, update))


def _add(adapter: Chosen, changes: Mapping[str, _Changes], base: Base) -> None:
    for name, weights in adapter.content.state.items():
        component, path = component_of(name), name.partition(".")[2]
        if component not in changes:
            raise UserError(
                f"{adapter.path} has adapters for {component}, which {base.source} has not.",
                fix="use the base family that the adapter was trained on (`brushwork inspect FILE` tells)",
            )
        changes[component].add(f"{path}.weight", _Update(weights, adapter.strength), source=adapter.path)


def _of_one_file(change: _Changes, all_changes: Mapping[str, _Changes]) -> Iterator[_Changes]:
    """The changes that go into the same file: in a single file, those of all parts."""
    return (each for each in all_changes.values() if each.part.file is change.part.file)


class _MergedFile(Mapping[str, Tensor]):
    """The tensors of a file with their updates, one at a time."""

    def __init__(self, file: TensorFile, changes: Sequence[_Changes]) -> None:
        self._file = file
        self._updates = {key: updates for each in changes for key, updates in each.updates.items()}

    @torch.no_grad()
    def __getitem__(self, key: str) -> Tensor:
        tensor = self._file.read(key)
        if key not in self._updates:
            return tensor
        summed = tensor.float()
        for origin, update in self._updates[key]:
            # A cut is a view: q, k and v of OpenCLIP's layers lie in one tensor.
            ours = CUTS[origin.cut](summed)
            ours += update.strength * delta(update.weights).reshape(ours.shape)
        rounded = summed.to(tensor.dtype)
        if not torch.isfinite(rounded.float()).all():
            raise UserError(
                f"{key} becomes larger than its type can hold ({tensor.dtype}); nothing was written.",
                fix="lower the strength: LORA:0.7",
            )
        return rounded

    def describe(self, key: str) -> Tensor:
        """Shape and type of a tensor, without reading it."""
        header = self._file.headers[key]
        return torch.empty(header.shape, dtype=header.dtype, device="meta")

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.headers)

    def __len__(self) -> int:
        return len(self._file.headers)


def _told(base: Base, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the header tells: the base's own words, and what was merged into it; names of files, no folders."""
    own = {key: value for key, value in base.parts["unet"].file.metadata.items() if key not in STALE}
    merged_from = [Path(base.source).name, *(f"{each['file']}:{each['strength']:g}" for each in records)]
    return own | {
        "format": "pt",
        "modelspec.merged_from": ", ".join(merged_from),
        "brushwork.merged": json.dumps(list(records), sort_keys=True),
    }


def _new_place(out: Path, base: Base) -> Path:
    """Where it may be written: nothing is replaced, and the form is the base's."""
    if base.folder is None and out.suffix != ".safetensors":
        raise UserError(
            f"{base.source} is a single file, and {out} is not named like one.", fix=f"name it {out}.safetensors"
        )
    if base.folder is not None and out.suffix in (".safetensors", ".ckpt"):
        raise UserError(
            f"{base.source} is a folder, so what comes out is a folder too, and {out} is named like a file.",
            fix=f"name it {out.with_suffix('')}",
        )
    if out.exists():
        raise UserError(f"{out} is there already and is not replaced.", fix="choose another name, or remove it first")
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.parent}.", fix=f"mkdir -p {out.parent}")
    return out
