"""Measuring many files: what is kept, what is shared between processes, and every kind of broken picture."""

import io
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brushwork.film.frames import draw_frame
from brushwork.vision import measures
from brushwork.vision.measures import Measured, measure_files
from brushwork.vision.quality import measure

FRAME = draw_frame(21, 64)[0]


def frames(folder: Path, count: int) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    files = {}
    for number in range(count):
        files[f"{number:03}.png"] = folder / f"{number:03}.png"
        FRAME.rotate(number).save(folder / f"{number:03}.png")
    settle(folder)
    return files


def settle(folder: Path) -> None:
    """As if the files had been there for a while: what changed just now is not remembered."""
    for file in folder.iterdir():
        os.utime(file, (time.time() - 60,) * 2)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> Image.Image:
        raise AssertionError("decoded again")

    monkeypatch.setattr(measures, "open_rgb", decode)


def test_a_file_is_measured_as_its_picture_is(tmp_path: Path) -> None:
    files = frames(tmp_path / "frames", 3)

    found = measure_files(files)

    assert list(found) == list(files)
    for name, file in files.items():
        assert found[name].quality is not None
        assert found[name].quality == measure(Image.open(file))
        assert found[name].problem is None


def test_the_second_time_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = frames(tmp_path / "frames", 4)
    first = measure_files(files, cache_folder=tmp_path / "cache")
    told: list[tuple[int, int]] = []

    monkeypatch.setattr(Path, "read_bytes", None)
    second = measure_files(files, cache_folder=tmp_path / "cache", on_progress=lambda *done: told.append(done))

    assert second == first
    assert told == [(4, 4)]


def test_a_file_that_was_moved_is_read_but_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_files(frames(tmp_path / "frames", 2), cache_folder=tmp_path / "cache")
    shutil.move(tmp_path / "frames", tmp_path / "elsewhere")
    files = {name: tmp_path / "elsewhere" / name for name in first}
    forbid_decoding(monkeypatch)

    assert measure_files(files, cache_folder=tmp_path / "cache") == first


def test_a_file_that_was_changed_is_measured_again(tmp_path: Path) -> None:
    files = frames(tmp_path / "frames", 2)
    measure_files(files, cache_folder=tmp_path / "cache")
    Image.new("RGB", (80, 40), "white").save(files["001.png"])
    settle(tmp_path / "frames")

    found = measure_files(files, cache_folder=tmp_path / "cache")["001.png"].quality

    assert found is not None
    assert (found.width, found.height, found.brightness) == (80, 40, 1.0)


def test_a_damaged_cache_costs_only_time(tmp_path: Path) -> None:
    files = frames(tmp_path / "frames", 3)
    first = measure_files(files, cache_folder=tmp_path / "cache")
    [cache] = (tmp_path / "cache" / "measures").iterdir()
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join([lines[1], "[]", '{"place": 1}', "\0", lines[2][: len(lines[2]) // 2]]))  # killed

    second = measure_files(files, cache_folder=tmp_path / "cache")

    assert second == first
    added = [json.loads(line) for line in cache.read_text().splitlines()[-2:]]
    assert [row["place"] for row in added] == [str(files["001.png"]), str(files["002.png"])]
    (tmp_path / "a file").write_text("no folder")
    assert measure_files(files, cache_folder=tmp_path / "a file") == first


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    files = frames(tmp_path / "frames", 60)
    (tmp_path / "frames" / "007.png").write_bytes(b"")
    told: list[tuple[int, int]] = []

    shared = measure_files(files, processes=2, on_progress=lambda *done: told.append(done))

    assert shared == measure_files(files, processes=1)
    assert list(shared) == list(files)
    assert shared["007.png"] == Measured(shared["007.png"].digest, problem="the file is empty")
    assert [done for done, _ in told] == list(range(61))


def packed(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def broken_folder(folder: Path) -> dict[str, str | tuple[int, int]]:
    """Every kind of picture that goes wrong, with what is to come of it: its size, or words of the reason."""
    folder.mkdir()
    png, jpeg = packed(FRAME, "PNG"), packed(FRAME, "JPEG")
    wide = FRAME.resize((96, 64))
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side
    deep = Image.fromarray((np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64))
    cases: dict[str, tuple[bytes, str | tuple[int, int]]] = {
        "truncated.png": (png[: len(png) // 2], "damaged or cut short"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged or cut short"),
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"this is no picture\n", "the file holds text"),
        "noise.jpg": (bytes(range(256)) * 8, "not a picture that Pillow knows"),
        "bomb.png": (
            packed(Image.new("1", (20_000, 20_000)), "PNG"),
            "too many pixels: Image size (400000000 pixels)",
        ),
        "large.png": (packed(Image.new("1", (3000, 4000)), "PNG"), "too many pixels: 3000 x 4000"),
        "photo.heic": (png, ".heic pictures are not read"),
        "jpeg-named.png": (jpeg, (64, 64)),
        "cmyk.jpg": (packed(FRAME.convert("CMYK"), "JPEG"), (64, 64)),
        "deep.png": (packed(deep, "PNG"), (64, 64)),
        "palette.png": (packed(FRAME.convert("P"), "PNG"), (64, 64)),
        "grey.png": (packed(FRAME.convert("L"), "PNG"), (64, 64)),
        "one-bit.png": (packed(FRAME.convert("1"), "PNG"), (64, 64)),
        "alpha.png": (packed(FRAME.convert("RGBA").rotate(45), "PNG"), (64, 64)),
        "moving.gif": (packed(FRAME, "GIF", save_all=True, append_images=[FRAME.rotate(90)]), (64, 64)),
        "moving.webp": (packed(FRAME, "WEBP", save_all=True, append_images=[FRAME.rotate(90)]), (64, 64)),
        "turned.jpg": (packed(wide, "JPEG", exif=turned), (64, 96)),
        "tiny.png": (packed(Image.new("RGB", (1, 1)), "PNG"), (1, 1)),
        "thin.png": (packed(Image.new("RGB", (4000, 2)), "PNG"), (4000, 2)),
        "name with spaces and \u00e4.png": (png, (64, 64)),
    }
    for name, (content, _) in cases.items():
        (folder / name).write_bytes(content)
    expected = {name: outcome for name, (_, outcome) in cases.items()}
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    return {**expected, "folder.png": "Is a directory", "gone.png": "No such file"}


def test_of_every_kind_of_broken_picture_each_is_measured_or_has_its_reason(tmp_path: Path) -> None:
    expected = broken_folder(tmp_path / "frames")
    before = {file.name: file.read_bytes() for file in (tmp_path / "frames").iterdir() if file.is_file()}

    found = measure_files(
        {name: tmp_path / "frames" / name for name in expected},
        max_pixels=10_000_000,
        cache_folder=tmp_path / "cache",
    )

    for name, outcome in expected.items():
        known = found[name]
        if isinstance(outcome, str):
            assert known.quality is None
            assert outcome in (known.problem or ""), name
        else:
            assert known.problem is None, name
            assert known.quality is not None
            assert (known.quality.width, known.quality.height) == outcome, name
            assert len(known.look) == 42
    assert {file.name: file.read_bytes() for file in (tmp_path / "frames").iterdir() if file.is_file()} == before
