"""Parquet files as Hugging Face writes them and as others do: read row by row, refused where columns do not fit."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brushwork.data import parquet
from brushwork.data.parquet import Cell, Reader, Table
from data_sets import captions, png, read, refusal


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))


HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What the feature `Image` of a Hugging Face data set is stored as."""


def table(path: Path, images: list[Any], texts: list[Any] | None, *, kind: Any = HF_IMAGE, rows: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": pa.array(images, kind)}
    if texts is not None:
        columns["text"] = pa.array(texts, pa.string())
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def hf(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def test_rows_become_samples_in_their_order(tmp_path: Path) -> None:
    data = png("blue", (7, 9))
    path = table(tmp_path / "data" / "train-00000-of-00001.parquet", [hf(png()), hf(data, "b.png")], ["a", "b\nmore"])

    dataset = read(tmp_path)

    name = "data/train-00000-of-00001.parquet"
    assert captions(dataset) == {f"{name}/0": "a", f"{name}/1": "b"}
    sample = dataset.samples[1]
    assert (sample.width, sample.height, sample.digest) == (7, 9, hashlib.sha256(data).hexdigest())
    assert sample.path.read_bytes() == data
    assert str(sample.path) == f"{path}: row 1"
    assert dataset.notes == (f"captions of several lines, of which the first is used: 1 ({name}/1)",)
    assert [each.caption for each in read(path).samples] == ["a", "b"]
    assert [each.caption for each in read(tmp_path / "data" / "*.parquet").samples] == ["a", "b"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_plain_bytes_are_pictures_too(tmp_path: Path, kind: pa.DataType) -> None:
    table(tmp_path / "0.parquet", [png()], ["a"], kind=kind)

    assert captions(read(tmp_path)) == {"0.parquet/0": "a"}


def test_a_row_may_name_a_file_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    (tmp_path / "set" / "pictures" / "a.png").write_bytes(png())
    table(tmp_path / "set" / "0.parquet", [hf(None, "pictures/a.png"), hf(None, "gone.png")], ["a", "b"])
    table(
        tmp_path / "set" / "1.parquet", ["pictures/a.png", "https://example.org/a.png"], ["c", "d"], kind=pa.string()
    )

    dataset = read(tmp_path / "set" / "{0,1}.parquet")

    assert captions(dataset) == {"0.parquet/0": "a", "1.parquet/0": "c"}
    reasons = {bad.name: bad.reason for bad in dataset.quarantined}
    assert "only the path gone.png, and no file lies there" in reasons["0.parquet/1"]
    assert "nothing is fetched from there" in reasons["1.parquet/1"]


def test_rows_without_a_picture_or_with_a_broken_one_are_quarantined_and_without_caption_counted(
    tmp_path: Path,
) -> None:
    images = [hf(None), None, hf(png(size=(40, 40))[:60]), hf(png("blue")), hf(png("green"))]
    table(tmp_path / "0.parquet", images, ["a", "b", "c", None, "e"])

    dataset = read(tmp_path, max_missing_captions=0.5)

    assert captions(dataset) == {"0.parquet/3": "", "0.parquet/4": "e"}
    assert dataset.missing_captions == ("0.parquet/3",)
    reasons = [bad.reason for bad in dataset.quarantined]
    assert reasons[:2] == ["the row holds no picture"] * 2
    assert "damaged or cut short" in reasons[2]
    assert "1 of 5 pictures have no caption" in refusal(tmp_path)


def test_a_wrong_name_of_a_column_proposes_the_right_one(tmp_path: Path) -> None:
    columns = {
        "img": pa.array([hf(png())], HF_IMAGE),
        "label": pa.array([1]),
        "captions": pa.array([["a", "b"]]),
        "caption_long": pa.array(["a fox"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")

    message = refusal(tmp_path)
    assert "has no column 'image' (data.image_column); its columns: img (struct" in message
    assert "--set data.image_column=img" in message
    message = refusal(tmp_path, image_column="img")
    assert "has no column 'text' (data.caption_column)" in message
    assert "--set data.caption_column=caption_long" in message
    assert "holds list<" in refusal(tmp_path, image_column="img", caption_column="captions")
    assert "the column 'label' holds int64 and no pictures" in refusal(tmp_path, image_column="label")
    chosen = {"image_column": "img", "caption_column": "caption_long"}
    assert captions(read(tmp_path, **chosen)) == {"0.parquet/0": "a fox"}
    assert captions(read(tmp_path, image_column="img", max_missing_captions=1)) == {"0.parquet/0": ""}


def test_empty_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = table(tmp_path / "0.parquet", [], [])
    assert "no row in 1 parquet file(s): 0.parquet" in refusal(tmp_path)

    table(tmp_path / "1.parquet", [hf(png())], ["a"])
    assert read(tmp_path).notes == ("0.parquet has no rows",)

    whole = (tmp_path / "1.parquet").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}: not a parquet file, or cut short" in refusal(tmp_path)
    path.write_bytes(b"")
    assert f"{path}: not a parquet file, or cut short" in refusal(tmp_path)


def test_damage_among_the_pictures_is_refused_with_the_row(tmp_path: Path) -> None:
    pictures = [png((number, number, number), (64, 64)) for number in range(8)]
    path = table(tmp_path / "0.parquet", [hf(data) for data in pictures], [str(n) for n in range(8)], rows=4)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))

    assert f"{path}: damaged behind row 4" in refusal(tmp_path)


def test_parquet_and_shards_in_one_folder_are_told_apart_by_the_user(tmp_path: Path) -> None:
    table(tmp_path / "0.parquet", [hf(png())], ["a"])
    (tmp_path / "0.tar").write_bytes(b"\0" * 10240)

    message = refusal(tmp_path)
    assert "holds tar shards and parquet files" in message
    assert f"'{tmp_path}/**/*.parquet'" in message


def test_without_pyarrow_the_line_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "0.parquet", [hf(png())], ["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert "pip install 'brushwork[data]'" in refusal(tmp_path)


def test_rows_come_right_in_any_order_and_reading_on_reads_no_group_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [f"row {number}".encode() for number in range(200)]
    path = table(tmp_path / "0.parquet", [hf(value) for value in values], None, rows=30)
    opened: list[int] = []
    real = pq.ParquetFile.iter_batches

    def counting(self: Any, *arguments: Any, **keywords: Any) -> Any:
        opened.append(keywords["row_groups"][0])
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    fresh = Table(path, "image", tuple(range(0, 200, 30)), Reader())
    forward = [*range(0, 200, 2), *range(199, 190, -1)]

    assert [Cell(fresh, row).read_bytes() for row in forward] == [values[row] for row in forward]
    assert opened == [0, 1, 2, 3, 4, 5, 6]
    for row in (5, 150, 149, 10, 199, 0):
        assert Cell(fresh, row).read_bytes() == values[row]
    assert opened[7:] == [0, 5, 4, 0, 6, 0]


def test_a_row_that_a_person_refused_is_left_out(tmp_path: Path) -> None:
    path = table(tmp_path / "0.parquet", [hf(png()), hf(png("blue"))], ["a", "b"])
    (tmp_path / "review.jsonl").write_text(json.dumps({"file": "0.parquet/0", "decision": "refuse"}) + "\n")

    assert captions(read(tmp_path)) == captions(read(path)) == {"0.parquet/1": "b"}


def test_row_groups_that_fill_the_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "0.parquet", [hf(png()), hf(png("blue"))], ["a", "b"])
    assert read(tmp_path).notes == ()

    monkeypatch.setattr(parquet, "LARGE_GROUP", 100)
    assert "files with row groups of more than" in read(tmp_path).notes[0]
    assert "1 (0.parquet); written with row_group_size=100" in read(tmp_path).notes[0]
