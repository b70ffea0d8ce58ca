"""Reading what is said about pictures: caption files and `metadata.jsonl`."""

import json
from pathlib import Path

from brushwork.data.source import Source
from brushwork.errors import UserError


def decode_text(data: bytes, path: Source) -> str:
    """UTF-8, with or without a byte order mark; anything else is refused, for guessing turns names into rubbish."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {data[error.start]:#04x} at position {error.start}).",
            fix=f"iconv -f {_guess(data)} -t UTF-8 < {path.name!r} > new.txt",
        ) from error


def _guess(data: bytes) -> str:
    """The encoding that old editors on Windows most likely wrote."""
    return "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"


def read_caption(path: Source, *, all_lines: bool = False) -> tuple[str, int]:
    """The caption in a file, and how many further lines are not used."""
    return used_lines(decode_text(path.read_bytes(), path), all_lines=all_lines)


def used_lines(text: str, *, all_lines: bool = False) -> tuple[str, int]:
    """The first line that is not blank (empty if there is none), and how many further lines are not used.

    Other trainers take the first line too, unless their wildcards are on, so the same folder means the same here.

    Args:
        all_lines: give every line that is not blank: each is a caption of its own.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if all_lines:
        return "\n".join(lines), 0
    return (lines[0], len(lines) - 1) if lines else ("", 0)


def read_metadata(path: Path, *, all_lines: bool = False) -> dict[str, str]:
    """The captions of a `metadata.jsonl` (ImageFolder): `file_name` -> `text`.

    Args:
        all_lines: keep lines apart; by default a text becomes one line.
    """
    captions: dict[str, str] = {}
    for number, line in enumerate(decode_text(path.read_bytes(), path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg}).") from error
        name, text = (row.get("file_name"), row.get("text")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError(
                f"{path}, line {number}: expected an object with the texts `file_name` and `text`.",
                fix='{"file_name": "0001.png", "text": "a caption"}',
            )
        captions[name] = text_of_row(text, all_lines=all_lines)
    return captions


def text_of_row(text: str, *, all_lines: bool = False) -> str:
    """The caption in a row of JSON: its line breaks mean nothing, unless each line is a caption of its own."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return ("\n" if all_lines else " ").join(line for line in lines if line)
