"""A stage of training: steps until all are done or the time is up, from the state that the last sitting left.

What a step shows and how it counts comes in as a function of the step's number, so a stage that is stopped and
continued ends with the numbers of one that never stopped.

    OUT/stage.json          what the stage was begun with
    OUT/state.safetensors   weights, optimizer, running mean, position; replaced as a whole
    OUT/metrics.jsonl       a row every few steps
    OUT/loss.png            the curve
"""

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brushwork.atomic import remove_partials, write_text
from brushwork.config.schema import ScheduleConfig
from brushwork.errors import UserError
from brushwork.records import Row, append_row, read_rows, write_rows
from brushwork.runtime import generator, pick_device, pick_dtype
from brushwork.training import ema
from brushwork.training.checkpoint import (
    Position,
    State,
    optimizer_moments,
    read_state,
    restore_moments,
    write_state,
)
from brushwork.training.curve import draw_curve
from brushwork.training.interruption import listening
from brushwork.training.learning_rate import factor
from brushwork.training.muon import Muon

ROW_EVERY = 20
"""Steps between two rows of metrics."""

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Settings:
    """What every stage is told; each script has its own defaults.

    Args:
        steps: of the whole stage, over all sittings.
        minutes: of this sitting.
        schedule: cosine: the learning rate falls to zero with the last step. constant: it stays, the running mean
            alone calms the weights, and one may stop at any time.
        frames: how many different ones are shown in all.
    """

    out: Path
    pool: Path
    steps: int
    minutes: float
    optimizer: Literal["muon", "adamw"]
    schedule: Literal["cosine", "constant"]
    batch: int
    learning_rate: float
    frames: int
    reuse: float
    size: int
    seed: int
    workers: int
    device: torch.device
    dtype: torch.dtype
    warmup: int = 200
    ema_decay: float = 0.999
    save_minutes: float = 5.0
    measure_every: int = 500

    def recipe(self) -> dict[str, Any]:
        """What decides the numbers: it may not change between two sittings."""
        names = [
            "optimizer",
            "schedule",
            "batch",
            "learning_rate",
            "frames",
            "reuse",
            "size",
            "seed",
            "warmup",
            "ema_decay",
        ]
        if self.schedule == "cosine":
            names.append("steps")
        return {name: getattr(self, name) for name in names}


def command_line(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """What every stage can be told, with this stage's defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the stage; an earlier one is continued")
    parser.add_argument("--pool", type=Path, required=True, help="folder where the drawn frames are kept")
    parser.add_argument("--steps", type=int, default=defaults["steps"], help="of the whole stage")
    parser.add_argument("--minutes", type=float, default=60.0, help="of this sitting")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--schedule", choices=["cosine", "constant"], default="cosine", help="of the learning rate")
    parser.add_argument("--batch", type=int, default=defaults["batch"])
    parser.add_argument("--learning-rate", type=float, default=defaults["learning_rate"])
    parser.add_argument("--frames", type=int, default=defaults["frames"], help="different frames to learn from")
    parser.add_argument("--reuse", type=float, default=4.0, help="how often a frame is shown before new ones come")
    parser.add_argument("--size", type=int, default=128, help="side of the frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw; 0: this one draws")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto: bf16 on a card, fp32 on a CPU")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="the state is saved at least this often")
    return parser


def settings(parsed: argparse.Namespace, **fixed: Any) -> Settings:
    """Check what was typed.

    Args:
        fixed: what a stage does not ask for: `warmup`, `ema_decay`, `measure_every`.
    """
    given = {name: value for name, value in vars(parsed).items() if name in Settings.__dataclass_fields__}
    for name in ("steps", "minutes", "batch", "learning_rate", "frames", "size"):
        if given[name] <= 0:
            raise UserError(f"--{name.replace('_', '-')} is {given[name]}; it must be more than 0.")
    device = pick_device(given.pop("device"))
    dtype = pick_dtype(parsed.precision, device)
    if dtype == torch.float16:
        raise UserError("the stages do not scale their losses, which fp16 needs.", fix="--precision bf16, or fp32")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every step has the same shapes
    return Settings(**given, device=device, dtype=dtype, **fixed)


class Stage:
    """Trains a network.

    Args:
        network: what learns (but for what is frozen), in float32 and with its first weights; moved to the device.
        loss: (network, step) -> the loss of that step, a scalar; the network is in the type it computes in.
        measure: network -> figures on frames not seen, of which `held_out_loss` is drawn beside the loss. It gets the
            running mean in float32.
        recipe: what else decides the numbers.
    """

    def __init__(
        self,
        given: Settings,
        network: nn.Module,
        *,
        loss: Callable[[nn.Module, int], Tensor],
        measure: Callable[[nn.Module], dict[str, float]],
        recipe: Mapping[str, Any],
        title: str,
    ) -> None:
        self.given = given
        self.loss = loss
        self.measure = measure
        self.title = title
        self.recipe = json.loads(json.dumps({"stage": title, **given.recipe(), **recipe}))
        self.network = network.to(given.device).train()
        own = learning_in(self.network)
        if given.dtype == torch.float32:
            self.parameters = own
            self.computing = self.network
        else:  # a rounded copy computes; float32 beside it learns
            self.computing = copy.deepcopy(self.network).to(given.dtype)
            self.parameters = own
        self.copies = learning_in(self.computing)
        self.optimizer = make_optimizer(own, given)
        self.mean = ema.start(own)
        self.position = Position()
        self._schedule = ScheduleConfig(name=given.schedule, warmup_steps=given.warmup)

    @property
    def state_file(self) -> Path:
        return self.given.out / "state.safetensors"

    @property
    def metrics_file(self) -> Path:
        return self.given.out / "metrics.jsonl"

    def run(self) -> Position:
        """Train until the last step, the end of the time, or an interruption; -> where it stands then."""
        self._begin()
        started = saved = rowed = time.monotonic()
        row_step, losses = self.position.step, 0.0
        with listening() as interruption:
            while self.position.step < self.given.steps:
                losses += self._step(self.position.step)
                done, now = self.position.step, time.monotonic()
                last = done == self.given.steps
                measures = done % self.given.measure_every == 0 or last
                if done % ROW_EVERY == 0 or measures:
                    row = self._row(losses / (done - row_step), (done - row_step) / (now - rowed))
                    if measures:
                        row |= self.measure(self.averaged())
                    append_row(self.metrics_file, row)
                    print(" ".join(f"{name} {value:.5g}" for name, value in row.items()), flush=True)
                    row_step, losses, rowed = done, 0.0, time.monotonic()
                late = now - saved >= 60 * self.given.save_minutes
                over = last or interruption.requested or now - started >= 60 * self.given.minutes
                if late or over:
                    self._save()
                    saved = time.monotonic()
                if over:
                    break
        return self.position

    @torch.no_grad()
    def averaged(self) -> nn.Module:
        """The network with the running mean of its weights, in float32 and in eval mode."""
        network = copy.deepcopy(self.network).eval()
        for name, parameter in learning_in(network).items():
            parameter.copy_(self.mean[name])
        return network.requires_grad_(False)

    def _step(self, step: int) -> float:
        for group in self.optimizer.param_groups:
            rate = factor(step, total_steps=max(self.given.steps, self.given.warmup), schedule=self._schedule)
            group["lr"] = self.given.learning_rate * rate
        loss = self.loss(self.computing, step)
        loss.backward()  # type: ignore[no-untyped-call]
        value, norm = float(loss.detach()), self._clipped()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise UserError(
                f"{self.title}: the loss ({value}) or the gradient ({norm}) of step {step + 1} is not finite; the "
                "weights were not touched.",
                fix="a lower --learning-rate, in another --out; the last saved state is unharmed",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            if self.computing is not self.network:
                torch._foreach_copy_(list(self.copies.values()), list(self.parameters.values()))
        ema.update(self.mean, self.parameters, decay=self.given.ema_decay, steps_done=step + 1)
        self.position = self.position.after_step(value, self.position.loss_scale)
        return value

    @torch.no_grad()
    def _clipped(self) -> float:
        """Take the gradients over into float32 and scale them down to norm 1; -> the norm they had."""
        if self.computing is not self.network:
            for name, rounded in self.copies.items():
                assert rounded.grad is not None, name
                self.parameters[name].grad = rounded.grad.float()
                rounded.grad = None
        return float(nn.utils.clip_grad_norm_(list(self.parameters.values()), MAX_GRADIENT_NORM))

    def _row(self, loss: float, steps_a_second: float) -> Row:
        return {
            "step": self.position.step,
            "loss": loss,
            "smoothed_loss": self.position.smoothed_loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "pictures_a_second": steps_a_second * self.given.batch,
        }

    def _begin(self) -> None:
        """Go on from the state in the folder, if there is one and it is of this stage."""
        out, about = self.given.out, self.given.out / "stage.json"
        if about.exists():
            found = json.loads(about.read_text(encoding="utf-8"))
            changed = [
                f"\n    {key}: {found.get(key)} -> {self.recipe.get(key)}"
                for key in sorted(found.keys() | self.recipe.keys())
                if found.get(key) != self.recipe.get(key)
            ]
            if changed:
                raise UserError(
                    f"{out} holds a stage that began with other settings:{''.join(changed)}",
                    fix="give the same ones, or another --out",
                )
        elif out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no stage of training.", fix="another --out")
        else:
            write_text(about, json.dumps(self.recipe, indent=2) + "\n")
        remove_partials(out)
        if self.state_file.exists():
            self._restore(read_state(self.state_file))
        if self.metrics_file.exists():  # what came after the state is going to happen again
            rows = read_rows(self.metrics_file)
            write_rows(self.metrics_file, [row for row in rows if row["step"] <= self.position.step])

    @torch.no_grad()
    def _restore(self, state: State) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(state.parameters[name])
            self.copies[name].copy_(parameter)
            assert state.ema is not None
            self.mean[name].copy_(state.ema[name])
        restore_moments(self.optimizer, self.parameters, state.moments)
        self.position = state.position

    def _save(self) -> None:
        write_state(
            self.state_file,
            State(
                position=self.position,
                parameters=dict(self.parameters),
                moments=optimizer_moments(self.optimizer, self.parameters),
                ema=self.mean,
                alphas={},
                family=self.title,
            ),
        )
        if rows := read_rows(self.metrics_file) if self.metrics_file.exists() else []:
            draw_curve(rows, self.given.out / "loss.png", title=self.title)


def learning_in(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name: those that are not frozen."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def make_optimizer(parameters: Mapping[str, nn.Parameter], given: Settings) -> torch.optim.Optimizer:
    """Muon or AdamW; AdamW also moves the embeddings, whose rows are things of their own."""
    if given.optimizer == "adamw":
        return torch.optim.AdamW(
            list(parameters.values()), lr=given.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
    embeddings = [parameter for name, parameter in parameters.items() if "embedding" in name]
    others = [parameter for name, parameter in parameters.items() if "embedding" not in name]
    groups: list[dict[str, Any]] = [{"params": others}]
    if embeddings:
        groups.append({"params": embeddings, "orthogonal": False})
    return Muon(groups, lr=given.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)


def shown_in(step: int, given: Settings, num_shown: int) -> Tensor:
    """The numbers of the frames that a step shows, of the first `num_shown`: (B,)"""
    return torch.randint(num_shown, (given.batch,), generator=generator(given.seed, "frames", step))


def begin_from(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """A network with the first weights of a seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what the user can put right is told without a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
