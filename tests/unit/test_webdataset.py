"""Tar shards: found by themselves, listed by their headers, and refused where they are damaged."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from data_sets import captions, png, read, refusal


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))


def shard(path: Path, files: dict[str, bytes | str] | list[tuple[str, bytes | str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_shards_are_found_at_any_depth_and_read_in_their_order(tmp_path: Path) -> None:
    picture = png("blue", (7, 9))
    shard(tmp_path / "00000.tar", {"b.png": png(), "b.txt": "b", "a.png": picture, "a.txt": "a"})
    shard(tmp_path / "more" / "00001.tar", {"./set/c.png": png(), "./set/c.txt": "c"})

    dataset = read(tmp_path)

    assert captions(dataset) == {"00000.tar/b.png": "b", "00000.tar/a.png": "a", "more/00001.tar/set/c.png": "c"}
    sample = dataset.samples[1]
    assert (sample.width, sample.height, sample.digest) == (7, 9, hashlib.sha256(picture).hexdigest())
    assert sample.path.read_bytes() == picture
    assert str(sample.path) == f"{tmp_path / '00000.tar'}: a.png"
    assert [each.repeats for each in read(tmp_path, repeats=3).samples] == [3, 3, 3]


def test_one_shard_a_list_in_braces_and_a_pattern_are_read_too(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"{number:03}.tar", {"a.png": png(), "a.txt": str(number)})

    assert captions(read(tmp_path / "001.tar")) == {"001.tar/a.png": "1"}
    assert captions(read(tmp_path / "{000..001}.tar")) == {"000.tar/a.png": "0", "001.tar/a.png": "1"}
    assert captions(read(tmp_path / "{002,000}.tar")) == {"000.tar/a.png": "0", "002.tar/a.png": "2"}
    assert len(read(tmp_path / "*.tar").samples) == 3
    assert len(read(tmp_path.parent / "**" / "00[01].tar").samples) == 2
    assert "003.tar" in refusal(tmp_path / "{000..003}.tar")
    assert "no file is named so" in refusal(tmp_path / "9*.tar")


def test_captions_are_in_text_files_else_in_json_else_missing(tmp_path: Path) -> None:
    files = {
        "a.png": png(),
        "a.txt": "\n from the text \nnot used\n",
        "a.json": json.dumps({"text": "not used"}),
        "b.png": png("blue"),
        "b.json": json.dumps({"caption": "of  two\nlines", "width": 12}),
        "c.png": png("green"),
        "c.cls": "7",
        "d.txt": "of no picture",
    }
    shard(tmp_path / "0.tar", files)

    dataset = read(tmp_path, max_missing_captions=1)

    expected = {"0.tar/a.png": "from the text", "0.tar/b.png": "of two lines", "0.tar/c.png": ""}
    assert captions(dataset) == expected
    assert dataset.missing_captions == ("0.tar/c.png",)
    notes = "\n".join(dataset.notes)
    assert "captions without a picture: 1 (0.tar/d.txt)" in notes
    assert "captions of several lines, of which the first is used: 1 (0.tar/a.txt)" in notes
    assert "1 of 3 pictures have no caption" in refusal(tmp_path)


def test_the_key_of_the_captions_in_json_is_proposed_where_it_is_another(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"a.png": png(), "a.json": json.dumps({"url": "u", "long_caption": "a fox"})})

    assert "--set data.caption_column=long_caption" in refusal(tmp_path)
    assert captions(read(tmp_path, caption_column="long_caption")) == {"0.tar/a.png": "a fox"}


def test_the_key_ends_at_the_first_dot_unless_dots_are_part_of_the_names(tmp_path: Path) -> None:
    files = {
        "a.jpg": png(),
        "a.seg.png": png("blue"),
        "a.txt": "a",
        "photo.v2.png": png("green"),
        "photo.v2.txt": "two",
        "photo.v3.png": png("gray"),
        "photo.v3.txt": "three",
    }
    shard(tmp_path / "0.tar", files)

    dataset = read(tmp_path)

    assert captions(dataset) == {"0.tar/a.jpg": "a", "0.tar/photo.v2.png": "two", "0.tar/photo.v3.png": "three"}
    assert dataset.notes == ("left out, pictures beside another of the same key: 1 (0.tar/a.seg.png)",)


def test_a_broken_picture_is_quarantined_and_one_that_a_person_refused_is_left_out(tmp_path: Path) -> None:
    whole = png(size=(40, 40))
    files = {"a.png": whole[:60], "a.txt": "a", "b.png": whole, "b.txt": "b", "c.heic": b"x", "c.txt": "c"}
    shard(tmp_path / "0.tar", files | {"d.png": png(), "d.txt": "d", "__MACOSX/._d.png": b"", "._b.png": b"x"})
    (tmp_path / "review.jsonl").write_text(json.dumps({"file": "0.tar/d.png", "decision": "refuse"}) + "\n")

    dataset = read(tmp_path)

    assert captions(dataset) == {"0.tar/b.png": "b"}
    assert dataset.refused == ("0.tar/d.png",)
    reasons = {bad.name: bad.reason for bad in dataset.quarantined}
    assert reasons.keys() == {"0.tar/a.png", "0.tar/c.heic"}
    assert "damaged or cut short" in reasons["0.tar/a.png"]


def test_a_shard_that_is_cut_short_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", {"a.png": png(), "a.txt": "a", "b.png": png("blue"), "b.txt": "b"})
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512

    for length in (1, 511, 700, 1024, 1100, end - 1000, end - 512, end):
        path.write_bytes(whole[:length])
        message = refusal(tmp_path)
        assert str(path) in message, length
        assert "cut short at byte" in message or "not a tar archive" in message, length
    path.write_bytes(b"")
    assert "the file is empty" in refusal(tmp_path)


def test_archives_joined_by_cat_or_with_a_damaged_header_are_refused_with_the_place(tmp_path: Path) -> None:
    one = shard(tmp_path / "0.tar", {"a.png": png(), "a.txt": "a"})
    whole = one.read_bytes()

    one.write_bytes(whole + whole)
    assert "archives that were joined with `cat`" in refusal(tmp_path)

    second = whole.index(b"a.txt")
    one.write_bytes(whole[:second] + b"\xff" * 512 + whole[second + 512 :])
    assert f"at byte {second}" in refusal(tmp_path)


def test_the_same_name_twice_in_a_shard_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", [("a.png", png()), ("a.txt", "old"), ("a.txt", "new")])

    assert "a.txt is in it 2 times (at bytes" in refusal(tmp_path)


def test_compressed_shards_are_refused_with_what_unpacks_them(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", {"a.png": png(), "a.txt": "a"})
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed)
    assert "gunzip" in refusal(tmp_path)

    path.rename(tmp_path / "0.tar.gz")
    assert f"gunzip {tmp_path / '0.tar.gz'}" in refusal(tmp_path)
    assert f"gunzip {tmp_path / '0.tar.gz'}" in refusal(tmp_path / "0.tar.gz")


def test_shards_without_pictures_and_json_that_is_none_are_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", {"a.txt": "a"})
    assert "no picture in 1 shard(s)" in refusal(tmp_path)

    shard(path, {"a.png": png(), "a.json": "{"})
    assert f"{path}: a.json (byte" in refusal(tmp_path)

    shard(path, {"a.png": png(), "a.txt": "caf\xe9".encode("latin-1")})
    assert f"{path}: a.txt: not UTF-8" in refusal(tmp_path)


def test_pictures_in_the_folder_go_before_an_archive_beside_them(tmp_path: Path) -> None:
    shard(tmp_path / "backup.tar", {"a.png": png(), "a.txt": "a"})
    (tmp_path / "b.png").write_bytes(png())
    (tmp_path / "b.txt").write_text("b")

    dataset = read(tmp_path)

    assert captions(dataset) == {"b.png": "b"}
    assert "left out, archives beside the pictures: 1 (backup.tar)" in dataset.notes[0]


def test_shards_for_testing_are_left_out_by_their_names(tmp_path: Path) -> None:
    for name in ("train-0", "val-0", "test/0"):
        shard(tmp_path / f"{name}.tar", {"a.png": png(), "a.txt": name})

    dataset = read(tmp_path)

    assert captions(dataset) == {"train-0.tar/a.png": "train-0"}
    assert dataset.notes == ("left out, for testing or validation by their names: 2 (val-0.tar, test/0.tar)",)
    assert captions(read(tmp_path / "val-*.tar")) == {"val-0.tar/a.png": "val-0"}


def test_a_prepared_set_may_hold_shards(tmp_path: Path) -> None:
    shard(tmp_path / "train" / "0.tar", {"a.png": png(), "a.txt": "a"})
    shard(tmp_path / "heldout" / "0.tar", {"b.png": png(), "b.txt": "b"})

    assert captions(read(tmp_path)) == {"0.tar/a.png": "a"}
    assert captions(read(tmp_path / "heldout")) == {"0.tar/b.png": "b"}


def test_what_was_found_is_remembered_until_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    from brushwork.data import scan

    path = shard(tmp_path / "0.tar", {"a.png": png(), "a.txt": "a", "b.png": png("blue"), "b.txt": "b"})
    opened: list[str] = []
    examine = scan.examine

    def counting(source: object, **options: int) -> scan.Facts:
        opened.append(str(source))
        return examine(source, **options)  # type: ignore[arg-type]

    def age() -> None:
        os.utime(path, (time.time() - 60, time.time() - 60))

    monkeypatch.setattr(scan, "examine", counting)
    age()
    first = read(tmp_path)
    assert read(tmp_path).samples == first.samples
    assert len(opened) == 2

    shard(path, {"a.png": png("white"), "a.txt": "a", "b.png": png("blue"), "b.txt": "b"})
    age()
    assert read(tmp_path).samples[0].digest == hashlib.sha256(png("white")).hexdigest()
    assert len(opened) == 4
