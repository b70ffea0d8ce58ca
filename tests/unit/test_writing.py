"""`brushwork prepare`: a set in one form becomes a set in another, with every picture and every caption."""

import hashlib
import json
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from brushwork.cli.app import app
from brushwork.config.load import resolve
from brushwork.config.schema import DataConfig
from brushwork.data import writing
from brushwork.data.folder import Dataset, read_dataset
from brushwork.data.layout import held_out_part
from brushwork.data.writing import Form, Prepared, prepare_set
from brushwork.errors import UserError
from brushwork.film.shots import draw_film
from brushwork.records import read_rows, write_rows
from brushwork.vision.scenes import scenes_of


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    names = {"a.png": "red", "b.v2.jpg": "blue", "more/a.png": "green", "more_a.webp": "white"}
    for name, colour in names.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), colour).save(path)
        path.with_suffix(".txt").write_text(f"of {name}")
    return tmp_path / "photos"


def prepare(place: Path, out: Path, form: Form, **options: object) -> Prepared:
    return prepare_set(place, out, form=form, console=Console(file=StringIO()), **options)  # type: ignore[arg-type]


def content(place: Path) -> set[tuple[str, str]]:
    return {(sample.digest, sample.caption) for sample in read_dataset(place, data=DataConfig()).samples}


@pytest.mark.parametrize("form", ["folder", "kohya", "webdataset"])
def test_every_picture_and_caption_arrives_byte_for_byte(photos: Path, tmp_path: Path, form: Form) -> None:
    prepared = prepare(photos, tmp_path / "out", form, validate=True)

    assert (prepared.num_pictures, prepared.num_captions) == (4, 4)
    assert content(tmp_path / "out") == content(photos)
    assert len(content(photos)) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_from_shards_to_kohya_and_the_repeats_stand_in_the_name(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "shards", "webdataset")
    prepare(tmp_path / "shards", tmp_path / "kohya", "kohya", repeats=10, name="luca")

    assert [path.name for path in (tmp_path / "kohya").iterdir()] == ["10_luca"]
    samples = read_dataset(tmp_path / "kohya", data=DataConfig()).samples
    assert {(sample.digest, sample.caption) for sample in samples} == content(photos)
    assert {sample.repeats for sample in samples} == {10}


def test_shards_are_closed_when_they_are_large_and_have_checksums(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", "webdataset", validate=True, shard_mib=0.001)

    names = [f"{n:05}.tar" for n in range(4)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "checksums.sha256"]
    lines = (tmp_path / "out" / "checksums.sha256").read_text().splitlines()
    digests = [hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in names]
    assert lines == [f"{digest}  {name}" for digest, name in zip(digests, names, strict=True)]


def test_nothing_is_written_where_a_caption_is_missing_or_the_folder_is_taken(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already and not empty"):
        prepare(photos, photos, "folder")
    with pytest.raises(UserError, match="stands in the name of kohya's folders"):
        prepare(photos, tmp_path / "out", "webdataset", repeats=10)
    (photos / "a.txt").unlink()
    with pytest.raises(UserError, match="1 of 4 pictures have no caption"):
        prepare(photos, tmp_path / "out", "folder")
    assert not (tmp_path / "out").exists()


def test_a_picture_that_was_written_wrongly_is_found(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing._write_files

    def spoil(dataset: object, folder: Path, advance: object) -> None:
        real(dataset, folder, advance)  # type: ignore[arg-type]
        (folder / "a.txt").write_text("another")

    monkeypatch.setattr(writing, "_write_files", spoil)
    with pytest.raises(UserError, match=r"what was written is not what was read.*different: a\.png"):
        prepare(photos, tmp_path / "out", "folder", validate=True)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_that_there_are_as_many_captions_as_pictures(photos: Path, tmp_path: Path) -> None:
    words = ["prepare", str(photos), "--out", str(tmp_path / "luca"), "--layout", "kohya", "--repeat", "10"]

    told = CliRunner().invoke(app, [*words, "--validate"])

    assert f"{tmp_path / 'luca'}: 4 pictures = 4 captions, read again and found the same" in told.stdout
    assert (tmp_path / "luca" / "10_luca").is_dir()
    again = CliRunner().invoke(app, [*words[:3], str(tmp_path / "two"), "--json"])
    assert json.loads(again.stdout.splitlines()[-1])["pictures"] == 4


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 frames of a film, with captions."""
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    draw_film(tmp_path / "film", 60, 64, seed=3, spoiled=0.0)
    for frame in (tmp_path / "film").glob("*.png"):
        frame.with_suffix(".txt").write_text("a frame")
    return tmp_path / "film"


@pytest.mark.parametrize("form", ["folder", "kohya", "webdataset"])
def test_what_is_held_out_shares_no_scene_with_what_is_trained(film: Path, tmp_path: Path, form: str) -> None:
    truth = {row["file"].removesuffix(".png"): row for row in read_rows(film / "truth.jsonl")}
    out = tmp_path / "out"

    told = CliRunner().invoke(
        app, ["prepare", str(film), "--out", str(out), "--layout", form, "--heldout", "0.25", "--validate"]
    )

    assert told.exit_code == 0, told.output
    learned = read_dataset(out, data=DataConfig()).samples  # as `train OUT` reads it
    held_out_folder = held_out_part(out)
    assert held_out_folder is not None
    held_out = read_dataset(held_out_folder, data=DataConfig()).samples
    assert content(film) == {(sample.digest, sample.caption) for sample in (*learned, *held_out)}
    assert len(learned) + len(held_out) == 60
    assert 3 <= len(held_out) <= 15
    twins = [{truth[Path(sample.name).stem]["twin"] for sample in part} for part in (learned, held_out)]
    assert not twins[0] & twins[1]
    assert f"{len(learned)} in train/, {len(held_out)} in heldout/" in told.stdout
    if form == "kohya":
        assert [[path.name for path in (out / part).iterdir()] for part in ("train", "heldout")] == [["1_out"]] * 2


def test_a_split_without_scenes_would_have_leaked(film: Path, tmp_path: Path) -> None:
    truth = {row["file"].removesuffix(".png"): row for row in read_rows(film / "truth.jsonl")}

    prepare(film, tmp_path / "out", "folder", held_out=0.25)

    twins = [
        {truth[path.stem]["twin"] for path in (tmp_path / "out" / part).glob("*.png")}
        for part in ("train", "heldout")
    ]
    assert twins[0] & twins[1]


def test_scenes_are_told_by_names_by_the_curation_and_by_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    names = ["scene_01_a.png", "scene_01_b.png", "scene_02_a.png", "x.png", "y.png", "Shot 3/1.png", "Shot 3/2.png"]
    for number, name in enumerate([*names, "z.png", "z copy.png", "landscape4.png", "landscape5.png"]):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        look = 7 if name.startswith("z") else number
        rows = [
            [(look * 37 + row * 11 * look + column * column * 7) % 251 for column in range(8)] for row in range(8)
        ]
        picture = Image.new("L", (8, 8))
        picture.putdata([value for row in rows for value in row])
        picture.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "set" / name)
    write_rows(tmp_path / "set" / "curation.jsonl", [{"file": "x.png", "group": 4}, {"file": "y.png", "group": 4}])
    dataset = read_dataset(tmp_path / "set", data=DataConfig(max_missing_captions=1))

    scenes = scenes_of(dataset, distance=0.02, data=DataConfig())

    groups: dict[int, set[str]] = {}
    for name, scene in scenes.items():
        groups.setdefault(scene, set()).add(name)
    assert sorted(map(sorted, groups.values())) == sorted(
        [
            ["scene_01_a.png", "scene_01_b.png"],
            ["scene_02_a.png"],
            ["x.png", "y.png"],
            ["Shot 3/1.png", "Shot 3/2.png"],
            ["z copy.png", "z.png"],
            ["landscape4.png"],
            ["landscape5.png"],
        ]
    )


def test_a_set_that_is_one_scene_or_a_share_that_is_none_is_refused(photos: Path, tmp_path: Path) -> None:
    def one(dataset: Dataset) -> dict[str, int]:
        return {sample.name: 0 for sample in dataset.samples}

    with pytest.raises(UserError, match="4 pictures are one scene"):
        prepare(photos, tmp_path / "out", "folder", held_out=0.5, scenes=one)
    for share in (0, 1, 2.5):
        with pytest.raises(UserError, match="a share between 0 and 1"):
            prepare(photos, tmp_path / "out", "folder", held_out=share)
    assert not (tmp_path / "out").exists()


def test_where_every_scene_is_larger_than_the_share_the_smallest_is_held_out(photos: Path, tmp_path: Path) -> None:
    def scenes(dataset: Dataset) -> dict[str, int]:
        return {sample.name: int(sample.name in ("a.png", "b.v2.jpg")) for sample in dataset.samples}

    prepared = prepare(photos, tmp_path / "out", "folder", held_out=0.05, scenes=scenes)

    assert prepared.held_out == 2


def test_repeats_are_proposed_from_the_pictures_and_the_steps(photos: Path, tmp_path: Path) -> None:
    words = ["prepare", str(photos), "--steps", "500", "--set", "train.epochs=5", "--set", "train.accumulation=2"]

    kohya = CliRunner().invoke(app, [*words, "--layout", "kohya", "--out", str(tmp_path / "luca")])
    plain = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "plain")])

    assert (tmp_path / "luca" / "50_luca").is_dir()  # 4 pictures x 50 x 5 epochs = 500 steps of 2
    assert "4 pictures x 50 repeats x 5 epochs / a batch of 2 = 500 steps (500 wanted)" in kohya.stdout
    assert f"brushwork train {tmp_path / 'plain'} --set data.repeats=50" in plain.stdout
    both = CliRunner().invoke(app, [*words, "--repeat", "3", "--layout", "kohya", "--out", str(tmp_path / "no")])
    assert both.exit_code != 0
    assert isinstance(both.exception, UserError)


def test_repeats_follow_the_recipe_that_is_trained_and_the_line_to_go_on_with_names_it(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "luca"
    words = ["prepare", str(photos), "--steps", "540", "--recipe", "sd15-character", "--set", "train.epochs=9"]

    told = CliRunner().invoke(app, [*words, "--out", str(out)])

    recipe = resolve(recipe="sd15-character").settings.train
    batch = recipe.batch_size * recipe.accumulation
    repeats = 540 * batch // (9 * 4)
    assert batch > 1
    assert f"4 pictures x {repeats} repeats x 9 epochs / a batch of {batch} = 540 steps (540 wanted)" in told.stdout
    go_on = f"--set data.repeats={repeats} --recipe sd15-character --set train.epochs=9"
    assert f"use it: brushwork train {out} {go_on}" in told.stdout


def test_what_a_review_refuses_is_neither_trained_nor_held_out(photos: Path, tmp_path: Path) -> None:
    write_rows(photos / "review.jsonl", [{"file": "a.png", "decision": "refuse"}])

    prepared = prepare(photos, tmp_path / "out", "folder", held_out=0.4, validate=True)

    written = Counter(
        path.parent.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".jpg", ".webp")
    )
    assert prepared.num_pictures == 3
    assert written == {"train": 2, "heldout": 1}
    assert not any((tmp_path / "out").glob("*/a.*"))
