"""The run folder: names, what is surplus, who holds it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from brushwork.errors import UserError
from brushwork.training.run_folder import RunFolder, newest_run, process_lives


def touch(path: Path, *names: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).touch()


def test_files_have_the_names_that_other_trainers_give_them(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "luca")

    assert run.epoch_file(2).name == "luca-000002.safetensors"
    assert run.step_file(800).name == "luca-step00000800.safetensors"
    assert run.final_file.name == "luca.safetensors"
    assert run.lowest_loss_file.name == "luca-lowest-loss.safetensors"
    assert run.ema_file(run.epoch_file(2)).name == "luca-000002-ema.safetensors"


def test_only_old_files_by_epoch_and_step_are_surplus(tmp_path: Path) -> None:
    kept = ["a.safetensors", "a-lowest-loss.safetensors", "a-000003.safetensors", "a-step00000020.safetensors"]
    other = ["ab-000001.safetensors", "a-000001.png", "a-x-000001.safetensors"]
    old = ["a-000001.safetensors", "a-000001-ema.safetensors", "a-000002.safetensors", "a-step00000010.safetensors"]
    touch(tmp_path, *kept, *other, *old, "a-000003-ema.safetensors")

    assert sorted(file.name for file in RunFolder(tmp_path, "a").surplus(1)) == sorted(old)


def test_a_folder_held_by_a_living_process_is_refused(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "run.lock").write_text(f"{child.pid} {psutil.Process(child.pid).create_time()}")
    try:
        with (
            pytest.raises(UserError, match=f"is being trained by process {child.pid}"),
            RunFolder(tmp_path, "a").locked(),
        ):
            pass
    finally:
        child.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "OWN 1.0", "999999999 1.0", "nonsense"])
def test_the_hold_of_a_dead_process_is_ignored(tmp_path: Path, content: str) -> None:
    # OWN: a process of the same number that began at another time, as after a restart of the machine
    (tmp_path / "run.lock").write_text(content.replace("OWN", str(os.getpid())))

    with RunFolder(tmp_path, "a").locked():
        assert (tmp_path / "run.lock").read_text().startswith(str(os.getpid()))

    assert not (tmp_path / "run.lock").exists()


def test_the_newest_run_is_the_one_written_to_last(tmp_path: Path) -> None:
    for number, name in enumerate(["old", "new", "older"]):
        touch(tmp_path / name, "settings.toml", "run.json")
        os.utime(tmp_path / name / "run.json", (100 + number, 100 + number))
    touch(tmp_path / "new", "metrics.jsonl")
    touch(tmp_path / "no run", "settings.toml")

    assert newest_run(tmp_path) == tmp_path / "new"
    assert newest_run(tmp_path / "old") == tmp_path / "old"


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run in"):
        newest_run(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '"data"', '{"data": "photos"}'])
def test_a_damaged_description_is_named_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(UserError, match=r"run\.json (cannot be read|does not describe a run)") as told:
        RunFolder(tmp_path, "a").read_description()

    assert "--accept-changes" in str(told.value.fix)


def test_a_process_that_has_died_and_was_not_asked_for_yet_does_not_live() -> None:
    """A killed search's number stays taken until its parent looks, in a container perhaps for ever."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = psutil.Process(child.pid).create_time()
    assert process_lives(child.pid, began)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not process_lives(child.pid, began)
    child.communicate()
    assert not process_lives(child.pid, began)
