"""The frames that the stages learn from, drawn as they are needed and kept in chunks.

Frame number i of a source follows from i alone: its scene, its pixels, its captions. Worker processes draw the chunks
in their order; a stage waits for a chunk only when it gets there first.

    POOL/pool.json    which frames these are
    POOL/00003.npy    the pixels of the fourth chunk

Shapes in this file:  K frames of a chunk   B pictures of a batch   S side of a picture
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brushwork.atomic import PARTIAL_SUFFIX, write_text, written_beside
from brushwork.errors import UserError
from brushwork.film.captions import caption
from brushwork.film.frames import draw_array, draw_scene
from brushwork.film.held_out import is_held_out
from brushwork.film.scene import CHARACTERS, Scene, cast_without_lead, imagine

CHUNK = 512
"""Frames of a chunk; at 128 pixels they take 25 MB."""

UNSEEN = 1_000_000_000
"""From here on, numbers are of frames that no stage learns from."""


def base_scene(number: int) -> Scene:
    """A scene that the base may see: never the lead, and no combination that is held out."""
    return imagine(number, characters=cast_without_lead(), accept=lambda scene: not is_held_out(scene))


def any_scene(number: int) -> Scene:
    """Any scene, the lead's and the held-out ones too: what a judge of pictures has to know."""
    return imagine(number, characters=CHARACTERS)


def held_out_scene(number: int) -> Scene:
    """A scene that the base may not see: a held-out combination, in turn of each character but the lead."""
    cast = cast_without_lead()
    return imagine(number, characters=(cast[number % len(cast)],), accept=is_held_out)


SOURCES: dict[str, Callable[[int], Scene]] = {"base": base_scene, "any": any_scene, "held out": held_out_scene}


def draw_frames(source: str, numbers: Sequence[int], size: int) -> npt.NDArray[np.uint8]:
    """The pixels of these frames: (K, S, S, 3)"""
    return np.stack([draw_array(SOURCES[source](number), size) for number in numbers])


def as_pictures(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """(K, S, S, 3) bytes -> (K, 3, S, S) in [-1, 1]"""
    return to_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def to_range(pixels: Tensor) -> Tensor:
    """Bytes -> float32 in [-1, 1]"""
    return pixels.float() / 127.5 - 1.0


def unseen(source: str, count: int, size: int) -> tuple[list[Scene], Tensor]:
    """Frames for measuring: their scenes and pictures (B, 3, S, S)."""
    numbers = range(UNSEEN, UNSEEN + count)
    return [SOURCES[source](number) for number in numbers], as_pictures(draw_frames(source, numbers, size))


@dataclass
class Pool:
    """The first `num_frames` frames of a source, on the device that learns from them.

    Args:
        folder: where the chunks are kept; several stages may share it, also at the same time.
        workers: processes that draw; 0: this one draws.
        reuse: about how often a frame is shown before as many new ones come in. Once all are drawn, they are shown
            again and again.
    """

    folder: Path
    source: str
    num_frames: int
    size: int
    workers: int = 0
    reuse: float = 4.0
    chunk: int = CHUNK
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_ready: int = field(default=0, init=False)
    _pixels: Tensor = field(init=False)
    _drawing: dict[int, "Future[None]"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.num_frames % self.chunk:
            raise UserError(
                f"{self.num_frames} frames are not a number of whole chunks of {self.chunk}.",
                fix=f"--frames {max(1, round(self.num_frames / self.chunk)) * self.chunk}",
            )
        if self.reuse < 1:
            raise UserError(f"every frame is shown at least once; found --reuse {self.reuse:g}.", fix="--reuse 4")
        self._check_folder()
        self._pixels = torch.empty(self.num_frames, self.size, self.size, 3, dtype=torch.uint8, device=self.device)

    @contextmanager
    def drawing(self) -> Iterator["Pool"]:
        """Let the workers draw what is missing while the block runs."""
        missing = [index for index in range(self.num_frames // self.chunk) if not self._path(index).exists()]
        if not self.workers or not missing:
            yield self
            return
        # Not forked: a child would hold copies of the device's state and of this process's threads.
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(self.workers, len(missing)), mp_context=context, initializer=_be_polite)
        try:
            self._drawing = {index: executor.submit(self._order(index)) for index in missing}
            yield self
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def num_shown(self, pictures_seen: int) -> int:
        """How many frames may be shown once so many pictures were: whole chunks, one at least."""
        chunks = int(pictures_seen / (self.reuse * self.chunk)) + 1
        return min(self.num_frames, chunks * self.chunk)

    def wait_for(self, count: int) -> None:
        """Have the first `count` frames ready."""
        while self.num_ready < count:
            index = self.num_ready // self.chunk
            if index in self._drawing:
                self._drawing[index].result()  # waits; what went wrong in a worker goes wrong here
            self._order(index)()
            rows = slice(self.num_ready, self.num_ready + self.chunk)
            self._pixels[rows] = torch.from_numpy(np.load(self._path(index))).to(self.device)
            self.num_ready += self.chunk

    def pictures(self, numbers: Tensor) -> Tensor:
        """Frames (B,) -> (B, 3, S, S) in [-1, 1], on the device"""
        return to_range(self._pixels[numbers.to(self.device)].permute(0, 3, 1, 2))

    def _order(self, index: int) -> "_Order":
        return _Order(self._path(index), self.source, index * self.chunk, self.chunk, self.size)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.npy"

    def _check_folder(self) -> None:
        """Refuse a folder of other frames, or of the same ones as an older version of the film drew them."""
        first = hashlib.sha256(draw_frames(self.source, range(4), self.size).tobytes()).hexdigest()
        own = {"source": self.source, "size": self.size, "chunk": self.chunk, "first frames": first}
        about = self.folder / "pool.json"
        if about.exists():
            found = json.loads(about.read_text(encoding="utf-8"))
            if found != own:
                changed = next(key for key in own if found.get(key) != own[key])
                raise UserError(
                    f"{self.folder} holds other frames: {changed} is {found.get(changed)}, expected {own[changed]}.",
                    fix="name another folder with --pool, or remove this one",
                )
        else:
            if self.folder.exists() and any(self.folder.glob("*.npy")):
                raise UserError(f"{self.folder} is no pool of frames: pool.json is missing.", fix="--pool DIR")
            write_text(about, json.dumps(own, indent=2) + "\n")


@dataclass(frozen=True)
class _Order:
    """Draw one chunk and write it, unless another process has done so meanwhile."""

    path: Path
    source: str
    first: int
    count: int
    size: int

    def __call__(self) -> None:
        if self.path.exists():
            return
        pixels = draw_frames(self.source, range(self.first, self.first + self.count), self.size)
        with written_beside(self.path) as partial, partial.open("wb") as file:
            np.save(file, pixels)


def _be_polite() -> None:
    """Workers draw one picture at a time with one thread; the process that trains goes before."""
    os.nice(5)


PART = 1000
"""Frames in a folder of a data set: file browsers do not like more."""


def write_folder(folder: Path, *, num_frames: int, size: int, workers: int = 0, part: int = PART) -> None:
    """Write frames of the base's source as a data set: 0003/00003017.png with its words in 00003017.txt.

    What is there already stays, so that a call that was cut goes on.
    """
    if num_frames < 1 or num_frames % part:
        raise UserError(
            f"{num_frames} frames are not a number of whole folders of {part}.",
            fix=f"--frames {max(1, round(num_frames / part)) * part}",
        )
    parts = [_Part(folder / f"{start // part:04d}", start, part, size) for start in range(0, num_frames, part)]
    if not workers:
        for each in parts:
            each()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context, initializer=_be_polite) as executor:
        for done in [executor.submit(each) for each in parts]:
            done.result()


@dataclass(frozen=True)
class _Part:
    """Write one folder of a data set: beside first, so that it is there whole or not at all."""

    folder: Path
    first: int
    count: int
    size: int

    def __call__(self) -> None:
        if self.folder.exists():
            return
        partial = self.folder.with_name(self.folder.name + PARTIAL_SUFFIX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number in range(self.first, self.first + self.count):
            scene = base_scene(number)
            (partial / f"{number:08d}.txt").write_text(caption(scene, number) + "\n", encoding="utf-8")
            draw_scene(scene, self.size).save(partial / f"{number:08d}.png", compress_level=1)
        partial.rename(self.folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a whole pool ahead."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pool", type=Path, required=True, help="folder of the chunks")
    parser.add_argument("--source", choices=["base", "any"], default="base")
    parser.add_argument("--frames", type=int, default=40 * CHUNK)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(arguments)
    pool = Pool(given.pool, given.source, given.frames, given.size, workers=given.workers)
    started = time.monotonic()
    with pool.drawing():
        pool.wait_for(given.frames)
    seconds = time.monotonic() - started
    print(f"{given.frames} frames in {given.pool}: {seconds:.0f} s, {given.frames / seconds:.0f} a second")


if __name__ == "__main__":
    main()
