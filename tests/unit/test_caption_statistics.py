"""What `brushwork captions` tells: each number is counted by hand here."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from brushwork.captioning.statistics import caption_statistics
from brushwork.cli.app import app
from brushwork.config.load import resolve

CAPTIONS = {
    "a": b"mia, red hat, snow",
    "b": b"mia, red hat, snow",
    "c": b"mia, " + b"a fox " * 60,
    "d": b"mia, " + b"a fox " * 100,
    "e": b"Miami, red hat",
    "f": b"",
    "h": "H\u00fcndchen".encode("cp1252"),
    "i": "mia, \ufffd".encode(),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in "abcdefghi":
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    for name, text in CAPTIONS.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
    return tmp_path


def test_what_is_missing_empty_twice_or_unreadable_is_named(photos: Path) -> None:
    found = caption_statistics(photos, settings=resolve(overrides=["trigger=mia"]).settings)

    assert found.num_pictures == 9
    assert found.missing == ("g.png",)
    assert found.empty == ("f.png",)
    assert list(found.unreadable) == ["h.txt"]
    assert "iconv -f WINDOWS-1252" in found.unreadable["h.txt"]
    assert found.odd == ("i.png",)
    assert found.twins == (("a.png", "b.png"),)
    assert found.without_trigger == ("e.png",)  # Miami is another word


def test_lengths_are_in_tokens_with_all_that_is_put_around_a_caption(photos: Path) -> None:
    found = caption_statistics(photos, settings=resolve(overrides=["data.caption_suffix=on film"]).settings)

    assert found.tokens["a.png"] == 8  # six words and two commas
    assert list(found.tokens)[:2] == ["d.png", "c.png"]
    plain = caption_statistics(photos, settings=resolve().settings)
    assert found.tokens["c.png"] == plain.tokens["c.png"] + 2
    cut = plain.longer_than(75)
    assert cut == {"d.png": plain.tokens["d.png"] - 75, "c.png": plain.tokens["c.png"] - 75}
    assert plain.tokens["c.png"] - plain.tokens["a.png"] == 120 + 2 - 6
    assert list(plain.longer_than(150)) == ["d.png"]
    assert plain.longer_than(225) == {}


def test_tags_are_counted_by_captions(photos: Path) -> None:
    found = caption_statistics(photos, settings=resolve().settings)

    assert list(found.tags.items())[:3] == [("mia", 5), ("red hat", 3), ("snow", 2)]
    assert found.everywhere == ()


def test_examples_are_what_is_first_shown(photos: Path) -> None:
    settings = resolve(overrides=["data.caption_prefix=film,", "data.shuffle_captions=true", "data.keep_tokens=2"])

    found = caption_statistics(photos, settings=settings.settings)

    assert found.examples["a.png"].startswith("film, mia, ")
    assert sorted(found.examples["a.png"].split(", ")) == ["film", "mia", "red hat", "snow"]


def test_the_command_tells_and_edits(photos: Path) -> None:
    (photos / "h.txt").write_text("a dog")
    told = CliRunner().invoke(app, ["captions", str(photos), "--trigger", "mia"])
    assert told.exit_code == 0, told.output
    assert "not in 2: e.png, h.png" in told.output
    assert "2 captions are cut" in told.output

    edited = CliRunner().invoke(app, ["captions", str(photos), "--replace", "mia=lea", "--add_prefix", "film,"])
    assert edited.exit_code == 0, edited.output
    assert (photos / "a.txt").read_bytes() == b"film, lea, red hat, snow"
    assert "--undo" in edited.output

    undone = CliRunner().invoke(app, ["captions", str(photos), "--undo"])
    assert undone.exit_code == 0, undone.output
    assert (photos / "a.txt").read_bytes() == CAPTIONS["a"]


def test_the_command_finds_words_and_draws_the_tags_outside_the_set(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = CliRunner().invoke(app, ["captions", str(photos), "--find", "RED hat"])
    assert found.exit_code == 0, found.output
    assert "a.png\n  mia, red hat, snow" in found.output
    assert found.output.strip().endswith("3 captions with it")

    (photos / "a.txt").write_text("mia, a hat for $5 or $6, snow")  # no formula of matplotlib's
    chart = tmp_path_factory.mktemp("charts") / "tags.png"
    drawn = CliRunner().invoke(app, ["captions", str(photos), "--top", "4", "--chart", str(chart)])
    assert drawn.exit_code == 0, drawn.output
    with Image.open(chart) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    inside = CliRunner().invoke(app, ["captions", str(photos), "--chart", str(photos / "tags.png")])
    assert "would be taken for one of its pictures" in str(inside.exception)
    assert not (photos / "tags.png").exists()
