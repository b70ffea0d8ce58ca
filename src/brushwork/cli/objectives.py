"""What a trial of a search comes to: the lowest held-out loss of its run, or the score that its best file has.

STUDY/evaluation/base/         what the base draws, once for all trials
STUDY/evaluation/parts.json    the parts of the score and their weights, which are the same in all trials
TRIAL/evaluation/              what the trial's files drew, and the report of them
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brushwork.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from brushwork.evaluation.run import Evaluated
    from brushwork.hpo.space import Space
    from brushwork.hpo.study import Attempt, Outcome
    from brushwork.records import Row
    from brushwork.training.asked import Asked as Settled

PARTS = "parts.json"

DRAWING = ("evaluation.", "sample.", "trigger")
"""Settings that begin like this change what is drawn, or how it is measured: a score of one is none of another."""


@dataclass(frozen=True)
class Trains:
    """An objective: train, and take the lowest held-out loss.

    Args:
        overrides: what all trials have in common; what one tries goes over it.
    """

    data: Path
    recipe: str | None
    files: tuple[Path, ...]
    overrides: tuple[str, ...]
    console: "Console"

    def __call__(self, attempt: "Attempt") -> "Outcome":
        """Train the trial, or go on with it, as long as the others are not ahead of it."""
        from brushwork.hpo.space import override
        from brushwork.hpo.study import Outcome
        from brushwork.training.run import train

        pruned = False

        def watch(row: "Row") -> bool:
            nonlocal pruned
            if "held_out_loss" in row:
                pruned = attempt.report(len(measured(attempt.folder)), row["held_out_loss"])
            return pruned

        for number, row in enumerate(measured(attempt.folder), start=1):
            # what a killed worker measured and could not tell any more
            pruned = pruned or attempt.report(number, row["held_out_loss"])
        if not pruned:
            given = [*self.overrides, *(override(key, value) for key, value in attempt.values.items())]
            result = train(
                self.data,
                out=attempt.folder,
                recipe=self.recipe,
                files=self.files,
                overrides=given,
                watch=watch,
                console=self.console,
            )
            if not pruned and not result.finished:
                return Outcome(None)
        lowest, details = told_of(attempt.folder)
        return Outcome(None if pruned else lowest, pruned=pruned, details=details)


@dataclass(frozen=True)
class Scored:
    """An objective: train, let the files draw, and take the score of the best.

    Args:
        references: what the pictures are compared with.
        study: holds the base's pictures, which every trial is measured against.
    """

    trains: Trains
    references: Path
    study: Path

    def __call__(self, attempt: "Attempt") -> "Outcome":
        """Train the trial and judge what it draws; killed anywhere, it goes on there, picture by picture."""
        from brushwork.evaluation.run import evaluate
        from brushwork.hpo.study import Outcome

        trained = self.trains(attempt)
        if trained.value is None:
            return trained
        found = evaluate(
            attempt.folder,
            references=self.references,
            base_pictures=self.study / "evaluation" / "base",
            console=self.trains.console,
        )
        self._refuse_other_parts(found)
        best = found.choice.best
        assert best is not None
        assert best.candidate.file is not None  # a run without a file has ended with an error
        details = {
            **trained.details,
            "held_out_loss": trained.value,
            "file": best.candidate.name,
            "adapter": f"{attempt.folder.name}/{best.candidate.file.name}",
            "score": best.score.row(),
            "parts": {part: best.part(part).row()["value"] for part in best.parts},
            "report": f"{attempt.folder.name}/evaluation/report.html",
        }
        beyond = best.copying_beyond
        if not beyond:
            return Outcome(best.score.value, details=details)
        # Below 0, and so below every score; and the less it copies, the higher, so that where all do, the search
        # moves away from it.
        return Outcome(-beyond, details=details, barred=f"its best file copies training pictures ({_copying(found)})")

    def _refuse_other_parts(self, found: "Evaluated") -> None:
        """A score without identity, because the encoder could not be loaded today, is another score."""
        from brushwork.atomic import write_text

        weights = json.loads((found.folder / "report.json").read_text(encoding="utf-8"))["weights"]
        file = self.study / "evaluation" / PARTS
        if not file.exists():
            write_text(file, json.dumps(weights, indent=2) + "\n")
            return
        first = json.loads(file.read_text(encoding="utf-8"))
        if weights != first:
            missing = ", ".join(sorted(set(first) ^ set(weights))) or "the weights"
            told = " ".join(found.notes)
            raise UserError(
                f"the score of {found.folder.parent} is made up otherwise than that of the trials before it "
                f"({missing}): {told}",
                fix="see to it that all of it can be measured, and search in another --out",
            )


def measured(run: Path) -> "list[Row]":
    """The validations of a run."""
    from brushwork.records import read_rows

    file = run / "metrics.jsonl"
    return [row for row in read_rows(file) if "held_out_loss" in row] if file.exists() else []


def told_of(run: Path) -> tuple[float, dict[str, Any]]:
    """The lowest held-out loss of a run, and what is kept beside it."""
    from brushwork.config.load import read_toml
    from brushwork.records import read_rows

    rows = measured(run)
    if not rows:
        raise UserError(
            f"{run} measured no held-out loss, which trials are compared by.",
            fix="--set validation.every_epochs=1",
        )
    lowest = min(rows, key=lambda row: float(row["held_out_loss"]))
    seconds = sum(float(row.get("seconds", 0.0)) for row in read_rows(run / "metrics.jsonl"))
    details = {"step": lowest["step"], "steps": rows[-1]["step"], "seconds": round(seconds, 2)}
    name = read_toml(run / "settings.toml").name
    details["adapter"] = f"{run.name}/{name}-lowest-loss.safetensors"
    return float(lowest["held_out_loss"]), details


def refuse_unfit_score(settled: "Settled", space: "Space", references: Path, console: "Console") -> None:
    """What a score needs is looked at before the first trial: references, prompts, the encoder.

    Raises:
        UserError: references that are trained on, prompts without a trigger, an encoder that is not here, or a space
            that draws what the score is measured with.
    """
    import torch

    from brushwork.evaluation.candidates import Folder
    from brushwork.evaluation.run import picture_requests
    from brushwork.evaluation.seeing import open_eyes
    from brushwork.evaluation.subjects import read_subjects

    settings = settled.resolved.settings
    for parameter in space.parameters:
        if parameter.key.startswith(DRAWING):
            raise UserError(
                f"the space draws {parameter.key}, which changes what the score measures.",
                fix=f"--set {parameter.key}=... for all trials",
            )
    if settings.train.mode == "full":
        raise UserError(
            "a search by the score compares LoRAs, and train.mode = full makes none.", fix="--objective loss"
        )
    picture_requests(settings, trigger=settings.trigger, side=settings.data.resolution or 64)
    # Every picture of the data is looked at, also one that the references hold too.
    learns = settings.model_copy(update={"validation": settings.validation.model_copy(update={"data": None})})
    place = str(settled.pictures.expanduser().absolute())
    read_subjects(Folder(settled.folder.path, learns, {"data": place}), references=references, training=None)
    eyes = open_eyes(
        settings.evaluation,
        base=settings.model.base,
        device=torch.device("cpu"),
        offline=settings.model.offline,
        console=console,
    )
    if eyes.notes:
        raise UserError(
            f"the score cannot be measured as a whole: {' '.join(eyes.notes)}",
            fix="brushwork download NAME --transformers and --set evaluation.encoder=NAME, or --objective loss",
        )


def _copying(found: "Evaluated") -> str:
    best = found.choice.best
    assert best is not None
    told = []
    if best.copying is not None:
        told.append(f"{100 * best.copying.value:.0f} % of its pictures, {100 * best.chance:.0f} % are chance")
    if best.leans is not None:
        told.append(f"leaning {best.leans.value:.2f}")
    return ", ".join(told)
