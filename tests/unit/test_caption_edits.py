"""Changing many captions at once: only what was asked changes, and everything can be had back, byte for byte."""

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from brushwork.captioning.edits import Edit, edit_captions, edited, undo_last_edit
from brushwork.config.schema import DataConfig
from brushwork.errors import UserError
from brushwork.records import append_row, read_rows

DATA = DataConfig()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures: a plain caption, one with Windows' line ends and a mark, one told in metadata.jsonl."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "c.png", "d.png"):
        Image.new("RGB", (64, 64)).save(folder / name)
    (folder / "a.txt").write_bytes(b"cat, watermark, a category\n")
    (folder / "sub" / "b.txt").write_bytes("\ufeffcat,  Watermark\r\n\r\nsecond, dog  \r\n".encode())
    (folder / "metadata.jsonl").write_text('{"file_name": "c.png", "text": "a cat"}\n')
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("captions.jsonl", None)
    return found


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (Edit(prefix="mia,"), "a cat\n", "mia, a cat\n"),
        (Edit(prefix="mia,"), "mia, a cat", "mia, a cat"),
        (Edit(suffix="film still"), "a cat", "a cat film still"),
        (Edit(removed_tags=("watermark",)), "cat, Watermark ,dog", "cat, dog"),
        (Edit(removed_tags=("watermark",)), "cat ,dog  , watermarks", "cat ,dog  , watermarks"),
        (Edit(replacements=(("cat", "dog"),)), "cat, a category, Cat", "dog, a category, Cat"),
        (Edit(replacements=(("(x)", r"\1"),)), "a (x)", r"a \1"),
        (Edit(removed_tags=("a",), replacements=(("b", "c"),), prefix="p"), "a, b\n\n a \n", "p c\n\n p \n"),
        (Edit(prefix="p"), "\ufeffa\r\nb", "\ufeffp a\r\np b"),
    ],
)
def test_an_edit_changes_what_was_asked_in_every_line_and_nothing_else(edit: Edit, before: str, after: str) -> None:
    assert edited(before, edit) == after


def test_the_old_captions_are_kept_and_come_back_byte_for_byte(photos: Path) -> None:
    before = files(photos)

    first = edit_captions(photos, Edit(removed_tags=("watermark",)), data=DATA)
    between = files(photos)
    second = edit_captions(photos, Edit(prefix="mia,"), data=DATA)

    assert [change.file.name for change in first.changes] == ["a.txt", "b.txt"]
    assert len(second.changes) == 3
    assert (photos / "a.txt").read_text() == "mia, cat, a category\n"
    assert (photos / "c.txt").read_text() == "mia, a cat\n"  # beside the picture; metadata.jsonl is as it was
    assert "d.png" in second.notes[0]
    rows = read_rows(photos / "captions.jsonl")
    assert (rows[0]["file"], rows[0]["before"], rows[0]["edit"]) == (
        "a.txt",
        "cat, watermark, a category\n",
        "remove tag watermark",
    )

    undo_last_edit(photos, data=DATA)
    assert files(photos) == between
    undo_last_edit(photos, data=DATA)
    assert files(photos) == before
    with pytest.raises(UserError, match="no edit of captions is left"):
        undo_last_edit(photos, data=DATA)


def test_a_dry_run_tells_and_writes_nothing(photos: Path) -> None:
    before = files(photos)

    told = edit_captions(photos, Edit(prefix="mia"), data=DATA, dry_run=True)

    assert [change.after for change in told.changes if change.file.name == "a.txt"] == [
        "mia cat, watermark, a category\n"
    ]
    assert not told.written
    assert files(photos) == before
    assert not (photos / "captions.jsonl").exists()


def test_an_undo_never_overwrites_what_was_written_since(photos: Path) -> None:
    edit_captions(photos, Edit(prefix="mia"), data=DATA)
    (photos / "a.txt").write_text("by hand")
    before = files(photos)

    with pytest.raises(UserError, match=r"a\.txt: changed since the edit"):
        undo_last_edit(photos, data=DATA)

    assert files(photos) == before


def test_a_kill_after_the_record_and_before_the_last_file_can_be_undone(photos: Path) -> None:
    before = files(photos)
    edit_captions(photos, Edit(prefix="mia"), data=DATA)
    (photos / "a.txt").write_bytes(before["a.txt"])  # as if this one had not been reached

    undo_last_edit(photos, data=DATA)

    assert files(photos) == before


def test_a_file_that_one_edit_changed_twice_comes_back_as_it_was_before_both(photos: Path) -> None:
    before = files(photos)
    texts = [before["a.txt"].decode(), "first\n", "second\n"]
    for old, new in itertools.pairwise(texts):
        append_row(
            photos / "captions.jsonl", {"file": "a.txt", "before": old, "after": new, "edit": "x", "at": "now"}
        )
    (photos / "a.txt").write_text("second\n")

    undo_last_edit(photos, data=DATA)

    assert files(photos) == before


def test_a_caption_that_is_not_utf8_is_named_and_nothing_is_changed(photos: Path) -> None:
    (photos / "sub" / "b.txt").write_bytes("H\u00fcndchen".encode("cp1252"))
    before = files(photos)

    with pytest.raises(UserError, match=r"b\.txt: not UTF-8"):
        edit_captions(photos, Edit(prefix="mia"), data=DATA)

    assert files(photos) == before


def test_captions_in_a_table_are_not_edited(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"image": [{"bytes": b"x", "path": None}], "text": ["a"]})
    parquet.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(UserError, match="inside shards and tables cannot be changed"):
        edit_captions(tmp_path, Edit(prefix="mia"), data=DATA)


def test_the_history_is_one_json_object_a_line(photos: Path) -> None:
    edit_captions(photos, Edit(replacements=(("cat", "犬"),)), data=DATA)

    for line in (photos / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) == {"file", "before", "after", "edit", "at"}


def test_shuffled_tags_are_the_same_ones_and_those_that_are_kept_stay_in_front(photos: Path) -> None:
    tags = [f"tag {number}" for number in range(12)]
    (photos / "a.txt").write_text(", ".join(tags) + "\n")
    (photos / "c.txt").write_text(", ".join(tags) + "\n")
    (photos / "d.txt").write_text("mia, red ||| " + ", ".join(tags) + " ||| film\n")
    before = files(photos)
    data = DataConfig(keep_tokens=2, keep_tokens_separator="|||")

    edit_captions(photos, Edit(shuffle=5, prefix="p,"), data=data)
    after = files(photos)

    written = {name: text.decode() for name, text in after.items() if name.endswith(".txt")}
    found = {name: text.strip().removeprefix("p, ").split(", ") for name, text in written.items()}
    assert found["a.txt"][:2] == tags[:2]
    assert found["a.txt"] != tags
    assert sorted(found["a.txt"]) == sorted(tags)
    assert found["a.txt"] != found["c.txt"]  # each file has an order of its own
    parts = after["d.txt"].decode().strip().split(" ||| ")
    assert (parts[0], parts[2], sorted(parts[1].split(", "))) == ("p, mia, red", "film", sorted(tags))
    assert after["a.txt"].endswith(b"\n")
    undo_last_edit(photos, data=data)
    assert files(photos) == before
    edit_captions(photos, Edit(shuffle=5, prefix="p,"), data=data)
    assert files(photos) == after
    assert read_rows(photos / "captions.jsonl")[-1]["edit"] == "prefix p,; shuffle by 5"


def test_a_sentence_without_commas_is_not_changed_by_shuffling() -> None:
    assert edited("a cat on a mat.\n", Edit(shuffle=1)) == "a cat on a mat.\n"
    assert edited("mia, a cat", Edit(shuffle=1), data=DataConfig(keep_tokens=1)) == "mia, a cat"
