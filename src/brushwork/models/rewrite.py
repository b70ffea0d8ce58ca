"""A base model with another UNet in it: what full fine-tuning writes.

It has the form of the base that the run began with, so every program that reads the one reads the other: a single
file becomes a single file with the same keys, a folder a folder.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.models.checkpoint_file import TensorFile
from brushwork.models.weights import Base
from brushwork.tensor_file import write_tensors

WEIGHTS = "diffusion_pytorch_model"


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
        by_key = {part.origins[name].key: tensor for name, tensor in unet.items()}
        write_tensors(out, _Rewritten(part.file, by_key, dtype), {**part.file.metadata, **told})
        return
    partial = out.with_name(f"{out.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(base.folder, partial, ignore=_weights_of_the_unet(base.folder))
    write_tensors(partial / "unet" / f"{WEIGHTS}.safetensors", _Rewritten(None, unet, dtype), told)
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def _weights_of_the_unet(folder: Path) -> Callable[[str, list[str]], list[str]]:
    """For copytree: leave out the old weights, in whatever precision and however many shards."""

    def ignore(where: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(where) == folder / "unet" and name.startswith(WEIGHTS)]

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

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
