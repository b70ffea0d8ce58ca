"""Reading folders as people have them: layouts, captions, broken files, and what is remembered."""

import hashlib
import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from brushwork.config.schema import DataConfig
from brushwork.data import scan
from brushwork.data.folder import Dataset, index_file, read_dataset
from brushwork.data.layout import held_out_part
from brushwork.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path: Path, colour: str | int = "red", size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def text(path: Path, content: str = "a dog") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, **data: object) -> Dataset:
    return read_dataset(path, data=DataConfig.model_validate(data))


def captions(dataset: Dataset) -> dict[str, str]:
    return {sample.name: sample.caption for sample in dataset.samples}


def contents(folder: Path) -> Mapping[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_flat_folder_gives_each_picture_once_with_its_caption(tmp_path: Path) -> None:
    first = picture(tmp_path / "b.png", size=(12, 8))
    picture(tmp_path / "a.jpg", size=(7, 9))
    text(tmp_path / "a.txt", "one")
    text(tmp_path / "b.txt", "two")

    dataset = read(tmp_path)

    one, two = dataset.samples
    assert (one.name, one.caption, one.repeats, one.width, one.height) == ("a.jpg", "one", 1, 7, 9)
    assert (two.name, two.caption, two.repeats, two.width, two.height) == ("b.png", "two", 1, 12, 8)
    assert two.path == first
    assert two.digest == hashlib.sha256(first.read_bytes()).hexdigest()
    assert dataset.notes == dataset.quarantined == dataset.missing_captions == ()
    assert [sample.repeats for sample in read(tmp_path, repeats=3).samples] == [3, 3]


def test_sub_folders_are_read_and_names_are_relative(tmp_path: Path) -> None:
    for name in ("z.png", "sub/a b.PNG", "sub/deep/ä.jpeg"):
        text(picture(tmp_path / name).with_suffix(".txt"), name)

    assert captions(read(tmp_path)) == {name: name for name in ("z.png", "sub/a b.PNG", "sub/deep/ä.jpeg")}


def test_endings_are_read_in_either_case_and_accents_in_either_form(tmp_path: Path) -> None:
    picture(tmp_path / "A.JPG")
    text(tmp_path / "A.TXT", "upper")
    picture(tmp_path / "e\u0301.png")  # as macOS writes it
    text(tmp_path / "\u00e9.txt", "accent")

    assert sorted(captions(read(tmp_path)).values()) == ["accent", "upper"]


def test_another_caption_ending_is_read_when_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    text(tmp_path / "a.caption", "named so by kohya")

    assert captions(read(tmp_path, caption_extension=".caption")) == {"a.png": "named so by kohya"}
    with pytest.raises(UserError, match="1 of 1 pictures have no caption") as caught:
        read(tmp_path)
    assert "--set data.caption_extension=.caption" in str(caught.value.fix)


def test_metadata_gives_captions_and_a_caption_file_goes_before_it(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "sub/c.png"):
        picture(tmp_path / name)
    text(tmp_path / "b.txt", "from its file")
    rows = [
        {"file_name": "a.png", "text": "from metadata"},
        {"file_name": "b.png", "text": "not used"},
        {"file_name": "./sub/c.png", "text": "deeper"},
        {"file_name": "gone.png", "text": "nowhere"},
    ]
    text(tmp_path / "metadata.jsonl", "\n".join(json.dumps(row) for row in rows))  # no newline at the end

    dataset = read(tmp_path)

    assert captions(dataset) == {"a.png": "from metadata", "b.png": "from its file", "sub/c.png": "deeper"}
    assert "named in metadata.jsonl and not here: 1 (gone.png)" in dataset.notes


def test_numbered_folders_bring_repeats_and_class_tokens(tmp_path: Path) -> None:
    text(picture(tmp_path / "10_ohwx man/1.png").with_suffix(".txt"), "ohwx man smiles")
    picture(tmp_path / "10_ohwx man/2.png")
    picture(tmp_path / "1_a_b/3.png")
    picture(tmp_path / "notes/4.png")
    picture(tmp_path / "0_off/5.png")
    picture(tmp_path / "1_a_b/old/6.png")
    picture(tmp_path / "7.png")

    dataset = read(tmp_path, repeats=5)

    assert {sample.name: (sample.repeats, sample.caption) for sample in dataset.samples} == {
        "10_ohwx man/1.png": (10, "ohwx man smiles"),
        "10_ohwx man/2.png": (10, "ohwx man"),
        "1_a_b/3.png": (1, "a_b"),
    }
    told = "\n".join(dataset.notes)
    assert "left out, folders that do not say their repeats (10_name) as the others here do: 1 (notes)" in told
    assert "left out: 0_off, whose number of repeats is 0" in told
    assert "left out, folders inside 1_a_b, for numbered folders are flat: 1 (old)" in told
    assert "left out, pictures beside the numbered folders: 1 (7.png)" in told
    assert "captioned by the name of their folder: 2 of 3 pictures" in told
    assert dataset.missing_captions == ()


def test_captions_of_another_ending_are_told_where_the_folder_name_would_replace_them(tmp_path: Path) -> None:
    text(picture(tmp_path / "10_luca/1.png").with_suffix(".caption"))

    assert "--set data.caption_extension=.caption" in "\n".join(read(tmp_path).notes)


def test_a_year_is_not_taken_for_a_number_of_repeats(tmp_path: Path) -> None:
    picture(tmp_path / "2023_holiday/1.png")

    with pytest.raises(UserError, match="2023 is more than 1000"):
        read(tmp_path)


def test_a_numbered_folder_named_by_itself_counts_once_and_says_so(tmp_path: Path) -> None:
    text(picture(tmp_path / "10_luca/1.png").with_suffix(".txt"))

    dataset = read(tmp_path / "10_luca")

    assert [sample.repeats for sample in dataset.samples] == [1]
    assert "name the folder above it to use its number" in dataset.notes[0]


def test_of_a_prepared_set_the_training_part_is_read(tmp_path: Path) -> None:
    text(picture(tmp_path / "train/3_luca/1.png").with_suffix(".txt"))
    text(picture(tmp_path / "heldout/2.png").with_suffix(".txt"))

    dataset = read(tmp_path)

    assert dataset.root == tmp_path / "train"
    assert [(sample.name, sample.repeats) for sample in dataset.samples] == [("3_luca/1.png", 3)]
    assert held_out_part(tmp_path) == tmp_path / "heldout"
    assert held_out_part(tmp_path / "train") is None


def test_hidden_files_other_files_and_folders_of_runs_are_not_data(tmp_path: Path) -> None:
    text(picture(tmp_path / "a.png").with_suffix(".txt"))
    for name in (".hidden.png", ".cache/b.png", "__MACOSX/c.png", "runs/one/sample/d.png", "contact-sheet.png"):
        picture(tmp_path / name)
    text(tmp_path / "runs/one/run.json", "{}")
    text(tmp_path / "runs/one/settings.toml", "")
    text(tmp_path / "Thumbs.db", "")

    dataset = read(tmp_path)

    assert list(captions(dataset)) == ["a.png"]
    assert dataset.notes == ("left out: runs/one, which is the folder of a run",)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    text(picture(tmp_path / "elsewhere/a.png").with_suffix(".txt"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")

    assert list(captions(read(tmp_path / "set"))) == ["linked/a.png"]


def test_missing_empty_shared_orphaned_and_long_captions_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "none.png", "red")
    text(picture(tmp_path / "empty.png", "green").with_suffix(".txt"), " \n")
    text(picture(tmp_path / "twice.png", "blue").with_suffix(".txt"), "both")
    picture(tmp_path / "twice.jpg", "white")
    text(picture(tmp_path / "long.png", "black").with_suffix(".txt"), "one\ntwo\nthree\n")
    text(tmp_path / "orphan.txt")

    dataset = read(tmp_path, max_missing_captions=0.4)

    assert captions(dataset) == {
        "none.png": "",
        "empty.png": "",
        "twice.png": "both",
        "twice.jpg": "both",
        "long.png": "one",
    }
    assert dataset.missing_captions == ("none.png",)
    assert dataset.empty_captions == ("empty.png",)
    assert set(dataset.notes) == {
        "pictures without a caption: 1 (none.png)",
        "pictures with an empty caption: 1 (empty.png)",
        "captions shared by pictures of one name: 1 (twice.txt)",
        "captions without a picture: 1 (orphan.txt)",
        "captions of several lines, of which the first is used: 1 (long.txt)",
    }


def test_too_many_pictures_without_a_caption_stop_the_run_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    text(picture(tmp_path / "b.png").with_suffix(".txt"), "")
    text(picture(tmp_path / "c.png").with_suffix(".txt"))
    monkeypatch.setattr(scan, "examine", None)

    with pytest.raises(UserError, match=r"2 of 3 .*1 no file, 1 an empty one.*a\.png, b\.png"):
        read(tmp_path, max_missing_captions=0.5)


def test_a_caption_that_is_not_utf8_stops_the_run(tmp_path: Path) -> None:
    picture(tmp_path / "a.png").with_suffix(".txt").write_bytes("Hündchen".encode("cp1252"))

    with pytest.raises(UserError, match=r"a\.txt: not UTF-8"):
        read(tmp_path)


def bad_files(folder: Path) -> dict[str, str]:
    """Files that must not stop a run, and what must be said of each."""
    whole = picture(folder / "whole.jpg", size=(64, 64)).read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) - 30])
    (folder / "text.jpg").write_text("<html>404 not found</html>")
    (folder / "noise.webp").write_bytes(bytes(range(256)) * 4)
    (folder / "phone.HEIC").write_bytes(bytes(64))
    (folder / "link.png").symlink_to(folder / "gone.png")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(200))
    picture(folder / "large.png", size=(101, 100))
    return {
        "empty.png": "the file is empty",
        "truncated.jpg": "truncated",
        "text.jpg": "the file holds text",
        "noise.webp": "not a picture",
        "phone.HEIC": "save it as PNG or JPEG",
        "link.png": "No such file",
        "bomb.png": "",
        "large.png": "101 x 100 is more than data.max_pixels = 10000",
    }


def test_bad_files_are_quarantined_with_their_reasons_and_the_rest_is_used(tmp_path: Path) -> None:
    expected = bad_files(tmp_path)
    picture(tmp_path / "good.png")

    dataset = read(tmp_path, max_missing_captions=1, max_pixels=10_000)

    assert list(captions(dataset)) == ["good.png", "whole.jpg"]
    assert {bad.name for bad in dataset.quarantined} == expected.keys()
    for bad in dataset.quarantined:
        assert expected[bad.name] in bad.reason
        assert bad.row() == {"file": bad.name, "reason": bad.reason}
        assert "\n" not in bad.reason
        assert str(tmp_path) not in bad.reason
    assert any(note.startswith("left out, cannot be used: 8 (bomb.png: ") for note in dataset.notes)


def test_nothing_in_the_folder_is_written_or_changed(tmp_path: Path) -> None:
    bad_files(tmp_path)
    text(tmp_path / "whole.txt")
    text(tmp_path / "review.jsonl", '{"file": "large.png", "decision": "refuse"}\n')
    before = contents(tmp_path)

    read(tmp_path, max_missing_captions=1)

    assert contents(tmp_path) == before


def test_a_folder_without_a_usable_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a folder of pictures was expected"):
        read(text(tmp_path / "words.txt"))
    with pytest.raises(UserError, match="no picture in this folder"):
        read(tmp_path)
    text(tmp_path / "a.jpg", "no picture")
    with pytest.raises(UserError, match=r"none of the 1 pictures can be used \(a\.jpg: "):
        read(tmp_path, max_missing_captions=1)


def test_what_a_review_refuses_is_left_out_and_its_last_word_counts(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        text(picture(tmp_path / f"sub/{name}.png", name if name == "d" else "red").with_suffix(".txt"))
    rows = [("sub/a.png", "refuse"), ("sub/b.png", "refuse"), ("sub/b.png", "keep"), ("gone.png", "refuse")]
    lines = [json.dumps({"file": file, "decision": decision, "reason": "blur"}) + "\n" for file, decision in rows]
    text(tmp_path / "review.jsonl", "".join(lines))

    dataset = read(tmp_path)

    assert list(captions(dataset)) == ["sub/b.png", "sub/c.png"]
    assert dataset.refused == ("sub/a.png",)
    assert "left out, refused in review.jsonl: 1 (sub/a.png)" in dataset.notes
    assert "refused in review.jsonl and not here: 1 (gone.png)" in dataset.notes
    assert not any("without a picture" in note for note in dataset.notes)

    text(tmp_path / "review.jsonl", '{"name": "sub/a.png"}\n')
    with pytest.raises(UserError, match=r"review\.jsonl, line 1"):
        read(tmp_path)


def test_copies_of_one_picture_are_told(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        text(picture(tmp_path / name).with_suffix(".txt"))

    assert read(tmp_path).notes == ("copies of one another, byte for byte: 2 (a.png, b.png)",)


def test_sizes_are_those_after_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)

    (sample,) = read(tmp_path, max_missing_captions=1).samples

    assert (sample.width, sample.height) == (20, 30)


class Decoded:
    """Counts what is decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        examine = scan.examine

        def counted(path: Path, *, max_pixels: int) -> scan.Facts:
            self.names.append(path.name)
            return examine(path, max_pixels=max_pixels)

        monkeypatch.setattr(scan, "examine", counted)

    def since(self) -> list[str]:
        names, self.names = sorted(self.names), []
        return names


def aged(path: Path, seconds: float = 60) -> Path:
    """Make a file look as if it had been there for a while."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_a_second_start_decodes_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = Decoded(monkeypatch)
    for name in ("a.png", "b.png", "c.png"):
        aged(picture(tmp_path / name))
    aged(text(tmp_path / "bad.png", "no picture"))
    settings = {"max_missing_captions": 1}

    first = read(tmp_path, **settings)
    assert decoded.since() == ["a.png", "b.png", "bad.png", "c.png"]
    assert read(tmp_path, **settings) == first
    assert decoded.since() == []

    aged(picture(tmp_path / "b.png", size=(40, 30)), 30)
    (tmp_path / "c.png").unlink()
    aged(picture(tmp_path / "d.png", "blue"))
    second = read(tmp_path, **settings)
    assert decoded.since() == ["b.png", "d.png"]
    assert [(sample.name, sample.width) for sample in second.samples] == [("a.png", 12), ("b.png", 40), ("d.png", 12)]
    assert [bad.name for bad in second.quarantined] == ["bad.png"]

    read(tmp_path, **settings, max_pixels=1_000_000)
    assert decoded.since() == ["a.png", "b.png", "bad.png", "d.png"]


def test_a_file_replaced_with_the_same_size_and_time_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Decoded(monkeypatch)
    path = aged(picture(tmp_path / "a.bmp", "red"))
    (before,) = read(tmp_path, max_missing_captions=1).samples
    status = path.stat()

    time.sleep(0.02)  # file systems count in steps of up to 10 ms
    picture(path, "blue")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (after,) = read(tmp_path, max_missing_captions=1).samples

    assert path.stat().st_size == status.st_size
    assert decoded.since() == ["a.bmp", "a.bmp"]
    assert after.digest != before.digest


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = Decoded(monkeypatch)
    picture(tmp_path / "a.png")

    for _ in range(2):
        read(tmp_path, max_missing_captions=1)

    assert decoded.since() == ["a.png", "a.png"]


def test_a_scan_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        aged(picture(tmp_path / f"{number:02d}.png", number))

    def killed(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_dataset(tmp_path, data=DataConfig(max_missing_captions=1), on_progress=killed)
    with index_file(tmp_path).open("a") as index:
        index.write('{"file": "12.png", "st')  # and a line that was being written

    decoded = Decoded(monkeypatch)
    dataset = read(tmp_path, max_missing_captions=1)
    assert decoded.since() == [f"{number:02d}.png" for number in range(12, 20)]
    assert len(dataset.samples) == 20
    read(tmp_path, max_missing_captions=1)
    assert decoded.since() == []


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{}\n", b"not json\nat all\n", b'{"index": 99}\n'])
def test_a_damaged_index_costs_time_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    aged(picture(tmp_path / "a.png"))
    first = read(tmp_path, max_missing_captions=1)
    index_file(tmp_path).write_bytes(damage)

    assert read(tmp_path, max_missing_captions=1) == first


def test_a_cache_folder_that_cannot_be_written_does_not_stop_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "set/a.png")
    monkeypatch.setenv("BRUSHWORK_CACHE", str(text(tmp_path / "a file") / "below"))

    assert len(read(tmp_path / "set", max_missing_captions=1).samples) == 1


def test_progress_counts_up_to_all_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    seen: list[tuple[int, int]] = []

    read_dataset(
        tmp_path,
        data=DataConfig(max_missing_captions=1),
        on_progress=lambda done, total: seen.append((done, total)),
    )

    assert seen == [(0, 2), (1, 2), (2, 2)]
