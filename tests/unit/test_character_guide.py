"""What the character's page is shown on: the film, the server that answers about its frames, and the truth."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.caption_server import CaptionServer
from benchmarks.character_guide import Viewer, check, draw
from brushwork.captioning.profile import read_profile, write_new_profile
from brushwork.captioning.run import caption
from brushwork.cli.app import app
from brushwork.film.scene import LEAD
from brushwork.records import read_rows, write_rows


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide") / "film"
    draw(folder, frames=24)
    return folder


def test_the_film_comes_with_references_of_the_lead_and_pictures_of_the_others(film: Path) -> None:
    who = {part: {row["character"] for row in read_rows(film / part / "truth.jsonl")} for part in NAMES}

    assert who["references"] == {LEAD}
    assert LEAD not in who["others"]
    assert len(list((film / "frames").glob("*.png"))) == 24


def test_the_questions_of_a_new_profile_are_answered_by_what_a_frame_shows(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    truth = next(row for row in read_rows(film / "frames" / "truth.jsonl") if row["good"])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes((film / "frames" / truth["file"]).read_bytes())
    write_new_profile(tmp_path / "profile.yaml")
    profile = read_profile(tmp_path / "profile.yaml")

    with CaptionServer(Viewer(film / "frames"), port=_free_port()) as server:
        done = caption(tmp_path / "set", profile=profile, endpoints=[server.url])

    said = set(done.written["a.png"].split(", "))
    own = set(truth["caption"].removeprefix("a red fox with a blue scarf ").split(", "))
    assert own <= said


def test_what_the_review_refused_is_told_once_after_captioning(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for name in ("frame_000000.png", "frame_000001.png"):
        (tmp_path / "set" / name).write_bytes((film / "frames" / name).read_bytes())
    (tmp_path / "set" / "review.jsonl").write_text('{"file": "frame_000001.png", "decision": "refuse"}\n')
    write_new_profile(tmp_path / "profile.yaml")

    with CaptionServer(Viewer(film / "frames")) as server:
        words = ["caption", str(tmp_path / "set"), "--profile", str(tmp_path / "profile.yaml")]
        told = CliRunner().invoke(app, [*words, "--endpoint", server.url])

    assert "1 caption written by" in told.stdout
    assert told.stdout.count("left out, refused in review.jsonl: 1 (frame_000001.png)") == 1


def test_what_was_kept_and_refused_is_held_against_the_truth(film: Path, tmp_path: Path) -> None:
    truth = list(read_rows(film / "frames" / "truth.jsonl"))
    decisions = tmp_path / "curation.jsonl"
    rows = [{"file": row["file"], "decision": "keep" if row["good"] else "refuse", "reason": None} for row in truth]
    good = [row for row in truth if row["good"]]
    shots = len({row["shot"] for row in good})
    assert 0 < len(good) < len(truth)
    write_rows(decisions, [row | {"reason": None if row["decision"] == "keep" else "flat"} for row in rows])

    told = check(film, decisions)

    assert told[0] == f"kept {len(good)}, of which clean frames of the lead: {len(good)}"
    assert told[1] == f"of {shots} shots with a clean frame of the lead, {shots} are in the set"
    assert f"{len(good):6} {'lead, clean':28} kept" in told


NAMES = ("references", "others")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
