"""One pass of a batch through the network and back: kernel by kernel, or as a graph that a card replays in one go.

A step of SDXL is thousands of small kernels, and telling a fast card each of them takes longer than computing them. A
CUDA graph is told once. It always reads the same memory, so batches are copied to where it looks; there is one for
each shape of a batch, and all work in one pool of memory.

Shapes in this file:  B pictures
"""

import logging
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.lean.flat import Flat
from brushwork.lean.graph import MOST_GRAPHS, CudaGraphs, Records, are_alike, copied, shape_of, tensors_of
from brushwork.lean.network import LeanUNet
from brushwork.runtime import is_out_of_memory
from brushwork.training.attention import Chosen
from brushwork.training.gradients import Gradients
from brushwork.training.step import Batch, Draws, Network, Objective, loss_per_picture

logger = logging.getLogger("brushwork")


class Passes(Protocol):
    """Makes one pass."""

    def __call__(self, batch: Batch, draws: Draws, scale: float) -> Tensor:
        """The loss of each picture, (B,), without its graph; the gradient of `scale` times their sum is collected."""


@dataclass(frozen=True)
class EagerPasses:
    """Kernel by kernel."""

    network: Network
    objective: Objective
    dtype: torch.dtype
    device: torch.device
    gradients: Gradients
    attention: Chosen = nullcontext

    def __call__(self, batch: Batch, draws: Draws, scale: float | Tensor) -> Tensor:
        """See `Passes`."""
        batch, draws = batch.to(self.device), draws.to(self.device)
        with self.attention():
            losses = loss_per_picture(self.network, batch, draws, self.objective, dtype=self.dtype)
            if losses.requires_grad:  # unless dropout left out every layer
                (losses.sum() * scale).backward()  # type: ignore[no-untyped-call]
        self.gradients.collect()
        return losses.detach()


@dataclass(frozen=True)
class Recording:
    """A graph with the memory that it reads and writes."""

    inputs: tuple[Batch, Draws]
    scale: Tensor
    losses: Tensor
    replay: Callable[[], None]
    present: list[bool]
    """Which parameters get a gradient from it."""


class RecordedPasses:
    """As graphs, one for each shape of a batch.

    Args:
        required: whether it is an error that a graph cannot be recorded; else passes then go kernel by kernel.
    """

    def __init__(
        self, eager: EagerPasses, flat: Flat, records: Records, *, required: bool, most: int = MOST_GRAPHS
    ) -> None:
        self._eager, self._flat, self._records = eager, flat, records
        self._required, self._most = required, most
        self._recordings: dict[Hashable, Recording] = {}
        self._failed = self._told = False
        flat.keep_gradient()

    def __call__(self, batch: Batch, draws: Draws, scale: float) -> Tensor:
        """See `Passes`."""
        shape = shape_of((batch, draws))
        recording = self._recordings.get(shape)
        if recording is None and not self._failed and len(self._recordings) < self._most:
            recording = self._record(batch, draws, scale)
            if recording is not None:
                self._recordings[shape] = recording
        if recording is None:
            self._tell_once()
            return self._eager(batch, draws, scale)
        for own, given in zip(tensors_of(recording.inputs), tensors_of((batch, draws)), strict=True):
            own.copy_(given, non_blocking=True)
        recording.scale.fill_(scale)
        recording.replay()
        self._flat.present = [a or b for a, b in zip(self._flat.present, recording.present, strict=True)]
        return recording.losses.clone()  # the next graph may use this memory

    def _record(self, batch: Batch, draws: Draws, scale: float) -> Recording | None:
        """Record a graph of this shape; the gradient that is there already stays as it is."""
        flat, eager = self._flat, self._eager
        assert flat.gradient is not None
        inputs: tuple[Batch, Draws] = copied((batch, draws), eager.device)
        scale_ = torch.tensor(scale, device=eager.device)
        gradient, present = flat.gradient.clone(), flat.present
        flat.present = [False] * len(present)
        try:
            losses, replay = self._records.record(lambda: eager(*inputs, scale_))
            recording = Recording(inputs, scale_, losses, replay, flat.present)
            self._compare(recording)
            return recording
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            said = (str(error).splitlines() or [""])[0]
            if self._required:
                raise UserError(
                    f"train.cuda_graphs = on, and no graph could be recorded: {said}.",
                    fix="--set train.cuda_graphs=auto goes on without",
                ) from error
            self._failed = self._told = True
            logger.warning("no CUDA graph could be recorded (%s): training goes on kernel by kernel", said)
            return None
        finally:
            flat.gradient.copy_(gradient)
            flat.present = present
            for parameter in flat.parameters:
                parameter.grad = None

    def _compare(self, recording: Recording) -> None:
        """Hold the first replay against the pass kernel by kernel.

        Raises:
            RuntimeError: they differ by more than the order in which a card adds up.
        """
        flat = self._flat
        assert flat.gradient is not None
        flat.gradient.zero_()
        wanted = self._eager(*recording.inputs, recording.scale), flat.gradient.clone()
        flat.gradient.zero_()
        recording.replay()
        if not are_alike((recording.losses, flat.gradient), wanted):
            raise RuntimeError("its numbers are not those of the pass kernel by kernel")

    def _tell_once(self) -> None:
        if not self._told:
            logger.info(
                "train.cuda_graphs: there are more than %d shapes of batches; the others go without", self._most
            )
        self._told = True


def make_passes(eager: EagerPasses, flat: Flat | None, settings: Settings) -> Passes:
    """As the settings ask and as it can be; on a card it is told which.

    Raises:
        UserError: graphs are asked for and there can be none.
    """
    asked = settings.train.cuda_graphs
    if asked == "off":
        return eager
    why = why_not(settings, eager.device, lean=isinstance(eager.network, LeanUNet))
    if flat is None or why is not None:
        if asked == "on":
            raise UserError(
                f"train.cuda_graphs = on, and there can be none: {why}.", fix="--set train.cuda_graphs=auto"
            )
        if eager.device.type == "cuda":
            logger.info("no CUDA graphs: %s", why)
        return eager
    logger.info("each size of batch becomes a CUDA graph when it is first seen (train.cuda_graphs)")
    return RecordedPasses(eager, flat, CudaGraphs(), required=asked == "on")


def why_not(settings: Settings, device: torch.device, *, lean: bool) -> str | None:
    """What stands in the way of graphs; None where nothing does."""
    lora = settings.lora
    reasons = {
        f"the device is {device.type}": device.type != "cuda",
        "the whole network learns (train.mode = full)": settings.train.mode == "full",
        "they are for the lean path (train.path)": not lean,
        "dropout draws other numbers in each step": any((lora.dropout, lora.rank_dropout, lora.module_dropout)),
        "text encoders learn in the step (lora.text_encoder)": bool(lora.text_encoder),
        "weights come and go (train.stream)": settings.train.stream != "off",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
