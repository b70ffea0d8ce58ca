"""What a search is said to have found: no more than was measured, with every trial counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from brushwork.errors import UserError
from brushwork.hpo.report import gain_of, make_report, read_results, render, write_report


def row(number: int, state: str, value: float | None, rate: float, **more: Any) -> dict[str, Any]:
    name = ["cosine", "constant"][number % 2]
    drawn = {"optimizer.learning_rate": rate, "schedule.name": name, "lora.rank": 64, "lora.alpha_ratio": 0.5}
    filled = {"number": number, "state": state, "value": value, "values": drawn, "drawn": drawn, "curve": {}}
    return filled | {"why": None, "rule": None} | more


def results(**more: Any) -> dict[str, Any]:
    trials = [
        row(0, "complete", 0.5, 1e-4),
        row(1, "refused", None, 1.1e-4, rule=4, why="refused by rule 4: <b>warm-up</b>"),
        row(2, "complete", 0.3, 2e-4),
        row(3, "pruned", None, 3e-4, curve={"1": 0.9}),
        row(4, "failed", None, 3e-4, why="not finite"),
        row(5, "complete", 0.4, 5e-4),
    ]
    repeats = {"base": [0.5, 0.6, 0.55], "winner": [0.3, 0.4, 0.34]}
    return {"direction": "minimize", "attempts": 20, "best": 2, "repeats": repeats, "trials": trials} | more


def test_a_gain_is_called_one_only_beyond_what_seeds_make() -> None:
    """Student's t by hand: differences 0.20, 0.20, 0.21 have mean 0.20333 and deviation 0.0057735."""
    gain = gain_of(results()["repeats"], minimize=True)

    assert gain is not None
    assert gain.mean == pytest.approx(0.203333, abs=1e-5)
    assert gain.least == pytest.approx(0.203333 - 2.920 * 0.0057735 / 3**0.5, abs=1e-5)
    assert gain.noise == pytest.approx(0.05)
    assert gain.is_real

    noisy = gain_of({"base": [0.5, 0.6], "winner": [0.45, 0.5]}, minimize=True)
    assert noisy is not None
    assert noisy.mean > 0
    assert not noisy.is_real
    assert gain_of({"base": [0.5, 0.6], "winner": [0.45, 0.5]}, minimize=False).mean < 0  # type: ignore[union-attr]
    assert gain_of({"base": [0.5, 0.6], "winner": [0.45]}, minimize=True) is None


@pytest.mark.parametrize(
    ("repeats", "told"),
    [
        ({"base": [0.5, 0.6, 0.55], "winner": [0.3, 0.4, 0.34]}, "the gain holds"),
        ({"base": [0.5, 0.6], "winner": [0.45, 0.5]}, "no gain that can be told from noise"),
        ({"base": [0.5, 0.6], "winner": [0.6, 0.65]}, "it is no gain"),
        ({"base": []}, "was not measured"),
    ],
)
def test_the_verdict_says_what_the_repeats_say(repeats: dict[str, Any], told: str) -> None:
    said = make_report(results(repeats=repeats), None, name="fox").verdict
    assert told in said
    assert said.startswith("Trial 2 ")  # by the number that its folder has


def test_refused_pruned_and_failed_trials_are_counted() -> None:
    report = make_report(results(), None, name="fox")

    assert report.counts == {"complete": 3, "pruned": 1, "refused": 1, "failed": 1}
    assert report.by_rule == {"4": 1}
    assert report.best is not None
    assert report.best["number"] == 2
    cosine, constant = sorted(report.by_choice["schedule.name"], key=lambda each: str(each["value"]), reverse=True)
    assert (cosine["attempted"], cosine["complete"], cosine["best"], cosine["mean"]) == (3, 2, 0.3, 0.4)
    assert (constant["attempted"], constant["complete"], constant["best"]) == (3, 1, 0.4)


def test_the_page_holds_everything_and_asks_no_server(tmp_path: Path) -> None:
    report = make_report(results(), {"optimizer.learning_rate": 0.7, "lora.rank": 0.3}, name="fox")
    page = write_report(report, tmp_path).read_text()

    told = json.loads((tmp_path / "report.json").read_text())
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in told["pictures"])
    shown = {Path(name).stem for name in told["pictures"]}
    assert {"history", "importance", "optimizer.learning_rate", "schedule.name", "rank-and-ratio"} <= shown
    assert page.count("data:image/png;base64,") == len(told["pictures"])
    assert "http" not in page
    assert "&lt;b&gt;warm-up&lt;/b&gt;" in page  # what others wrote is no markup
    assert "not finite" in page


def test_a_search_without_a_single_result_has_a_report_too(tmp_path: Path) -> None:
    bare = results(best=None, repeats={"base": []}, trials=[row(0, "refused", None, 1e-4, rule=3, why="x")])
    report = make_report(bare, None, name="fox")

    write_report(report, tmp_path)
    assert "nothing to recommend" in report.verdict
    assert "Too few trials" in render(report, [])


def test_a_folder_that_is_no_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no search"):
        read_results(tmp_path)
    for text in ("{", "[]", "3", "{}"):
        (tmp_path / "trial_results.json").write_text(text)
        with pytest.raises(UserError, match="not what a search wrote"):
            read_results(tmp_path)


def test_where_every_trial_was_refused_the_report_says_by_what_and_what_to_type() -> None:
    trials = [row(0, "refused", None, 1e-3, rule=5), *(row(n, "refused", None, 1e-3, rule=4) for n in (1, 2))]
    said = make_report(results(best=None, repeats={"base": []}, trials=trials), None, name="fox").verdict

    assert "All 3 trials were refused before they trained, most of them by rule 4 (2)" in said
    assert "--rules FILE" in said


def test_a_search_by_the_score_says_who_copies(tmp_path: Path) -> None:
    copying = row(6, "complete", -0.2, 1e-3, barred="it copies", why="it copies")
    by_score = {"about": {"objective": "score"}, "direction": "maximize", "best": 0}
    found = results(
        **by_score, trials=[*results()["trials"], copying], repeats={"base": [0.5, -0.1], "winner": [0.6, 0.5]}
    )
    report = make_report(found, None, name="fox")

    assert report.measure == "score"
    assert "the recipe copies training pictures with 1 of 2 other seeds" in report.verdict
    assert "the winner copies" not in report.verdict
    assert "such a trial cannot win" in write_report(report, tmp_path).read_text()
    nobody = make_report(results(**by_score | {"best": None}, repeats={}, trials=[copying]), None, name="fox")
    assert nobody.verdict.startswith("Every trial that came to its end draws copies of its training pictures")
