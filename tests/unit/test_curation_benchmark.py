"""The figures of `python -m benchmarks.curation`, on rows that can be counted by hand."""

from pathlib import Path

import pytest

from benchmarks.curation import GOAL_PRECISION, draw, identity, table, variety
from brushwork.errors import UserError


def row(character: str, *, spoiled: bool = False, **more: object) -> dict[str, object]:
    return {"character": character, "spoiled": [{"kind": "dark"}] if spoiled else [], **more}


def test_identity_counts_unspoiled_frames_from_the_highest_score_down() -> None:
    truth = {f"fox{n}": row("fox") for n in range(10)} | {"bear": row("bear"), "dark": row("bear", spoiled=True)}
    scores = {f"fox{n}": 1 - n / 20 for n in range(10)} | {"bear": 0.62, "dark": 2.0}

    found = identity(scores, truth)

    # Above the bear stand foxes 0 to 7; nine foxes, the share of 0.9, come with one bear.
    assert found["precision at recall 0.9"] == 9 / 10
    assert found["recall at precision 0.98"] == 0.8
    assert GOAL_PRECISION == 0.98


def test_variety_counts_what_differs() -> None:
    scene = {"place": "town", "pose": "runs", "expression": "smiles", "outfit": None, "headwear": None}
    frames = {
        "a": {**scene, "camera": "wide", "time": "noon", "shot": 1, "twin": 1},
        "b": {**scene, "camera": "wide", "time": "noon", "shot": 1, "twin": 2},
        "c": {**scene, "camera": "wide", "time": "night", "shot": 2, "twin": 3},
    }
    assert variety(frames, frames) == {"frames": 3, "shots": 2, "half seconds": 3, "different scenes": 2}


def test_the_table_shows_every_figure() -> None:
    figures = {
        "frames": 10, "good": 4, "encoder": "bundled", "references": 3, "counter-examples": 2,
        "chosen": {"with": {"precision": 0.5}}, "identity": {"with": {"recall": 0.25}},
        "sets": {"coverage": {"shots": 7}},
        "reasons": [{"reason": "dark", "refused": 3, "rightly": 1.0, "no loss": 1.0}],
        "frames a second of one core": {"measuring": 12.34},
    }  # fmt: skip
    text = table(figures)
    for words in (
        "10 frames, 4 of them good",
        "0.500",
        "0.250",
        "| shots | 7 |",
        "| dark | 3 | 1.000",
        "measuring: 12.3",
    ):
        assert words in text


def test_another_seed_is_another_film_with_other_examples_and_is_not_mixed_with_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    draw(first, 2, 1, 1)
    draw(second, 2, 1, 1, seed=77)

    for name in ("film", "references", "others"):
        assert (first / name / "truth.jsonl").read_text() != (second / name / "truth.jsonl").read_text()
    with pytest.raises(UserError, match="holds the film of seed 77, not 1"):
        draw(second, 2, 1, 1)
