"""Everything that a run needs to go on, in one file that is replaced as a whole.

One file, because two can disagree after a kill: adapter, optimizer and running mean are its tensors, the position
and everything else that counts is JSON in its header, with a checksum of it all.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from brushwork.atomic import written_beside
from brushwork.errors import UserError
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState
from brushwork.tensor_file import described, write_tensors
from brushwork.training.flat_adamw import FlatAdamW
from brushwork.training.loss_scale import LossScale
from brushwork.training.optimizers import RULES, mean_of_schedulefree

FORMAT = "1"
REMADE = ("qmap1", "qmap2")
"""Tables of bitsandbytes that are the same for all parameters, and made again by it."""
UNSEALED = "unsealed"
"""Stands in the header until the checksum is known, which has as many characters."""
_SEAL = b'checksum\\": \\"%b'
"""How the checksum is found in the header, where the state's JSON is a text in JSON."""
SMOOTHING = 0.98
"""Decay of the smoothed loss: about the last 50 steps."""


@dataclass(frozen=True)
class Lowest:
    """The lowest loss so far."""

    loss: float
    step: int
    held_out: bool
    """Measured on held-out pictures; otherwise the smoothed training loss."""


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    step: int = 0
    """Optimizer steps that are done."""
    loss_scale: LossScale = field(default_factory=LossScale)
    loss_sum: float = 0.0
    """Sum of losses with exponential weights, and the sum of the weights: their ratio is the smoothed loss."""
    loss_weight: float = 0.0
    lowest: Lowest | None = None
    pictures_at_once: int | None = None
    """Where memory ran out: the most pictures that go through the network together since then."""
    ended: str | None = None
    """The verdict that ended the run before its last step (`train.stop_when`)."""

    def is_over(self, total_steps: int) -> bool:
        """Whether no step is left to do."""
        return self.step >= total_steps or self.ended is not None

    @property
    def smoothed_loss(self) -> float:
        """Mean loss of about the last 50 steps; NaN before the first."""
        return self.loss_sum / self.loss_weight if self.loss_weight else float("nan")

    def after_step(self, loss: float, loss_scale: LossScale) -> "Position":
        """One step further, with that step's loss."""
        return replace(
            self,
            step=self.step + 1,
            loss_scale=loss_scale,
            loss_sum=SMOOTHING * self.loss_sum + loss,
            loss_weight=SMOOTHING * self.loss_weight + 1.0,
        )


@dataclass(frozen=True)
class Numbers:
    """What the optimizer remembers beside tensors."""

    rule: str | None = None
    """`optimizer.name`; None in a state of before there was a choice."""
    of_parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    """By kind and parameter, e.g. how many steps it has moved."""
    of_groups: list[dict[str, float]] = field(default_factory=list)
    """Of each group of parameters together."""
    beta_1: float | None = None
    """Of a rule that gives out a mean: what leads from the parameters to it."""


@dataclass(frozen=True)
class State:
    """A run's state as it stands in a file."""

    position: Position
    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]
    """What the optimizer remembers of each parameter, by kind: AdamW's `exp_avg`, `exp_avg_sq` and `step`."""
    ema: Mapping[str, Tensor] | None
    alphas: dict[str, float]
    """Alpha of each adapted module."""
    family: str
    numbers: Numbers = field(default_factory=Numbers)

    def adapter(self, tensors: Mapping[str, Tensor] | None = None) -> AdapterState:
        """The adapter of the state as it learns, or of other tensors by the same names."""
        tensors = self.parameters if tensors is None else tensors
        return {
            name: LoRAWeights(down=tensors[f"{name}.down"], up=tensors[f"{name}.up"], alpha=alpha)
            for name, alpha in self.alphas.items()
        }

    def used_parameters(self) -> Mapping[str, Tensor]:
        """The parameters that pictures are to be drawn with: those of the state, or the mean that its rule keeps."""
        if self.numbers.beta_1 is None:
            return self.parameters
        z, beta_1 = self.moments.get("z", {}), self.numbers.beta_1
        return {
            name: mean_of_schedulefree(parameter, z[name], beta_1) if name in z else parameter
            for name, parameter in self.parameters.items()
        }


def write_state(path: Path, state: State) -> None:
    """Replace the state file as a whole; its tensors are looked at one after the other.

    Raises:
        UserError: the disk is full; the old file is then still there.
    """
    about = {
        "format": FORMAT,
        "family": state.family,
        "position": asdict(state.position),
        "alphas": state.alphas,
        "ema": state.ema is not None,
        "optimizer": asdict(state.numbers),
        "checksum": UNSEALED,
    }
    try:
        with written_beside(path) as partial:
            write_tensors(partial, _Filed(state), {"brushwork_state": json.dumps(about, sort_keys=True)})
            seal(partial)
    except OSError as error:
        raise UserError(
            f"the state of the run could not be written to {path}: {error}.",
            fix="make room on the disk, then give the same command again: it goes on from the state saved before",
        ) from error


class _Filed(Mapping[str, Tensor]):
    """The tensors of a state by their names in its file. Where processes hold pieces, each is put together when it is
    asked for."""

    def __init__(self, state: State) -> None:
        kinds = {"parameter": state.parameters, **state.moments} | ({} if state.ema is None else {"ema": state.ema})
        self._places = {f"{kind}/{name}": (tensors, name) for kind, tensors in kinds.items() for name in tensors}

    def __getitem__(self, key: str) -> Tensor:
        tensors, name = self._places[key]
        return tensors[name]

    def describe(self, key: str) -> Tensor:
        """Shape and type of a tensor, without asking for it where that can be."""
        return described(*self._places[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def seal(path: Path) -> None:
    """Write the checksum of a state into its header, where a mark of the same length stands."""
    checksum = _checksum(path, UNSEALED).encode()
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        file.seek(8 + header.index(_SEAL % UNSEALED.encode()) + len(_SEAL) - 2)
        file.write(checksum)


def _checksum(path: Path, seal: str) -> str:
    """CRC-32 of the file as it was before it was sealed: it tells damage, not malice.

    Args:
        seal: what stands in the header in the place of the mark.
    """
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        value = zlib.crc32(start + header.replace(_SEAL % seal.encode(), _SEAL % UNSEALED.encode()))
        while piece := file.read(2**20):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"


def read_state(path: Path) -> State:
    """Read a state file, onto the CPU.

    Raises:
        UserError: the file is damaged, or not a state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as the state of a run: {error}.",
            fix="begin again in another folder with --out; the adapter files beside it are not affected",
        ) from error
    if "brushwork_state" not in metadata:
        raise UserError(f"{path} is not the state of a run.", fix="name RUN/state/state.safetensors of a run")
    about = _about(path, metadata["brushwork_state"])
    if about["format"] != FORMAT:
        raise UserError(
            f"{path} was written by another version of Brushwork: format {about['format']}, this one reads {FORMAT}.",
            fix="continue it with the version that began it",
        )
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        kinds.setdefault(kind, {})[rest] = tensor
    position = about["position"]
    lowest = position["lowest"]
    return State(
        position=Position(
            step=position["step"],
            loss_scale=LossScale(**position["loss_scale"]),
            loss_sum=position["loss_sum"],
            loss_weight=position["loss_weight"],
            lowest=None if lowest is None else Lowest(**lowest),
            pictures_at_once=position.get("pictures_at_once"),
            ended=position.get("ended"),
        ),
        parameters=kinds.pop("parameter", {}),
        ema=kinds.pop("ema", {}) if about["ema"] else None,
        moments=kinds,
        alphas=about["alphas"],
        family=about["family"],
        numbers=Numbers(**about.get("optimizer", {})),
    )


def _about(path: Path, label: str) -> dict[str, Any]:
    """What a state says of itself, if nothing is damaged; a state of before there were checksums is believed."""
    try:
        about: dict[str, Any] = json.loads(label)
        sealed = "checksum" not in about or about["checksum"] == _checksum(path, about["checksum"])
    except (ValueError, TypeError, AttributeError):
        sealed = False
    if not sealed:
        raise UserError(
            f"{path} is damaged: its checksum does not fit what stands in it.",
            fix="put back a copy of it; or begin again in another folder from what the run last wrote for others: "
            "--out NEW --set lora.begin_with=FILE, in full mode --base FILE",
        )
    return about


def optimizer_moments(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """The tensors that the optimizer remembers of each parameter, by kind and name. Empty before its first step."""
    moments: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and kind not in REMADE:
                moments.setdefault(kind, {})[name] = value
    return moments


def optimizer_numbers(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], rule: str) -> Numbers:
    """Everything else that it remembers, under the name of its rule in the settings."""
    of_parameters: dict[str, dict[str, float]] = {}
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                of_parameters.setdefault(kind, {})[name] = value
    kept = RULES[rule].group_memory
    groups = [{key: group[key] for key in kept if key in group} for group in optimizer.param_groups]
    beta_1 = optimizer.param_groups[0]["betas"][0] if hasattr(optimizer, "eval") else None
    return Numbers(rule, of_parameters, groups if kept else [], beta_1)


def restore_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
    numbers: Numbers | None = None,
) -> None:
    """Give back to the optimizer what it remembered; the step counter stays on the CPU, where AdamW keeps it."""
    numbers = numbers or Numbers()
    for name, parameter in parameters.items():
        remembered: dict[str, Any] = {
            kind: values[name].clone() if kind == "step" else values[name].to(parameter.device, copy=True)
            for kind, values in moments.items()
            if name in values
        }
        remembered |= {kind: values[name] for kind, values in numbers.of_parameters.items() if name in values}
        if remembered:
            optimizer.state[parameter] = remembered
    if isinstance(optimizer, FlatAdamW):
        optimizer.adopt()
    elif hasattr(optimizer, "init_state"):
        _refill(optimizer)
    for group, kept in zip(optimizer.param_groups, numbers.of_groups, strict=False):
        group.update(kept)


def _refill(optimizer: Any) -> None:
    """bitsandbytes makes its own buffers, some in memory that a card shares with the CPU: they are made, then filled.

    Raises:
        UserError: the buffers are now of another kind than those that were saved.
    """
    for index, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            remembered = optimizer.state.pop(parameter, {})
            if not remembered:
                continue
            optimizer.init_state(group, parameter, index, place)
            made = optimizer.state[parameter]
            for kind, value in remembered.items():
                if not isinstance(value, Tensor):
                    made[kind] = value
                    continue
                if kind not in made or made[kind].dtype != value.dtype:
                    raise UserError(
                        "the state was saved with other optimizer.arguments (min_8bit_size).",
                        fix="keep them as they were when the run began",
                    )
                made[kind].copy_(value)
