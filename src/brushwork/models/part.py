"""The weights of one network, wherever they lie: by our names, read when asked for, and known by their content."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, final

import torch
from torch import Tensor

from brushwork.atomic import write_text
from brushwork.errors import UserError, listed
from brushwork.models.checkpoint_file import TensorFile
from brushwork.models.naming import CUTS, THIRDS, Origin
from brushwork.places import user_cache_folder
from brushwork.runtime import precision_name

_FINGERPRINT_SCHEMA = 1


@final
class Part(Mapping[str, Tensor]):
    """One network's tensors by our names; each access reads one from the file, as it is there.

    Args:
        name: "unet", "vae", "text_encoder" or "text_encoder_2".
        file: where the tensors lie.
        origins: our name -> the key in the file.
        config: the content of the part's `config.json`.
        dtype: the type that numbers are given in; None leaves them as they are in the file.
    """

    def __init__(
        self,
        name: str,
        file: TensorFile,
        origins: Mapping[str, Origin],
        config: Mapping[str, Any],
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.file = file
        self.origins = origins
        self.config = config
        self.dtype = dtype

    def cast(self, dtype: torch.dtype) -> "Part":
        """The same part, whose tensors come in another type."""
        return Part(self.name, self.file, self.origins, self.config, dtype=dtype)

    def __getitem__(self, name: str) -> Tensor:
        origin = self.origins[name]
        if origin.cut in THIRDS:
            return self.file.read(origin.key, dtype=self.dtype, third=THIRDS.index(origin.cut))
        tensor = CUTS[origin.cut](self.file.read(origin.key, dtype=self.dtype))
        return tensor if tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)

    def __iter__(self) -> Iterator[str]:
        return iter(self.origins)

    def __len__(self) -> int:
        return len(self.origins)

    def __contains__(self, name: object) -> bool:
        return name in self.origins  # without this, Mapping would read the tensor to find out

    @property
    def place(self) -> str:
        """What the part is and where it lies, for messages: "vae of model.safetensors"."""
        return f"{self.name} of {self.file.paths[0]}"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, from the headers alone."""
        return {name: self._shape(origin) for name, origin in self.origins.items()}

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse what does not fit a network with these shapes, before anything is read."""
        found = self.shapes()
        wrong = {
            "are missing": sorted(expected.keys() - found.keys()),
            "are not known to this network": sorted(found.keys() - expected.keys()),
            "have another shape": sorted(name for name, shape in expected.items() if found.get(name, shape) != shape),
        }
        for complaint, names in wrong.items():
            if names:
                raise UserError(
                    f"{self.place}: {len(names)} of {len(expected)} tensors {complaint}: {listed(names)}.",
                    fix="the file is incomplete or made for another network; take it from where it was published",
                )

    def num_parameters(self) -> int:
        """How many numbers the part has."""
        return sum(torch.Size(shape).numel() for shape in self.shapes().values())

    def num_bytes(self) -> int:
        """What the numbers take in the file."""
        headers = (self.file.headers[key] for key in {origin.key for origin in self.origins.values()})
        return sum(torch.Size(header.shape).numel() * header.dtype.itemsize for header in headers)

    def precision(self) -> str:
        """The type of its numbers: "fp16", or "fp16 and fp32" where they are mixed."""
        dtypes = {self.file.headers[origin.key].dtype for origin in self.origins.values()}
        names = {precision_name(dtype) for dtype in dtypes}
        return " and ".join(sorted(names))

    def fingerprint(self, *, settings: Mapping[str, Any]) -> str:
        """SHA-256 of the numbers under our names, and of `settings`: the same for the same weights in another layout.

        A file's digest is remembered in the user's cache folder by path, size and time of change, so only the first
        call reads it.
        """
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self.file.paths]
        known_by = json.dumps(
            [_FINGERPRINT_SCHEMA, files, sorted((k, o.key, o.cut) for k, o in self.origins.items())]
        )
        memory = user_cache_folder() / "fingerprints" / hashlib.sha256(known_by.encode()).hexdigest()
        digest = None
        with suppress(OSError, UnicodeDecodeError):
            digest = memory.read_text(encoding="utf-8")
        if digest is None or not re.fullmatch(r"[0-9a-f]{64}", digest):
            digest = self._digest()
            with suppress(OSError):  # a cache folder that cannot be written to costs time, and nothing else
                write_text(memory, digest)
        return hashlib.sha256(f"{digest} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.origins):
            tensor = self[name]
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _shape(self, origin: Origin) -> tuple[int, ...]:
        return tuple(CUTS[origin.cut](torch.empty(self.file.headers[origin.key].shape, device="meta")).shape)


def refuse_doubles(where: str, keys: set[str], origins: Mapping[str, Origin]) -> None:
    """Refuse a file in which two keys mean the same tensor: which one counts, nobody can tell."""
    if doubled := sorted(keys - {origin.key for origin in origins.values()}):
        raise UserError(
            f"{where} holds {len(doubled)} tensors twice, under two names, such as {doubled[0]!r}.",
            fix="take the file from where it was first published",
        )
