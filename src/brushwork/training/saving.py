"""Writes what is due after a step: the files for others first, then the state that says they are written."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brushwork.config.schema import SaveConfig
from brushwork.distributed import Group
from brushwork.training.checkpoint import Position, write_state
from brushwork.training.due import Due
from brushwork.training.learner import Trained
from brushwork.training.run_folder import RunFolder


@dataclass(frozen=True)
class Saver:
    """Writes a run's files. A kill between two of them loses nothing: the run goes on from the older state and writes
    the same files again.

    Args:
        family: of the base.
        group: the processes of the run. All are to save at the same time; the first one writes.
        metadata: what a file tells of its making, for a position of the run.
    """

    folder: RunFolder
    trained: Trained
    family: str
    settings: SaveConfig
    metadata: Callable[[Position], Mapping[str, str]]
    group: Group

    def save(self, position: Position, due: Due) -> None:
        """Write the files that are due, then the state, then remove what is no longer kept."""
        if not self.group.is_first and self.trained.learner.shards is None:
            return
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
                self._in_first(lambda: self._write(files, metadata))
        self._in_first(lambda: write_state(self.folder.state_file, self.trained.state(position, self.family)))
        if self.group.is_first:
            self.remove_surplus()

    def _in_first(self, write: Callable[[], None]) -> None:
        """The first process writes; where each holds a piece of what learns, the others help."""
        shards = self.trained.learner.shards
        if shards is not None:
            shards.hand_over(self.trained.tensors(), write)
        elif self.group.is_first:
            write()

    def _write(self, files: Sequence[Path], metadata: Mapping[str, str]) -> None:
        whole = self.trained.whole()
        for file in files:
            self.trained.learning.write(file, whole["parameter"], metadata)
            if "ema" in whole:
                self.trained.learning.write(self.folder.ema_file(file), whole["ema"], metadata)

    def remove_surplus(self) -> None:
        """Keep the last `save.keep_last` files by epoch and by step."""
        if self.settings.keep_last is not None:
            for path in self.folder.surplus(self.settings.keep_last):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
