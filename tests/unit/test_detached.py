"""A detached command runs in tmux with its own surroundings; a queue outlives what fails in it."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brushwork import detached
from brushwork.cli.app import main
from brushwork.detached import session_name, start_detached
from brushwork.errors import UserError
from brushwork.training import queue as queue_module
from brushwork.training.queue import run_queue

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


def program(path: Path, body: str) -> str:
    """Something to run in place of Python."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "my run"
    yield folder
    if shutil.which("tmux") is not None:
        subprocess.run(["tmux", "-L", session_name(folder), "kill-server"], capture_output=True, check=False)


def wait_for(path: Path) -> str:
    for _ in range(400):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


@needs_tmux
def test_a_detached_command_has_its_words_its_folder_and_its_surroundings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f'echo "$* $SOMETHING $PWD" > "{tmp_path}/said"; sleep 60'
    monkeypatch.setattr(detached.sys, "executable", program(tmp_path / "python", body))
    monkeypatch.setenv("SOMETHING", "of mine")
    monkeypatch.chdir(tmp_path)

    attach = start_detached(["train", "a b", "--set", "lora.rank=2"], folder=folder)

    said = wait_for(tmp_path / "said").strip()
    assert said == f"-m brushwork train a b --set lora.rank=2 of mine {tmp_path}"
    assert attach == f"tmux -L {session_name(folder)} attach"
    with pytest.raises(UserError, match="a command is going on in tmux"):
        start_detached(["train"], folder=folder)


@needs_tmux
def test_what_failed_in_tmux_stays_to_be_read_and_does_not_stand_in_the_way(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        detached.sys, "executable", program(tmp_path / "python", "echo went wrong; sleep 0.5; exit 3")
    )
    start_detached(["train"], folder=folder)
    tmux = ["tmux", "-L", session_name(folder)]
    for _ in range(200):
        panes = subprocess.run(
            [*tmux, "list-panes", "-F", "#{pane_dead}"], capture_output=True, text=True, check=False
        )
        if panes.stdout.strip() == "1":
            break
        time.sleep(0.05)
    shown = subprocess.run([*tmux, "capture-pane", "-p", "-S", "-"], capture_output=True, text=True, check=True)
    assert "went wrong" in shown.stdout

    start_detached(["train"], folder=folder)


@needs_tmux
def test_a_run_that_is_still_being_made_ready_can_be_looked_at_and_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    body = f'trap \'echo stopped > "{tmp_path}/end"; exit 130\' INT\necho ready > "{tmp_path}/said"\nread line'
    monkeypatch.setattr(detached.sys, "executable", program(tmp_path / "python", body))
    attach = start_detached(["train"], folder=folder)
    wait_for(tmp_path / "said")

    with pytest.raises(SystemExit) as ended:
        main(["monitor", str(folder)])
    assert ended.value.code == 1
    told = capfd.readouterr().err
    assert "is still being made ready" in told
    assert attach in told

    with pytest.raises(SystemExit) as ended:
        main(["stop", str(folder)])
    assert ended.value.code == 0
    assert "was still being made ready" in capfd.readouterr().out
    assert wait_for(tmp_path / "end") == "stopped\n"
    for _ in range(200):
        if detached.going_on(folder) is None:
            return
        time.sleep(0.05)
    raise AssertionError("the command in tmux goes on")


def test_without_tmux_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="--detach needs tmux, which is not installed") as caught:
        start_detached(["train"], folder=tmp_path)
    assert "nohup" in str(caught.value.fix)


def test_settings_that_do_not_exist_are_refused_before_anything_is_detached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detached, "_run", lambda words: pytest.fail("it was started"))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path), "--set", "lora.rnk=2", "--detach"])
    assert ended.value.code == 1
    assert "lora.rnk" in capsys.readouterr().err


def write(path: Path, pictures: Path) -> Path:
    path.write_text(f'name = "{path.stem}"\n[data]\npath = "{pictures}"\n')
    return path


TRAINER = """
case "$*" in *broken*) echo "error: broken" >&2; exit 1;; esac
echo "$*" >> "{log}"
echo '{{"finished": true, "step": 4, "total_steps": 4, "adapter": "a.safetensors"}}'
"""


def test_a_queue_goes_on_after_a_failure_and_ends_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / f"{name}.toml", tmp_path) for name in ("corgi", "broken", "fox")]
    trainer = program(tmp_path / "python", TRAINER.format(log=tmp_path / "log"))
    monkeypatch.setattr(queue_module.sys, "executable", trainer)

    with pytest.raises(SystemExit) as ended:
        main(["queue", *map(str, files)])

    assert ended.value.code == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["finished", "failed", "finished"]
    assert "step 4 of 4, a.safetensors" in lines[0]
    assert [line.split()[4] for line in (tmp_path / "log").read_text().splitlines()] == [str(files[0]), str(files[2])]

    with pytest.raises(SystemExit) as ended:
        main(["queue", str(files[0]), "--json"])
    assert ended.value.code == 0
    assert json.loads(capfd.readouterr().out)[0]["ending"] == "finished"


def test_a_queue_reads_all_its_files_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module.subprocess, "Popen", lambda *words, **settings: pytest.fail("a run began"))
    good = write(tmp_path / "good.toml", tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_text("[lora]\nrnk = 2\n")
    with pytest.raises(UserError, match=r"bad\.toml: "):
        run_queue([good, bad])
    with pytest.raises(UserError, match=r"two\.toml: .*there is no such folder"):
        run_queue([good, write(tmp_path / "two.toml", tmp_path / "gone")])
    with pytest.raises(UserError, match="both train into") as caught:
        run_queue([good, Path(shutil.copy(good, tmp_path / "twin.toml"))])
    assert caught.value.fix == 'give each a name of its own: name = "twin"'


def test_a_signal_stops_the_run_of_a_queue_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path / f"{name}.toml", tmp_path) for name in ("corgi", "fox")]
    ended = '{"finished": false, "step": 2, "total_steps": 4, "adapter": null}'
    (tmp_path / "ended").write_text(ended)
    body = f"trap 'cat {tmp_path}/ended; exit 0' TERM\necho > {tmp_path}/began\nwhile :; do sleep 0.05; done"
    monkeypatch.setattr(queue_module.sys, "executable", program(tmp_path / "python", body))

    def stop() -> None:
        wait_for(tmp_path / "began")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    entries = run_queue(files)
    thread.join()

    assert [entry.ending for entry in entries] == ["stopped", "not begun"]
    assert "go on: brushwork resume" in entries[0].line()
