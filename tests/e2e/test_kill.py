"""A run that is killed at any moment and continued ends as one that was never stopped: same files, same bytes."""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from brushwork.film.frames import draw_folder

# Each child has everything imported already, so that kills fall into the run and not into imports.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["brushwork.training.session", "brushwork.training.run"])

TIMES = {"images_per_second", "seconds", "data_wait", "data_wait_seconds", "memory_gib"}
SETTINGS = {
    "train.epochs": "3",
    "train.batch_size": "2",
    "train.accumulation": "2",
    "train.ema_decay": "0.9",
    "train.device": "cpu",
    "lora.rank": "2",
    "lora.dropout": "0.1",
    "schedule.warmup_steps": "2",
    "save.every_epochs": "1",
    "save.every_steps": "2",
    "save.keep_last": "2",
    "validation.data": "'0.25'",
    "validation.timesteps": "1",
    "sample.steps": "2",
    "sample.every_steps": "3",
}


def run_in_child(data: str, out: str, cache: str, overrides: list[str]) -> None:
    import os

    import torch

    from brushwork.training.run import train

    torch.set_num_threads(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    train(data, out=out, overrides=[f"cache.folder='{cache}'", *overrides])


def start(folder: Path, name: str, overrides: list[str]) -> multiprocessing.process.BaseProcess:
    child = processes.Process(
        target=run_in_child, args=(str(folder / "data"), str(folder / name), str(folder / f"{name}-cache"), overrides)
    )
    child.start()
    return child


def finish(folder: Path, name: str, overrides: list[str]) -> float:
    began = time.monotonic()
    child = start(folder, name, overrides)
    child.join()
    assert child.exitcode == 0
    return time.monotonic() - began


def contents(run: Path) -> dict[str, object]:
    """Everything in a run folder that must not differ, by file name."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir():
            continue
        if path.suffix == ".safetensors":
            data = path.read_bytes()
            header = int.from_bytes(data[:8], "little")
            with safe_open(path, framework="pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
            found[name] = (shapes, data[8 + header :])
        elif path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
        elif path.suffix in (".png", ".json", ".txt") and path.parent != run:
            found[name] = path.read_bytes()
        else:  # logs and descriptions of this very run: that they are there is enough
            found[name] = None
    return found


def kill_until_done(
    folder: Path, overrides: list[str], *, name: str, duration: float, dice: random.Random, most: int
) -> int:
    """Start and kill until the run ends by itself; after `most` kills it is let alone."""
    kills = 0
    while kills < most:
        child = start(folder, name, overrides)
        child.join(timeout=dice.uniform(0.0, 0.6 * duration))
        if child.exitcode is not None:
            assert child.exitcode == 0
            break
        assert child.pid is not None
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    finish(folder, name, overrides)
    return kills


def check_kills(tmp_path: Path, *, precision: str, num_kills: int, seed: int) -> None:
    draw_folder(tmp_path / "data", count=8, size=64, seed=1)
    (tmp_path / "prompts.txt").write_text("a fox in the snow\na fox by the sea --s 3\n")
    overrides = [f"{key}={value}" for key, value in SETTINGS.items()]
    overrides += [
        f"train.precision={precision}",
        "data.resolution=64",
        f"sample.prompts='{tmp_path / 'prompts.txt'}'",
    ]
    finish(tmp_path, "whole", overrides)
    duration = finish(tmp_path, "whole-again", overrides)
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "whole-again") == whole, "two runs differ even without a kill"
    assert "lora.safetensors" in whole
    assert "lora-ema.safetensors" in whole
    assert any(name.startswith("sample/000003-epoch/") for name in whole)

    dice = random.Random(seed)
    killed = attempt = 0
    while killed < num_kills:
        name = f"killed-{attempt}"
        killed += kill_until_done(
            tmp_path, overrides, name=name, duration=duration, dice=dice, most=min(10, num_kills - killed)
        )
        again = contents(tmp_path / name)
        assert again.keys() == whole.keys()
        assert [file for file in whole if again[file] != whole[file]] == []
        attempt += 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_is_killed_and_continued_ends_in_the_same_bytes(tmp_path: Path, precision: str) -> None:
    check_kills(tmp_path, precision=precision, num_kills=4, seed=3)


@pytest.mark.full
@pytest.mark.parametrize(("precision", "num_kills"), [("fp32", 50), ("bf16", 20)])
def test_fifty_kills_at_random_moments_change_no_byte(tmp_path: Path, precision: str, num_kills: int) -> None:
    check_kills(tmp_path, precision=precision, num_kills=num_kills, seed=11)
