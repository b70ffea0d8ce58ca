"""What a run asks of whoever evaluates its files while it trains; the run itself knows nothing of evaluation.

As with the samples, a failure is told and does not end the run.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from brushwork.config.schema import Settings
from brushwork.distributed import Group
from brushwork.generation.pipeline import Pipeline
from brushwork.training.batches import Budget
from brushwork.training.due import is_evaluation_due
from brushwork.training.prepare import Preparation

logger = logging.getLogger("brushwork")


@dataclass(frozen=True)
class Occasion:
    """A file of the run that can draw now.

    Args:
        run: the run folder.
        file: what was just written; None for the base.
        pipeline: draws as the file does.
    """

    run: Path
    file: Path | None
    pipeline: Pipeline
    preparation: Preparation
    group: Group
    console: Console
    interrupted: Callable[[], bool]


class Evaluator(Protocol):
    """Draws with a file of a run, and says what the pictures tell of it."""

    def begin(self, preparation: Preparation) -> None:
        """Look whether everything that will be needed is there.

        Raises:
            UserError: before anything long has begun.
        """

    def texts(self, preparation: Preparation) -> Sequence[str]:
        """Every text that the pictures will need."""

    def evaluate(self, occasion: Occasion) -> str | None:
        """Draw and judge; -> `overtrained`, where the pictures say so."""

    def is_done(self, run: Path, file: Path) -> bool:
        """Whether the file has been evaluated."""


def is_complete(
    evaluator: Evaluator | None, file: Path, run: Path, settings: Settings, budget: Budget, step: int, *, ended: bool
) -> bool:
    """Whether nothing is left to evaluate where the run stands."""
    if evaluator is None or not is_evaluation_due(settings, budget, step, ended=ended):
        return True
    return evaluator.is_done(run, file)


def evaluated(evaluator: Evaluator, occasion: Occasion) -> str | None:
    """What the pictures say; None where that could not be found out."""
    try:
        found = evaluator.evaluate(occasion)
    except Exception as error:
        name = "the base" if occasion.file is None else occasion.file.name
        logger.warning("%s was not evaluated: %s. Training goes on.", name, error)
        logger.debug("why the evaluation failed", exc_info=True)
        found = None
    return occasion.group.from_first(found)
