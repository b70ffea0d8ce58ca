"""What joins a search to the stages: what a person asked for, looked at before the first trial, and the winner."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brushwork.cli.choices import Pruning, SearchedFor
from brushwork.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from brushwork.config.load import Resolved
    from brushwork.hpo.safety import Rule
    from brushwork.hpo.space import Space
    from brushwork.hpo.study import Objective, Plan
    from brushwork.training.asked import Asked as Settled

OWN = ("save.every_epochs=off", "save.every_steps=off", "sample.prompts=off")
"""A trial keeps its last and its best file, and draws nothing: twenty runs with a file for each epoch fill a disk."""

WINNER = "winner.toml"

MANY = 0.6
"""Where the rules refuse more of the space than this, it is said: the default ones refuse 38 % of the default."""


@dataclass(frozen=True)
class Asked:
    """What a person asked the search for.

    Args:
        files: settings files over the recipe.
        overrides: single settings as `key=value`; what they name is not drawn.
        references: pictures that are held out: the loss on them is measured, and the score against them.
        objective: `loss`, the lowest held-out loss of a trial, or `score`, that of its best file in an evaluation.
    """

    data: Path
    out: Path
    references: Path
    num_trials: int
    recipe: str | None = None
    files: Sequence[Path] = ()
    overrides: Sequence[str] = ()
    space: Path | None = None
    rules: Path | None = None
    repeats: int = 3
    pruning: str = "median"
    objective: str = "loss"
    storage: str | None = None
    seed: int = 0
    blind: int = 5

    @property
    def pinned(self) -> list[str]:
        """The settings that a person has set themselves."""
        return [text.partition("=")[0].strip().replace("-", "_") for text in self.overrides]


@dataclass(frozen=True)
class Ready:
    """A search whose settings, space, rules and files have been looked at."""

    plan: "Plan"
    objective: "Objective"
    resolved: "Resolved"
    overrides: list[str]


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Args:
        done: whether nothing is left to do, here or in other workers.
        best: the row of the best trial; None where none may be recommended.
        counts: trials by what became of them.
        winner: the best settings as a recipe.
    """

    folder: Path
    done: bool
    verdict: str
    best: dict[str, Any] | None
    counts: dict[str, int]
    winner: Path | None
    report: Path


def search(
    data: str | Path,
    *,
    out: str | Path,
    references: str | Path,
    trials: int = 20,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    objective: str = "loss",
    space: str | Path | None = None,
    rules: str | Path | None = None,
    repeats: int = 3,
    pruning: str = "median",
    storage: str | None = None,
    seed: int = 0,
    blind: int = 5,
    console: "Console | None" = None,
) -> Searched:
    """Try settings from a space, learn from each, and write the best as a recipe; in the folder of an earlier search,
    go on with it.

    Args:
        data: pictures with captions, as `brushwork.train` reads them.
        out: the folder of the search.
        references: pictures that are not trained on: the loss is measured on them, the score against them.
        trials: how many are attempted, refused ones included.
        recipe: name or `.toml` file of a recipe: what is not drawn is its.
        files: settings files over the recipe.
        overrides: single settings as `key=value`; what they name is not drawn.
        objective: `loss`, the lowest held-out loss of a trial, or `score`, that of its best file by
            `brushwork.evaluate`.
        space: a TOML file that says what is drawn.
        rules: a TOML file that says what is refused.
        repeats: how often the recipe, and at the end the winner, are trained with other seeds.
        pruning: `median`, `asha` or `off`.
        storage: where the study lies, for workers on several machines: any that Optuna knows, by its URL.
        seed: what is proposed follows from it.
        blind: trials that are drawn before it learns; with all of `trials` it is a random search.
        console: where progress is shown; by default the error stream.

    Raises:
        UserError: something that can be put right.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    asked = Asked(
        data=Path(data),
        out=Path(out),
        references=Path(references),
        num_trials=trials,
        recipe=recipe,
        files=[Path(file) for file in files],
        overrides=overrides,
        space=None if space is None else Path(space),
        rules=None if rules is None else Path(rules),
        repeats=repeats,
        pruning=one_of("pruning", pruning, Pruning),
        objective=one_of("objective", objective, SearchedFor),
        storage=storage,
        seed=seed,
        blind=blind,
    )
    return carry_out(prepare_search(asked, console), asked, console)


def one_of(name: str, value: str, words: "type[Pruning] | type[SearchedFor]") -> str:
    """A word that must be one of a few."""
    if value not in list(words):
        raise UserError(
            f"{name} = {value!r} is none of {', '.join(words)}.", fix=f"{name}={next(iter(words)).value!r}"
        )
    return value


def carry_out(ready: Ready, asked: Asked, console: "Console") -> Searched:
    """Search, write the winner as a recipe, and lay out what was found."""
    from brushwork.hpo.report import make_report, read_results, write_report
    from brushwork.hpo.study import importance
    from brushwork.hpo.study import search as attempt_all

    done = attempt_all(ready.plan, ready.objective, console=console)
    winner = write_winner(ready, asked)
    report = make_report(
        read_results(asked.out), importance(asked.out, asked.storage), name=asked.out.absolute().name
    )
    page = write_report(report, asked.out)
    return Searched(asked.out, done, report.verdict, report.best, report.counts, winner, page)


def prepare_search(asked: Asked, console: "Console") -> Ready:
    """Look at everything that a search will need, before the first trial.

    Raises:
        UserError: a space, a rule, a setting, or a folder that is not there.
    """
    from brushwork.cli.objectives import Scored, Trains, refuse_unfit_score
    from brushwork.config.load import flatten
    from brushwork.hpo.safety import default_rules, read_rules, refuse_rules_that_refuse_all
    from brushwork.hpo.space import default_space, read_space, refuse_unfit_recipe
    from brushwork.hpo.storage import without_password
    from brushwork.hpo.study import Plan

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "a search does not run under torchrun.",
            fix="start the same `brushwork search` once for each card (CUDA_VISIBLE_DEVICES=1 brushwork search ...)",
        )
    space = (default_space() if asked.space is None else read_space(asked.space)).without(asked.pinned)
    rules = default_rules() if asked.rules is None else read_rules(asked.rules)
    if not space.parameters:
        raise UserError("--set fixes all that the space would draw.", fix="leave something to search for")
    held_out = f"validation.data={json.dumps(str(asked.references.expanduser().absolute()))}"
    overrides = [*OWN, *asked.overrides, held_out]
    settled = _settled(asked, overrides)
    drawn = {parameter.key for parameter in space.parameters}
    if "train.epochs" in drawn and settled.resolved.settings.train.max_steps is not None:
        console.print("train.max_steps of the recipe is left out, as the space draws train.epochs", highlight=False)
        overrides.append("train.max_steps=off")
        settled = _settled(asked, overrides)
    settled.refuse_missing_pictures()
    if not asked.references.expanduser().is_dir():
        raise UserError(
            f"{asked.references}: there is no such folder.", fix="--references FOLDER of held-out pictures"
        )
    fixed = flatten(settled.resolved.settings)
    refuse_unfit_recipe(space, fixed, "the default space" if asked.space is None else str(asked.space))
    _refuse_unfit_choices(space, asked, overrides)
    share = refuse_rules_that_refuse_all(space, rules, fixed)
    if share > MANY:
        console.print(f"the rules refuse {100 * share:.0f} % of blind draws of the space", highlight=False)
    about = {"data": str(settled.pictures.expanduser().absolute())}
    by_score = asked.objective == "score"
    if by_score:
        refuse_unfit_score(settled, space, asked.references, console)
        about["objective"] = "score"
    if asked.storage is not None:
        about["storage"] = without_password(asked.storage)
    plan = Plan(
        folder=asked.out,
        space=space,
        rules=rules,
        fixed=fixed,
        num_trials=asked.num_trials,
        seed=asked.seed,
        direction="maximize" if by_score else "minimize",
        on_the_way="minimize",  # whatever is searched for, the held-out loss is what trials are pruned by
        repeats=asked.repeats,
        pruning=asked.pruning,  # type: ignore[arg-type]
        storage=asked.storage,
        blind=asked.blind,
        about=about,
    )
    kept = [text for text in overrides if text in asked.overrides or text not in (*OWN, held_out)]
    trains = Trains(asked.data, asked.recipe, tuple(asked.files), tuple(overrides), console)
    objective = Scored(trains, asked.references, asked.out) if by_score else trains
    return Ready(plan, objective, settled.resolved, kept)


def _settled(asked: Asked, overrides: Sequence[str]) -> "Settled":
    from brushwork.training.asked import settle

    return settle(asked.data, out=asked.out / "trials", recipe=asked.recipe, files=asked.files, overrides=overrides)


def _refuse_unfit_choices(space: "Space", asked: Asked, overrides: Sequence[str]) -> None:
    """An optimizer that is not installed is found out now and not in the middle of the night."""
    from brushwork.training.optimizers import refuse_unfit_optimizer

    for parameter in space.parameters:
        if parameter.key != "optimizer.name":
            continue
        for name in parameter.choices:
            settled = _settled(asked, [*overrides, f"optimizer.name={name}"])
            try:
                refuse_unfit_optimizer(settled.resolved.settings)
            except UserError as error:
                others = [each for each in parameter.choices if each != name]
                fix = f"{error.fix}; or without it: --set optimizer.name={others[0]}" if others else error.fix
                raise UserError(f"the space draws optimizer.name = {name}: {error.problem}", fix=fix) from error


def write_winner(ready: Ready, asked: Asked) -> Path | None:
    """The best trial's settings as a recipe; None where no trial has come to its end."""
    from brushwork.atomic import write_text
    from brushwork.config.describe import literal
    from brushwork.config.load import differences, resolve
    from brushwork.config.schema import Settings
    from brushwork.hpo.report import read_results
    from brushwork.hpo.space import override

    results = read_results(asked.out)
    best = next((row for row in results["trials"] if row["number"] == results["best"]), None)
    if best is None:
        return None
    drawn = [override(key, value) for key, value in best["values"].items()]
    overrides = [*ready.overrides, *drawn]
    settings = resolve(recipe=asked.recipe, files=asked.files, overrides=overrides, data=asked.data).settings
    measure = "score of the evaluation" if asked.objective == "score" else "held-out loss"
    lines = [
        f"# Trial {best['number']}, the best of {len(results['trials'])} that a search attempted: {measure} "
        f"{best['value']:.5g}.",
        "#",
        f"# Searched in {asked.out.absolute().name}; its report.html says whether that is more than luck.",
        "",
    ]
    section = ""
    for key, _, value in differences(Settings(), settings):
        table, _, name = key.rpartition(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        lines.append(f"{name} = {literal(value)}")
    write_text(asked.out / WINNER, "\n".join(lines) + "\n")
    return asked.out / WINNER


def shown_rules(rules: Path | None) -> "tuple[Rule, ...]":
    """The rules that a file holds, else those that come with the program."""
    from brushwork.hpo.safety import default_rules, read_rules

    return default_rules() if rules is None else read_rules(rules)
