"""What lies where in a run folder.

RUN/settings.toml                   every setting, with where it came from
RUN/run.json                        the data, the base, what the settings amounted to
RUN/state/state.safetensors         everything that is needed to go on
RUN/metrics.jsonl  loss.png  log.txt
RUN/NAME-000002.safetensors         the adapter after epoch 2
RUN/NAME-step00000800.safetensors   after step 800
RUN/NAME-lowest-loss.safetensors    the one with the lowest loss
RUN/NAME.safetensors                at the end
RUN/sample/000002-epoch/            pictures
RUN/requests/                       what another terminal asks of the run
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from brushwork.atomic import PARTIAL_SUFFIX, write_text
from brushwork.errors import UserError
from brushwork.run_files import DESCRIPTION_FILE, LOCK_FILE, METRICS_FILE, SETTINGS_FILE, STATE_FILE, ema_name, is_run

if TYPE_CHECKING:
    from brushwork.training.batches import Budget
    from brushwork.training.checkpoint import Position

DESCRIBED = ("data", "num_pictures", "num_held_out", "base", "family", "resolution", "total_steps")
"""What every `run.json` tells."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run.

    Args:
        name: begins the names of what the run makes.
        suffix: ends them: `.safetensors`, or nothing where a whole base in a folder is made.
    """

    path: Path
    name: str
    suffix: str = ".safetensors"

    @property
    def settings_file(self) -> Path:
        return self.path / SETTINGS_FILE

    @property
    def description_file(self) -> Path:
        return self.path / DESCRIPTION_FILE

    @property
    def state_file(self) -> Path:
        return self.path / STATE_FILE

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS_FILE

    @property
    def curve_file(self) -> Path:
        return self.path / "loss.png"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def quarantine_file(self) -> Path:
        return self.path / "quarantine.jsonl"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    @property
    def samples(self) -> Path:
        return self.path / "sample"

    @property
    def final_file(self) -> Path:
        return self.path / f"{self.name}{self.suffix}"

    @property
    def lowest_loss_file(self) -> Path:
        return self.path / f"{self.name}-lowest-loss{self.suffix}"

    def epoch_file(self, epoch: int) -> Path:
        """The adapter after `epoch` epochs (counted from 1)."""
        return self.path / f"{self.name}-{epoch:06d}{self.suffix}"

    def step_file(self, steps: int) -> Path:
        """The adapter after `steps` optimizer steps."""
        return self.path / f"{self.name}-step{steps:08d}{self.suffix}"

    def file_at(self, budget: "Budget", position: "Position") -> Path:
        """The adapter that is written where an epoch ends, or the run does."""
        if position.is_over(budget.total_steps):
            return self.final_file
        return self.epoch_file(budget.epoch_of(max(0, position.step - 1)) + 1)

    def ema_file(self, file: Path) -> Path:
        """The running mean that belongs to the adapter in `file`."""
        return file.with_name(ema_name(file.name, suffix=self.suffix))

    def surplus(self, keep_last: int) -> list[Path]:
        """The files by epoch and by step beyond the last `keep_last` of each kind, with their running means."""
        surplus: list[Path] = []
        for pattern in (r"-\d{6}", r"-step\d{8}"):
            whole = re.compile(re.escape(self.name) + pattern + re.escape(self.suffix))
            files = sorted(file for file in self.path.iterdir() if whole.fullmatch(file.name))
            old = files[: max(0, len(files) - keep_last)]
            surplus += old + [self.ema_file(file) for file in old if self.ema_file(file).exists()]
        return surplus

    def write_description(self, description: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_text(self.description_file, json.dumps(description, indent=2, ensure_ascii=False) + "\n")

    def read_description(self) -> dict[str, Any]:
        """Read `run.json`."""
        anew = "give the `brushwork train` command of the run again with --accept-changes: it writes the file anew"
        try:
            description = json.loads(self.description_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.description_file} cannot be read: {error}.", fix=anew) from error
        missing = [key for key in DESCRIBED if not isinstance(description, dict) or key not in description]
        if missing:
            raise UserError(f"{self.description_file} does not describe a run: it has no {missing[0]}.", fix=anew)
        return dict(description)

    def is_running(self) -> bool:
        """Whether a process trains in this folder now."""
        return _is_alive(_holder(self.path / LOCK_FILE))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that two processes never train in it at once. A dead process's hold is ignored."""
        lock = self.path / LOCK_FILE
        while not _took(lock):
            holder = _holder(lock)
            if _is_alive(holder):
                raise UserError(
                    f"{self.path} is being trained by process {holder.split()[0]}.",
                    fix="wait for it, or choose another folder with --out",
                )
            lock.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _took(lock: Path) -> bool:
    """Make the lock with this process's name in it, in one go; False if it is there already."""
    name = f"{os.getpid()} {psutil.Process().create_time()}"
    own = lock.with_name(f"{lock.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    own.write_text(name)
    try:
        os.link(own, lock)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links, such as exFAT
        with suppress(FileExistsError), lock.open("x") as file:
            file.write(name)
        return lock.read_text() == name
    finally:
        own.unlink(missing_ok=True)
    return True


def _holder(lock: Path) -> str:
    """What stands in the lock; nothing if it has just been given back."""
    try:
        return lock.read_text()
    except FileNotFoundError:
        return ""


def _is_alive(holder: str) -> bool:
    """Whether the process that wrote `holder`, its number and when it began, is still there."""
    number, _, began = holder.partition(" ")
    try:
        return process_lives(int(number), float(began))
    except ValueError:
        return False


def process_lives(number: int, began: float) -> bool:
    """Whether a process is there. One that has died and that its parent has not asked for yet keeps its number."""
    try:
        process = psutil.Process(number)
        return process.create_time() == began and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def newest_run(path: Path) -> Path:
    """`path` itself if it is a run, else the run below it that was written to last."""
    if is_run(path):
        return path
    if not path.is_dir():
        raise UserError(f"{path} is not a folder.", fix="name a run folder, or a folder that holds runs")
    runs = [file.parent for file in path.glob(f"*/{DESCRIPTION_FILE}") if is_run(file.parent)]
    if not runs:
        raise UserError(f"there is no run in {path}.", fix="name a folder that `brushwork train` made")
    return max(runs, key=_last_written)


def _last_written(run: Path) -> float:
    files = [run / DESCRIPTION_FILE, run / METRICS_FILE, run / STATE_FILE]
    return max(file.stat().st_mtime for file in files if file.exists())
