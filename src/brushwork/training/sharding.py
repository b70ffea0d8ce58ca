"""The whole network cut into pieces, one for each process: full fine-tuning of what no single card holds.

Each block of the UNet is put together from all processes just before it computes, and let go of after (fully sharded
data parallelism, arXiv:2304.11277, as torch's `fully_shard` does it). What learns, its gradient, the optimizer's
memory and the running mean are pieces throughout: plain tensors of this process, its own rows of each weight.

Because a block is put together by all, all have to pass through the network equally often. Where that cannot be
(pictures are drawn, losses measured), `gathered` holds the whole network in each process for that while, in the type
that it computes in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from brushwork.config.schema import TrainConfig
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.models.blocks import Downsample, Upsample
from brushwork.models.checkpointing import Checkpointed
from brushwork.models.unet import UNet
from brushwork.models.weights import Base
from brushwork.training.checkpoint import State
from brushwork.training.out_of_memory import MemoryRanOutError, noticing

BLOCKS = (Checkpointed, Downsample, Upsample)
"""What is put together at once; the few weights outside them are a block of their own, whole during a pass."""

SMALL = 2**16
"""Tensors of so many numbers or fewer, the biases and norms, are put together in one message."""


def is_sharded(train: TrainConfig, group: Group) -> bool:
    """Whether each process holds a piece. One process alone holds everything, whatever the setting."""
    return train.sharding == "full" and group.size > 1


@dataclass(frozen=True)
class Shards:
    """One process's pieces of a network that all processes hold together."""

    unet: UNet
    group: Group
    parameters: Mapping[str, nn.Parameter]
    """Own rows of every weight, float32, by name. They share their memory with the network's own."""
    shapes: Mapping[str, torch.Size]
    """Of the whole weights."""

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Take the gradients of all passes, summed over all processes, from the network to the pieces that learn."""
        for name, weight in self.unet.named_parameters():
            self.parameters[f"unet.{name}"].grad = None if weight.grad is None else _local(weight.grad)
            weight.grad = None

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within it, each process holds the whole network and computes with it without the others.

        Raises:
            UserError: it does not fit beside the pieces. The others wait for what will not come, so the run ends.
        """
        blocks = self._blocks()
        self.unet.set_reshard_after_forward(False)  # type: ignore[operator]
        try:
            with noticing():
                for block in blocks:
                    block.unshard()
        except MemoryRanOutError as error:
            raise UserError(
                f"memory ran out while the whole network was put together to draw or to measure: {error}.",
                fix="--set sample.prompts=off --set validation.data=off does neither; more processes leave more room",
            ) from None
        try:
            yield
        finally:
            for block in blocks:
                block.reshard()
                block.set_reshard_after_forward(block is not blocks[0], recurse=False)  # the first is the UNet

    def cut(self, state: State) -> State:
        """This process's pieces of a state, which any number of processes may have written."""
        return replace(
            state,
            parameters=self._pieces(state.parameters),
            moments={kind: self._pieces(tensors) for kind, tensors in state.moments.items()},
            ema=None if state.ema is None else self._pieces(state.ema),
        )

    def hand_over(self, pieces: Mapping[str, Mapping[str, Tensor]], write: Callable[[], None]) -> None:
        """The first process writes; the others hand it their pieces of each tensor that it asks for.

        Args:
            pieces: by kind and name, the same in all processes.
            write: reads `Whole` tensors of these kinds, in an order of its own.
        """
        nothing: tuple[str, list[str]] | None = None
        if self.group.is_first:
            try:
                write()
            finally:
                self.group.from_first(nothing)
            return
        while (asked := self.group.from_first(nothing)) is not None:
            kind, names = asked
            self.put_together(names, pieces[kind])

    def put_together(self, names: Sequence[str], pieces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors from the pieces of all, in one message, on the CPU of the first process. All are to call it
        with the same names, of tensors of one type."""
        rows = [self._padded_rows(name, pieces[name]) for name in names]
        parts = self.group.gathered_in_first(torch.cat([each.flatten() for each in rows]))
        whole, begin = {}, 0
        for name, own in zip(names, rows, strict=True) if parts else ():
            shape, end = self.shapes[name], begin + own.numel()
            whole[name] = torch.cat([part[begin:end].view_as(own) for part in parts])[: shape[0]]
            begin = end
        return whole

    def _padded_rows(self, name: str, piece: Tensor) -> Tensor:
        """A piece on the CPU with as many rows as the first process has."""
        shape = self.shapes[name]
        rows = torch.zeros(_num_rows(shape[0], self.group.size), *shape[1:], dtype=piece.dtype)
        rows[: len(piece)] = piece.detach().cpu()
        return rows

    def _blocks(self) -> list[FSDPModule]:
        return [module for module in self.unet.modules() if isinstance(module, FSDPModule)]

    def _pieces(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: own_rows(tensor, self.group) for name, tensor in tensors.items()}


class Whole(Mapping[str, Tensor]):
    """Tensors in pieces, put together in the first process as they are asked for; to be read inside `hand_over`.

    A large one comes alone and is not kept; the small ones come in one message, and each is kept until it is read. A
    single number (how many steps a weight has moved) is the same in all processes, and no piece.
    """

    def __init__(self, shards: Shards, kind: str, pieces: Mapping[str, Tensor]) -> None:
        self._shards, self._kind, self._pieces = shards, kind, pieces
        self._small: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        piece = self._pieces[name]
        if piece.dim() == 0:
            return piece
        if name not in self._small:
            names = [each for each in self._pieces if self._is_small(each, piece.dtype)]
            names = names if name in names else [name]
            self._shards.group.from_first((self._kind, names))
            self._small |= self._shards.put_together(names, self._pieces)
        return self._small.pop(name)

    def _is_small(self, name: str, dtype: torch.dtype) -> bool:
        piece = self._pieces[name]
        return piece.dim() > 0 and piece.dtype == dtype and self._shards.shapes[name].numel() <= SMALL

    def __contains__(self, name: object) -> bool:
        return name in self._pieces  # without this, Mapping would put the tensor together to find out

    def describe(self, name: str) -> Tensor:
        """Shape and type of a whole tensor, which nobody is asked for."""
        piece = self._pieces[name]
        shape = piece.shape if piece.dim() == 0 else self._shards.shapes[name]
        return torch.empty(shape, dtype=piece.dtype, device="meta")

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def load_shards(base: Base, *, dtype: torch.dtype, device: torch.device, group: Group) -> Shards:
    """Read the UNet block by block, and keep of each block this process's rows.

    Args:
        dtype: what the network computes in. The weights that learn are float32, and begin with what this type makes
            of the file, as they do in one process.
    """
    _refuse_cards_without_nccl(device)
    with torch.device("meta"):
        unet = UNet(base.spec)
    shapes = {name: weight.shape for name, weight in unet.named_parameters()}
    part = base.parts["unet"].cast(dtype)
    part.check({name: tuple(shape) for name, shape in shapes.items()})
    mesh = init_device_mesh(device.type, (group.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    blocks = {name: module for name, module in unet.named_modules() if isinstance(module, BLOCKS)}
    for path, block in (*blocks.items(), ("", unet)):
        place = f"{path}." if path else ""
        missing = [name for name, weight in block.named_parameters() if weight.is_meta]
        weights = {name: part[place + name].float().to(device) for name in missing}
        block.load_state_dict(weights, strict=False, assign=True)
        sharded = fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=block is not unet)
        sharded.set_gradient_divide_factor(1.0)  # gradients are added up; the loss is divided by the pictures
        sharded.set_force_sum_reduction_for_comms(True)  # by plain sums, which gloo knows too
    with torch.no_grad():
        own = {f"unet.{name}": nn.Parameter(_local(weight)) for name, weight in unet.named_parameters()}
    return Shards(
        unet=unet.eval(),
        group=group,
        parameters=own,
        shapes={f"unet.{name}": shape for name, shape in shapes.items()},
    )


def own_rows(whole: Tensor, group: Group) -> Tensor:
    """The rows of a tensor that are this process's: equal numbers of them by rank, fewer or none in the last."""
    if whole.dim() == 0:
        return whole
    rows = _num_rows(len(whole), group.size)
    return whole[group.rank * rows : (group.rank + 1) * rows]


def _local(weight: Tensor) -> Tensor:
    """This process's rows of a weight or a gradient of the network, in the same memory."""
    assert isinstance(weight, DTensor)
    rows: Tensor = weight.to_local()
    return rows


def _num_rows(total: int, num_processes: int) -> int:
    return -(-total // num_processes)


def _refuse_cards_without_nccl(device: torch.device) -> None:
    if device.type == "cuda" and not dist.is_nccl_available():
        raise UserError(
            "train.sharding = full needs NCCL for messages between cards, which this torch has not.",
            fix="use torch for Linux with CUDA, or --set train.sharding=off",
        )
