"""Writes what is due after a step: adapter files first, then the state that says they are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from brushwork.config.schema import SaveConfig
from brushwork.lora.files import write_adapter
from brushwork.lora.state import AdapterState
from brushwork.models.spec import UNetSpec
from brushwork.runtime import PRECISIONS
from brushwork.training.checkpoint import Position, write_state
from brushwork.training.learner import Trained
from brushwork.training.loop import Due
from brushwork.training.run_folder import RunFolder


@dataclass(frozen=True)
class Saver:
    """Writes a run's files. A kill between two of them loses nothing: the run goes on from the older state and writes
    the same files again.

    Args:
        metadata: what a file tells of its making, for a position of the run.
    """

    folder: RunFolder
    trained: Trained
    spec: UNetSpec
    settings: SaveConfig
    metadata: Callable[[Position], Mapping[str, str]]

    def save(self, position: Position, due: Due) -> None:
        """Write the adapter files that are due, then the state, then remove what is no longer kept."""
        files = []
        if due.epoch_file is not None:
            files.append(self.folder.epoch_file(due.epoch_file))
        if due.step_file is not None:
            files.append(self.folder.step_file(due.step_file))
        if due.final_file:
            files.append(self.folder.final_file)
        if due.lowest_loss_file:
            files.append(self.folder.lowest_loss_file)
        mean = self.trained.ema_state()
        for file in files:
            self.write(file, self.trained.adapter.state(), position)
            if mean is not None:
                self.write(self.folder.ema_file(file), mean, position)
        write_state(self.folder.state_file, self.trained.state(position, self.spec.family))
        self.remove_surplus()

    def write(self, file: Path, adapter: AdapterState, position: Position) -> None:
        """Write one adapter file in the layout and precision of the settings."""
        write_adapter(
            file,
            adapter,
            layout=self.settings.layout,
            spec=self.spec,
            metadata=self.metadata(position),
            dtype=PRECISIONS[self.settings.precision],
        )

    def remove_surplus(self) -> None:
        """Keep the last `save.keep_last` files by epoch and by step."""
        if self.settings.keep_last is not None:
            for file in self.folder.surplus(self.settings.keep_last):
                file.unlink()
