"""The steps of a sampler as graphs that a card replays in one go: one for each shape of what the network is asked.

A graph keeps the memory that the network computes in, so whoever needs that memory for something else lets go of it
(`forget`). What is recorded is told by the weights' memory: it follows numbers that change there, and it is of no use
once other weights stand in their place.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from brushwork.errors import UserError
from brushwork.lean.graph import MOST_GRAPHS, CudaGraphs, Records, are_alike, copied, shape_of, tensors_of
from brushwork.runtime import is_out_of_memory

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Recording:
    """A graph with the memory that it reads and writes."""

    inputs: Any
    result: Tensor
    replay: Callable[[], None]


class Graphs:
    """Answers with what a function would, by replaying it.

    Args:
        make: what records; a new one each time that all is forgotten, with memory of its own.
        required: whether it is an error that nothing can be recorded; else the function is then called as it is.
        tell: told why, once.
    """

    def __init__(self, make: Callable[[], Records], *, required: bool, tell: Tell, most: int = MOST_GRAPHS) -> None:
        self._make, self._required, self._tell, self._most = make, required, tell, most
        self._records: Records | None = None
        self._recordings: dict[Hashable, Recording] = {}
        self._failed = self._told = False

    def __call__(self, function: Callable[[Any], Tensor], asked: Any) -> Tensor:
        """What `function` answers; the same function each time, until all is forgotten.

        Args:
            asked: tensors on the device, in dataclasses and tuples.
        """
        recording = self._recordings.get(shape_of(asked))
        if recording is None and not self._failed and len(self._recordings) < self._most:
            recording = self._record(function, asked)
        if recording is None:
            self._tell_once()
            return function(asked)
        for own, given in zip(tensors_of(recording.inputs), tensors_of(asked), strict=True):
            own.copy_(given, non_blocking=True)
        recording.replay()
        return recording.result.clone()  # the next graph may use this memory

    def forget(self) -> None:
        """Let go of every graph and its memory."""
        self._recordings.clear()
        self._records = None

    def _record(self, function: Callable[[Any], Tensor], asked: Any) -> Recording | None:
        """A graph for this shape, which gave the function's own numbers; None where there can be none."""
        inputs = copied(asked, next(tensors_of(asked)).device)
        try:
            self._records = self._records or self._make()
            result, replay = self._records.record(lambda: function(inputs))
            recording = Recording(inputs, result, replay)
            expected = function(inputs)
            replay()
            if not are_alike([result], [expected]):
                raise RuntimeError("its numbers are not those of the network kernel by kernel")
        except RuntimeError as error:
            said = (str(error).splitlines() or [""])[0]
            if self._required and not is_out_of_memory(error):
                raise UserError(
                    f"sample.cuda_graphs = on, and no graph could be recorded: {said}.",
                    fix="--set sample.cuda_graphs=auto goes on without",
                ) from error
            self._failed = self._told = True
        else:
            self._recordings[shape_of(asked)] = recording
            return recording
        self.forget()  # here, when the error and the tensors in its traceback are gone
        self._tell(f"no CUDA graph could be recorded ({said}): drawing goes on kernel by kernel")
        return None

    def _tell_once(self) -> None:
        if not self._told:
            self._tell(
                f"sample.cuda_graphs: there are more than {self._most} sizes of what is drawn at once; the others go "
                "without"
            )
        self._told = True


def graphs_for(
    asked: Literal["auto", "on", "off"],
    device: torch.device,
    *,
    obstacles: Mapping[str, bool],
    tell: Tell,
) -> Graphs | None:
    """As the settings ask and as it can be; None is kernel by kernel. On a card it is told which.

    Args:
        obstacles: what stands in the way, in words, where it does.

    Raises:
        UserError: graphs are asked for and there can be none.
    """
    if asked == "off":
        return None
    reasons = {f"the device is {device.type}": device.type != "cuda", **obstacles}
    why = next((reason for reason, holds in reasons.items() if holds), None)
    if why is None:
        tell("each size of picture becomes a CUDA graph when it is first drawn (sample.cuda_graphs)")
        return Graphs(CudaGraphs, required=asked == "on", tell=tell)
    if asked == "on":
        raise UserError(
            f"sample.cuda_graphs = on, and there can be none: {why}.", fix="--set sample.cuda_graphs=auto"
        )
    if device.type == "cuda":
        tell(f"no CUDA graphs for drawing: {why}")
    return None
