"""The benchmark of the search: what it trains, and what it makes of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import benchmarks.search as searching
from brushwork.hpo.study import Attempt, Outcome


def test_a_search_and_chance_begin_with_the_same_trials_and_train_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = searching.Given(tmp_path, repeats=1, trials=8, seeds=2)
    for name in ("train", "heldout"):
        (tmp_path / "fox" / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), "tan").save(tmp_path / "fox" / name / "a.png")
    for name, text in (("short.toml", searching.OWN), ("space.toml", searching.SPACE), ("rules.toml", "")):
        (tmp_path / name).write_text(text)
    trained: list[str] = []

    def objective(attempt: Attempt) -> Outcome:
        trained.append(searching.key_of(attempt.values))
        return Outcome(1 / attempt.values["optimizer.learning_rate"])

    prepared = searching.prepare_search
    monkeypatch.setattr(
        searching, "prepare_search", lambda asked, console: replace(prepared(asked, console), objective=objective)
    )
    searching.pair(given, 1, Console(quiet=True))

    search, chance = (searching.trials(tmp_path / f"{arm}-1") for arm in ("search", "chance"))
    assert [row["values"] for row in search[:5]] == [row["values"] for row in chance[:5]]
    assert len(trained) == len(set(trained)) == 8 + 3
    (tmp_path / "search-1").rename(tmp_path / "search-0")
    (tmp_path / "chance-1").rename(tmp_path / "chance-0")
    found = searching.raced(given)
    assert found["median"] == {"search": min(r["value"] for r in search), "chance": min(r["value"] for r in chance)}
    fresh = {"base": [0.3, 0.31], "winner": [0.2, 0.21], "gain": 0.1, "at least": 0.05}
    assert "| fox | 0.30000, 0.31000 | 0.20000, 0.21000 | 0.10000 | 0.05000 |" in searching.page(
        {"race": found, "fresh": {"fox": fresh}}
    )
