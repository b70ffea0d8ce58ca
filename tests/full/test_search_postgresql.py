"""A search that several machines share by a real PostgreSQL: kills, a server that goes away, and a real training.

Needs the programs of a PostgreSQL server (apt install postgresql); POSTGRESQL names their folder where they are
neither on the path nor where Debian has them.
"""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from brushwork.config.load import flatten
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.hpo.space import parse_space
from brushwork.hpo.study import RESULTS, Attempt, Outcome, Plan, search
from postgresql import PASSWORD, Server, find_programs, served

pytestmark = pytest.mark.full

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["brushwork.hpo.study"])

SPACE = parse_space("[optimizer.learning_rate]\nlow = 1e-5\nhigh = 1e-2\nlog = true", "small")
NUM = 12
STUCK = "stuck/killed/trials/trial-0002"
"""In the folder of this trial a worker gets no further: there it is killed."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = find_programs()
    if programs is None:
        pytest.fail("there is no PostgreSQL here: apt install postgresql, or POSTGRESQL=/folder/of/initdb")
    with served(programs) as running:
        yield running


def plan(folder: Path, url: str, num_trials: int = NUM, repeats: int = 0) -> Plan:
    fixed = flatten(Settings())
    return Plan(folder, SPACE, (), fixed, num_trials, storage=url, repeats=repeats, pruning="off")


def slow(attempt: Attempt) -> Outcome:
    attempt.folder.mkdir(parents=True, exist_ok=True)
    with (attempt.folder / "begun.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    attempt.report(1, 1.0)
    time.sleep(600 if STUCK in attempt.folder.as_posix() else 0.2)
    return Outcome(abs(attempt.values.get("optimizer.learning_rate", 1e-2) - 1e-3))


def work(folder: str, url: str, repeats: int) -> None:
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        search(plan(Path(folder), url, repeats=repeats), slow, console=Console(file=nowhere))


def started(folder: Path, url: str, repeats: int = 0) -> multiprocessing.process.BaseProcess:
    child = processes.Process(target=work, args=(str(folder), url, repeats))
    child.start()
    return child


def begun(folders: list[Path]) -> dict[str, list[str]]:
    """Who has begun each trial, in whatever machine's folder."""
    found: dict[str, list[str]] = {}
    for file in (file for folder in folders for file in sorted((folder / "trials").glob("*/begun.txt"))):
        found.setdefault(file.parent.name, []).extend(file.read_text().split())
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / RESULTS).read_text())["trials"])


def wait_for(file: Path, worker: multiprocessing.process.BaseProcess) -> None:
    while not file.exists():
        assert worker.is_alive()
        time.sleep(0.01)


def test_of_two_workers_one_is_killed_and_the_study_is_whole(tmp_path: Path, server: Server) -> None:
    """Each in a folder of its own, as on two machines: no trial too many, none lost, none trained twice but the one
    that the kill cut; and the password is in no file."""
    folders = [tmp_path / machine / "killed" for machine in ("stuck", "other")]
    workers = [started(folders[0], server.url, repeats=2)]
    wait_for(folders[0] / "trials" / "trial-0002" / "begun.txt", workers[0])
    workers.append(started(folders[1], server.url, repeats=2))
    wait_for(folders[1] / "trials" / "trial-0003" / "begun.txt", workers[1])
    assert workers[0].pid is not None
    os.kill(workers[0].pid, signal.SIGKILL)
    for worker in workers:
        worker.join()
    assert workers[1].exitcode == 0

    found = rows(folders[1])
    assert [row["number"] for row in found] == list(range(NUM))
    assert {row["state"] for row in found} == {"complete"}
    assert len({row["values"]["optimizer.learning_rate"] for row in found}) == NUM  # nobody drew the same
    times = begun(folders)
    assert len(times) == NUM
    assert {name for name, by in times.items() if len(by) > 1} == {"trial-0002"}
    assert times["trial-0002"] == [str(worker.pid) for worker in workers]
    repeats = json.loads((folders[1] / RESULTS).read_text())["repeats"]
    assert [len(repeats[what]) for what in ("base", "winner")] == [2, 2]
    assert None not in repeats["base"] + repeats["winner"]
    kept = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert kept
    assert not [file for file in kept if PASSWORD.encode() in file.read_bytes()]


def test_many_workers_attempt_no_trial_more_than_was_asked_for(tmp_path: Path, server: Server) -> None:
    folders = [tmp_path / str(machine) / "many" for machine in range(4)]
    workers = [started(folder, server.url) for folder in folders]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    times = begun(folders)
    assert sorted(times) == [f"trial-{number:04d}" for number in range(NUM)]
    assert all(len(by) == 1 for by in times.values())


def test_a_server_that_goes_away_is_named_and_the_search_goes_on_when_it_is_back(
    tmp_path: Path, server: Server
) -> None:
    def cut(attempt: Attempt) -> Outcome:
        if attempt.number == 2:
            server.stop()
        return slow(attempt)

    folder = tmp_path / "away"
    with pytest.raises(UserError, match="does not answer") as caught:
        search(plan(folder, server.url, 4), cut, console=Console(quiet=True))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(UserError, match="does not answer"):
        search(plan(folder, server.url, 4), slow, console=Console(quiet=True))
    server.start()
    told = io.StringIO()
    assert search(plan(folder, server.url, 4), slow, console=Console(file=told))
    assert "trial 2: goes on where it was interrupted" in told.getvalue()
    assert [row["state"] for row in rows(folder)] == ["complete"] * 4


def test_two_real_searches_share_a_study(tmp_path: Path, server: Server) -> None:
    """`brushwork search` twice, one killed in a training: the other goes on from the state that it left."""
    draw_folder(tmp_path / "set", count=4, size=64, seed=5)
    draw_folder(tmp_path / "held", count=2, size=64, seed=9)
    (tmp_path / "space.toml").write_text("[optimizer.learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n")
    (tmp_path / "rules.toml").write_text("")
    settings = {"data.resolution": 64, "train.max_steps": 12, "train.batch_size": 2, "train.device": "cpu"}
    settings |= {"validation.timesteps": 1, "validation.every_epochs": "off"}
    words = [sys.executable, "-m", "brushwork", "search", "set", "--references", "held", "--space", "space.toml"]
    words += ["--rules", "rules.toml", "--recipe", "tiny", "--repeats", "0", "--trials", "4", "--out", "study"]
    words += ["--storage", server.url, *(w for key, value in settings.items() for w in ("--set", f"{key}={value}"))]
    workers = [subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    study = tmp_path / "study"
    metrics = study / "trials" / "trial-0000" / "metrics.jsonl"
    while not metrics.exists():
        assert any(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    killed = next(
        worker for worker in workers if str(worker.pid) in (study / "trials/trial-0000/run.lock").read_text()
    )
    killed.kill()
    told = [worker.communicate()[1] for worker in workers]
    assert sorted(worker.returncode for worker in workers) == [-signal.SIGKILL, 0], told
    assert [row["state"] for row in rows(study)] == ["complete"] * 4
    assert (study / "winner.toml").is_file()
    assert not (study / "search.db").exists()
