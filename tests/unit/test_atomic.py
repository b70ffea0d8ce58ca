"""Files that are written beside and renamed: what is left where that fails, and what is said."""

import errno
from pathlib import Path

import pytest

from brushwork.atomic import written_beside


def write_half(file: Path) -> None:
    with written_beside(file) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("old")

    with pytest.raises(OSError, match="No space") as told:
        write_half(file)

    assert told.value.filename == str(file)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state", "old")]


def test_an_error_about_the_temporary_file_names_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="denied") as told, written_beside(tmp_path / "a.txt") as partial:
        raise PermissionError(errno.EACCES, "Permission denied", str(partial))

    assert told.value.filename == str(tmp_path / "a.txt")


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told, written_beside(tmp_path / "a.txt"):
        (tmp_path / "source.png").read_bytes()

    assert told.value.filename == str(tmp_path / "source.png")
