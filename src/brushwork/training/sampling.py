"""Pictures drawn while training, by the code that `brushwork generate` uses.

sample/base/00001-seed12345-prompt1.png             the base model, once
sample/000002-epoch/00001-seed12345-prompt1.png     the same prompt and seed with the adapter
sample/sheet.png                                    all of them: a row for the base and for each epoch
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brushwork.atomic import written_beside
from brushwork.config.schema import SampleConfig, Settings
from brushwork.distributed import Group
from brushwork.generation.grid import cell_size, contact_sheet
from brushwork.generation.pictures import save_picture
from brushwork.generation.pipeline import Pipeline
from brushwork.generation.prompts import Request, read_prompts
from brushwork.training.batches import Budget
from brushwork.training.due import is_sample_due

logger = logging.getLogger("brushwork")

BASE = "base"
SHEET = "sheet.png"


def sample_requests(settings: SampleConfig, *, resolution: int) -> list[Request]:
    """What is drawn each time: every prompt of the file, with its own seed."""
    if settings.prompts is None:
        return []
    defaults = Request(
        prompt="",
        width=resolution,
        height=resolution,
        seed=settings.seed,
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
    )
    return read_prompts(Path(settings.prompts), defaults)


def occasion(budget: Budget, steps_done: int) -> str:
    """Name of the folder for the pictures that are drawn after `steps_done` steps."""
    if budget.ends_epoch(steps_done):
        return f"{steps_done // budget.steps_per_epoch:06d}-epoch"
    return f"step{steps_done:08d}"


@dataclass(frozen=True)
class Drawer:
    """Draws what is due into the run's `sample/` folder. What is there already is not drawn again."""

    folder: Path
    requests: Sequence[Request]
    settings: Settings
    budget: Budget
    base_name: str
    interrupted: Callable[[], bool]
    """Asked between two pictures; what is not drawn then is drawn when the run goes on."""
    group: Group
    """The processes that share the pictures."""

    def is_complete(self, steps_done: int, *, ended: bool = False) -> bool:
        """Whether nothing is to be drawn at this point of the run."""
        if not is_sample_due(self.settings, self.budget, steps_done, ended=ended):
            return True
        return not self._is_due(occasion(self.budget, steps_done))

    def draw_base(self, pipeline: Pipeline) -> None:
        """The base model's own pictures, to compare with: drawn before anything is learned."""
        if self.settings.sample.at_first:
            self._draw(pipeline, BASE)

    def draw_due(self, pipeline: Pipeline, steps_done: int, *, ended: bool = False) -> None:
        """The pictures of this point of the run. A failure is told, and does not end the run."""
        if is_sample_due(self.settings, self.budget, steps_done, ended=ended):
            self.draw_now(pipeline, steps_done)

    def draw_now(self, pipeline: Pipeline, steps_done: int) -> None:
        """The pictures of this point of the run, due or asked for."""
        self._draw(pipeline, occasion(self.budget, steps_done))

    def _draw(self, pipeline: Pipeline, name: str) -> None:
        """Every process draws its pictures; when all are done, the first lays the sheet."""
        with self._failing_softly(name):
            self._draw_own(pipeline, name)
        pipeline.forget_graphs()  # training needs the memory, and other weights may stand there the next time
        self.group.wait()
        if self.group.is_first and not self.interrupted():
            with self._failing_softly(name):
                if self._is_due(name):
                    self._write_sheet()

    def _draw_own(self, pipeline: Pipeline, name: str) -> None:
        missing = [number for number in self._missing(name) if self.group.owns(number)]
        images = pipeline.draw([self.requests[number] for number in missing])
        for number in missing:
            if self.interrupted():
                return
            image = next(images)
            extra = {"base": self.base_name, "run": self.settings.name, "occasion": name}
            save_picture(image, self.requests[number], self._path(name, number), extra)

    @contextmanager
    def _failing_softly(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            logger.warning("the pictures of %s were not drawn: %s. Training goes on.", name, error)
            logger.debug("why the pictures failed", exc_info=True)

    def _is_due(self, name: str) -> bool:
        """Whether a picture is missing, or the sheet that shows it: a kill can fall between the two."""
        if self._missing(name):
            return True
        sheet = self.folder / SHEET
        drawn = (self._path(name, number).stat().st_mtime_ns for number in range(len(self.requests)))
        return not sheet.exists() or sheet.stat().st_mtime_ns < max(drawn)

    def _missing(self, name: str) -> list[int]:
        return [number for number in range(len(self.requests)) if not self._is_drawn(name, number)]

    def _is_drawn(self, name: str, number: int) -> bool:
        """Whether the picture is there and of this request: the file of prompts may have been changed since."""
        path = self._path(name, number)
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            return path.exists() and Request.from_json(record) == self.requests[number]
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _path(self, name: str, number: int) -> Path:
        seed = self.requests[number].seed
        return self.folder / name / f"{number + 1:05d}-seed{seed}-prompt{number + 1}.png"

    def _write_sheet(self) -> None:
        """A row for the base and one for each time that was drawn, a column for each prompt."""
        names = sorted(folder.name for folder in self.folder.iterdir() if folder.is_dir() and folder.name != BASE)
        rows = [name for name in (BASE, *names) if not self._missing(name)]
        cells = [(name, number) for name in rows for number in range(len(self.requests))]
        sheet = contact_sheet(
            (Image.open(self._path(name, number)) for name, number in cells),
            labels=[f"{name}: {self.requests[number].prompt}" for name, number in cells],
            columns=len(self.requests),
            cell=min(cell_size(len(cells)), max(max(each.width, each.height) for each in self.requests)),
        )
        with written_beside(self.folder / SHEET) as partial:
            sheet.save(partial, format="PNG")
