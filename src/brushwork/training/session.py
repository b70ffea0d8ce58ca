"""One process's part of a run: load what computes, put it where the run stands, and let the loop go on."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from brushwork.cache.store import Store, cache_folder
from brushwork.distributed import current
from brushwork.errors import UserError
from brushwork.generation.graphs import graphs_for
from brushwork.generation.pipeline import Pipeline
from brushwork.models.text import TextEncoders, TextStates, joined
from brushwork.models.vae import VAE
from brushwork.progress import progress_bar
from brushwork.records import Row, read_rows, write_rows
from brushwork.runtime import PRECISIONS, measure_peak_anew, peak_memory, release_memory
from brushwork.training.caching import CachedText, CachingInterruptedError, Entries, fill_latents, fill_text
from brushwork.training.checkpoint import Position, State
from brushwork.training.curve import draw_curve
from brushwork.training.due import Due
from brushwork.training.evaluating import Evaluator, Occasion, evaluated, is_complete
from brushwork.training.feed import Feed
from brushwork.training.interruption import Interruption
from brushwork.training.learner import Trained, blocks_ahead, make_learner
from brushwork.training.loop import Hooks, Loop
from brushwork.training.loss_scale import LossScale, initial_scale
from brushwork.training.memory_need import Need, beside_measured
from brushwork.training.metadata import file_metadata
from brushwork.training.prepare import VAE_DTYPE, Picture, Preparation, measured_part
from brushwork.training.report import step_note, tell_once, tell_verdict
from brushwork.training.requests import leave, take
from brushwork.training.run_folder import RunFolder
from brushwork.training.sampling import SHEET, Drawer
from brushwork.training.saving import Saver
from brushwork.training.sharding import is_sharded, load_shards
from brushwork.training.slowness import causes, memory_of
from brushwork.training.step import Objective
from brushwork.training.step_table import StepTable
from brushwork.training.trackers import Trackers, open_trackers
from brushwork.training.validation import fixed_loss
from brushwork.training.verdict import judge, usual_loss

logger = logging.getLogger("brushwork")


@dataclass(frozen=True)
class Session:
    """What `train_until_stopped` needs to know."""

    preparation: Preparation
    folder: RunFolder
    drawer: Drawer
    interruption: Interruption
    console: Console
    evaluator: Evaluator | None = None
    watch: Callable[[Row], bool] | None = None
    """Sees each row of `metrics.jsonl`; True ends the run after that step, with everything saved."""
    need: Need | None = None
    """What a step was planned to need."""


def train_until_stopped(session: Session, state: State | None) -> Position:
    """Train from `state`, or from the beginning, until the last step or an interruption; -> where it stands then."""
    preparation = session.preparation
    settings, base = preparation.settings, preparation.base
    position = _position(state, initial_scale(preparation.dtype == torch.float16))
    store = Store(cache_folder(settings.cache.folder))
    try:
        vae, text, prompt_states = _encode(session, store)
    except CachingInterruptedError:
        return position
    release_memory(preparation.device)
    if current().any(session.interruption.requested):
        return position

    shards = None
    if is_sharded(settings.train, current()):
        shards = load_shards(base, dtype=preparation.dtype, device=preparation.device, group=current())
    unet = (
        shards.unet
        if shards
        else base.load_unet(dtype=preparation.dtype, device=preparation.device, ahead=blocks_ahead(settings.train))
    )
    objective = Objective(
        schedule=preparation.schedule,
        prediction=base.prediction,
        scaling_factor=vae.scaling_factor,
        loss=settings.loss,
    )
    trained = make_learner(
        unet,
        text,
        base,
        settings,
        objective=objective,
        dtype=preparation.dtype,
        device=preparation.device,
        shards=shards,
    )
    pipeline = Pipeline(
        unet=unet,
        schedule=objective.schedule,
        prediction=objective.prediction,
        encode=text.encode if text is not None else _from_memory(prompt_states),
        decode=_decoding(vae, preparation.device),
        guide_separately=settings.sample.guide == "apart",
        graphs=graphs_for(
            settings.sample.cuda_graphs if _draws(session) else "off",
            preparation.device,
            obstacles={
                "weights come and go (train.stream)": settings.train.stream != "off",
                "the network lies in pieces (train.sharding)": shards is not None,
                "the blocks are compiled (train.compile)": settings.train.compile,
            },
            tell=logger.info,
        ),
    )
    if session.drawer.requests:
        with trained.learner.gathered():
            session.drawer.draw_base(pipeline)  # nothing has been learned yet, so this is the base
    if session.evaluator is not None:
        evaluated(session.evaluator, _occasion(session, pipeline, None))
    if state is None:
        trained.begin()
    else:
        trained.restore(state)
    return _train(session, Entries(store), trained, pipeline, position)


def _draws(session: Session) -> bool:
    """Whether the run makes pictures."""
    return bool(session.drawer.requests) or session.evaluator is not None


def _position(state: State | None, fresh: LossScale) -> Position:
    """Where the run stands; one that was begun in another precision scales its loss as this one needs it."""
    if state is None:
        return Position(loss_scale=fresh)
    if state.position.loss_scale.is_on == fresh.is_on:
        return state.position
    return replace(state.position, loss_scale=fresh)


def _encode(session: Session, store: Store) -> tuple[VAE, TextEncoders | None, dict[str, TextStates]]:
    """Fill the cache. The encoders that are not asked again leave the device before the network arrives.

    Returns:
        The VAE, on the CPU; the text encoders if every step asks them; else the states of the sample prompts.
    """
    preparation = session.preparation
    settings, base = preparation.settings, preparation.base
    vae = base.load_vae(dtype=VAE_DTYPE, device="cpu")
    fill_latents(preparation, store, vae, console=session.console, interruption=session.interruption)
    text = base.load_text(
        dtype=preparation.dtype,
        device=preparation.device,
        clip_skip=settings.model.clip_skip,
        max_tokens=settings.model.max_tokens,
    )
    if not preparation.caches_text:
        return vae, text, {}
    fill_text(preparation, store, text, console=session.console, interruption=session.interruption)
    requests = session.drawer.requests
    prompts = {prompt for request in requests for prompt in (request.prompt, request.negative)}
    if session.evaluator is not None:
        prompts |= set(session.evaluator.texts(preparation))
    with torch.no_grad():
        return vae, None, {prompt: text.encode([prompt]) for prompt in sorted(prompts)}


def _train(session: Session, entries: Entries, trained: Trained, pipeline: Pipeline, position: Position) -> Position:
    preparation, folder, drawer = session.preparation, session.folder, session.drawer
    settings, learner, group = preparation.settings, trained.learner, current()
    cached_text = CachedText(preparation, entries) if preparation.caches_text else None
    held_out = _feed(preparation.held_out, preparation, entries, cached_text)
    train_part = _feed(measured_part(preparation), preparation, entries, cached_text)
    rows = _rows_until(folder, position.step, keep=group.is_first)
    started_at = time.time()
    saver = Saver(
        folder=folder,
        trained=trained,
        family=preparation.base.family,
        settings=settings.save,
        metadata=lambda position: file_metadata(preparation, position, started_at=started_at),
        group=group,
    )
    if group.is_first:
        saver.remove_surplus()
    over = position.is_over(preparation.budget.total_steps)
    if group.from_first(over and not folder.final_file.exists()):
        saver.save(
            position, Due(final_file=True)
        )  # fewer steps were asked for than are done, or the file was removed
    if drawer.requests:
        with learner.as_used(), learner.gathered():
            drawer.draw_due(pipeline, position.step, ended=position.ended is not None)
    file = folder.file_at(preparation.budget, position)
    if session.evaluator is not None and not is_complete(
        session.evaluator,
        file,
        folder.path,
        settings,
        preparation.budget,
        position.step,
        ended=position.ended is not None,
    ):
        with learner.as_saved(PRECISIONS[settings.save.precision]):
            evaluated(session.evaluator, _occasion(session, pipeline, file))

    def measure(feed: Feed) -> float:
        return fixed_loss(
            learner.network,
            feed,
            learner.encode,
            learner.objective,
            num_timesteps=settings.validation.timesteps,
            seed=settings.validation.seed,
            dtype=learner.dtype,
            device=learner.device,
            group=group,
        )

    total = preparation.budget.total_steps
    table = StepTable(session.console, every=settings.log.every_steps, total=total)
    begun, told = len(rows), set[str]()
    with (
        progress_bar(session.console, "training", total, done=position.step, lines=False) as advance,
        closing(_trackers(session, position) if group.is_first else Trackers()) as trackers,
    ):

        def report(row: Row) -> None:
            rows.append(row)
            logger.debug("step %d/%d %s", row["step"], total, step_note(row))
            table.add(row)
            advance(row["step"], total, step_note(row))
            if len(rows) == begun + 1 and session.need is not None and learner.device.type == "cuda":
                logger.info("%s", beside_measured(session.need, peak_memory(learner.device)))
            if "verdict" in row:
                tell_verdict(row)
            if row["step"] % 10 == 0:
                tell_once(causes(rows[begun:], memory_of(learner.device)), told)
            trackers.step(row)
            if session.watch is not None and session.watch(row):
                leave(folder, "stop")

        def sample(position: Position) -> None:
            if drawer.requests:
                drawer.draw_now(pipeline, position.step)
            trackers.picture(folder.samples / SHEET, position.step)

        def evaluate(position: Position, due: Due) -> str | None:
            assert session.evaluator is not None
            file = folder.file_at(preparation.budget, position)
            return evaluated(session.evaluator, _occasion(session, pipeline, file))

        def save(position: Position, due: Due) -> None:
            saver.save(position, due)
            if not group.is_first:
                return
            logger.debug("saved everything at step %d", position.step)
            draw_curve(rows, folder.curve_file, title=settings.name)

        loop = Loop(
            learner=learner,
            feed=_feed(preparation.pictures, preparation, entries, cached_text),
            captions=preparation.wording.shown,
            budget=preparation.budget,
            settings=settings,
            folder=folder,
            hooks=Hooks(
                save=save,
                held_out_loss=partial(measure, held_out) if held_out.examples else None,
                train_part_loss=partial(measure, train_part) if train_part.examples else None,
                judge=lambda row: judge(
                    [*rows, row],
                    flat_steps=settings.validation.flat_steps,
                    usual_loss=usual_loss(settings.loss),
                ),
                sample=sample,
                evaluate=evaluate if session.evaluator is not None else None,
                report=report,
                requests=lambda: take(folder),
            ),
            interruption=session.interruption,
            position=position,
            group=group,
        )
        measure_peak_anew(learner.device)
        return loop.run()


def _occasion(session: Session, pipeline: Pipeline, file: Path | None) -> Occasion:
    return Occasion(
        run=session.folder.path,
        file=file,
        pipeline=pipeline,
        preparation=session.preparation,
        group=current(),
        console=session.console,
        interrupted=lambda: session.interruption.requested,
    )


def _trackers(session: Session, position: Position) -> Trackers:
    settings = session.preparation.settings
    return open_trackers(
        settings.log,
        session.folder.path,
        name=settings.name,
        done=position.step,
        described=settings.model_dump(mode="json"),
    )


def _feed(
    pictures: Sequence[Picture], preparation: Preparation, entries: Entries, cached_text: CachedText | None
) -> Feed:
    return Feed(
        examples=[picture.example for picture in pictures],
        latents=entries,
        cached_text=cached_text,
        needs_time_ids=preparation.base.spec.family == "sdxl",
    )


def _rows_until(folder: RunFolder, step: int, *, keep: bool) -> list[Row]:
    """The metrics up to `step`; what a killed process wrote after its last saved state is taken out of the file.

    Args:
        keep: whether to write the file anew with what is left.
    """
    if not folder.metrics_file.exists():
        return []
    rows = read_rows(folder.metrics_file)
    if not all(isinstance(row.get(key), int | float) for row in rows for key in ("step", "loss", "smoothed_loss")):
        raise UserError(
            f"{folder.metrics_file} holds a line that is no step of a run (a step has step, loss, smoothed_loss).",
            fix="remove that line, or the file: only the curve and the verdicts follow from it",
        )
    rows = [row for row in rows if row["step"] <= step]
    if keep:
        write_rows(folder.metrics_file, rows)
    return rows


def _from_memory(states: dict[str, TextStates]) -> Callable[[Sequence[str]], TextStates]:
    """Text states that were computed while the encoders were there."""

    def encode(prompts: Sequence[str]) -> TextStates:
        return joined([states[prompt] for prompt in prompts])

    return encode


def _decoding(vae: VAE, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The VAE visits the device for each picture; training needs its memory in between."""

    def decode(latents: Tensor) -> Tensor:
        try:
            return vae.to(device).decode(latents)
        finally:
            vae.to("cpu")

    return decode
