"""The study, with objectives in closed form: what is attempted, refused, pruned, taken over, and how it ends."""

import io
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from brushwork.config.load import flatten
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.hpo.safety import Rule, default_rules, parse_rules
from brushwork.hpo.space import Space, default_space, parse_space
from brushwork.hpo.storage import address, without_password
from brushwork.hpo.study import RESULTS, Attempt, Outcome, Plan, importance, num_good, search

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["brushwork.hpo.study"])

SMALL = parse_space(
    """
    [optimizer.learning_rate]
    low = 1e-5
    high = 1e-2
    log = true
    [lora.rank]
    choices = [4, 8, 16]
    """,
    "small",
)


def plan(folder: Path, num_trials: int, *, space: Space = SMALL, rules: tuple[Rule, ...] = (), **more: Any) -> Plan:
    repeats = more.pop("repeats", 0)
    fixed = flatten(Settings())
    return Plan(folder, space, rules, fixed, num_trials, repeats=repeats, **more)


def bowl(attempt: Attempt) -> Outcome:
    """Lowest at a rate of 1e-3 and rank 8."""
    from math import log10

    rate, rank = attempt.values["optimizer.learning_rate"], attempt.values["lora.rank"]
    return Outcome((log10(rate) + 3) ** 2 + 0.1 * (rank != 8))


def run(asked: Plan, objective: Callable[[Attempt], Outcome] = bowl) -> tuple[bool, dict[str, Any], str]:
    told = io.StringIO()
    done = search(asked, objective, console=Console(file=told, width=200))
    file = asked.folder / RESULTS
    return done, json.loads(file.read_text()) if file.exists() else {}, told.getvalue()


def drawn(results: dict[str, Any]) -> list[Any]:
    return [row["drawn"] for row in results["trials"]]


def test_each_trial_is_written_down_as_it_ends(tmp_path: Path) -> None:
    seen: list[int] = []

    def counting(attempt: Attempt) -> Outcome:
        file = tmp_path / RESULTS
        ended = json.loads(file.read_text())["trials"] if file.exists() else []
        seen.append(sum(row["state"] == "complete" for row in ended))
        return bowl(attempt)

    done, results, _ = run(plan(tmp_path, 4), counting)

    assert done
    assert seen == [0, 1, 2, 3]
    best = min(results["trials"], key=lambda row: row["value"])
    assert results["best"] == best["number"]
    assert set(best["values"]) == {"optimizer.learning_rate", "lora.rank"}


def test_refused_trials_count_among_the_attempted_and_never_train(tmp_path: Path) -> None:
    trained: list[int] = []

    def objective(attempt: Attempt) -> Outcome:
        trained.append(attempt.number)
        return Outcome(1.0 + attempt.number)

    _, results, told = run(plan(tmp_path, 8, space=default_space(), rules=default_rules()), objective)

    states = Counter(row["state"] for row in results["trials"])
    refused = [row for row in results["trials"] if row["state"] == "refused"]
    assert states["refused"] + states["complete"] == 8
    assert refused
    assert set(trained) == {row["number"] for row in results["trials"]} - {row["number"] for row in refused}
    assert all(f"refused by rule {row['rule']}: " in row["why"] and row["why"] in told for row in refused)


def test_the_best_20_percent_are_the_good_ones() -> None:
    assert [num_good(count) for count in (1, 5, 6, 10, 20)] == [1, 1, 2, 2, 4]


def test_the_search_learns_where_it_is_good(tmp_path: Path) -> None:
    """After the blind start it looks near the best: of 20 trials, the last five are better than the first five."""
    _, results, _ = run(plan(tmp_path, 20))

    values = [row["value"] for row in results["trials"]]
    assert sorted(values[15:])[2] < sorted(values[:5])[2]
    assert min(values) < 0.05


def test_a_search_that_was_stopped_and_continued_proposes_what_a_whole_one_does(tmp_path: Path) -> None:
    _, whole, _ = run(plan(tmp_path / "whole", 8))
    run(plan(tmp_path / "cut", 3))
    stops = iter([6])

    def stopping(attempt: Attempt) -> Outcome:
        return Outcome(None) if attempt.number == next(stops, None) else bowl(attempt)

    done, _, _ = run(plan(tmp_path / "cut", 8), lambda each: Outcome(None) if each.number == 6 else bowl(each))
    assert not done
    done, cut, told = run(plan(tmp_path / "cut", 8), stopping)
    assert not done  # interrupted once more, in the same trial
    done, cut, told = run(plan(tmp_path / "cut", 8))

    assert done
    assert "trial 6: goes on where it was interrupted" in told
    assert drawn(cut) == drawn(whole)
    assert [row["value"] for row in cut["trials"]] == [row["value"] for row in whole["trials"]]


def slow(attempt: Attempt) -> Outcome:
    """A trial that takes a moment and remembers in its folder how far it was."""
    attempt.folder.mkdir(parents=True, exist_ok=True)
    with (attempt.folder / "begun.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.15)
    return bowl(attempt)


def work(folder: str, num_trials: int) -> None:
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        search(plan(Path(folder), num_trials), slow, console=Console(file=nowhere))


def started(folder: Path, num_trials: int) -> multiprocessing.process.BaseProcess:
    child = processes.Process(target=work, args=(str(folder), num_trials))
    child.start()
    return child


def test_two_workers_share_one_study_and_do_nothing_twice(tmp_path: Path) -> None:
    workers = [started(tmp_path, 6) for _ in range(2)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    results = json.loads((tmp_path / RESULTS).read_text())

    begun = {folder.name: (folder / "begun.txt").read_text().split() for folder in (tmp_path / "trials").iterdir()}
    assert len(begun) == len(results["trials"]) == 6
    assert all(len(processes_of) == 1 for processes_of in begun.values())
    assert {row["state"] for row in results["trials"]} == {"complete"}
    assert len({json.dumps(row["drawn"]) for row in results["trials"]}) == 6  # and nobody drew the same


def test_a_killed_search_goes_on_with_the_trial_that_it_was_in(tmp_path: Path) -> None:
    _, whole, _ = run(plan(tmp_path / "whole", 6))
    folder = tmp_path / "killed"
    for trial in (1, 3):
        worker = started(folder, 6)
        while not (folder / "trials" / f"trial-{trial:04d}" / "begun.txt").exists():
            time.sleep(0.01)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    _, results, told = run(plan(folder, 6), slow)

    assert "trial 3: goes on where it was interrupted" in told
    assert drawn(results) == drawn(whole)
    begun = [len((folder / "trials" / f"trial-{n:04d}" / "begun.txt").read_text().split()) for n in range(6)]
    assert begun == [1, 2, 1, 2, 1, 1]


def test_pruning_ends_a_trial_early_and_says_so(tmp_path: Path) -> None:
    """Four measurements each, the first five good: what is worse than their median stops at its first."""
    steps: dict[int, int] = {}

    def measured(attempt: Attempt) -> Outcome:
        value = float(attempt.number)
        for step in range(1, 5):
            steps[attempt.number] = step
            if attempt.report(step, value):
                return Outcome(None, pruned=True)
        return Outcome(value)

    _, results, told = run(plan(tmp_path, 6), measured)

    assert [steps[number] for number in range(6)] == [4] * 5 + [1]
    assert [row["state"] for row in results["trials"]] == ["complete"] * 5 + ["pruned"]
    assert "trial 5 (6 of 6): pruned" in told
    assert results["trials"][5]["curve"] == {"1": 5.0}
    steps.clear()
    run(plan(tmp_path / "all", 6, pruning="off"), measured)
    assert set(steps.values()) == {4}
    steps.clear()
    run(plan(tmp_path / "asha", 4, pruning="asha"), measured)
    assert steps[0] == 4
    assert min(steps.values()) < 4


def test_a_search_for_the_highest_result_still_prunes_what_has_the_higher_loss(tmp_path: Path) -> None:
    """The result is a score, which rises; on the way a loss is measured, which falls."""
    higher = iter([0.9, 0.8, 0.7, 0.6, 0.5, 2.0, 0.1])

    def scored(attempt: Attempt) -> Outcome:
        loss = next(higher)
        if any(attempt.report(step, loss) for step in (1, 2)):
            return Outcome(None, pruned=True)
        return Outcome(1 / loss)

    _, results, _ = run(plan(tmp_path, 7, direction="maximize", on_the_way="minimize"), scored)

    assert [row["state"] for row in results["trials"]] == ["complete"] * 5 + ["pruned", "complete"]
    assert results["best"] == 6
    assert results["trials"][5]["curve"] == {"1": 2.0}  # told as it was measured


def test_a_trial_that_may_not_win_does_not_and_the_sampler_learns_from_it(tmp_path: Path) -> None:
    def barred(attempt: Attempt) -> Outcome:
        copies = "its pictures are copies" if attempt.number == 1 else None
        return Outcome(9.0 if copies else float(attempt.number), barred=copies)

    _, results, told = run(plan(tmp_path, 3, direction="maximize"), barred)

    assert results["best"] == 2
    assert results["trials"][1]["value"] == 9.0
    assert results["trials"][1]["why"] == results["trials"][1]["barred"] == "its pictures are copies"
    assert "cannot win: its pictures are copies" in told
    done, results, _ = run(plan(tmp_path / "all", 2), lambda attempt: Outcome(1.0, barred="copies"))
    assert done
    assert results["best"] is None


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    def failing(attempt: Attempt) -> Outcome:
        if attempt.number == 1:
            raise UserError("the loss of step 3 is not finite")
        if attempt.number == 2:
            return Outcome(float("nan"))
        return bowl(attempt)

    done, results, told = run(plan(tmp_path, 4), failing)

    assert done
    assert [row["state"] for row in results["trials"]] == ["complete", "failed", "failed", "complete"]
    assert "failed: the loss of step 3 is not finite" in told


def test_where_nothing_can_be_trained_the_search_stops(tmp_path: Path) -> None:
    trained: list[int] = []

    def failing(attempt: Attempt) -> Outcome:
        trained.append(attempt.number)
        raise UserError("no such base", fix="--base")

    with pytest.raises(UserError, match="every trial has failed"):
        run(plan(tmp_path, 9), failing)
    assert trained == [0, 1, 2]
    with pytest.raises(UserError, match="no such base"):
        run(plan(tmp_path / "repeated", 9, repeats=2), failing)


def test_the_recipe_comes_first_and_the_winner_last_with_the_same_other_seeds(tmp_path: Path) -> None:
    trained: list[tuple[str, int | None]] = []

    def objective(attempt: Attempt) -> Outcome:
        trained.append((attempt.folder.parent.name, attempt.values.get("train.seed")))
        return Outcome(2.0) if attempt.folder.parent.name == "base" else bowl(attempt)

    _, results, _ = run(plan(tmp_path, 3, repeats=2), objective)

    winner = f"winner-{results['best']:04d}"
    assert trained == [("base", 1), ("base", 2), *[("trials", None)] * 3, (winner, 1), (winner, 2)]
    assert results["repeats"]["base"] == [2.0, 2.0]
    assert results["repeats"]["winner"] == [results["trials"][results["best"]]["value"]] * 2


def test_an_interrupted_repeat_goes_on_too(tmp_path: Path) -> None:
    def interrupted(attempt: Attempt) -> Outcome:
        return Outcome(None if attempt.number == 1 else 2.0)

    done, results, _ = run(plan(tmp_path, 1, repeats=2), interrupted)
    assert not done
    assert results["trials"] == []

    done, results, told = run(plan(tmp_path, 1, repeats=2), lambda attempt: Outcome(3.0))
    assert done
    assert "base, repeat 2: goes on where it was interrupted" in told
    assert results["repeats"]["base"] == [2.0, 3.0]


def test_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    run(plan(tmp_path, 1))
    run(plan(tmp_path, 2, pruning="asha"))  # longer and pruned otherwise: the same search

    other = parse_space("[lora.rank]\nchoices = [4, 8]", "other")
    with pytest.raises(UserError, match="holds a search that began otherwise"):
        run(plan(tmp_path, 2, space=other))
    with pytest.raises(UserError, match="data: None -> b"):
        run(plan(tmp_path, 2, about={"data": "b"}))


def test_importance_finds_what_mattered(tmp_path: Path) -> None:
    run(plan(tmp_path, 3))
    assert importance(tmp_path) is None  # too few to say

    run(plan(tmp_path, 10))
    found = importance(tmp_path)
    assert found is not None
    assert found["optimizer.learning_rate"] > found["lora.rank"]
    assert sum(found.values()) == pytest.approx(1)


def test_rules_of_a_file_refuse_too(tmp_path: Path) -> None:
    own = parse_rules("[[rule]]\nwhy='small only'\nwhere={'lora.rank'={above=4}}", "own")
    _, results, _ = run(plan(tmp_path, 8, rules=own))

    assert {row["values"]["lora.rank"] for row in results["trials"] if row["state"] == "complete"} <= {4}
    assert any(row["state"] == "refused" for row in results["trials"])


def test_a_storage_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(plan(tmp_path, 1, storage="nosuch://me:secret@host/db"))
    assert "nosuch://me@host/db" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert without_password("sqlite:///a.db") == "sqlite:///a.db"


def test_a_postgresql_needs_psycopg_and_is_opened_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "://me:secret@host/db"
    assert address(tmp_path, f"postgresql{url}") == f"postgresql+psycopg{url}"
    assert address(tmp_path, f"postgresql+psycopg2{url}") == f"postgresql+psycopg2{url}"  # asked for: theirs to have
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        with pytest.raises(UserError, match="needs psycopg") as caught:
            run(plan(tmp_path, 1, storage=scheme + url))
        assert caught.value.fix == "pip install 'brushwork[postgresql]'"


def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not answer") as caught:
        run(plan(tmp_path, 1, storage="postgresql://me:secret@127.0.0.1:9/db"))
    assert "secret" not in str(caught.value)


def test_a_search_whose_trials_are_all_drawn_blindly_learns_nothing(tmp_path: Path) -> None:
    """It is a random search, which begins as one that learns."""
    _, blind, _ = run(plan(tmp_path / "blind", 9, blind=9))
    _, other, _ = run(plan(tmp_path / "other", 9, blind=9), lambda attempt: Outcome(float(attempt.number)))
    _, learns, _ = run(plan(tmp_path / "learns", 9))

    assert drawn(blind) == drawn(other)
    assert drawn(blind)[:5] == drawn(learns)[:5]
    assert drawn(blind)[5:] != drawn(learns)[5:]
    with pytest.raises(UserError, match="blind: 9 -> None"):
        run(plan(tmp_path / "blind", 9))
