"""Parquet files, the form of data sets on the Hugging Face hub: a column of pictures, a column of captions.

Only `pyarrow` is needed. Captions are read up front, which costs little in a format by columns; pictures are read row
after row, so a file may be larger than memory. What is held is a row group of one file, up to four times over (as it
lies in the file, unpacked, and as the decoder keeps it); Hugging Face writes groups of 100 pictures.
"""

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from brushwork.config.schema import DataConfig
from brushwork.data.captions import used_lines
from brushwork.data.layout import Layout, PictureFile, counted, tell_odd_captions
from brushwork.errors import UserError, listed, nearest

TABLE = ".parquet"

WINDOW = 16
"""Rows that are held behind the newest: the threads that decode do not ask for them quite in order."""
BATCH = 4
"""Rows that are read at a time."""
BUFFER = 1 << 20
"""Bytes of a column that are read at a time."""

LARGE_GROUP = 1 << 30
"""Bytes of a row group above which the user is told what it costs."""

_FETCH_AGAIN = "fetch or write the file again, or leave it out by naming the others"


@dataclass(eq=False)
class Reader:
    """Reads the tables of a data set from the front to the back, one row group of one file at a time.

    Asked for a row further up, it begins anew at that row's group.
    """

    _table: "Table | None" = None
    _rows: Generator[tuple[int, Any], None, None] | None = None
    _next: int = 0
    _window: "deque[tuple[Table, int, Any]]" = field(default_factory=lambda: deque(maxlen=WINDOW))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def value(self, table: "Table", row: int) -> Any:
        """What stands in the column of pictures."""
        with self._lock:
            for known, number, value in self._window:
                if known is table and number == row:
                    return value
            for number, value in self._leading_to(table, row):
                self._window.append((table, number, value))
                self._next = number + 1
                if number == row:
                    return value
            raise UserError(f"{table.path}: row {row} is not there any more.", fix="run the same command again")

    def _leading_to(self, table: "Table", row: int) -> Iterator[tuple[int, Any]]:
        """The rows that are being read, or others where unwanted row groups lie between these and the row."""
        is_near = self._next <= row and table.group(row) <= table.group(self._next) + 1
        if self._rows is None or table is not self._table or not is_near:
            if self._rows is not None:
                self._rows.close()  # its memory is free before the next is asked for
            self._table, self._next, self._rows = table, table.starts[table.group(row)], table.rows(table.group(row))
        return self._rows


@dataclass(eq=False)
class Table:
    """One file."""

    path: Path
    column: str
    starts: tuple[int, ...]
    """The first row of each row group."""
    reader: Reader

    def group(self, row: int) -> int:
        """The row group in which a row lies."""
        return max(bisect_right(self.starts, row) - 1, 0)

    def rows(self, group: int) -> Generator[tuple[int, Any], None, None]:
        """From the front of a row group to the end of the file: each row's number, and its picture."""
        arrow, parquet = _pyarrow()
        row = self.starts[group]
        try:
            for number in range(group, len(self.starts)):
                # Opened anew, so that nothing of the group before is kept.
                with parquet.ParquetFile(self.path, buffer_size=BUFFER, pre_buffer=False) as file:
                    for batch in file.iter_batches(
                        BATCH, row_groups=[number], columns=[self.column], use_threads=False
                    ):
                        for value in batch.column(0):
                            yield row, value.as_py()
                            row += 1
                arrow.default_memory_pool().release_unused()
        except (arrow.ArrowException, OSError) as error:
            problem = f"{self.path}: damaged behind row {row} ({_one_line(error)})."
            raise UserError(problem, fix=_FETCH_AGAIN) from error


@dataclass(frozen=True)
class Cell:
    """The picture in one row."""

    table: Table
    row: int
    suffix: str = ""

    @property
    def name(self) -> str:
        """`row 12`"""
        return f"row {self.row}"

    def __str__(self) -> str:
        return f"{self.table.path}: row {self.row}"

    def read_bytes(self) -> bytes:
        """The bytes in the row, or of the file that the row names."""
        data, path = _bytes_and_path(self.table.reader.value(self.table, self.row))
        if data is not None:
            return data
        if path is None:
            raise OSError("the row holds no picture")
        if "://" in path:
            raise OSError(f"the row holds an address and no picture ({path}); nothing is fetched from there")
        file = self.table.path.parent / path
        if not file.is_file():
            raise OSError(f"the row holds no picture, only the path {path}, and no file lies there")
        return file.read_bytes()

    def stat(self) -> os.stat_result:
        """Of the parquet file."""
        return self.table.path.stat()


def _bytes_and_path(value: Any) -> tuple[bytes | None, str | None]:
    """What a row holds: bytes, the path of a file, or a struct of both."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (None, value) if isinstance(value, str) else (value, None)


def read_tables(root: Path, tables: Sequence[Path], *, below: Path, data: DataConfig) -> Layout:
    """List every row of the files, in their order, with its caption.

    Args:
        root: the data set as the user named it.
        below: the folder from which the names of files count: `data/train-00000-of-00001.parquet/12`.
    """
    layout, reader, large = Layout(root), Reader(), list[str]()
    for path in tables:
        name = path.relative_to(below).as_posix()
        table, captions, largest = _open(path, data, reader)
        large += [name] if largest > LARGE_GROUP else []
        if not captions:
            layout.notes.append(f"{name} has no rows")
        for row, text in enumerate(captions):
            caption, unused = (None, 0) if text is None else used_lines(text, all_lines=data.wildcards)
            if unused:
                layout.longer.append(f"{name}/{row}")
            layout.pictures[f"{name}/{row}"] = PictureFile(Cell(table, row), data.repeats, "", caption)
    if not layout.pictures:
        raise UserError(f"{root}: no row in {len(tables)} parquet file(s): {listed([file.name for file in tables])}.")
    tell_odd_captions(layout)
    if large:
        text = f"files with row groups of more than {LARGE_GROUP / 2**30:g} GiB, which take four times that in memory"
        layout.notes.append(f"{counted(text, large)}; written with row_group_size=100 they would take little")
    return layout


def _open(path: Path, data: DataConfig, reader: Reader) -> tuple[Table, list[str | None], int]:
    """A file whose columns are as they should be, its captions, and the bytes of its largest row group."""
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            types = {column.name: column.type for column in file.schema_arrow}
            _check_pictures(path, types, data.image_column)
            has_captions = _check_captions(path, types, data)
            starts, largest = [0], 0
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                starts.append(starts[-1] + about.num_rows)
                largest = max(largest, about.total_byte_size)
            if has_captions:
                captions = file.read(columns=[data.caption_column]).column(0).to_pylist()
            else:
                captions = [None] * file.metadata.num_rows
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return Table(path, data.image_column, tuple(starts[:-1]), reader), captions, largest


def _check_pictures(path: Path, types: dict[str, Any], wanted: str) -> None:
    fitting = [name for name, kind in types.items() if _may_hold_pictures(kind)]
    if wanted not in types:
        raise _no_column(path, wanted, "data.image_column", types, fitting)
    if wanted not in fitting:
        raise UserError(
            f"{path}: the column {wanted!r} holds {types[wanted]} and no pictures (binary, or a struct of bytes and "
            "path as Hugging Face writes it).",
            fix=f"--set data.image_column={fitting[0]}" if fitting else "name another file",
        )


def _check_captions(path: Path, types: dict[str, Any], data: DataConfig) -> bool:
    """Whether there are captions; without them a set is read only where every picture may be without."""
    wanted = data.caption_column
    fitting = [name for name, kind in types.items() if _is_text(kind) and name != data.image_column]
    if wanted in fitting:
        return True
    if wanted not in types:
        if data.max_missing_captions >= 1:
            return False
        raise _no_column(path, wanted, "data.caption_column", types, fitting)
    raise UserError(
        f"{path}: the column {wanted!r} holds {types[wanted]}; one text for each picture was expected.",
        fix=f"--set data.caption_column={fitting[0]}" if fitting else "name another file",
    )


def _no_column(path: Path, wanted: str, key: str, types: dict[str, Any], fitting: list[str]) -> UserError:
    columns = listed([f"{name} ({_short(kind)})" for name, kind in types.items()], limit=12)
    near = nearest(wanted, fitting) or next(iter(fitting), None)
    return UserError(
        f"{path} has no column {wanted!r} ({key}); its columns: {columns or 'none'}.",
        fix=f"--set {key}={near}" if near else "name a data set that holds pictures and their captions",
    )


def _may_hold_pictures(kind: Any) -> bool:
    types = _pyarrow()[0].types
    if types.is_struct(kind):
        return "bytes" in {kind.field(place).name for place in range(kind.num_fields)}
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or _is_text(kind))


def _is_text(kind: Any) -> bool:
    types = _pyarrow()[0].types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _short(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 24 else text[:21] + "..."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a parquet file, or cut short ({_one_line(error)}).", fix=_FETCH_AGAIN)


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    """The library and its part for parquet; it is large, so only those who need it have it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet files are read by the package pyarrow, which is not installed.",
            fix="pip install 'brushwork[data]'",
        ) from error
    return pyarrow, pyarrow.parquet
