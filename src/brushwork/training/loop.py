"""The loop: steps, and what follows a step (held-out loss, files, state, pictures).

SD 1.5 and SDXL, with and without text encoders, run through these lines; what differs is a value or a function.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from brushwork.config.schema import Settings
from brushwork.distributed import Group
from brushwork.errors import UserError, listed
from brushwork.lean.flat import Flat
from brushwork.lean.network import LeanUNet
from brushwork.models.text import TextStates
from brushwork.models.unet import UNet
from brushwork.records import Row, append_row
from brushwork.runtime import PRECISIONS, derive_seed, peak_memory, release_memory, reserved_memory
from brushwork.training.batches import Budget, Microbatch
from brushwork.training.checkpoint import Lowest, Position
from brushwork.training.due import Due, due_after, text_encoder_stop
from brushwork.training.ema import RunningMean
from brushwork.training.feed import EncodesText, Feed, Loaded, drawn_views
from brushwork.training.gradients import Gradients
from brushwork.training.interruption import Interruption
from brushwork.training.learning_rate import factor
from brushwork.training.loss_scale import LossScale
from brushwork.training.optimizers import learning_rate, used_weights
from brushwork.training.out_of_memory import MemoryRanOutError, noticing, part_of, parts, stopped
from brushwork.training.passes import Passes
from brushwork.training.run_folder import RunFolder
from brushwork.training.sharding import Shards
from brushwork.training.step import Network, Objective, draw
from brushwork.training.verdict import Verdict

logger = logging.getLogger("brushwork")


@dataclass(frozen=True)
class Learner:
    """What computes and what learns."""

    unet: UNet
    network: Network
    """What computes the loss: the UNet itself, or the lean path over its weights."""
    encode: EncodesText
    """Captions to text states, where they are not in the cache; differentiable if the encoders learn."""
    parameters: Mapping[str, nn.Parameter]
    """Everything that learns, float32, by name."""
    copies: Mapping[str, nn.Parameter]
    """Where the network computes with a rounded copy of a parameter: that copy, by the same name. An adapter has
    none: it casts its few weights as it goes."""
    shards: Shards | None
    """Where each process holds a piece of the network and of what learns: this one's."""
    flat: Flat | None
    """The buffer in which the parameters lie, if they do."""
    gradients: Gradients
    passes: Passes
    """Makes each pass through the network and back."""
    optimizer: torch.optim.Optimizer
    """Each of its groups has a `base_rate`, which the schedule multiplies."""
    ema: RunningMean | None
    set_dropout_key: Callable[[int | None], None]
    """What the adapter's dropout is drawn from; None turns it off."""
    limit_norms: Callable[[], None]
    """Holds what was learned within its limits, after each step."""
    objective: Objective
    dtype: torch.dtype
    device: torch.device

    @torch.no_grad()
    def refresh_copies(self) -> None:
        """Round the parameters anew into the copies that the network computes with."""
        for name, copy in self.copies.items():
            copy.copy_(self.parameters[name])
        if self.flat is not None and isinstance(self.network, LeanUNet):
            self.flat.round_to(self.dtype)

    @contextmanager
    def as_saved(self, dtype: torch.dtype) -> Iterator[None]:
        """Within it, what learns is what pictures are drawn with, rounded as the run's files are."""
        with self.as_used():
            kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
            try:
                self._set({name: value.to(dtype).float() for name, value in kept.items()})
                yield
            finally:
                self._set(kept)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
        self.refresh_copies()

    @contextmanager
    def as_used(self) -> Iterator[None]:
        """Within it, network and parameters are what pictures are to be drawn with."""
        try:
            with used_weights(self.optimizer, self.parameters):
                self.refresh_copies()
                yield
        finally:
            self.refresh_copies()

    def gathered(self) -> AbstractContextManager[None]:
        """Within it, this process computes with the network without the others."""
        return nullcontext() if self.shards is None else self.shards.gathered()


@dataclass(frozen=True)
class Hooks:
    """What the loop calls and does not know."""

    save: Callable[[Position, "Due"], None]
    """Write the files that are due, and the state."""
    held_out_loss: Callable[[], float] | None
    train_part_loss: Callable[[], float] | None
    """The same estimator on a fixed part of the training set."""
    judge: Callable[[Row], Verdict]
    """What the rows say, with this one as the last."""
    sample: Callable[[Position], None]
    evaluate: Callable[[Position, Due], str | None] | None
    """Draw with the file that was just written and judge the pictures; -> `overtrained`, where they say so."""
    report: Callable[[Row], None]
    requests: Callable[[], frozenset[str]]
    """What another terminal has asked since the last step: `save`, `sample`."""


@dataclass
class Loop:
    """One run, from the position where it stands to its end or until it is interrupted."""

    learner: Learner
    feed: Feed
    captions: Callable[[int, int, Sequence[int]], Sequence[str]]
    """What is said at (step, microbatch) of the pictures with these indices."""
    budget: Budget
    settings: Settings
    folder: RunFolder
    hooks: Hooks
    interruption: Interruption
    position: Position
    group: Group
    """The processes that share the batches of each step."""
    _saved_at: float = field(default_factory=time.monotonic, init=False)
    _saved_step: int = field(default=-1, init=False)

    def run(self) -> Position:
        """Train. Returns where it ended: at `budget.total_steps`, or earlier if it was interrupted."""
        pending = range(self.position.step, self.budget.total_steps)
        batches = self.feed.read_ahead(
            (indices, self.captions(step, microbatch, indices), self._views(indices, step, microbatch))
            for step in pending
            for microbatch, indices in self._own(step)
        )
        for step in pending:
            started = time.monotonic()
            loaded = {microbatch: next(batches) for microbatch, _ in self._own(step)}
            waited = time.monotonic() - started
            try:
                with noticing():
                    row = self._update(step, loaded)
            except MemoryRanOutError as error:
                raise self._out_of_memory(str(error), untouched=False) from None
            seconds = time.monotonic() - started
            row |= {
                "images_per_second": round(self._pictures_of(step) / seconds, 4),
                "seconds": round(seconds, 4),
                "data_wait": round(waited / seconds, 4),
                "data_wait_seconds": round(waited, 4),
                "memory_gib": round(peak_memory(self.learner.device) / 2**30, 3),
                "memory_reserved_gib": _gib(reserved_memory(self.learner.device)),
            }
            self._after_step(self.group.from_first(row))
            if self.group.any(self.interruption.requested):
                self.interruption.agree()  # all stop after the same step
            if self.interruption.requested or self.position.ended is not None:
                break
        if self.interruption.requested and self._saved_step != self.position.step:
            self._save(Due(state=True))
        return self.position

    def _own(self, step: int) -> list[tuple[int, Microbatch]]:
        """The batches of a step that this process takes, each with its number among all."""
        batches = list(enumerate(self.budget.microbatches(step)))
        own = self.group.share(batches)
        # A network in pieces computes only where all take part: who has no batch looks at another's.
        return own if own or self.learner.shards is None else batches[:1]

    def _passes(self, step: int, rank: int) -> list[tuple[int, slice]]:
        """What goes through the network in a process: numbers of batches, and which of their pictures at once."""
        at_once = self.position.pictures_at_once
        batches = list(enumerate(self.budget.microbatches(step)))[rank :: self.group.size]
        return [(number, where) for number, indices in batches for where in parts(len(indices), at_once)]

    def _idle_passes(self, step: int) -> int:
        """How often this process takes part for the others' sake alone, having fewer pictures than they."""
        if self.learner.shards is None:
            return 0
        counts = [len(self._passes(step, rank)) for rank in range(self.group.size)]
        return max(counts) - counts[self.group.rank]

    def _pictures_of(self, step: int) -> int:
        return sum(len(indices) for indices in self.budget.microbatches(step))

    def _update(self, step: int, batches: Mapping[int, Loaded]) -> Row:
        """One optimizer step: the mean gradient over all pictures that it sees, checked, clipped, applied.

        Each process takes its `batches`; summed up, the gradients and the loss are those of one process with all.
        """
        learner, optimizer, scale = self.learner, self.learner.optimizer, self.position.loss_scale
        rate = factor(step, total_steps=self.budget.total_steps, schedule=self.settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = group["base_rate"] * rate
        loss = self._gradients(step, batches)
        gradient_norm = self._unscaled_gradient_norm(scale)
        scale = self._checked(step, loss, gradient_norm, batches, scale)
        if scale.overflows == self.position.loss_scale.overflows:
            largest = self.settings.optimizer.max_grad_norm
            if largest is not None and gradient_norm > largest:
                learner.gradients.scale(largest / gradient_norm)
            optimizer.step()
            learner.limit_norms()
            learner.refresh_copies()
            if learner.ema is not None and self.settings.train.ema_decay is not None:
                learner.ema.update(decay=self.settings.train.ema_decay, steps_done=step + 1)
        learner.gradients.clear()
        self.position = self.position.after_step(loss, scale)
        return {
            "step": self.position.step,
            "epoch": self.budget.epoch_of(step) + 1,
            "loss": loss,
            "smoothed_loss": self.position.smoothed_loss,
            "learning_rate": learning_rate(optimizer),
            "gradient_norm": gradient_norm if math.isfinite(gradient_norm) else None,
            "skipped_updates": scale.overflows,
        }

    def _views(self, indices: Sequence[int], step: int, microbatch: int) -> list[int]:
        counts = [len(self.feed.examples[index].views) for index in indices]
        return drawn_views(counts, seed=self.settings.train.seed, step=step, microbatch=microbatch)

    def _gradients(self, step: int, batches: Mapping[int, Loaded]) -> float:
        """Leave the mean gradient over all pictures of the step, whoever saw them; -> their mean loss."""
        own = self._own_gradients(step, batches)
        self.learner.gradients.finish(self.group)
        return self.group.total(own) / self._pictures_of(step)

    def _own_gradients(self, step: int, batches: Mapping[int, Loaded]) -> float:
        """This process's part of both sums. Where memory runs out, all of it is done again with half as many pictures
        at once, which is the same."""
        while True:
            try:
                with noticing():
                    return self._accumulated(step, batches)
            except MemoryRanOutError as error:
                said = str(error)
            self._take_smaller_parts(said, max(len(batch.names) for batch in batches.values()))

    def _accumulated(self, step: int, batches: Mapping[int, Loaded]) -> float:
        scale = self.position.loss_scale.scale / self._pictures_of(step)
        sums = []
        for microbatch, where in self._passes(step, self.group.rank):
            sums.append(self._losses(step, microbatch, batches[microbatch], where, scale).sum())
        for _ in range(self._idle_passes(step)):
            microbatch = min(batches)
            self._losses(step, microbatch, batches[microbatch], slice(0, 1), 0.0)
        # Asked for once: each time, a card would stand still.
        return float(sum(torch.stack(sums).tolist())) if sums else 0.0

    def _take_smaller_parts(self, said: str, largest: int) -> None:
        """Halve what goes through the network at once, for this step and all that follow; stop where it is one."""
        learner, position = self.learner, self.position
        if learner.shards is not None:
            raise self._out_of_memory(said, untouched=True)
        learner.gradients.clear()
        release_memory(learner.device)
        at_once = min(largest, position.pictures_at_once or largest)
        if at_once == 1:
            raise self._out_of_memory(said, untouched=True)
        self.position = replace(position, pictures_at_once=(at_once + 1) // 2)
        logger.warning(
            "step %d: memory ran out with %d pictures at once (%s). From here on %d at a time: the same gradient, in "
            "more time. A smaller train.batch_size with more train.accumulation is the same from the start",
            position.step + 1,
            at_once,
            said,
            self.position.pictures_at_once,
        )

    def _out_of_memory(self, said: str, *, untouched: bool) -> UserError:
        """The state is saved where no weight has moved since the last whole step, and there has been one."""
        sharded = self.learner.shards is not None
        saved = untouched and self.position.step > 0 and self.group.is_first and not sharded
        if saved and self._saved_step != self.position.step:
            self._save(Due(state=True))
        step, device = self.position.step, self.learner.device
        return stopped(said, self.settings, step=step, saved=saved, device=device, sharded=sharded)

    def _losses(self, step: int, microbatch: int, whole: Loaded, where: slice, scale: float) -> Tensor:
        """A part of one batch there and back: -> (B,). What is drawn is drawn for the whole batch, so that each
        picture has its own numbers however it is cut; only the adapter's dropout has other masks in a part."""
        learner = self.learner
        draws = draw(
            whole.mean.shape, learner.objective, seed=self.settings.train.seed, step=step, microbatch=microbatch
        )
        draws, loaded = part_of(draws, where), part_of(whole, where)
        place = (step, microbatch, where.start) if where.start else (step, microbatch)
        key = derive_seed(self.settings.train.seed, "dropout", *place)
        text = loaded.text if loaded.text is not None else self._encoded(loaded.captions, step, key)
        learner.set_dropout_key(key)
        return learner.passes(loaded.with_text(text), draws, scale)

    def _encoded(self, captions: tuple[str, ...], step: int, key: int) -> TextStates:
        """Ask the encoders; from where they are to stop, nothing in them learns and nothing is left out of them."""
        stop = text_encoder_stop(self.settings.train, self.budget.steps_per_epoch)
        learns = stop is None or step < stop
        self.learner.set_dropout_key(key if learns else None)
        with torch.set_grad_enabled(learns):
            return self.learner.encode(captions)

    def _unscaled_gradient_norm(self, scale: LossScale) -> float:
        """Take the loss scale out of the gradients; -> their norm over everything that learns."""
        gradients = self.learner.gradients
        if scale.scale != 1.0:
            gradients.scale(1.0 / scale.scale)
        return gradients.norm(self.group)

    def _checked(
        self, step: int, loss: float, gradient_norm: float, batches: Mapping[int, Loaded], scale: LossScale
    ) -> LossScale:
        """Stop before a weight is touched if anything is not finite; under loss scaling an overflow may pass."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return scale.after_good_step() if scale.is_on else scale
        if math.isfinite(loss) and scale.is_on and not scale.exhausted:
            logger.warning("step %d: fp16 gradients overflowed; update skipped, scale halved", step + 1)
            return scale.after_overflow()
        what = "gradient" if math.isfinite(loss) else "loss"
        own = [name for batch in batches.values() for name in batch.names]
        names = list(dict.fromkeys(name for each in self.group.gathered(own) for name in each))
        raise UserError(
            f"the {what} of step {step + 1} is not finite, so the run stopped before it could spoil the weights. "
            f"The step saw: {listed(names, limit=8)}.",
            fix="look at these pictures; if they are sound, use a lower optimizer.learning_rate or "
            "train.precision=bf16 (or fp32). The last saved state is unharmed",
        )

    def _after_step(self, row: Row) -> None:
        """Measure, save, then draw: what can fail comes last."""
        requests = self.hooks.requests() if self.group.is_first else frozenset[str]()
        due = self.group.from_first(self._due(requests))
        if due.validate:
            due = self._validated(row, due)
        due = self._with_lowest_loss(due, row.get("held_out_loss"))
        if self.group.is_first:
            append_row(self.folder.metrics_file, row)
        self.hooks.report(row)
        if due.state:
            self._save(due)
        if due.sample:
            self.learner.set_dropout_key(None)
            with self.learner.as_used(), self.learner.gathered():
                self.hooks.sample(self.position)
        if due.evaluate:
            self._evaluate(due)

    def _evaluate(self, due: Due) -> None:
        """Let the file that was just written draw; where its pictures say so and the settings ask for it, stop."""
        assert self.hooks.evaluate is not None
        self.learner.set_dropout_key(None)
        with self.learner.as_saved(PRECISIONS[self.settings.save.precision]):
            found = self.hooks.evaluate(self.position, due)
        if found in self.settings.train.stop_when and not due.final_file:
            self.position = replace(self.position, ended=found)
            self._save(Due(final_file=True, state=True))

    def _validated(self, row: Row, due: Due) -> Due:
        """Measure into `row` and judge; a verdict that the settings ask for ends the run here, with all its files."""
        if self.hooks.held_out_loss is not None:
            row["held_out_loss"] = self._measured("held-out loss", self.hooks.held_out_loss)
        if self.hooks.train_part_loss is not None:
            row["train_part_loss"] = self._measured("loss of the training part", self.hooks.train_part_loss)
        verdict = self.hooks.judge(row)
        row["verdict"] = verdict.text
        if verdict.kind not in self.settings.train.stop_when or due.final_file:
            return due
        self.position = replace(self.position, ended=verdict.kind)
        return replace(due, final_file=True, state=True, sample=self.settings.sample.prompts is not None)

    def _measured(self, what: str, measure: Callable[[], float]) -> float | None:
        """What is measured does not train: a loss that is not finite there is told, and the run goes on."""
        self.learner.set_dropout_key(None)
        try:
            with noticing(), self.learner.as_used(), self.learner.gathered():
                loss = measure()
        except MemoryRanOutError as error:
            if self.learner.shards is not None:
                raise self._out_of_memory(str(error), untouched=True) from None
            logger.warning(
                "the %s of step %d was not measured: %s. Training goes on.", what, self.position.step, error
            )
            release_memory(self.learner.device)
            return None
        if math.isfinite(loss):
            return loss
        logger.warning("the %s of step %d is not finite: the base overflows", what, self.position.step)
        return None

    def _save(self, due: Due) -> None:
        self.hooks.save(self.position, due)
        self._saved_at, self._saved_step = time.monotonic(), self.position.step

    def _due(self, requests: frozenset[str]) -> Due:
        minutes = self.settings.save.every_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return due_after(
            self.position.step,
            self.settings,
            self.budget,
            evaluates=self.hooks.evaluate is not None,
            requests=requests,
            save_state=late or self.interruption.requested,
        )

    def _with_lowest_loss(self, due: Due, held_out: float | None) -> Due:
        """Note a new lowest loss: the held-out one where it is measured, else the smoothed one at an epoch's end."""
        measures = self.hooks.held_out_loss is not None
        epoch_over = self.budget.ends_epoch(self.position.step) or due.final_file
        loss = held_out if measures else self.position.smoothed_loss if epoch_over else None
        lowest = self.position.lowest
        if loss is None or (lowest is not None and loss >= lowest.loss):
            return due
        self.position = replace(self.position, lowest=Lowest(loss=loss, step=self.position.step, held_out=measures))
        return replace(due, lowest_loss_file=True, state=True)


def _gib(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else round(num_bytes / 2**30, 3)
