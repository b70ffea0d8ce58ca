"""`brushwork plan`: what a step of a run needs, in a table, and the settings with which it fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from brushwork.amounts import bytes_in_words
from brushwork.errors import UserError
from brushwork.runtime import BESIDE
from brushwork.training.asked import settle
from brushwork.training.memory_need import Need, Option, fitted, largest_size, need_of, options
from brushwork.training.plan import show_plan
from brushwork.training.prepare import prepare


@dataclass(frozen=True)
class MemoryPlan:
    """What was found.

    Args:
        limit: bytes that the run may take; None where nobody asked whether it fits.
        chosen: settings that fit, or that need least.
    """

    need: Need
    size: str
    batch: int
    choices: tuple[Option, ...] = ()
    limit: int | None = None
    chosen: Option | None = None
    fits: bool = True

    def record(self) -> dict[str, Any]:
        """The result as plain values, in bytes."""
        chosen = self.chosen
        return {
            "parts": dict(self.need.parts),
            "total": self.need.total,
            "operations": self.need.flops,
            "size": self.size,
            "batch": self.batch,
            "choices": [_record(option) for option in self.choices],
            "limit": self.limit,
            "fits": self.fits,
            "chosen": None if chosen is None else _record(chosen),
        }

    def __str__(self) -> str:
        lines = [f"memory at the peak of a step, {self.batch} of {self.size}:"]
        lines += [f"  {bytes_in_words(size):>10}  {name}" for name, size in self.need.parts]
        lines.append(f"  {bytes_in_words(self.need.total):>10}  together, and on a card about {BESIDE} GiB beside it")
        if self.chosen is None:
            lines += ["what would need less:"] if self.choices else []
            lines += [_line(option) for option in self.choices]
            return "\n".join(lines)
        assert self.limit is not None
        if not self.fits:
            lines.append(f"does not fit {bytes_in_words(self.limit)}: the least at this size of pictures is")
            return "\n".join([*lines, _line(self.chosen), "  a smaller data.resolution needs less"])
        if not self.chosen.changes:
            return "\n".join([*lines, f"fits {bytes_in_words(self.limit)} as it is"])
        return "\n".join([*lines, f"fits {bytes_in_words(self.limit)} with", _line(self.chosen)])


def _line(option: Option) -> str:
    settings = " ".join(f"--set {change}" for change in option.changes) or "(as it is)"
    time = "no more time" if option.time <= 1.005 else f"{option.time - 1:.0%} more to compute"
    if any(change.startswith("model.quantize=") for change in option.changes):
        time += ", the base rounded: docs/performance.md tells by how much"
    if any(change.startswith("train.stream=") for change in option.changes):
        time += ", the weights on their way from the host: slower where the card waits for them"
    return f"  {bytes_in_words(option.need.total):>10}  {settings}   {time}"


def _record(option: Option) -> dict[str, Any]:
    return {"changes": list(option.changes), "total": option.need.total, "time": round(option.time, 4)}


def plan_memory(
    data: str | Path,
    *,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    limit_gib: float | None = None,
    fit: bool = False,
    show_run: bool = True,
    console: Console | None = None,
) -> MemoryPlan:
    """Count what the run would need.

    Args:
        limit_gib: find settings that need no more than this, what is beside the run included.
        fit: the same with the memory of this machine's card.
        show_run: print the plan of the run too.

    Raises:
        UserError: as `train` would; or there is no card to fit.
    """
    asked = settle(data, recipe=recipe, files=files, overrides=overrides)
    preparation = prepare(asked.pictures, asked.resolved.settings)
    if fit and limit_gib is None:
        if preparation.device.type != "cuda":
            raise UserError("--fit asks what fits the card, and this machine has none.", fix="--vram 12")
        limit_gib = torch.cuda.get_device_properties(preparation.device).total_memory / 2**30
    if show_run:
        show_plan(console or Console(stderr=True), preparation, asked.folder, num_sample_prompts=0)
    largest = largest_size(preparation)
    planned = MemoryPlan(
        need=need_of(preparation),
        size=f"{largest.width} x {largest.height}",
        batch=preparation.settings.train.batch_size,
    )
    if limit_gib is None:
        return replace(planned, choices=tuple(options(preparation)))
    limit = round((limit_gib - BESIDE) * 2**30)
    chosen, fits = fitted(preparation, limit)
    return replace(planned, limit=limit, chosen=chosen, fits=fits)
