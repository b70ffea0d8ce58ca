"""How a data set is named: a folder, a file, a pattern of files, or `hf:OWNER/NAME` on the Hugging Face hub."""

import re
from pathlib import Path

from brushwork.errors import UserError, listed, nearest

HUB_PREFIX = "hf:"

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_FILES = 1_000_000
"""What a pattern may name; a slip of the finger in `{0..99999999}` would fill the memory."""


def is_hub_place(place: Path) -> bool:
    """Whether this is `hf:OWNER/NAME`."""
    return place.as_posix().startswith(HUB_PREFIX)


def is_pattern(place: Path) -> bool:
    """Whether this names files by `*`, `?`, `[...]`, `{a,b}` or `{000..010}`. What is there is taken as it is."""
    return not is_hub_place(place) and bool(re.search(r"[*?\[{]", str(place))) and not place.expanduser().exists()


def whole_place(place: Path) -> Path:
    """The same place from any folder: paths and patterns from the root, hub ids as they are."""
    return place if is_hub_place(place) else place.expanduser().resolve()


def is_there(place: Path) -> bool:
    """Whether something can be read at a place; the hub is not asked."""
    if is_pattern(place):
        return any(Path(name).exists() for name in _matching(place))
    return is_hub_place(place) or place.expanduser().exists()


def matching_files(place: Path) -> list[Path]:
    """The files that a pattern names, sorted; each that is named one by one has to be there."""
    named = sorted(set(_matching(place)))
    files = [Path(name) for name in named]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{place} names {len(files)} files, and {len(missing)} are not there: {listed(missing)}.",
            fix="name what is there, or bring the others" if len(missing) < len(files) else _closest(place),
        )
    if not files:
        raise UserError(f"{place}: no file is named so.", fix=_closest(place))
    return files


def fixed_part(place: Path) -> Path:
    """The folder before the first part with a pattern in it."""
    fixed = Path(place.anchor)
    for part in place.relative_to(place.anchor).parts[:-1]:
        if re.search(r"[*?\[{]", part):
            break
        fixed /= part
    return fixed


def _matching(place: Path) -> list[str]:
    """Braces name files one by one, the rest asks what is there."""
    found = []
    for name in _without_braces(str(place.expanduser())):
        if re.search(r"[*?\[]", name):
            folder = fixed_part(Path(name))
            found += sorted(str(file) for file in folder.glob(str(Path(name).relative_to(folder))))
        else:
            found.append(name)
    return found


def _without_braces(text: str) -> list[str]:
    """`{000..002}.tar` -> `000.tar`, `001.tar`, `002.tar`"""
    waiting, done = [text], []
    while waiting:
        current = waiting.pop()
        match = _BRACES.search(current)
        if match is None:
            done.append(current)
            continue
        before, after = current[: match.start()], current[match.end() :]
        waiting += [f"{before}{choice}{after}" for choice in _choices(match[1], text)]
        if len(waiting) > MOST_FILES:
            raise UserError(f"{text} names more than {MOST_FILES} files.", fix="name a smaller range, or use *")
    return done


def _choices(inside: str, text: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",")
    first, last = int(span[1]), int(span[2])
    if last - first >= MOST_FILES or first > last:
        raise UserError(f"{text}: {{{inside}}} is no range of shards.", fix="write it as {000..010}, or use *")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def _closest(place: Path) -> str:
    """A hint at what the folder holds."""
    folder = fixed_part(place.expanduser())
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = nearest(place.name, names)
    return f"{folder} holds {listed(names)}" + (f"; did you mean {near}?" if near else "") if names else str(folder)
