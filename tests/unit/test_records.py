"""Rows of JSON Lines: what a kill leaves of the last one."""

from pathlib import Path

import pytest

from brushwork.records import append_row, mend_last_row, read_rows


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ('{"a": 1}\n{"a": 2, "te', [{"a": 1}]),  # half a row
        ('{"a": 1}\n{"a": "\xe9', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),  # a whole one without its newline
        ('{"a": 1}\n', [{"a": 1}]),
        ("", []),
        ("{", []),
    ],
)
def test_a_row_after_a_kill_stands_on_a_line_of_its_own(tmp_path: Path, left: str, kept: list[object]) -> None:
    file, mended = tmp_path / "rows.jsonl", tmp_path / "mended.jsonl"
    for each in (file, mended):
        each.write_bytes(left.encode("utf-8")[: len(left)])  # also in the middle of a letter

    append_row(file, {"b": "\xfc"})
    mend_last_row(mended)

    assert read_rows(file) == [*kept, {"b": "\xfc"}]
    assert read_rows(mended) == kept
    mend_last_row(tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
