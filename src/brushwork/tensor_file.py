"""A safetensors file whose bytes follow from its content alone.

The safetensors package writes the metadata in an order that changes from run to run, so that the same adapter saved
twice gives two different files. Here keys are sorted. The layout is the package's own: tensors by the size of their
numbers, then by name.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from brushwork.atomic import written_beside
from brushwork.errors import UserError

_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

LEGACY_HASH_PART = (0x100000, 0x10000)
"""Start and length of the part that the oldest hash of the field looks at."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.", fix="check the path") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}).",
            fix="fetch or write it again: the download or the copy was cut short, or it is a file of another kind",
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace the file at `path`; the same tensors and metadata always give the same bytes."""
    with written_beside(path) as partial, partial.open("wb") as file:
        file.write(header(tensors, metadata))
        for piece in data_of(tensors):
            file.write(piece)


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the numbers: the length of the JSON, then metadata and places of the tensors as JSON."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in _in_file_order(tensors):
        tensor = described(tensors, name)
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def data_of(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """The numbers, tensor by tensor, in the order of the file."""
    for name in _in_file_order(tensors):
        yield tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def data_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the numbers without the header: what web UIs recognise a LoRA by, whatever its metadata."""
    digest = hashlib.sha256()
    for piece in data_of(tensors):
        digest.update(piece)
    return digest.hexdigest()


def legacy_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The first 8 digits of the SHA-256 of 64 KiB from the second MiB of the file with this metadata."""
    start, length = LEGACY_HASH_PART
    digest, position = hashlib.sha256(), 0
    for piece in chain([header(tensors, metadata)], data_of(tensors)):
        digest.update(piece[max(start - position, 0) : max(start + length - position, 0)])
        position += len(piece)
        if position >= start + length:
            break
    return digest.hexdigest()[:8]


def _in_file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names. Tensors are looked at one by one: a mapping may read them from a file as they are asked for."""
    sizes = {name: described(tensors, name).element_size() for name in tensors}
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def described(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of this shape and type: of a mapping that reads or computes its tensors, one without numbers."""
    describe = getattr(tensors, "describe", None)
    found: Tensor = tensors[name] if describe is None else describe(name)
    return found
