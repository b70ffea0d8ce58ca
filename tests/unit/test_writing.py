"""`brushwork prepare`: a set in one form becomes a set in another, with every picture and every caption."""

import json
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from brushwork.cli.app import app
from brushwork.config.schema import DataConfig
from brushwork.data import writing
from brushwork.data.folder import read_dataset
from brushwork.data.writing import Form, Prepared, prepare_set
from brushwork.errors import UserError


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


def test_shards_are_closed_when_they_are_large(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_BYTES", 1000)

    prepare(photos, tmp_path / "out", "webdataset", validate=True)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n:05}.tar" for n in range(4)]


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
