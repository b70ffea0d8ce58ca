"""What joins a search to training: a trial is a run on its own folder, its result the lowest held-out loss."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brushwork.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from brushwork.config.load import Resolved
    from brushwork.config.schema import Settings
    from brushwork.hpo.safety import Rule
    from brushwork.hpo.space import Space
    from brushwork.hpo.study import Attempt, Outcome, Plan
    from brushwork.training.asked import Asked as Settled

OWN = ("save.every_epochs=off", "save.every_steps=off", "sample.prompts=off")
"""A trial keeps its last and its best file, and draws nothing: twenty runs with a file for each epoch fill a disk."""

WINNER = "winner.toml"


@dataclass(frozen=True)
class Asked:
    """What a person asked the search for.

    Args:
        files: settings files over the recipe.
        overrides: single settings as `key=value`; what they name is not drawn.
        references: pictures that are held out: the loss on them is what is searched for.
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
    storage: str | None = None
    seed: int = 0

    @property
    def pinned(self) -> list[str]:
        """The settings that a person has set themselves."""
        return [text.partition("=")[0].strip().replace("-", "_") for text in self.overrides]


@dataclass(frozen=True)
class Ready:
    """A search whose settings, space, rules and files have been looked at."""

    plan: "Plan"
    objective: "Callable[[Attempt], Outcome]"
    resolved: "Resolved"
    overrides: list[str]


def prepare_search(asked: Asked, console: "Console") -> Ready:
    """Look at everything that a search will need, before the first trial.

    Raises:
        UserError: a space, a rule, a setting, or a folder that is not there.
    """
    from brushwork.config.load import flatten
    from brushwork.hpo.safety import default_rules, read_rules
    from brushwork.hpo.space import default_space, read_space, refuse_unfit_recipe
    from brushwork.hpo.study import Plan, without_password

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
    about = {"data": str(settled.pictures.expanduser().absolute())}
    if asked.storage is not None:
        about["storage"] = without_password(asked.storage)
    plan = Plan(
        folder=asked.out,
        space=space,
        rules=rules,
        fixed=fixed,
        num_trials=asked.num_trials,
        seed=asked.seed,
        repeats=asked.repeats,
        pruning=asked.pruning,  # type: ignore[arg-type]
        storage=asked.storage,
        about=about,
    )
    kept = [text for text in overrides if text in asked.overrides or text not in (*OWN, held_out)]
    return Ready(plan, _objective(asked, overrides, settled.resolved.settings, console), settled.resolved, kept)


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


def _objective(
    asked: Asked, overrides: Sequence[str], settings: "Settings", console: "Console"
) -> "Callable[[Attempt], Outcome]":
    from brushwork.hpo.space import override
    from brushwork.hpo.study import Outcome
    from brushwork.records import Row, read_rows
    from brushwork.training.run import train

    def objective(attempt: "Attempt") -> Outcome:
        metrics = attempt.folder / "metrics.jsonl"
        pruned = False

        def measured() -> list[Row]:
            return [row for row in read_rows(metrics) if "held_out_loss" in row] if metrics.exists() else []

        def watch(row: Row) -> bool:
            nonlocal pruned
            if "held_out_loss" in row:
                pruned = attempt.report(len(measured()), row["held_out_loss"])
            return pruned

        for number, row in enumerate(
            measured(), start=1
        ):  # what a killed worker measured and could not tell any more
            pruned = pruned or attempt.report(number, row["held_out_loss"])
        if not pruned:
            given = [*overrides, *(override(key, value) for key, value in attempt.values.items())]
            result = train(
                asked.data,
                out=attempt.folder,
                recipe=asked.recipe,
                files=asked.files,
                overrides=given,
                watch=watch,
                console=console,
            )
            if not pruned and not result.finished:
                return Outcome(None)
        rows = measured()
        if not rows:
            raise UserError(
                f"{attempt.folder} measured no held-out loss, which is what the search goes by.",
                fix="--set validation.every_epochs=1",
            )
        lowest = min(rows, key=lambda row: float(row["held_out_loss"]))
        seconds = sum(float(row.get("seconds", 0.0)) for row in read_rows(metrics))
        details = {"step": lowest["step"], "steps": rows[-1]["step"], "seconds": round(seconds, 2)}
        details["adapter"] = str(Path(attempt.folder.name) / f"{settings.name}-lowest-loss.safetensors")
        return Outcome(None if pruned else float(lowest["held_out_loss"]), pruned=pruned, details=details)

    return objective


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
    lines = [
        f"# Trial {best['number']}, the best of {len(results['trials'])} that a search attempted: held-out loss "
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
