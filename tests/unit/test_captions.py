"""Caption files and `metadata.jsonl`."""

from pathlib import Path

import pytest

from brushwork.data.captions import read_caption, read_metadata
from brushwork.errors import UserError


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "caption", "unused"),
    [
        (b"a photo of sks dog", "a photo of sks dog", 0),
        (b"  a photo \r\n", "a photo", 0),
        (b"\xef\xbb\xbfa photo\n", "a photo", 0),
        ("ein Hündchen, 犬".encode(), "ein Hündchen, 犬", 0),
        (b"first\nsecond\n\nthird\n", "first", 2),
        (b"\n\n  first\n", "first", 0),
        (b"", "", 0),
        (b" \n\t\n", "", 0),
        (b"\xef\xbb\xbf", "", 0),
    ],
)
def test_a_caption_is_the_first_line_with_words(tmp_path: Path, data: bytes, caption: str, unused: int) -> None:
    assert read_caption(written(tmp_path / "a.txt", data)) == (caption, unused)


@pytest.mark.parametrize(
    ("data", "encoding"), [("Hündchen".encode("cp1252"), "WINDOWS-1252"), ("Hündchen".encode("utf-16"), "UTF-16")]
)
def test_another_encoding_is_refused_by_the_name_of_the_file(tmp_path: Path, data: bytes, encoding: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8") as caught:
        read_caption(written(tmp_path / "a.txt", data))

    assert encoding in str(caught.value.fix)


def test_metadata_gives_a_text_for_each_file(tmp_path: Path) -> None:
    rows = '{"file_name": "a.png", "text": "a  dog\\nruns"}\n\n{"file_name": "sub/b.png", "text": "", "more": 1}'

    captions = read_metadata(written(tmp_path / "metadata.jsonl", rows.encode()))

    assert captions == {"a.png": "a dog runs", "sub/b.png": ""}


@pytest.mark.parametrize(
    "row", ['{"file_name": "a.png"}', '{"text": "a"}', '{"file_name": "a.png", "text": 1}', "[1]", "{", '"a.png"']
)
def test_a_row_of_metadata_that_is_not_one_is_refused_by_its_line(tmp_path: Path, row: str) -> None:
    path = written(tmp_path / "metadata.jsonl", b'{"file_name": "a.png", "text": "a"}\n' + row.encode())

    with pytest.raises(UserError, match=r"metadata\.jsonl, line 2"):
        read_metadata(path)


def test_every_line_is_given_where_each_is_a_caption(tmp_path: Path) -> None:
    assert read_caption(written(tmp_path / "a.txt", b"first \r\n\n second\n"), all_lines=True) == ("first\nsecond", 0)
    rows = '{"file_name": "a.png", "text": "a  dog\\n\\nruns "}'

    assert read_metadata(written(tmp_path / "metadata.jsonl", rows.encode()), all_lines=True) == {
        "a.png": "a dog\nruns"
    }
