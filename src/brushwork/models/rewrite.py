"""A base model with other weights in it: what full fine-tuning and merging write.

It has the form of the base that was begun with, so every program that reads the one reads the other: a single file
becomes a single file with the same keys, a folder a folder.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.models.assembly import Renamed
from brushwork.models.checkpoint_file import TensorFile
from brushwork.models.part import Part
from brushwork.models.weights import Base
from brushwork.tensor_file import described, write_tensors

WEIGHTS = "diffusion_pytorch_model"
STEMS = {"text_encoder": "model", "text_encoder_2": "model"}
"""What the weights of a part are called in its folder, where that is not `WEIGHTS`."""


def write_base(
    base: Base, unet: Mapping[str, Tensor], out: Path, *, dtype: torch.dtype, told: Mapping[str, str]
) -> None:
    """Write `base` with the UNet's tensors (diffusers names) replaced, in `dtype`; everything else as it is.

    Args:
        out: the file, for a single file; else the folder.
        told: metadata for the header of the file that holds the UNet.
    """
    part = base.parts["unet"]
    if unet.keys() != part.origins.keys():
        raise ValueError("these are not the tensors of the base's UNet")
    if base.folder is None:
        by_key = Renamed(unet, {part.origins[name].key: name for name in unet})
        write_parts(base, {"unet": _Rewritten(part.file, by_key, dtype)}, out, told={**part.file.metadata, **told})
    else:
        write_parts(base, {"unet": _Rewritten(None, unet, dtype)}, out, told=told)


def write_parts(base: Base, files: Mapping[str, Mapping[str, Tensor]], out: Path, *, told: Mapping[str, str]) -> None:
    """Write `base` with the files of some of its parts replaced; of a single file, any part's file is the whole.

    Args:
        files: the tensors by part, under the keys that they have in the base's files.
        told: metadata for the headers of these files.
    """
    if base.folder is None:
        write_tensors(out, next(iter(files.values())), told)
        return
    partial = out.with_name(f"{out.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(base.folder, partial, ignore=_weights_of(base.folder, list(files)))
        for name, tensors in files.items():
            write_tensors(partial / name / file_name(base.parts[name]), tensors, told)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def file_name(part: Part) -> str:
    """What the weights of a part are called in a folder: as they were, with the variant, in one safetensors file."""
    stem = STEMS.get(part.name, WEIGHTS)
    name = part.file.paths[0].name
    found = re.fullmatch(r"\w+?(?:\.(?:safetensors|bin)\.index)?(?:\.(\w+))?\.(?:safetensors|bin|json)", name)
    variant = found[1] if found else None
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def _weights_of(folder: Path, parts: list[str]) -> Callable[[str, list[str]], list[str]]:
    """For copytree: leave out the old weights of these parts, in whatever precision and however many shards."""

    def ignore(where: str, names: list[str]) -> list[str]:
        part = next((part for part in parts if Path(where) == folder / part), None)
        stems = () if part is None else (STEMS.get(part, WEIGHTS), "pytorch_model" if part in STEMS else WEIGHTS)
        return [name for name in names if stems and name.startswith(stems)]

    return ignore


class _Rewritten(Mapping[str, Tensor]):
    """The tensors of a file, some of them replaced; one at a time, so that memory holds one file's worth at most."""

    def __init__(self, file: TensorFile | None, replaced: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self._file, self._replaced, self._dtype = file, replaced, dtype
        self._keys = list(replaced if file is None else file.headers)

    def __getitem__(self, key: str) -> Tensor:
        if key in self._replaced:
            return self._replaced[key].detach().to("cpu", self._dtype)
        assert self._file is not None
        return self._file.read(key)

    def describe(self, key: str) -> Tensor:
        """Shape and type of a tensor, without reading or casting it."""
        if key in self._replaced:
            return torch.empty(described(self._replaced, key).shape, dtype=self._dtype, device="meta")
        assert self._file is not None
        header = self._file.headers[key]
        return torch.empty(header.shape, dtype=header.dtype, device="meta")

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
