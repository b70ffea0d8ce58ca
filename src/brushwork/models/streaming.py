"""Weights of the blocks that lie in the host's memory and come to the device a block ahead of their use.

What is fetched at once is a unit: a residual block, a transformer block, a convolution between two levels. A unit is
asked for by its layers when they want their weight; what was asked for after it the last time is fetched beside its
computation, whichever way the network is walked: forward, backward, or forward again. At most `ahead` + 1 units are
on the device; all others exist in the host's memory alone.
"""

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, cast, final

import torch
from torch import Tensor, nn

from brushwork.models.attention import SpatialTransformer
from brushwork.models.blocks import DownBlock, MidBlock, UpBlock
from brushwork.models.rounded import Rounded, can_round, is_rounded
from brushwork.models.unet import UNet

ALIGNMENT = 256
"""Bytes: each tensor of a unit begins at a multiple of it, as CUDA's own allocator has it."""


class Copier(Protocol):
    """Copies beside the computation."""

    def start(self, target: Tensor, source: Tensor) -> Any:
        """Begin to copy, once all that was asked of the device so far is done with `target`; -> what to wait for."""

    def wait(self, arrival: Any) -> None:
        """What is asked of the device from now on comes after this copy."""


@final
class PlainCopier:
    """Copies at once: for a device that computes in the host's own memory."""

    def start(self, target: Tensor, source: Tensor) -> None:
        """Copy."""
        target.copy_(source)

    def wait(self, arrival: None) -> None:
        """It has arrived."""


@final
class CudaCopier:
    """Copies from and to pinned memory on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, target: Tensor, source: Tensor) -> Any:
        """Begin to copy; the host does not wait."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            if source.is_cuda:
                source.record_stream(self._stream)  # it may be let go of before it has left
            return self._stream.record_event()

    def wait(self, arrival: Any) -> None:
        """The computing stream waits; the host does not."""
        torch.cuda.current_stream(self._device).wait_event(arrival)


def copier_for(device: torch.device) -> Copier:
    """The way of copying that a device has."""
    return CudaCopier(device) if device.type == "cuda" else PlainCopier()


@dataclass(frozen=True)
class Placed:
    """Where a tensor of a unit lies in the unit's bytes."""

    owner: Rounded
    name: str
    begin: int
    shape: torch.Size
    dtype: torch.dtype

    def view(self, memory: Tensor) -> Tensor:
        """The tensor in these bytes."""
        size = self.shape.numel() * self.dtype.itemsize
        return memory[self.begin : self.begin + size].view(self.dtype).view(self.shape)


class Unit:
    """The weights of one block, one after the other in the host's memory, pinned where a card reads them."""

    def __init__(self, layers: Sequence[Rounded], *, pinned: bool) -> None:
        self._places: list[Placed] = []
        size = 0
        for layer in layers:
            for name, tensor in layer.named_buffers():
                self._places.append(Placed(layer, name, size, tensor.shape, tensor.dtype))
                size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.host = torch.empty(size, dtype=torch.uint8)
        if pinned:
            _pin(self, self.host)
        for each in self._places:
            each.view(self.host).copy_(getattr(each.owner, each.name))
        self.lay(self.host)

    def lay(self, memory: Tensor) -> None:
        """The layers' tensors are those in these bytes from now on."""
        for each in self._places:
            setattr(each.owner, each.name, each.view(memory))


def _pin(owner: Unit, memory: Tensor) -> None:
    """Let a card read the memory by itself while the owner lives. PyTorch's own pinned memory comes in powers of
    two: 4.7 GiB of blocks would take up to twice as much."""
    cuda, address = torch.cuda.cudart(), memory.data_ptr()  # type: ignore[no-untyped-call]
    torch.cuda.check_error(cuda.cudaHostRegister(address, memory.nbytes, 0))
    weakref.finalize(owner, cuda.cudaHostUnregister, address).atexit = False


@final
class Streamer:
    """Keeps the units that are computed with on the device, and fetches the next.

    Args:
        units: the layers of each unit, in the order of the network.
        device: where it computes.
        ahead: units that are fetched beside the one that is computed with.
    """

    def __init__(
        self, units: Sequence[Sequence[Rounded]], *, device: torch.device, ahead: int, copier: Copier | None = None
    ) -> None:
        self._units = [Unit(layers, pinned=device.type == "cuda") for layers in units]
        self._copier = copier or copier_for(device)
        self._ahead = min(ahead, len(units) - 1)
        largest = max(len(unit.host) for unit in self._units)
        self._free = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(self._ahead + 1)]
        self._here: dict[int, tuple[Tensor, Any]] = {}
        self._history: tuple[int, int] = (-1, -1)
        self._followed: dict[tuple[int, int], int] = {}
        for index, layers in enumerate(units):
            for layer in layers:
                layer.home = Home(self, index, device)

    @property
    def on_device(self) -> list[int]:
        """The units that are on the device, or on their way."""
        return list(self._here)

    @property
    def memories(self) -> list[Tensor]:
        """The device's memory in which units come and go."""
        return [*self._free, *(memory for memory, _ in self._here.values())]

    @property
    def device_bytes(self) -> int:
        """What the units take of the device."""
        return sum(memory.nbytes for memory in self.memories)

    def need(self, index: int) -> None:
        """Have a unit on the device, arrived, and the next ones on their way."""
        before, current = self._history
        if index == current:
            return
        self._followed[(before, current)] = index
        self._history = (current, index)
        wanted = [index, *self._next()]
        for gone in [each for each in self._here if each not in wanted]:
            self._free.append(self._here.pop(gone)[0])
            self._units[gone].lay(self._units[gone].host)
        for each in wanted:
            if each not in self._here:
                self._fetch(each)
        self._copier.wait(self._here[index][1])
        self._units[index].lay(self._here[index][0])

    def _fetch(self, index: int) -> None:
        memory, source = self._free.pop(), self._units[index].host
        self._here[index] = (memory, self._copier.start(memory[: len(source)], source))

    def _next(self) -> list[int]:
        """The units that will be asked for: as it was the last time; at first, in the order of the network."""
        way, found = self._history, list[int]()
        while len(found) < self._ahead:
            follows = self._followed.get(way, (way[1] + 1) % len(self._units))
            if follows in (self._history[1], *found):
                break
            found.append(follows)
            way = (way[1], follows)
        return found


@dataclass(frozen=True)
class Home:
    """Where a layer's weight lies between its uses."""

    streamer: Streamer
    unit: int
    device: torch.device

    def fetch(self) -> None:
        """Have it on the device."""
        self.streamer.need(self.unit)


def stream_blocks(unet: UNet, *, device: torch.device, ahead: int, copier: Copier | None = None) -> Streamer:
    """Let the weights of a network's blocks, which are kept as `Rounded` or `Whole`, come and go."""
    units = [[cast(Rounded, layer.stored) for layer in layers] for layers in units_of(unet)]
    return Streamer(units, device=device, ahead=ahead, copier=copier)


def units_of(unet: UNet) -> list[list[nn.Module]]:
    """The layers that come and go, by unit, in the order in which the network first asks for them."""
    found = []
    for parts in _parts_in_turn(unet):
        layers = [
            module
            for path, part in parts.items()
            for name, module in part.named_modules(prefix=path)
            if can_round(name, module) and (is_rounded(module) or type(module) in (nn.Linear, nn.Conv2d))
        ]
        if layers:
            found.append(layers)
    return found


def _parts_in_turn(unet: UNet) -> Iterator[dict[str, nn.Module]]:
    """What belongs to each unit, by path."""
    levels: list[tuple[str, nn.Module]] = [(f"down_blocks.{n}", block) for n, block in enumerate(unet.down_blocks)]
    levels += [("mid_block", unet.mid_block)]
    levels += [(f"up_blocks.{n}", block) for n, block in enumerate(unet.up_blocks)]
    for path, level in levels:
        block = cast(DownBlock | MidBlock | UpBlock, level)
        pairs = zip_longest(block.resnets, block.attentions)
        for number, (resnet, attention) in enumerate(pairs):
            yield {f"{path}.resnets.{number}": cast(nn.Module, resnet)}
            if attention is not None:
                yield from _transformer(f"{path}.attentions.{number}", cast(SpatialTransformer, attention))
        for kind in ("downsamplers", "upsamplers"):
            for number, module in enumerate(getattr(block, kind, ())):
                yield {f"{path}.{kind}.{number}": module}


def _transformer(path: str, attention: SpatialTransformer) -> Iterator[dict[str, nn.Module]]:
    """Its blocks; the way in comes with the first and the way out with the last."""
    last = len(attention.transformer_blocks) - 1
    for number, block in enumerate(attention.transformer_blocks):
        unit: dict[str, nn.Module] = {f"{path}.transformer_blocks.{number}": block}
        if number == 0:
            unit = {f"{path}.proj_in": attention.proj_in, **unit}
        if number == last:
            unit[f"{path}.proj_out"] = attention.proj_out
        yield unit
