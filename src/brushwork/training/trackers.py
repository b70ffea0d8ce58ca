"""Curves for those who watch elsewhere: TensorBoard and Weights & Biases. A failure of theirs never ends a run."""

import importlib.util
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from brushwork.atomic import write_text
from brushwork.config.schema import LogConfig
from brushwork.errors import UserError
from brushwork.records import Row

logger = logging.getLogger("brushwork")


class Tracker(Protocol):
    """Takes what a run tells of itself."""

    def step(self, row: Row) -> None: ...

    def picture(self, path: Path, step: int) -> None: ...

    def close(self) -> None: ...


def refuse_missing_trackers(settings: LogConfig) -> None:
    """Stop at the start where a tracker is asked for that is not installed."""
    for module, asked in (("tensorboard", settings.tensorboard), ("wandb", settings.wandb is not None)):
        if asked and importlib.util.find_spec(module) is None:
            off = "off" if module == "wandb" else "false"
            raise UserError(
                f"log.{module} is asked for, and {module} is not installed.",
                fix=f"pip install 'brushwork[tracking]', or --set log.{module}={off}",
            )


def open_trackers(
    settings: LogConfig, folder: Path, *, name: str, done: int, described: Mapping[str, Any]
) -> "Trackers":
    """Begin to tell the trackers that the settings ask for.

    Args:
        folder: of the run. A run that goes on in it goes on in the trackers too.
        done: steps that are done; what a tracker heard of later ones before a kill counts no more.
        described: the settings of the run, by dotted key.
    """
    trackers = Trackers()
    if settings.tensorboard:
        trackers.add("TensorBoard", lambda: TensorBoard(folder / "tensorboard", done=done))
    if settings.wandb is not None:
        project, mode = settings.wandb, settings.wandb_mode
        trackers.add("W&B", lambda: WandB(folder, project=project, name=name, mode=mode, described=described))
    return trackers


class Trackers:
    """All trackers of a run. One that fails is told of once, and not asked again."""

    def __init__(self) -> None:
        self._open: dict[str, Tracker] = {}

    def add(self, name: str, make: Callable[[], Tracker]) -> None:
        """Take up one more."""
        self._guarded(name, lambda: self._open.update({name: make()}))

    def step(self, row: Row) -> None:
        """A row of `metrics.jsonl`."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, lambda tracker=tracker: tracker.step(row))  # type: ignore[misc]

    def picture(self, path: Path, step: int) -> None:
        """A sheet of samples, where it was drawn."""
        for name, tracker in list(self._open.items()):
            if path.exists():
                self._guarded(name, lambda tracker=tracker: tracker.picture(path, step))  # type: ignore[misc]

    def close(self) -> None:
        """Hand over what they still hold."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.close)

    def _guarded(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            self._open.pop(name, None)
            logger.warning("%s failed and is left out from here on: %s. Training goes on.", name, error)
            logger.debug("why %s failed", name, exc_info=True)


def numbers(row: Row) -> dict[str, float]:
    """What of a row can be drawn as a curve."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"}


class TensorBoard:
    """Event files in `RUN/tensorboard`: `tensorboard --logdir runs` shows them."""

    def __init__(self, folder: Path, *, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def step(self, row: Row) -> None:
        """Every number of the row, by its own name."""
        for key, value in numbers(row).items():
            self._writer.add_scalar(key, value, row["step"])
        if "verdict" in row:
            self._writer.add_text("verdict", row["verdict"], row["step"])

    def picture(self, path: Path, step: int) -> None:
        """The sheet as it is now."""
        import numpy as np
        from PIL import Image

        pixels = np.asarray(Image.open(path).convert("RGB"))
        self._writer.add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is held back."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; its id is kept in the run folder, so that a run that goes on is one run there."""

    def __init__(
        self, folder: Path, *, project: str, name: str, mode: str | None, described: Mapping[str, Any]
    ) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            id=_kept_id(folder / "wandb-id.txt"),
            resume="allow",
            name=name,
            dir=str(folder),
            config=dict(described),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", silent=True, login_timeout=30),
        )

    def step(self, row: Row) -> None:
        """Every number of the row, by its own name, and the verdict."""
        verdict = {"verdict": row["verdict"]} if "verdict" in row else {}
        self._run.log({**numbers(row), **verdict}, step=row["step"])

    def picture(self, path: Path, step: int) -> None:
        """The sheet as it is now."""
        self._run.log({"samples": self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """Wait until everything is handed over."""
        self._run.finish()


def _kept_id(file: Path) -> str:
    if not file.exists():
        write_text(file, secrets.token_hex(4) + "\n")
    return file.read_text(encoding="utf-8").strip()
