"""Files of weights, read tensor by tensor: safetensors (one file or shards), and pickles that hold only tensors.

What a file holds is known from its header; a tensor's bytes are read when it is asked for, into memory of its
own. Nothing stays mapped: the peak is what was asked for, and a file that is replaced while a run goes on does not
change the weights under it.
"""

import json
import math
import pickle
import re
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import torch
from torch import Tensor

from brushwork.errors import UserError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LARGEST_HEADER = 100_000_000
_PIECE = 2**23  # bytes that are cast at a time
AGAIN = "download the file again, and compare its size with the one given where it comes from"


@dataclass(frozen=True)
class Header:
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorFile(ABC):
    """Tensors by key.

    Args:
        paths: the files, one or several shards.
        headers: every tensor, in the order in which reading is quickest.
        metadata: the text that a safetensors file carries beside its tensors.
    """

    def __init__(self, paths: tuple[Path, ...], headers: Mapping[str, Header], metadata: Mapping[str, str]) -> None:
        self.paths = paths
        self.headers = headers
        self.metadata = metadata

    @abstractmethod
    def read(self, key: str, *, dtype: torch.dtype | None = None, third: int | None = None) -> Tensor:
        """The tensor in memory of its own, as it is in the file or cast to `dtype`; whole, or a third of its rows."""


@final
class SafetensorsFile(TensorFile):
    """One `.safetensors` file; its header is checked against its length when it is opened."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > _LARGEST_HEADER or 8 + length > size:
                raise _not_safetensors(path, size)
            try:
                header: dict[str, Any] = json.loads(file.read(length))
            except ValueError as error:
                raise _not_safetensors(path, size) from error
        metadata = header.pop("__metadata__", {})
        self._begin = 8 + length
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
        self._offsets = {key: tuple(entry["data_offsets"]) for key, entry in entries}
        headers = {key: Header(tuple(entry["shape"]), _dtype(path, key, entry["dtype"])) for key, entry in entries}
        super().__init__((path,), headers, metadata)
        self._check_offsets(size)
        self._buffer: Tensor | None = None
        self._buffer_in_use = threading.Lock()

    def _check_offsets(self, size: int) -> None:
        path, position = self.paths[0], 0
        for key, (begin, end) in self._offsets.items():
            header = self.headers[key]
            if begin != position or end - begin != math.prod(header.shape) * header.dtype.itemsize:
                raise UserError(f"{path}: the header is damaged (tensor {key!r}).", fix=AGAIN)
            position = end
        if self._begin + position > size:
            raise UserError(
                f"{path} is cut off: {size:,} of {self._begin + position:,} bytes are there.",
                fix=AGAIN,
            )
        if self._begin + position < size:
            raise UserError(f"{path}: {size - self._begin - position:,} bytes follow the last tensor.", fix=AGAIN)

    def read(self, key: str, *, dtype: torch.dtype | None = None, third: int | None = None) -> Tensor:
        header = self.headers[key]
        position, end = (self._begin + offset for offset in self._offsets[key])
        shape = header.shape
        if third is not None:
            shape = (shape[0] // 3, *shape[1:])
            position += third * (end - position) // 3
        tensor = torch.empty(shape, dtype=dtype or header.dtype)
        with self.paths[0].open("rb") as file:
            file.seek(position)
            if tensor.dtype == header.dtype:
                self._fill(file, tensor.view(-1), key)
            else:
                self._fill_cast(file, tensor.view(-1), key)
        return tensor

    def _fill(self, file: BinaryIO, flat: Tensor, key: str) -> None:
        if flat.numel() and file.readinto(flat.view(torch.uint8).numpy().data) != flat.nbytes:  # type: ignore[attr-defined]
            raise UserError(f"{self.paths[0]} ended in the middle of tensor {key!r}: it changed while it was read.")

    def _fill_cast(self, file: BinaryIO, flat: Tensor, key: str) -> None:
        """Read through one small buffer that is kept: memory that comes and goes between tensors that stay leaves
        holes, 1.3 GB of them for SDXL in bf16."""
        with self._buffer_in_use:
            if self._buffer is None:
                self._buffer = torch.empty(_PIECE, dtype=torch.uint8)
            pieces = self._buffer.view(self.headers[key].dtype)
            for start in range(0, len(flat), len(pieces)):
                target = flat[start : start + len(pieces)]
                piece = pieces[: len(target)]
                self._fill(file, piece, key)
                target.copy_(piece)


@final
class PickleFile(TensorFile):
    """A `.ckpt`, `.pt` or `.bin` pickle, opened in the mode that builds tensors and runs no code of the file."""

    def __init__(self, path: Path) -> None:
        safer = "look for the .safetensors form of this model: it can hold no code"
        if path.suffix == ".safetensors":  # torch.load would believe the name
            raise UserError(f"{path} is a pickle under the name of a safetensors file.", fix="rename it to .ckpt")
        try:
            content = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            culprit = found[1] if found else "it is damaged or disguised"
            raise UserError(
                f"{path} is a pickle that wants to run code ({culprit}); "
                "Brushwork opens only those that hold nothing but tensors.",
                fix=safer,
            ) from error
        except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be opened by torch: {_first_sentence(error)}.", fix=AGAIN) from error
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        self._tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
        if not self._tensors:
            raise UserError(f"{path} holds no tensors by name.", fix=safer)
        headers = {key: Header(tuple(tensor.shape), tensor.dtype) for key, tensor in self._tensors.items()}
        super().__init__((path,), headers, {})

    def read(self, key: str, *, dtype: torch.dtype | None = None, third: int | None = None) -> Tensor:
        tensor = self._tensors[key] if third is None else self._tensors[key].chunk(3)[third]
        return tensor.to(dtype or tensor.dtype, copy=True)


@final
class Shards(TensorFile):
    """One model in several files, with the index that says which tensor lies where.

    Args:
        index: a `*.safetensors.index.json` (or `*.bin.index.json`).
    """

    def __init__(self, index: Path) -> None:
        try:
            place: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{index} is not an index of shards: it has no `weight_map`.", fix=AGAIN) from error
        files = {name: open_tensors(index.parent / name) for name in sorted(set(place.values()))}
        found = {key: name for name, file in files.items() for key in file.headers}
        self._files = {key: files[name] for key, name in found.items()}
        if absent := sorted(set(place) - set(found)):
            raise UserError(
                f"{index} names {len(absent)} tensors that no shard holds, such as {absent[0]!r}.", fix=AGAIN
            )
        headers = {key: file.headers[key] for key, file in self._files.items()}
        super().__init__((index, *(path for file in files.values() for path in file.paths)), headers, {})

    def read(self, key: str, *, dtype: torch.dtype | None = None, third: int | None = None) -> Tensor:
        return self._files[key].read(key, dtype=dtype, third=third)


def open_tensors(path: Path) -> TensorFile:
    """Open a file of weights; what it is, its first bytes say, not its name."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.", fix="check the name, or download it again")
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path} is a web page, not weights: the download got a page (perhaps one that asks to log in).",
            fix="open the address in a browser, and download the file itself",
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer; the weights themselves were not fetched.", fix="git lfs pull")
    if start.startswith(b"GGUF"):
        raise UserError(
            f"{path} is a GGUF file: quantised for drawing pictures, and not to be trained on.",
            fix="use the .safetensors form of the model",
        )
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) and start[8:9] != b"{":
        return PickleFile(path)
    return SafetensorsFile(path)


def _not_safetensors(path: Path, size: int) -> UserError:
    with path.open("rb") as file:
        start = file.read(24)
    if start[8:9] == b"{":
        return UserError(f"{path} is cut off: {size:,} bytes are there, and not even its header ends.", fix=AGAIN)
    return UserError(f"{path} is not a file of weights: it begins with {start!r}.", fix=AGAIN)


def _dtype(path: Path, key: str, name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise UserError(
            f"{path}: tensor {key!r} is stored as {name}, which cannot be trained on.",
            fix="use the fp16, bf16 or fp32 form of the model",
        )
    return _DTYPES[name]


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
