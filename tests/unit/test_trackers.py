"""TensorBoard and Weights & Biases hear what a run tells, go on where it goes on, and never end it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from brushwork.config.schema import LogConfig
from brushwork.errors import UserError
from brushwork.training import trackers
from brushwork.training.trackers import Trackers, open_trackers, refuse_missing_trackers


def row(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 0.5 / step, "memory_reserved_gib": None, "verdict": "still learning"}


def tell(settings: LogConfig, folder: Path, steps: range) -> None:
    opened = open_trackers(settings, folder, name="corgi", done=steps[0] - 1, described={"lora": {"rank": 4}})
    for step in steps:
        opened.step(row(step))
    opened.close()


def test_tensorboard_holds_each_step_once_also_after_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    opened = open_trackers(LogConfig(tensorboard=True), tmp_path, name="corgi", done=0, described={})
    for step in range(1, 5):
        opened.step(row(step))
    opened.picture(tmp_path / "sheet.png", 4)
    opened.close()
    tell(LogConfig(tensorboard=True), tmp_path, range(3, 6))  # the last state was that of step 2

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([0.5 / step for step in range(1, 6)])
    assert "memory_reserved_gib" not in events.Tags()["scalars"]


def test_wandb_offline_keeps_one_run_over_two_processes(tmp_path: Path) -> None:
    settings = LogConfig(wandb="film", wandb_mode="offline")
    tell(settings, tmp_path, range(1, 3))
    tell(settings, tmp_path, range(3, 4))

    own = (tmp_path / "wandb-id.txt").read_text().strip()
    written = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert written
    assert {file.stem for file in written} == {f"run-{own}"}
    assert all(file.stat().st_size > 0 for file in written)


class Failing:
    def __init__(self) -> None:
        self.asked = 0

    def step(self, row: dict[str, Any]) -> None:
        self.asked += 1
        raise ConnectionError("no network")

    def picture(self, path: Path, step: int) -> None:
        raise AssertionError("it was left out")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_is_told_of_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing, opened = Failing(), Trackers()
    opened.add("W&B", lambda: failing)
    with caplog.at_level(logging.WARNING, logger="brushwork"):
        opened.step(row(1))
        opened.step(row(2))
        opened.picture(tmp_path, 2)
        opened.close()

    assert failing.asked == 1
    assert [each.message for each in caplog.records] == [
        "W&B failed and is left out from here on: no network. Training goes on."
    ]


def test_a_tracker_that_cannot_begin_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Failing:
        raise OSError("no room")

    opened = Trackers()
    with caplog.at_level(logging.WARNING, logger="brushwork"):
        opened.add("TensorBoard", make)
        opened.step(row(1))
    assert "TensorBoard failed and is left out from here on: no room" in caplog.text


def test_a_tracker_that_is_not_installed_is_refused_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    refuse_missing_trackers(LogConfig())
    with pytest.raises(UserError, match=r"log\.wandb is asked for, and wandb is not installed") as caught:
        refuse_missing_trackers(LogConfig(wandb="film"))
    assert caught.value.fix == "pip install 'brushwork[tracking]', or --set log.wandb=off"
