"""The vectors of many picture files, each computed once: kept by the file's content and by what encoded it.

    CACHE/embeddings/ENCODER/NAME.safetensors     `digests` (N, 32) bytes, `vectors` (N, D)

A shard holds what was computed in half a minute; it is written beside and renamed and never changed, so that a kill
loses at most that. Many shards are brought together into one. 20,000 vectors of 768 numbers are 62 MB, and are
back in a quarter of a second.

Shapes in this file:  N pictures   D width of a vector, with a layer's state that of both
"""

import hashlib
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import torch
from PIL import ImageOps
from torch import Tensor

from brushwork.config.schema import DataConfig
from brushwork.data.picture import BadPictureError, open_rgb, parse_colour
from brushwork.data.scan import decoding_threads, in_order
from brushwork.data.source import Source
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.places import note_use
from brushwork.progress import Progress
from brushwork.tensor_file import read_tensors, write_tensors
from brushwork.vision.encoder import Encoder, Prepared

SECONDS_A_SHARD = 30.0
MANY_SHARDS = 32
"""More than so many are brought together into one."""


def embed_files(
    encoder: Encoder,
    paths: Sequence[Source],
    *,
    cache_folder: Path | None,
    batch_size: int,
    digests: Sequence[str] | None = None,
    data: DataConfig | None = None,
    group: Group | None = None,
    on_progress: Progress | None = None,
    layer: bool = False,
    mirrored: bool = False,
) -> Tensor:
    """Picture files -> (N, D) float32 of length 1; those that the cache knows are not opened.

    Args:
        cache_folder: the user's cache, or None to remember nothing.
        digests: SHA-256 of each file's bytes, where they are known already.
        data: how a picture is decoded: its background and the most pixels.
        group: the processes that share the work; each gets all vectors.
        on_progress: called with (pictures done, all pictures).
        layer: with what the encoder saw one layer before its end, beside each vector.
        mirrored: as if the pictures were mirrored.

    Raises:
        UserError: a file cannot be read, or is not the one that its digest was taken of.
    """
    data, group = data or DataConfig(), group or Group()
    names = list(digests) if digests is not None else [_digest(path.read_bytes()) for path in paths]
    folder = (
        None if cache_folder is None else cache_folder / "embeddings" / _folder_name(encoder, data, layer, mirrored)
    )
    memory = _Memory(folder)
    by_name = dict(zip(names, paths, strict=True))
    missing = group.from_first([name for name in by_name if name not in memory.vectors])
    report = on_progress or (lambda done, total: None)
    done = len(names) - sum(name in set(missing) for name in names)
    report(done, len(names))
    mine = {name: by_name[name] for name in group.share(missing)}
    found = _embedded(encoder, mine, batch_size=batch_size, data=data, layer=layer, mirrored=mirrored)
    for count, (name, vector) in enumerate(found, start=1):
        memory.add(name, vector)
        report(min(len(names), done + count * group.size), len(names))
    memory.flush()
    report(len(names), len(names))
    for theirs in group.gathered({name: memory.vectors[name] for name in mine}):
        memory.vectors.update(theirs)
    # What the first found in its cache, the others need not have: their machines may have caches of their own.
    known = memory.vectors if group.is_first else {}
    if group.is_first:
        memory.tidy()
    return group.from_first(torch.stack([known[name] for name in names]) if known else torch.empty(0, 0))


def _embedded(
    encoder: Encoder,
    files: Mapping[str, Source],
    *,
    batch_size: int,
    data: DataConfig,
    layer: bool,
    mirrored: bool,
) -> Iterable[tuple[str, Tensor]]:
    """Each file's digest and vector; threads decode the next pictures while the network looks at these."""

    def prepared(name: str) -> Prepared:
        return _prepare(encoder, files[name], name, data, mirrored)

    def seen() -> Iterable[tuple[str, Tensor]]:
        return zip(waiting, encoder.embed_prepared(list(waiting.values()), layer=layer), strict=True)

    waiting: dict[str, Prepared] = {}
    with decoding_threads() as pool:
        for name, picture in in_order(pool, prepared, files):
            waiting[name] = picture
            if len(waiting) == batch_size:
                yield from seen()
                waiting = {}
        if waiting:
            yield from seen()


def _prepare(encoder: Encoder, path: Source, digest: str, data: DataConfig, mirrored: bool) -> Prepared:
    try:
        content = path.read_bytes()
        if _digest(content) != digest:
            raise UserError(f"{path} was changed while it was looked at.", fix="start again")
        picture = open_rgb(content, background=data.background, max_pixels=data.max_pixels)
        return encoder.prepare(ImageOps.mirror(picture) if mirrored else picture)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", fix="start again") from error
    except BadPictureError as error:
        raise UserError(f"{path} cannot be used: {error}.", fix="take it away, or save it again") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _folder_name(encoder: Encoder, data: DataConfig, layer: bool, mirrored: bool) -> str:
    """One folder for all vectors that can be compared."""
    told = f"{encoder.fingerprint}/{parse_colour(data.background)}{'/layer' * layer}{'/mirrored' * mirrored}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


@final
class _Memory:
    """The shards of one folder. They only save time: one that is damaged is passed by, and a full or read-only disk
    does not stop the work."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.vectors: dict[str, Tensor] = {}
        self._unwritten: list[str] = []
        self._since = time.monotonic()
        self._shards: list[Path] = [] if folder is None else sorted(folder.glob("*.safetensors"))
        for shard in self._shards:
            with suppress(UserError, KeyError, ValueError):
                self.vectors.update(_read_shard(shard))
                note_use(shard)

    def add(self, name: str, vector: Tensor) -> None:
        """Remember one more."""
        self.vectors[name] = vector
        self._unwritten.append(name)
        if time.monotonic() - self._since > SECONDS_A_SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._since = time.monotonic()
        if self.folder is not None and self._unwritten:
            self._write(self._unwritten)
        self._unwritten = []

    def tidy(self) -> None:
        """Bring many shards together. Those that others wrote meanwhile are left alone."""
        if self.folder is None or len(self._shards) <= MANY_SHARDS:
            return
        before = list(self._shards)
        if self._write(list(self.vectors)):
            for shard in before:
                shard.unlink(missing_ok=True)

    def _write(self, names: Sequence[str]) -> bool:
        assert self.folder is not None
        vectors = torch.stack([self.vectors[name] for name in names])
        digests = torch.frombuffer(bytearray.fromhex("".join(names)), dtype=torch.uint8).reshape(len(names), 32)
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            write_tensors(shard, {"digests": digests, "vectors": vectors}, {"checksum": _checksum(digests, vectors)})
        except OSError:
            return False
        self._shards.append(shard)
        return True


def _read_shard(path: Path) -> dict[str, Tensor]:
    """Digest -> vector; raises where the file is not what was written."""
    tensors, told = read_tensors(path)
    digests, vectors = tensors["digests"], tensors["vectors"]
    if told["checksum"] != _checksum(digests, vectors):
        raise ValueError(f"{path}: the checksum does not fit")
    text = digests.numpy().tobytes().hex()
    return {text[64 * row : 64 * row + 64]: vectors[row] for row in range(len(vectors))}


def _checksum(digests: Tensor, vectors: Tensor) -> str:
    """It tells damage, not malice."""
    return f"{zlib.crc32(vectors.contiguous().numpy().data, zlib.crc32(digests.contiguous().numpy().data)):08x}"
