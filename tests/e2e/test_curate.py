"""`brushwork curate`: what a person gets for a folder of frames, and what is said where it cannot be."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import brushwork
from brushwork.cli.app import main
from brushwork.config.schema import DataConfig
from brushwork.curation import writing
from brushwork.curation.run import Curated, curate
from brushwork.data.folder import read_dataset
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder, draw_scene
from brushwork.film.scene import cast_without_lead, imagine
from brushwork.film.spoil import spoil
from brushwork.vision.encoder import Encoder
from several_processes import together
from small_encoders import write_encoder
from tiny_detectors import write_detector

SMALL = ["curation.encoder=bundled", "curation.min_side=96"]


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 frames of the lead, 5 of others, and one of each way in which a file can be no good; references beside."""
    base = tmp_path_factory.mktemp("film")
    draw_folder(base / "refs", 8, seed=500, style="flat")
    draw_folder(base / "others", 8, seed=700, characters=cast_without_lead(), style="flat")
    draw_folder(base / "frames", 8, seed=0, style="flat")
    draw_folder(base / "more", 5, seed=40, characters=cast_without_lead(), style="flat")
    for file in (base / "more").glob("*.png"):
        file.rename(base / "frames" / f"other_{file.name}")
    scene = imagine(3, style="flat")
    for kind in ("black", "defocus", "letterbox"):
        spoil(draw_scene(scene), kind, seed=1)[0].save(base / "frames" / f"{kind}.png")
    shutil.copy(base / "frames" / "00001.png", base / "frames" / "copy.png")
    draw_scene(imagine(0, style="flat")).save(base / "frames" / "again.jpg", quality=92)
    draw_scene(scene, 64).save(base / "frames" / "thumb.png")
    (base / "frames" / "empty.png").write_bytes(b"")
    (base / "frames" / "text.jpg").write_text("no picture")
    (base / "frames" / "cut.png").write_bytes((base / "frames" / "00000.png").read_bytes()[:900])
    (base / "frames" / "phone.heic").write_bytes(b"ftypheic")
    return base


@pytest.fixture(scope="session")
def done(film: Path) -> Curated:
    return run(film, film / "set")


def run(film: Path, out: Path, *overrides: str, **options: Any) -> Curated:
    chosen: dict[str, Any] = {"references": film / "refs", "others": film / "others", **options}
    return curate(film / "frames", out=out, overrides=[*SMALL, *overrides], **chosen)


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "curation.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file"]: row for row in map(json.loads, lines)}


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def refusal(film: Path, out: Path, *overrides: str, **options: Any) -> str:
    before = set(out.parent.iterdir())
    with pytest.raises(UserError) as caught:
        run(film, out, *overrides, **options)
    assert set(out.parent.iterdir()) == before, "something half-written is left"
    return str(caught.value)


def test_every_frame_has_its_row_with_a_reason_in_words(film: Path, done: Curated) -> None:
    found = rows(done.folder)

    pictures = {".png", ".jpg", ".heic"}
    assert set(found) == {path.name for path in (film / "frames").iterdir() if path.suffix in pictures}
    expected = {
        "empty.png": ("unreadable", "cannot be read: the file is empty"),
        "text.jpg": ("unreadable", "the file holds text"),
        "cut.png": ("unreadable", "damaged or cut short"),
        "phone.heic": ("unreadable", "are not read; save it as PNG or JPEG"),
        "black.png": ("black", "curation.black_highlights"),
        "letterbox.png": ("bars", "curation.max_bars"),
        "thumb.png": ("too_small", "64 x 64 pixels"),
        "copy.png": ("exact_duplicate", "the same file as 00001.png"),
    }
    for name, (code, words) in expected.items():
        assert (found[name]["decision"], found[name]["reason"]) == ("refuse", code), name
        assert words in found[name]["why"]
    assert {found["00000.png"]["reason"], found["again.jpg"]["reason"]} == {None, "near_duplicate"}
    assert found["00000.png"]["group"] == found["again.jpg"]["group"] is not None
    others = [found[f"other_0000{number}.png"]["reason"] for number in range(5)]
    assert set(others) <= {"unlike_references", "like_others", None}
    assert others.count(None) <= 1  # the tiny CLIP has never seen the lead
    lead = [found[f"0000{number}.png"]["reason"] for number in range(8)]
    assert lead.count(None) >= 5


def test_a_row_holds_what_was_agreed(done: Curated) -> None:
    row = rows(done.folder)["00000.png"]
    assert set(row) == {
        "file", "sha256", "width", "height", "scores", "similarity", "nearest_reference", "group", "decision",
        "reason", "why",
    }  # fmt: skip
    assert (row["width"], row["height"]) == (128, 128)
    assert len(row["sha256"]) == 64
    assert row["nearest_reference"].endswith(".png")
    assert {"worth", "confidence", "brightness"} <= set(row["scores"])


def test_the_set_holds_links_captions_and_overviews_and_is_a_data_set(film: Path, done: Curated) -> None:
    kept = [name for name, row in rows(done.folder).items() if row["decision"] == "keep"]
    assert kept
    for name in kept:
        assert (done.folder / name).samefile(film / "frames" / name)
    assert {"contact-kept.png", "contact-refused.png", "similarity.png", "report.html"} <= set(files(done.folder))

    dataset = read_dataset(done.folder, data=DataConfig(max_missing_captions=1.0))

    assert [sample.name for sample in dataset.samples] == sorted(kept)
    captions = {sample.name: sample.caption for sample in dataset.samples}
    assert captions["00000.png"] == (film / "frames" / "00000.txt").read_text().strip()


def test_the_page_opens_alone_and_tells_each_reason(done: Curated) -> None:
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("data:", "")
    assert f"{done.num_kept} of {len(done.found.measured)} frames are kept" in page
    for words in ("black", "exact duplicates", "too small", "cannot be read", "8 references and 8 counter-examples"):
        assert words in page


def test_the_frames_are_only_read(film: Path, tmp_path: Path) -> None:
    before = files(film / "frames")
    run(film, tmp_path / "set")
    assert files(film / "frames") == before


def test_a_second_run_with_another_threshold_computes_nothing_again(
    film: Path, done: Curated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the encoder was asked")

    monkeypatch.setattr(Encoder, "embed_prepared", never)

    loose = run(film, tmp_path / "loose", "curation.min_similarity=-1", "curation.min_confidence=0")

    assert loose.num_kept > done.num_kept
    assert not {"unlike_references", "like_others"} & set(loose.found.counts())


def test_the_judge_may_go_by_the_vectors_alone(film: Path, done: Curated, tmp_path: Path) -> None:
    alone = run(film, tmp_path / "alone", "curation.judge_layer=false").found.likeness
    beside = done.found.likeness
    assert torch.allclose(alone.scores, beside.scores, atol=1e-5), "similarity is of the vectors, both times"
    assert alone.confidence is not None
    assert beside.confidence is not None
    assert not torch.allclose(alone.confidence, beside.confidence, atol=1e-3)


def test_without_counter_examples_similarity_decides(film: Path, tmp_path: Path) -> None:
    found = run(film, tmp_path / "set", others=None)
    row = rows(tmp_path / "set")["00000.png"]
    assert "confidence" not in row["scores"]
    assert "like_others" not in found.found.counts()
    assert "of the references are at least so like the others" in found.found.likeness.threshold.how


@pytest.mark.parametrize("way", ["coverage", "farthest"])
def test_of_what_passes_so_many_are_kept_and_the_others_are_told_as_covered(
    film: Path, tmp_path: Path, way: str
) -> None:
    found = run(film, tmp_path / "set", "curation.keep=3", f"curation.choose={way}")
    assert found.num_kept == 3
    assert found.found.counts()["not_chosen"] >= 2
    assert 0 < (found.found.coverage or 0) <= 1


def test_quotas_choose_by_words(film: Path, tmp_path: Path) -> None:
    overrides = ["curation.keep=4", 'curation.quotas=["a portrait=0.5", "a wide shot=0.5"]']
    found = run(film, tmp_path / "set", *overrides)
    kinds = {row["kind"] for row in rows(tmp_path / "set").values() if "kind" in row}
    assert kinds <= {"a portrait", "a wide shot"}
    assert found.num_kept == 4


def test_with_a_detector_quotas_need_no_words_and_every_row_says_how_much_is_seen(film: Path, tmp_path: Path) -> None:
    detector = write_detector(tmp_path / "detector", {0: "person", 1: "bench"})
    quota = 'curation.quotas=["a full body shot=1"]'

    found = run(film, tmp_path / "set", f"curation.detector={detector}", "curation.keep=2", quota).found

    told = rows(tmp_path / "set")
    kept = [row for row in told.values() if row["decision"] == "keep"]
    # The tiny network sees half the width and a quarter of the height of every picture, feet and all.
    assert [(row["shot"], row["kind"]) for row in kept] == [("full body", "a full body shot")] * 2
    assert all(row["scores"]["subject"] == pytest.approx(0.125, abs=0.01) for row in kept)
    assert "shot" not in told["empty.png"]
    assert not [note for note in found.notes if "were wanted" in note]


def test_what_a_detector_finds_hidden_or_cut_is_refused_with_the_setting(film: Path, tmp_path: Path) -> None:
    detector = write_detector(tmp_path / "detector", {0: "person"}, place=(0.2, 0.5, 0.4, 0.5))

    said = refusal(film, tmp_path / "set", f"curation.detector={detector}")

    assert "cut_off" in said
    assert "curation.keep_cut" in said
    assert run(film, tmp_path / "set", f"curation.detector={detector}", "curation.keep_cut=true").num_kept


def test_quotas_need_an_encoder_that_reads(film: Path, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "dino", "dinov2")
    said = refusal(film, tmp_path / "set", f"curation.encoder={encoder}", 'curation.quotas=["a portrait=0.5"]')
    assert "compares frames with words" in said


def test_more_wanted_than_there_is_is_told(film: Path, tmp_path: Path) -> None:
    found = run(film, tmp_path / "set", "curation.keep=400")
    assert any("400 frames were wanted" in note for note in found.found.notes)


def test_sets_are_never_mixed_and_frames_are_never_written_into(film: Path, done: Curated, tmp_path: Path) -> None:
    before = files(done.folder)
    with pytest.raises(UserError, match="a set of an earlier run; sets are never mixed"):
        run(film, done.folder)
    assert files(done.folder) == before
    with pytest.raises(UserError, match="which is only read"):
        run(film, film / "frames" / "set")


def test_bad_references_are_told(film: Path, tmp_path: Path) -> None:
    out, refs = tmp_path / "set", tmp_path / "refs"
    assert "there is no such folder" in refusal(film, out, references=refs)
    refs.mkdir()
    assert "holds no picture; it was named for the references" in refusal(film, out, references=refs)
    (refs / "a.png").write_bytes(b"nothing")
    assert "none of its 1 pictures can be used" in refusal(film, out, references=refs)
    shutil.copy(film / "refs" / "00000.png", refs / "b.png")
    assert "1 reference tells no spread" in refusal(film, out, references=refs, others=None)
    for number in range(4):
        shutil.copy(film / "refs" / "00000.png", refs / f"twin{number}.png")
    assert "1 reference tells no spread" in refusal(film, out, references=refs, others=None)
    for number in range(4):
        draw_scene(imagine(500, style="flat")).save(refs / f"saved{number}.jpg", quality=90 + number)
    assert "references are all alike" in refusal(film, out, references=refs, others=None)
    assert "references and counter-examples at once" in refusal(film, out, others=film / "refs")

    found = run(film, out, "curation.min_similarity=0.5", references=refs, others=None)
    assert any("references that cannot be used: 1 (a.png" in note for note in found.found.notes)
    assert any("copies of others, and count once: 4" in note for note in found.found.notes)


def test_frames_that_are_no_pictures_or_all_refused_write_nothing(film: Path, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.png").write_bytes(b"x")
    options = {"references": film / "refs", "out": tmp_path / "set", "overrides": SMALL}
    with pytest.raises(UserError, match="holds no picture"):
        curate(empty, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none of the 1 pictures can be read"):
        curate(broken, **options)  # type: ignore[arg-type]
    said = refusal(film, tmp_path / "set", "curation.min_side=4000")
    assert "none of the" in said
    assert "most are refused as too_small" in said


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        # As Python tells it: the file that is copied, and then where to.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(writing.os, "link", full)
    monkeypatch.setattr(writing.shutil, "copy2", full)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["curate", str(film / "frames"), "--references", str(film / "refs"), "--out", str(tmp_path / "set")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--encoder", "bundled", "--set", "curation.min_side=96"])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said or "full" in said
    assert str(tmp_path / "set") in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_links_gets_copies(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(writing.os, "link", never)
    run(film, tmp_path / "set")
    kept = [name for name, row in rows(tmp_path / "set").items() if row["decision"] == "keep"]
    for name in kept:
        copy = tmp_path / "set" / name
        assert copy.read_bytes() == (film / "frames" / name).read_bytes()
        assert not copy.samefile(film / "frames" / name)


def test_the_command_tells_what_it_did(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["curate", str(film / "frames"), "--references", str(film / "refs"), "--not", str(film / "others")]
    with pytest.raises(SystemExit) as end:
        main(
            [
                *words,
                "--out",
                str(tmp_path / "set"),
                "--encoder",
                "bundled",
                "--set",
                "curation.min_side=96",
                "--json",
            ]
        )
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] + sum(told["refused"].values()) == told["frames"]


def in_a_process(rank: int, film: Path, out: Path) -> int:
    return brushwork.curate(
        film / "frames", references=film / "refs", others=film / "others", out=out, overrides=SMALL
    ).num_kept


def test_two_processes_write_the_same_set_as_one(film: Path, done: Curated, tmp_path: Path) -> None:
    counts = together(in_a_process, film, tmp_path / "set")
    assert counts == [done.num_kept, done.num_kept]
    assert rows(tmp_path / "set") == rows(done.folder)
