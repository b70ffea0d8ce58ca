"""The same evaluation while a run goes on: the network that trains draws, so nothing is loaded twice.

The pictures are those that `brushwork evaluate RUN` would draw of the same file, and lie where it looks for them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from brushwork.config.schema import Settings
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.evaluation.candidates import BASE, Candidate, Folder, adapter_files, named_candidate, ordered
from brushwork.evaluation.drawing import Studio, draw_with
from brushwork.evaluation.run import FOLDER, Drawn, Evaluated, collected, picture_requests, weigh
from brushwork.evaluation.seeing import Eyes, open_eyes
from brushwork.evaluation.subjects import Subjects
from brushwork.generation.pipeline import Pipeline
from brushwork.models.weights import Base


@dataclass
class During:
    """The evaluation of one run while it trains.

    Args:
        eyes: loaded when first needed, and kept on the CPU, for the card is full of training.
    """

    settings: Settings
    subjects: Subjects
    base: Base
    dtype: torch.dtype
    device: torch.device
    side: int
    eyes: Eyes | None = None

    def __post_init__(self) -> None:
        if self.settings.train.mode == "full":
            raise UserError(
                "evaluation.every_epochs compares LoRAs, and train.mode = full makes none.",
                fix="--set evaluation.every_epochs=off",
            )
        self.cells, drawn = picture_requests(self.settings, trigger=self.settings.trigger, side=self.side)
        self.drawn = replace(drawn, notes=[*drawn.notes, *self.left_for_later()])

    def left_for_later(self) -> list[str]:
        """What the network that trains cannot draw: it wears its adapter as it is, at strength 1."""
        evaluation = self.settings.evaluation
        asked = []
        if set(evaluation.strengths) != {1.0}:
            asked.append(f"strengths {', '.join(f'{each:g}' for each in evaluation.strengths)}")
        if evaluation.ema:
            asked.append("running means")
        if not asked:
            return []
        return [
            f"during the training each file is tried at strength 1 alone; {' and '.join(asked)} are tried by "
            "`brushwork evaluate RUN` afterwards"
        ]

    def texts(self) -> list[str]:
        """Every prompt, and every negative one."""
        return sorted({text for cell in self.cells for text in (cell.request.prompt, cell.request.negative)})

    def draw(
        self,
        run: Path,
        file: Path | None,
        pipeline: Pipeline,
        *,
        group: Group,
        interrupted: Callable[[], bool],
    ) -> bool:
        """Draw with a file that was just written, or with the base; -> whether all of it is there."""
        candidate = Candidate(BASE) if file is None else _named_by_first(file, group)
        return draw_with(pipeline, self._studio(run), candidate, group=group, interrupted=interrupted)

    def judge(self, run: Path, console: Console) -> Evaluated:
        """Score every file of the run that has drawn, write the report, and name the best so far."""
        studio = self._studio(run)
        folder = Folder(run, self.settings, {})
        files = [Candidate(BASE), *ordered(named_candidate(file) for file in adapter_files(folder, ema=False))]
        drawn: Drawn = collected(studio, files, self.drawn, {})
        if self.eyes is None:
            self.eyes = open_eyes(
                self.settings.evaluation,
                base=self.settings.model.base,
                device=torch.device("cpu"),
                offline=self.settings.model.offline,
                console=console,
            )
        return weigh(folder, self.settings.evaluation, run / FOLDER, self.subjects, drawn, self.eyes)

    def _studio(self, run: Path) -> Studio:
        return Studio(
            base=self.base,
            model=self.settings.model,
            dtype=self.dtype,
            device=self.device,
            folder=run / FOLDER / "pictures",
            cells=self.cells,
            batch_size=self.settings.evaluation.batch_size,
            sample=self.settings.sample,
        )


def _named_by_first(file: Path, group: Group) -> Candidate:
    """The file as the first process names it, which wrote it: where the others look, it may not be whole yet."""
    named, problem = None, ""
    if group.is_first:
        try:
            named = named_candidate(file)
        except (UserError, OSError) as error:
            problem = str(error)
    named, problem = group.from_first((named, problem))
    if named is None:
        raise UserError(problem)
    return named


def judged_files(run: Path) -> Sequence[str]:
    """The files that the report of a run tells of; none where there is no report yet."""
    try:
        told = json.loads((run / FOLDER / "report.json").read_text(encoding="utf-8"))
        return [name for each in told["candidates"] for name in (each["name"], *each["also"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []
