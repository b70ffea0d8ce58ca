"""The study: who tries what next, what came of it, and how it goes on after a kill. The one place that knows Optuna.

What a trial trains with follows from (seed, number, the results before it), so a search that was killed and started
again proposes what one that was never stopped would have. Workers share a study through its storage; a trial whose
worker has died is taken over by the next one that starts, from the trial's last state.

STUDY/search.db             the study, unless another storage is named; optuna-dashboard opens it
STUDY/trial_results.json    every trial as it ends
STUDY/trials/trial-0007/    whatever the objective keeps of trial 7
STUDY/base/repeat-1/        the recipe as it is, with other seeds: what seeds alone do
STUDY/winner-0007/repeat-1/ trial 7, the best one, with the same seeds
"""

import json
import math
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console

from brushwork.atomic import write_text
from brushwork.errors import UserError
from brushwork.hpo.safety import Rule, refusal
from brushwork.hpo.space import Parameter, Proposal, Space
from brushwork.hpo.storage import address, alone, unreachable, without_password
from brushwork.runtime import derive_seed
from brushwork.training.run_folder import RunFolder, process_lives

try:
    import optuna
except ImportError as missing:
    raise UserError(
        "a search needs Optuna, which is not installed.", fix="pip install 'brushwork[search]'"
    ) from missing

RESULTS = "trial_results.json"
STARTUP = 5
"""Trials that are drawn blindly before the sampler begins to learn, unless a plan says otherwise, and that end before
any is pruned."""

FEWEST = 6
"""With fewer trials that came to their end nothing is said of what mattered."""

BEAT, SILENCE = 30.0, 300.0
"""Seconds between two signs of life, and without one until a worker on another machine counts as dead."""

Pruning = Literal["median", "asha", "off"]
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        value: what is searched for; None where the trial was interrupted, or pruned.
        pruned: ended early because `Attempt.report` said so.
        barred: why it cannot win, whatever its value; the sampler learns from the value all the same.
        details: further figures, kept with the trial.
    """

    value: float | None
    pruned: bool = False
    barred: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """One trial that is to be trained.

    Args:
        values: setting -> value, over those of the recipe.
        folder: its own; an interrupted trial finds there what it had.
        report: tells the n-th measurement on the way (counted from 1); True says that going on is not worth it.
    """

    number: int
    values: Mapping[str, Any]
    folder: Path
    report: Callable[[int, float], bool]


Objective = Callable[[Attempt], Outcome]


@dataclass(frozen=True)
class Plan:
    """What is searched, how and how long.

    Args:
        fixed: every setting of the recipe, by its dotted key.
        about: what else a study must keep, e.g. the data; trials of another kind are not mixed in.
        on_the_way: which way what `Attempt.report` tells is better; None is the direction of the result.
        repeats: how often the recipe, and at the end the winner, are trained with other seeds.
        storage: any that Optuna knows, by its URL; None is SQLite in the folder.
        blind: trials that are drawn before the sampler begins to learn; with all of them it is a random search.
    """

    folder: Path
    space: Space
    rules: tuple[Rule, ...]
    fixed: Mapping[str, Any]
    num_trials: int
    seed: int = 0
    direction: Direction = "minimize"
    on_the_way: Direction | None = None
    repeats: int = 3
    pruning: Pruning = "median"
    storage: str | None = None
    blind: int = STARTUP
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def turned(self) -> float:
        """-1 where what is told on the way is better the other way than the result: Optuna compares both alike."""
        return 1.0 if self.on_the_way in (None, self.direction) else -1.0


def search(plan: Plan, objective: Objective, *, console: Console) -> bool:
    """Try until `plan.num_trials` have been attempted; -> whether nothing is left to do here or elsewhere.

    Raises:
        UserError: the recipe itself cannot be trained, no trial can, the folder holds another search, or the storage
            does not answer.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        return _search(Desk(plan, console), objective)
    except optuna.exceptions.StorageInternalError as error:
        raise unreachable(address(plan.folder, plan.storage), error) from error


def _search(desk: "Desk", objective: Objective) -> bool:
    with desk.held():
        desk.refuse_another_search()
        desk.write_results()
    if not desk.repeated("base", {}, objective):
        return False
    while (trial := desk.next_trial()) is not None:
        if not desk.tried(trial, objective):
            return False
    if others := desk.num_running():
        desk.say(f"{others} trials are still trained by other workers; the last of them repeats the winner.")
        return False
    winner = desk.winner()
    if winner is None:
        return True
    values = winner.user_attrs["values"]
    return desk.repeated(f"winner-{winner.number:04d}", values, objective)


class Desk:
    """One worker's view of a study."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan = plan
        self.console = console
        self.address = address(plan.folder, plan.storage)
        with self.held():  # two workers would make the same tables at once
            self.storage = open_storage(plan.folder, plan.storage)
            self.study = self._study("search")
        self.me = f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time()}"

    def _study(self, name: str) -> optuna.Study:
        plan = self.plan
        with quiet():
            return optuna.create_study(
                study_name=study_name(plan.folder, name),
                storage=self.storage,
                sampler=_ByNumber(plan.seed, blind=plan.blind, grouped=plan.space.is_conditional),
                pruner=_pruner(plan.pruning),
                direction=plan.direction,
                load_if_exists=True,
            )

    def refuse_another_search(self) -> None:
        """A study goes on with the space, recipe and data that it began with."""
        asked = _asked(self.plan)
        begun = self.study.user_attrs.get("asked")
        if begun is None:
            self.study.set_user_attr("asked", asked)
            return
        changed = [key for key in {**begun, **asked} if begun.get(key) != asked.get(key)]
        if changed:
            lines = "".join(f"\n    {key}: {begun.get(key)} -> {asked.get(key)}" for key in sorted(changed)[:8])
            raise UserError(
                f"{self.plan.folder} holds a search that began otherwise:{lines}",
                fix="the command that it began with (--trials, --repeats, --prune may change), or another --out",
            )

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One worker at a time looks at what there is to do, and takes it: of this folder, and of this study."""
        while True:
            holding = RunFolder(self.plan.folder, "search").locked()
            try:
                holding.__enter__()
            except UserError:
                time.sleep(0.05)  # another one looks; that takes moments
                continue
            break
        try:
            with alone(self.address, study_name(self.plan.folder, "search")):
                yield
        finally:
            holding.__exit__(None, None, None)

    # What to do next

    def next_trial(self) -> optuna.Trial | None:
        """A trial whose worker has died, else a new one, while there are any to attempt."""
        return self._take(self.study, self.plan.num_trials)

    def _take(self, study: optuna.Study, most: int) -> optuna.Trial | None:
        with self.held(), quiet():
            trials = study.get_trials(deepcopy=False)
            for known in trials:
                if known.state == optuna.trial.TrialState.RUNNING and not self._is_alive(known):
                    repeat = f"{study.study_name.rpartition(' ')[2]}, repeat {known.number + 1}"
                    what = f"trial {known.number}" if study is self.study else repeat
                    self.say(f"{what}: goes on where it was interrupted")
                    return self._mine(self._again(study, known.number))
            if len(trials) >= most:
                return None
            return self._mine(study.ask())

    def _again(self, study: optuna.Study, number: int) -> optuna.Trial:
        known = self.storage.get_study_id_from_name(study.study_name)
        return optuna.Trial(study, self.storage.get_trial_id_from_study_id_trial_number(known, number))

    def _mine(self, trial: optuna.Trial) -> optuna.Trial:
        trial.set_user_attr("beat", time.time())
        trial.set_user_attr("worker", self.me)
        return trial

    def _is_alive(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether somebody works on it: a process of this machine, or one elsewhere that was heard of lately."""
        worker = str(trial.user_attrs.get("worker", ""))
        host, _, process = worker.rpartition(" ")[0].rpartition(" ")
        if host == socket.gethostname():
            return worker != self.me and process_lives(int(process), float(worker.rpartition(" ")[2]))
        if not worker and self.plan.storage is None:
            return False  # whoever asks holds the folder until its name stands here, so that one was killed
        began = trial.datetime_start or datetime.now()
        return time.time() - float(trial.user_attrs.get("beat", began.timestamp())) < SILENCE

    def num_running(self) -> int:
        """Trials that other workers are training."""
        return sum(trial.state == optuna.trial.TrialState.RUNNING for trial in self.study.get_trials(deepcopy=False))

    # One trial

    def tried(self, trial: optuna.Trial, objective: Objective) -> bool:
        """Propose, judge, train and write down; -> False where it was interrupted and is to go on later."""
        with quiet():
            proposal = self.plan.space.propose(_Draws(trial), self.plan.fixed)
        trial.set_user_attr("values", dict(proposal.values))
        told = f"trial {trial.number} ({trial.number + 1} of {self.plan.num_trials})"
        if (refused := refusal(self.plan.rules, proposal)) is not None:
            trial.set_user_attr("refused", refused[0])
            self._end(trial, optuna.trial.TrialState.PRUNED, why=refused[1])
            self.say(f"{told}: {refused[1]}")
            return True
        self.say(f"{told}: {_line(proposal)}")
        attempt = Attempt(
            number=trial.number,
            values=proposal.values,
            folder=self.plan.folder / "trials" / f"trial-{trial.number:04d}",
            report=lambda step, value: self._reported(trial, step, value),
        )
        try:
            with self._beating(trial):
                outcome = objective(attempt)
        except UserError as error:
            self._end(trial, optuna.trial.TrialState.FAIL, why=error.problem)
            self.say(f"{told}: failed: {error.problem}")
            self._refuse_hopeless(error)
            return True
        return self._ended(trial, outcome, told)

    def _ended(self, trial: optuna.Trial, outcome: Outcome, told: str) -> bool:
        if outcome.value is None and not outcome.pruned:
            return False
        for name, value in outcome.details.items():
            trial.set_user_attr(name, value)
        if outcome.barred is not None:
            trial.set_user_attr("barred", outcome.barred)
        if outcome.pruned:
            self._end(trial, optuna.trial.TrialState.PRUNED, why="pruned: behind the others at the same point")
            self.say(f"{told}: pruned")
        elif outcome.value is None or not math.isfinite(outcome.value):
            self._end(trial, optuna.trial.TrialState.FAIL, why=f"the result is {outcome.value}")
            self.say(f"{told}: failed: the result is {outcome.value}")
        else:
            self._end(trial, optuna.trial.TrialState.COMPLETE, value=outcome.value, why=outcome.barred)
            barred = "" if outcome.barred is None else f", cannot win: {outcome.barred}"
            self.say(f"{told}: {outcome.value:.5g}{barred}")
        return True

    def _end(
        self,
        trial: optuna.Trial,
        state: optuna.trial.TrialState,
        *,
        value: float | None = None,
        why: str | None = None,
    ) -> None:
        if why is not None:
            trial.set_user_attr("why", why)
        with self.held(), quiet():
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # taken for dead, and ended by another
                trial.study.tell(trial.number, value, state=state)
            self.write_results()

    def _reported(self, trial: optuna.Trial, step: int, value: float) -> bool:
        with quiet():
            if step not in self.study.trials[trial.number].intermediate_values:
                trial.report(self.plan.turned * value, step)
            return trial.should_prune()

    @contextmanager
    def _beating(self, trial: optuna.Trial) -> Iterator[None]:
        """Give signs of life while the block runs."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with suppress(Exception):  # the next one may get through
                    trial.set_user_attr("beat", time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _refuse_hopeless(self, error: UserError) -> None:
        """Where the first three that were trained all failed, the others would too."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False) if "refused" not in trial.user_attrs]
        if len(states) >= 3 and all(state == optuna.trial.TrialState.FAIL for state in states):
            raise UserError(f"every trial has failed. The last one: {error.problem}", fix=error.fix)

    # The recipe and the winner, with other seeds

    def repeated(self, what: str, values: Mapping[str, Any], objective: Objective) -> bool:
        """Train the same with other seeds, as often as the plan says; -> False where it was interrupted."""
        study = self._study(what)
        first = int(self.plan.fixed["train.seed"]) + 1
        while (trial := self._take(study, self.plan.repeats)) is not None:
            self.say(f"{what}, repeat {trial.number + 1} of {self.plan.repeats}: seed {first + trial.number}")
            attempt = Attempt(
                number=trial.number,
                values={**values, "train.seed": first + trial.number},
                folder=self.plan.folder / what / f"repeat-{trial.number + 1}",
                report=lambda step, value: False,
            )
            with self._beating(trial):
                outcome = objective(attempt)
            if not self._ended(trial, outcome, f"{what}, repeat {trial.number + 1}"):
                return False
        return True

    # What came of it

    def winner(self) -> optuna.trial.FrozenTrial | None:
        """The best trial that was trained to its end and may win."""
        done = [state for state in self.study.get_trials(deepcopy=False) if state.value is not None]
        done = [trial for trial in done if trial.state == optuna.trial.TrialState.COMPLETE]
        done = [trial for trial in done if "barred" not in trial.user_attrs]
        sign = 1 if self.plan.direction == "minimize" else -1
        return min(done, key=lambda trial: sign * float(trial.value or 0), default=None)

    def write_results(self) -> None:
        """Write `trial_results.json`: everything that is known now."""
        winner = self.winner()
        repeats = {"base": self._repeats("base")}
        if winner is not None:
            repeats["winner"] = self._repeats(f"winner-{winner.number:04d}")
        results = {
            "direction": self.plan.direction,
            "attempts": self.plan.num_trials,
            "best": None if winner is None else winner.number,
            "repeats": repeats,
            "trials": [_row(trial, self.plan.turned) for trial in self.study.get_trials(deepcopy=False)],
            "about": dict(self.plan.about),
        }
        write_text(self.plan.folder / RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")

    def _repeats(self, what: str) -> list[float | None]:
        """What the repeats came to, in the order of their seeds; None for one that is not done."""
        name = study_name(self.plan.folder, what)
        if name not in optuna.get_all_study_names(self.storage):
            return []
        return [trial.value for trial in self._study(what).get_trials(deepcopy=False)]


def importance(folder: Path, storage: str | None = None) -> dict[str, float] | None:
    """How much of what differs between the trials each drawn setting explains (fANOVA); None with too few trials."""
    with quiet():
        study = optuna.load_study(study_name=study_name(folder, "search"), storage=open_storage(folder, storage))
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(done) < FEWEST or len({trial.value for trial in done}) < 2:
            return None
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except ImportError as missing:
            raise UserError("importance needs scikit-learn.", fix="pip install 'brushwork[search]'") from missing
    return {name: float(share) for name, share in found.items() if math.isfinite(share)} or None


def open_storage(folder: Path, url: str | None) -> optuna.storages.BaseStorage:
    """Where the study lies: SQLite in the folder, or what a URL names."""
    opened = address(folder, url)
    try:
        with quiet():
            if opened.startswith("sqlite"):
                return optuna.storages.get_storage(opened)
            # A connection that a night of silence has cut is made anew.
            return optuna.storages.get_storage(
                optuna.storages.RDBStorage(opened, engine_kwargs={"pool_pre_ping": True})
            )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the storage {without_password(url or str(folder / 'search.db'))} cannot be opened: {first}",
            fix="a URL of SQLAlchemy, e.g. postgresql://name@host/database, whose driver is installed",
        ) from error


def study_name(folder: Path, name: str) -> str:
    """A study is called after its folder: one storage may hold many."""
    return f"{folder.absolute().name} {name}"


class _ByNumber(optuna.samplers.BaseSampler):
    """TPE that begins anew at each trial with a seed of its own: no state to lose in a kill, and two workers never
    draw the same."""

    def __init__(self, seed: int, *, blind: int, grouped: bool) -> None:
        self._seed = seed
        self._blind = blind
        self._grouped = grouped
        self._tpe = self._sampler(0)

    def _sampler(self, number: int) -> optuna.samplers.TPESampler:
        return optuna.samplers.TPESampler(
            n_startup_trials=self._blind,
            multivariate=True,
            group=self._grouped,
            constant_liar=True,
            gamma=num_good,
            seed=derive_seed(self._seed, "proposal", number) % 2**32,
        )

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self._tpe = self._sampler(trial.number)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Any:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: Any) -> Any:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def num_good(num_trials: int) -> int:
    """How many count as the good ones: the best 20 %."""
    return max(1, math.ceil(num_trials / 5))


class _Draws:
    """Values from Optuna."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def draw(self, parameter: Parameter) -> Any:
        """The value of this trial; asked again, also after a kill, the same."""
        name, low, high = parameter.name, parameter.low, parameter.high
        if parameter.choices:
            return self.trial.suggest_categorical(name, parameter.choices)
        if parameter.whole:
            return self.trial.suggest_int(name, int(low), int(high), step=int(parameter.step or 1), log=parameter.log)
        value = self.trial.suggest_float(name, low, high, step=parameter.step, log=parameter.log)
        return value if parameter.step is None else round(value, 10)


def _pruner(pruning: Pruning) -> optuna.pruners.BasePruner:
    if pruning == "off":
        return optuna.pruners.NopPruner()
    if pruning == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP)


def _asked(plan: Plan) -> dict[str, Any]:
    """What makes trials comparable, in a form that a storage can keep."""
    asked: dict[str, Any] = {**plan.fixed, **{f"{key} (drawn)": value for key, value in _drawn(plan.space).items()}}
    asked |= {"seed": plan.seed, "direction": plan.direction, "rules": [rule.why for rule in plan.rules]}
    asked |= plan.about
    if plan.blind != STARTUP:
        asked["blind"] = plan.blind
    return dict(json.loads(json.dumps(asked, default=str)))


def _drawn(space: Space) -> dict[str, str]:
    return {
        each.key: str(list(each.choices)) if each.choices else f"{each.low} to {each.high}"
        for each in space.parameters
    }


def _row(trial: optuna.trial.FrozenTrial, turned: float) -> dict[str, Any]:
    """A trial as `trial_results.json` keeps it."""
    attributes = {key: value for key, value in trial.user_attrs.items() if key not in ("beat", "worker")}
    state = "refused" if "refused" in attributes else trial.state.name.lower().replace("fail", "failed")
    complete = trial.state == optuna.trial.TrialState.COMPLETE
    return {
        "number": trial.number,
        "state": state,
        "value": trial.value if complete else None,
        "values": attributes.pop("values", {}),
        "drawn": {
            key: round(value, 12) if isinstance(value, float) else value for key, value in trial.params.items()
        },
        "why": attributes.pop("why", None),
        "rule": attributes.pop("refused", None),
        "curve": {str(step): turned * value for step, value in sorted(trial.intermediate_values.items())},
        "began": _time(trial.datetime_start),
        "ended": _time(trial.datetime_complete),
        **attributes,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def _line(proposal: Proposal) -> str:
    return ", ".join(
        f"{key.rpartition('.')[2]} {value:.3g}" if isinstance(value, float) else f"{key.rpartition('.')[2]} {value}"
        for key, value in proposal.values.items()
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna tells of every trial, and that some of its parts are new; this program tells what a person needs."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
