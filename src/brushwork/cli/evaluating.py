"""Joins training and evaluation, which know nothing of one another: the files of a run are judged as they come."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brushwork.evaluation.during import During
    from brushwork.training.evaluating import Occasion
    from brushwork.training.prepare import Preparation


class EvaluatesWhileTraining:
    """What `training` asks of an evaluator, answered by `evaluation`."""

    def __init__(self) -> None:
        self._during: During | None = None

    def begin(self, preparation: "Preparation") -> None:
        """Read references and prompts, so that what is wrong with them is told before the first step."""
        from brushwork.evaluation.during import During
        from brushwork.evaluation.subjects import subjects_of

        settings = preparation.settings
        named = settings.evaluation.references
        subjects = subjects_of(
            [picture.sample for picture in preparation.pictures if not picture.regularisation],
            [picture.sample for picture in preparation.held_out],
            references=None if named is None else Path(named),
        )
        self._during = During(
            settings=settings,
            subjects=subjects,
            base=preparation.base,
            dtype=preparation.dtype,
            device=preparation.device,
            side=preparation.resolution,
        )

    def texts(self, preparation: "Preparation") -> Sequence[str]:
        """Every text that the pictures will need."""
        assert self._during is not None
        return self._during.texts()

    def evaluate(self, occasion: "Occasion") -> str | None:
        """Draw, and when there is a file to judge, judge it; -> `overtrained`, where the pictures say so."""
        during = self._during
        assert during is not None
        if occasion.file is None and occasion.group.is_first:  # the base, at the beginning
            for note in during.left_for_later():
                occasion.console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        whole = during.draw(
            occasion.run,
            occasion.file,
            occasion.pipeline,
            group=occasion.group,
            interrupted=occasion.interrupted,
        )
        if not whole or occasion.file is None or not occasion.group.is_first:
            return None
        found = during.judge(occasion.run, occasion.console)
        best = found.choice.best
        named = "" if best is None else f", best so far: {best.candidate.name} ({best.score.value:.2f})"
        occasion.console.print(
            f"{occasion.file.stem}: {found.verdict.text}{named}; {found.report}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return "overtrained" if found.verdict.kind == "overtrained" else None

    def is_done(self, run: Path, file: Path) -> bool:
        """Whether the run's report tells of the file."""
        from brushwork.evaluation.during import judged_files

        return file.stem in judged_files(run)


def evaluator() -> EvaluatesWhileTraining:
    """Who evaluates a run while it trains: `brushwork.train(..., evaluate=brushwork.evaluator())`."""
    return EvaluatesWhileTraining()
