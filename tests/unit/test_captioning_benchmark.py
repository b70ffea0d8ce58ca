"""The benchmark of captioning: what is planted is found, what a captioner knows comes through whole."""

from pathlib import Path

import pytest

from benchmarks.captioning import PLANTS, main


def test_truth_comes_through_and_planted_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))

    figures = main(
        ["--out", str(tmp_path / "out"), "--frames", "50", "--size", "64", "--each", "3", "--delay", "0.01"]
    )

    assert figures["truth"] == {"captions": 50, "exact": 50, "exact from a server": 50}
    for kind in ({*PLANTS} - {"cut off"}) | {"missing", "empty", "unreadable", "same"}:
        assert (kind, figures["checks"][kind]["recall"]) == (kind, 1.0)
        assert (kind, figures["checks"][kind]["precision"]) == (kind, 1.0)
    assert figures["checks"]["cut off"]["precision"] == 1.0
    assert figures["checks"]["picture"]["recall"] > 0.5
    assert [row["requests"] for row in figures["speed"]] == [1, 4, 8, 16, 32]
