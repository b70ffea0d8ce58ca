"""A search that is killed at any moment and started again ends with the winner and numbers of one never killed."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from brushwork.film.frames import draw_folder
from brushwork.training.checkpoint import read_state
from brushwork.training.run_folder import RunFolder

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["brushwork.training.session", "brushwork.training.run", "brushwork.hpo.study"])

SPACE = """
[lora.rank]
choices = [2, 4]
[optimizer.learning_rate]
low = 1e-4
high = 1e-2
log = true
"""
SETTINGS = {
    "data.resolution": 64,
    "train.max_steps": 4,
    "train.batch_size": 2,
    "train.device": "cpu",
    "validation.timesteps": 1,
    "validation.train_part": 1,
    "validation.every_epochs": "off",
    "validation.every_steps": 1,
}
TIMES = ("began", "ended", "seconds")

Moment = Callable[[Path], bool]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    draw_folder(folder / "set", count=4, size=64, seed=5)
    draw_folder(folder / "held", count=2, size=64, seed=9)
    (folder / "space.toml").write_text(SPACE)
    (folder / "rules.toml").write_text("")
    return folder


def command_in_child(words: list[str], log: str) -> None:
    """`brushwork ...` as a process of its own."""
    import torch

    from brushwork.cli.app import main

    torch.set_num_threads(1)
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    main(words)


def started(film: Path, study: Path, *more: str) -> multiprocessing.process.BaseProcess:
    files = ["--references", str(film / "held"), "--space", str(film / "space.toml"), "--out", str(study)]
    files += ["--rules", str(film / "rules.toml"), "--recipe", "tiny"]
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    words = ["search", str(film / "set"), *files, *settings, *more]
    child = processes.Process(target=command_in_child, args=(words, str(study.parent / f"{study.name}.log")))
    child.start()
    return child


def finish(film: Path, study: Path, *more: str) -> None:
    child = started(film, study, *more)
    child.join()
    assert child.exitcode == 0, (study.parent / f"{study.name}.log").read_text()


def kill_at(moment: Moment, film: Path, study: Path, *more: str) -> None:
    child = started(film, study, *more)
    while not moment(study):
        assert child.is_alive(), (study.parent / f"{study.name}.log").read_text()
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def inside(run: str, step: int) -> Moment:
    """When a run has measured this step."""
    return lambda study: any(row["step"] >= step for row in metrics(study / run))


def after(trial: int) -> Moment:
    """When a trial has just been written down."""

    def ended(study: Path) -> bool:
        file = study / "trial_results.json"
        return file.exists() and json.loads(file.read_text())["trials"][trial:] and results(study)[trial]["ended"]

    return ended


def metrics(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []  # the last line may be half written
    return [json.loads(line) for line in lines]


def saved_step(run: Path) -> int:
    """Of the state that a run would go on from."""
    state = RunFolder(run, "lora").state_file
    return read_state(state).position.step if state.exists() else 0


def results(study: Path) -> list[dict[str, Any]]:
    return list(json.loads((study / "trial_results.json").read_text())["trials"])


def whole(study: Path) -> dict[str, Any]:
    """All that a search found, but how long it took."""
    told = json.loads((study / "trial_results.json").read_text())
    trials = [{key: value for key, value in row.items() if key not in TIMES} for row in told["trials"]]
    runs = sorted(file.parent for file in study.rglob("metrics.jsonl"))
    curves = {
        run.relative_to(study).as_posix(): [
            (row["step"], row["loss"], row.get("held_out_loss")) for row in metrics(run)
        ]
        for run in runs
    }
    winner = (study / "winner.toml").read_text().replace(study.name, "")
    return {"trials": trials, "best": told["best"], "repeats": told["repeats"], "curves": curves, "winner": winner}


def assert_same(one: Path, other: Path) -> None:
    assert whole(one) == whole(other)
    files = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    assert files == sorted(file.relative_to(other) for file in other.rglob("*.safetensors"))
    for file in files:
        theirs = load_file(other / file)
        mine = load_file(one / file)
        assert mine.keys() == theirs.keys()
        assert all(mine[name].equal(theirs[name]) for name in mine), file


def check(film: Path, folder: Path, moments: list[tuple[str, Moment]], *more: str) -> None:
    """Kill a search at these moments, one after the other, and compare it with one that is never killed.

    Args:
        moments: each with the run that the kill falls into.
    """
    finish(film, folder / "never", *more)
    study = folder / "killed"
    cut: dict[str, list[dict[str, Any]]] = {}
    for run, moment in moments:
        kill_at(moment, film, study, *more)
        cut[run] = [row for row in metrics(study / run) if row["step"] <= saved_step(study / run)]
    finish(film, study, *more)

    assert_same(study, folder / "never")
    for run, rows in cut.items():
        kept = metrics(study / run)[: len(rows)]
        assert kept == rows, f"{run} began anew instead of going on from its state"
    assert any(cut.values())


def test_a_search_that_is_killed_and_started_again_ends_as_one_that_never_was(film: Path, tmp_path: Path) -> None:
    """In its first trial, between two, and in its last."""
    moments = [
        ("trials/trial-0000", inside("trials/trial-0000", 3)),
        ("trials/trial-0001", after(0)),
        ("trials/trial-0001", inside("trials/trial-0001", 2)),
    ]
    check(film, tmp_path, moments, "--trials", "2", "--repeats", "0")


@pytest.mark.full
def test_so_does_one_with_repeats_and_pruning(film: Path, tmp_path: Path) -> None:
    """In a repeat of the recipe, in a trial once there is enough to prune by, and in a repeat of the winner."""

    def inside_winner(study: Path) -> bool:
        return any(row["step"] >= 2 for run in study.glob("winner-*/repeat-1") for row in metrics(run))

    moments = [
        ("base/repeat-2", inside("base/repeat-2", 2)),
        ("trials/trial-0007", inside("trials/trial-0007", 1)),
        ("winner", inside_winner),
    ]
    check(film, tmp_path, moments, "--trials", "12", "--blind", "12", "--repeats", "2")
    told = json.loads((tmp_path / "killed" / "trial_results.json").read_text())
    assert "pruned" in {row["state"] for row in told["trials"]}
    assert [len(told["repeats"][what]) for what in ("base", "winner")] == [2, 2]
