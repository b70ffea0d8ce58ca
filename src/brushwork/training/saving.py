"""Writes what is due after a step: the files for others first, then the state that says they are written."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brushwork.config.schema import SaveConfig
from brushwork.training.checkpoint import Position, write_state
from brushwork.training.learner import Trained
from brushwork.training.loop import Due
from brushwork.training.run_folder import RunFolder


@dataclass(frozen=True)
class Saver:
    """Writes a run's files. A kill between two of them loses nothing: the run goes on from the older state and writes
    the same files again.

    Args:
        family: of the base.
        metadata: what a file tells of its making, for a position of the run.
    """

    folder: RunFolder
    trained: Trained
    family: str
    settings: SaveConfig
    metadata: Callable[[Position], Mapping[str, str]]

    def save(self, position: Position, due: Due) -> None:
        """Write the files that are due, then the state, then remove what is no longer kept."""
        files = []
        if due.epoch_file is not None:
            files.append(self.folder.epoch_file(due.epoch_file))
        if due.step_file is not None:
            files.append(self.folder.step_file(due.step_file))
        if due.final_file:
            files.append(self.folder.final_file)
        if due.lowest_loss_file:
            files.append(self.folder.lowest_loss_file)
        learner, metadata = self.trained.learner, self.metadata(position)
        if files:
            with learner.as_used():
                self._write(files, metadata)
        write_state(self.folder.state_file, self.trained.state(position, self.family))
        self.remove_surplus()

    def _write(self, files: Sequence[Path], metadata: Mapping[str, str]) -> None:
        learner = self.trained.learner
        for file in files:
            self.trained.learning.write(file, learner.parameters, metadata)
            if learner.ema is not None:
                self.trained.learning.write(self.folder.ema_file(file), learner.ema, metadata)

    def remove_surplus(self) -> None:
        """Keep the last `save.keep_last` files by epoch and by step."""
        if self.settings.keep_last is not None:
            for path in self.folder.surplus(self.settings.keep_last):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
