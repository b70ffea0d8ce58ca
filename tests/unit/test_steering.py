"""A run that is going on hears what another terminal asks; one that is not says so."""

import json
from pathlib import Path

import pytest

from brushwork.amounts import duration
from brushwork.config.load import resolve, to_toml
from brushwork.errors import UserError
from brushwork.training.interruption import Interruption
from brushwork.training.monitor import last_lines, look, page, runs_in, seconds_left, table
from brushwork.training.plot import plot
from brushwork.training.requests import ask, forget, take
from brushwork.training.run_folder import RunFolder


def begun(path: Path, *, steps: int = 4, prompts: str | None = None) -> RunFolder:
    """A run as it stands after some steps, with nothing but what it has told."""
    folder = RunFolder(path, "corgi")
    path.mkdir(parents=True)
    resolved = resolve(overrides=["name=corgi", *([f"sample.prompts={prompts!r}"] if prompts else [])])
    folder.settings_file.write_text(to_toml(resolved.settings, resolved.origins))
    told = {"data": "photos", "num_pictures": 8, "num_held_out": 2, "base": "bundled", "family": "sdxl"}
    folder.write_description({**told, "resolution": 64, "total_steps": 100})
    rows = [
        {"step": step, "loss": 1.0 / step, "smoothed_loss": 1.0 / step, "learning_rate": 1e-4, "seconds": 2.0}
        for step in range(1, steps + 1)
    ]
    rows[-1] |= {"held_out_loss": 0.5, "verdict": "still learning"}
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.log_file.write_text("2026-01-01 10:00:00 INFO began\n2026-01-01 10:00:01 DEBUG step 1/100\n")
    return folder


def test_a_request_reaches_a_run_that_is_going_on_and_is_taken_once(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi", prompts="prompts.txt")
    with folder.locked():
        ask(folder.path, "save")
        ask(folder.path, "sample")
        assert take(folder) == {"save", "sample"}
        assert take(folder) == frozenset()


def test_a_run_that_is_not_going_on_refuses_with_the_command_that_goes_on(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi")
    with pytest.raises(UserError, match="is not running") as caught:
        ask(folder.path, "stop")
    assert caught.value.fix == f"brushwork resume {folder.path}"
    (folder.path / "run.lock").write_text("1 0.0")  # a process that died long ago
    with pytest.raises(UserError, match="is not running"):
        ask(folder.path, "save")
    with pytest.raises(UserError, match="is not the folder of a run"):
        ask(tmp_path, "stop")


def test_to_draw_needs_prompts(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi")
    with folder.locked(), pytest.raises(UserError, match="has no prompts to draw"):
        ask(folder.path, "sample")


def test_a_request_to_stop_is_heard_like_a_signal_and_taken_away(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi")
    interruption = Interruption()
    interruption.watch(folder.requests / "stop")
    assert not interruption.requested
    with folder.locked():
        ask(folder.path, "stop")

    assert interruption.requested
    assert not (folder.requests / "stop").exists()
    assert interruption.requested, "it stays asked for"


def test_what_was_asked_of_a_process_that_died_is_forgotten(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi")
    with folder.locked():
        ask(folder.path, "stop")
        ask(folder.path, "save")
    forget(folder)
    assert list(folder.requests.iterdir()) == []


def test_a_view_of_a_run_has_state_progress_losses_and_what_it_said(tmp_path: Path) -> None:
    folder = begun(tmp_path / "corgi")
    stopped = look(folder.path)
    assert (stopped.summary["state"], stopped.summary["seconds_left"]) == ("stopped", None)

    with folder.locked():
        view = look(folder.path)
    assert view.summary["state"] == "training"
    assert view.summary["step"] == 4
    assert view.summary["seconds_left"] == pytest.approx(96 * 2.0)
    assert view.log == ["2026-01-01 10:00:00 INFO began"]
    lines = page(view, width=60, unicode=False)
    assert "training, step 4 of 100, 3 min left" in lines
    assert "loss 0.2500, held out 0.5000, still learning" in lines
    assert "smoothed loss, steps 1 to 4" in lines
    assert all(len(line) <= 60 for line in lines[1:])
    json.dumps(view.described())


def test_a_folder_of_runs_becomes_a_table(tmp_path: Path) -> None:
    for name in ("b", "a"):
        begun(tmp_path / name)

    lines = table([look(run) for run in runs_in(tmp_path)])

    assert [line.split()[0] for line in lines] == ["run", "a", "b"]
    assert "step 0 of 100" in lines[1]
    assert lines[1].endswith("still learning")
    with pytest.raises(UserError, match="there is no run in"):
        runs_in(tmp_path / "a" / "requests" if (tmp_path / "a" / "requests").exists() else Path(__file__).parent)


def test_the_time_left_follows_the_last_steps() -> None:
    assert seconds_left([], 10) is None
    rows = [{"seconds": 100.0}] * 50 + [{"seconds": 1.0}] * 50
    assert seconds_left(rows, 60) == pytest.approx(60.0)
    assert [duration(each) for each in (5, 90, 4321)] == ["5 s", "2 min", "1 h 12 min"]


def test_a_log_that_is_long_is_read_at_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("2026-01-01 10:00:00 DEBUG step\n" * 10_000 + "2026-01-01 11:00:00 WARNING look\n")
    assert last_lines(log, 4) == ["2026-01-01 11:00:00 WARNING look"]


def test_a_curve_goes_from_its_highest_letter_to_its_lowest() -> None:
    lines = plot([(step, -step) for step in range(100)], width=40, height=5, unicode=False)

    assert len(lines) == 5
    assert lines[0].split() == ["0.0000", "*" * len(lines[0].split()[1])]
    assert lines[-1].startswith("-99.0000")
    first = [line.find("*") for line in lines]
    assert first == sorted(first)
    braille = plot([(0, 0.0), (1, 1.0)], width=20, height=2)
    assert ord(braille[0][-1]) - 0x2800 & 0x08, "the last dot of the highest row"


def test_a_curve_of_one_value_is_a_flat_line() -> None:
    lines = plot([(step, 0.5) for step in range(10)], width=30, height=3, unicode=False)
    assert lines[0].count("*") == 30 - len("0.5000 ")
