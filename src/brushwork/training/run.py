"""`brushwork train` and `brushwork resume`: a folder of pictures goes in, a run folder comes out.

Headers and pictures are read, the plan is shown and checked, and only then is anything big loaded.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from brushwork.atomic import PARTIAL_SUFFIX, remove_partials, write_text
from brushwork.config.load import Resolved, read_toml, resolve, to_toml
from brushwork.config.schema import Settings
from brushwork.data.place import is_there
from brushwork.data.waiting import wait_for_captions
from brushwork.distributed import current, joined, voice
from brushwork.errors import UserError
from brushwork.records import Row, write_rows
from brushwork.run_files import LOCK_FILE, SETTINGS_FILE
from brushwork.runtime import limit_memory
from brushwork.training.asked import settle
from brushwork.training.changes import (
    changes,
    describe,
    refuse_another_shape,
    refuse_changed_inputs,
    refuse_changed_settings,
    refuse_changes_in_vain,
)
from brushwork.training.checkpoint import Position, State, read_state
from brushwork.training.evaluating import Evaluator, is_complete
from brushwork.training.interruption import listening
from brushwork.training.memory_need import memory_lines, need_of
from brushwork.training.plan import show_plan
from brushwork.training.prepare import Preparation, prepare_aloud
from brushwork.training.processes import refuse_differences, refuse_idle_processes, refuse_other_states
from brushwork.training.report import logged
from brushwork.training.requests import forget
from brushwork.training.run_folder import RunFolder, newest_run
from brushwork.training.sampling import Drawer, sample_requests
from brushwork.training.session import Session, train_until_stopped
from brushwork.training.sharding import is_sharded
from brushwork.training.trackers import refuse_missing_trackers
from brushwork.training.what_learns import check_beginning

logger = logging.getLogger("brushwork")


@dataclass(frozen=True)
class RunResult:
    """Where a run stands when `train` or `resume` returns."""

    folder: Path
    step: int
    total_steps: int
    smoothed_loss: float
    ended: str | None
    """The verdict that ended the run before its last step (`train.stop_when`)."""
    adapter: Path | None
    """The finished file; None if the run was interrupted before its end."""
    curve: Path
    samples: Path | None
    mode: str
    """`lora`, or `full`, where the files are whole bases."""
    num_held_out: int
    """Pictures that were not trained on: references for an evaluation."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.adapter is not None


@joined()
def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    accept_changes: bool = False,
    wait: bool = False,
    evaluate: Evaluator | None = None,
    watch: Callable[[Row], bool] | None = None,
    console: Console | None = None,
) -> RunResult:
    """Train a LoRA on a folder of pictures and captions; in the folder of an earlier run, go on with it.

    Args:
        data: pictures with captions beside them, in any of the forms that `brushwork.data` reads; may be left to a
            file of kohya's trainer that names them.
        out: the run folder; by default what such a file says, else `runs/NAME`.
        recipe: name or `.toml` file of a recipe (`brushwork recipes`).
        files: settings files, the later ones winning; those of kohya's trainer are read too.
        overrides: single settings as `key=value`, e.g. `"train.seed=1"`.
        accept_changes: go on although settings, data or base differ from those that the run began with.
        wait: begin only when every picture has its caption.
        evaluate: who evaluates the files while the run goes on (`evaluation.every_epochs`):
            `brushwork.evaluator()`.
        watch: sees each row of `metrics.jsonl`; True ends the run after that step, with everything saved.
        console: where the plan and the progress are shown; by default the error stream.

    Raises:
        UserError: something that can be put right, before any damage.
    """
    asked = settle(data, out=out, recipe=recipe, files=files, overrides=overrides)
    console = voice(current(), console)
    for note in asked.resolved.notes:
        console.print(str(note), markup=False, highlight=False, soft_wrap=True)
    if wait:
        wait_for_captions(asked.pictures, data=asked.resolved.settings.data, console=console)
    return _run(
        asked.pictures,
        asked.folder,
        asked.resolved,
        accept_changes=accept_changes,
        evaluator=evaluate,
        watch=watch,
        console=console,
    )


@joined()
def resume(
    path: str | Path,
    *,
    accept_changes: bool = False,
    evaluate: Evaluator | None = None,
    console: Console | None = None,
) -> RunResult:
    """Go on with the run in `path`, or with the newest run in the folders below it."""
    found = newest_run(Path(path))
    folder = RunFolder(found, read_toml(found / SETTINGS_FILE).name)
    data = Path(folder.read_description()["data"])
    if not is_there(data):
        raise UserError(
            f"the pictures of {found} were in {data}, which is no longer there.",
            fix=f"brushwork train FOLDER --out {found} --config {folder.settings_file}",
        )
    resolved = resolve(files=[folder.settings_file])
    return _run(data, folder, resolved, accept_changes=accept_changes, evaluator=evaluate, console=console)


def _run(
    data: Path,
    folder: RunFolder,
    resolved: Resolved,
    *,
    accept_changes: bool,
    evaluator: Evaluator | None,
    watch: Callable[[Row], bool] | None = None,
    console: Console | None,
) -> RunResult:
    group = current()
    console = voice(group, console)
    settings = resolved.settings
    refuse_idle_processes(settings.train, group)
    begun = folder.description_file.exists()
    if not begun:
        _refuse_foreign_files(folder)
    elif not accept_changes:
        refuse_changed_settings(folder, resolved)
    refuse_missing_trackers(settings.log)
    with listening() as interruption:
        preparation = prepare_aloud(data, settings, console)
        if settings.train.mode == "full" and preparation.base.folder is not None:
            folder = replace(folder, suffix="")  # a base in a folder becomes a base in a folder
        if begun and not accept_changes:
            refuse_changed_inputs(folder, preparation)
        evaluator = _needed(evaluator, preparation)
        requests = sample_requests(settings.sample, resolution=preparation.resolution)
        refuse_differences(preparation, group)  # and every process has looked before the first begins to write
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.locked() if group.is_first else nullcontext(), logged(console, folder.log_file, group):
            for note in resolved.notes:
                logger.debug("%s", note)
            if group.is_first:
                remove_partials(folder.path)
                forget(folder)
            interruption.watch(folder.requests / "stop")
            state = read_state(folder.state_file) if folder.state_file.exists() else None
            state = _still_ended(state, settings)
            total = preparation.budget.total_steps
            drawer = Drawer(
                folder=folder.samples,
                requests=requests,
                settings=settings,
                budget=preparation.budget,
                base_name=Path(preparation.base.source).name,
                interrupted=lambda: interruption.requested,
                group=group,
            )
            if state is not None:
                refuse_another_shape(folder, preparation, state)
            refuse_other_states(0 if state is None else state.position.step, group)
            finished = state is not None and _is_finished(folder, drawer, state.position, total)
            if finished and state is not None:
                finished = _is_evaluated(evaluator, folder, preparation, state.position)
            if state is not None and group.from_first(finished):
                refuse_changes_in_vain(folder, resolved)
                told = f"{folder.path} is finished: {_how_it_ended(state.position, total)}."
                console.print(told, markup=False, highlight=False, soft_wrap=True)
                position = state.position
            else:
                if state is None:
                    check_beginning(preparation)
                need = None if is_sharded(settings.train, group) else need_of(preparation)
                limit = limit_memory(settings.train.memory_fraction, preparation.device)
                lines = memory_lines(need, limit=limit, command="`brushwork plan`") if need else None
                show_plan(console, preparation, folder, num_sample_prompts=len(requests), memory=lines)
                if group.is_first:
                    _write_beginning(
                        folder, preparation, resolved, keep_settings=begun and not changes(folder, resolved)
                    )
                session = Session(preparation, folder, drawer, interruption, console, evaluator, watch, need)
                position = train_until_stopped(session, state)
    return RunResult(
        folder=folder.path,
        step=position.step,
        total_steps=total,
        smoothed_loss=position.smoothed_loss,
        ended=position.ended,
        adapter=folder.final_file if position.is_over(total) else None,
        curve=folder.curve_file,
        samples=folder.samples if requests else None,
        mode=settings.train.mode,
        num_held_out=len(preparation.held_out),
    )


def _refuse_foreign_files(folder: RunFolder) -> None:
    """A folder that holds something else is not written into."""
    if not folder.path.exists():
        return
    if not folder.path.is_dir():
        raise UserError(f"{folder.path} is a file; a run needs a folder.", fix="choose another --out")
    own = {LOCK_FILE, folder.log_file.name, folder.settings_file.name, folder.quarantine_file.name}
    foreign = [
        entry.name for entry in folder.path.iterdir() if entry.name not in own and entry.suffix != PARTIAL_SUFFIX
    ]
    if foreign:
        raise UserError(
            f"{folder.path} is not a run of Brushwork and is not empty: it holds {sorted(foreign)[0]}.",
            fix="choose another --out",
        )


def _still_ended(state: State | None, settings: Settings) -> State | None:
    """A run that a verdict ended goes on where that verdict is no longer asked for."""
    if state is None or state.position.ended in settings.train.stop_when:
        return state
    return replace(state, position=replace(state.position, ended=None))


def _is_finished(folder: RunFolder, drawer: Drawer, position: Position, total: int) -> bool:
    """Whether nothing is left to do: no step, no file, no picture."""
    drawn = drawer.is_complete(position.step, ended=position.ended is not None)
    return position.is_over(total) and folder.final_file.exists() and drawn


def _needed(evaluator: Evaluator | None, preparation: Preparation) -> Evaluator | None:
    """Who evaluates, where the settings ask for it; what is missing for it is told before anything long begins."""
    if preparation.settings.evaluation.every_epochs is None:
        return None
    if evaluator is None:
        raise UserError(
            "evaluation.every_epochs asks for evaluations, and nobody was named who makes them.",
            fix="brushwork.train(..., evaluate=brushwork.evaluator()), or --set evaluation.every_epochs=off",
        )
    evaluator.begin(preparation)
    return evaluator


def _is_evaluated(
    evaluator: Evaluator | None, folder: RunFolder, preparation: Preparation, position: Position
) -> bool:
    file = folder.file_at(preparation.budget, position)
    ended = position.ended is not None
    budget, settings = preparation.budget, preparation.settings
    return is_complete(evaluator, file, folder.path, settings, budget, position.step, ended=ended)


def _how_it_ended(position: Position, total: int) -> str:
    if position.ended is not None:
        return f"it ended at step {position.step} of {total}, being {position.ended} (train.stop_when)"
    return f"all {total} steps are done"


def _write_beginning(folder: RunFolder, preparation: Preparation, resolved: Resolved, *, keep_settings: bool) -> None:
    """Write down what the run was begun with, before anything long starts."""
    if not keep_settings:
        write_text(folder.settings_file, to_toml(resolved.settings, resolved.origins))
    if preparation.dataset.quarantined:
        write_rows(folder.quarantine_file, (each.row() for each in preparation.dataset.quarantined))
    folder.write_description(describe(preparation))
