"""A kohya file as plain values: sections fall away, every key is known, every value is of the right kind."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from brushwork.config.describe import fields, literal
from brushwork.config.kohya.key import KINDS, Kind
from brushwork.config.kohya.table import TABLE
from brushwork.errors import UserError, nearest

MARKS = {
    "pretrained_model_name_or_path",
    "network_module",
    "network_dim",
    "network_train_unet_only",
    "train_data_dir",
    "dataset_config",
    "output_dir",
    "output_name",
    "max_train_steps",
    "max_train_epochs",
}
"""Keys that only a settings file for kohya's program has, and that most of them have."""

ENOUGH = 3
"""So many of kohya's keys are no slip of the pen."""


def is_kohya(tables: Mapping[str, Any]) -> bool:
    """Whether a TOML file was written for kohya's program: more of its keys are kohya's than ours."""
    if is_dataset_file(tables):
        return True
    keys = list(_leaves(tables))
    ours = {path for path, _ in keys if path in fields()}
    theirs = {path.rpartition(".")[2] for path, _ in keys if path not in ours} & TABLE.keys()
    return len(theirs) > len(ours) and (bool(theirs & MARKS) or len(theirs) >= ENOUGH)


def is_dataset_file(tables: Mapping[str, Any]) -> bool:
    """Whether a TOML file describes data sets: kohya's `dataset_config`."""
    return isinstance(tables.get("datasets"), list)


def read_values(tables: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The values of a settings file by their bare keys, checked; empty texts and lists say nothing, as there."""
    values: dict[str, Any] = {}
    problems: list[UserError] = []
    for path, value in _leaves(tables):
        name = path.rpartition(".")[2]
        if name not in TABLE:
            problems.append(unknown_key(name, value, origin))
        elif name in values and values[name] != value:
            problems.append(UserError(f"{origin}: {name} is given twice, with two values.", fix="keep one"))
        else:
            values[name] = value
    raise_all(problems, f"keys of {origin} are wrong")
    return checked(values, origin)


def checked(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The values in their own kind, without those that say nothing."""
    found: dict[str, Any] = {}
    problems: list[UserError] = []
    for name, value in values.items():
        if value in ("", [], {}) and not (TABLE[name].default == "" and value == ""):
            continue
        try:
            found[name] = _of_kind(value, TABLE[name].kind)
        except (ValueError, TypeError):
            what = KINDS[TABLE[name].kind]
            problems.append(
                UserError(f"{origin}: {name} = {literal(value)}: expected {what}.", fix=_example(name, value))
            )
    raise_all(problems, f"values of {origin} are wrong")
    return found


def unknown_key(name: str, value: Any, origin: str) -> UserError:
    """What to say about a key that kohya's program does not have."""
    close = nearest(name, TABLE)
    if close is None:
        return UserError(f"{origin}: kohya's program has no key {name}.", fix=f"take {name} out")
    return UserError(
        f"{origin}: kohya's program has no key {name}, and passes it over; did you mean {close}?",
        fix=f"{close} = {literal(value)}",
    )


def raise_all(problems: list[UserError], what: str) -> None:
    """Tell every problem at once."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"- {problem.problem}\n  write: {problem.fix}" for problem in problems]
        raise UserError(f"{len(problems)} {what}:\n" + "\n".join(lines))


def _leaves(tables: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and not (name in TABLE and TABLE[name].kind == "table"):
            yield from _leaves(value, here)
        else:
            yield here.replace("-", "_"), value


def _example(name: str, value: Any) -> str:
    key = TABLE[name]
    if key.kind == "flag" and str(value).lower() in ("true", "false", "1", "0"):
        return f"{name} = {'true' if str(value).lower() in ('true', '1') else 'false'}"
    plain: dict[Kind, Any] = {"whole": 1, "number": 1.0, "flag": True, "texts": ["conv_dim=8"], "size": "1024,1024"}
    example = plain.get(key.kind, "...") if key.default in (None, "") else key.default
    return f"{name} = {literal(example)}, or take it out"


def _of_kind(value: Any, kind: Kind) -> Any:
    """A value in its kind; numbers may stand in quotes, as on a command line.

    Raises:
        ValueError: it is of another kind.
    """
    match kind:
        case "flag":
            if not isinstance(value, bool):
                raise ValueError
            return value
        case "text":
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise ValueError
            return str(value)
        case "number":
            return _number(value)
        case "whole":
            number = _number(value)
            if number != int(number):
                raise ValueError
            return int(number)
        case "numbers":
            return [_number(item) for item in value] if isinstance(value, list) else _number(value)
        case "texts":
            items = value.split() if isinstance(value, str) else value
            if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
                raise ValueError
            return items
        case "size":
            return _size(value)
        case "table":
            if not isinstance(value, dict):
                raise ValueError
            return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    number = value if isinstance(value, (int, float)) else int(value) if value.isdigit() else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _size(value: Any) -> tuple[float, float]:
    """`1024`, `"1024"`, `"768,1024"`, `[768, 1024]` -> width and height."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    numbers = [_number(part.strip() if isinstance(part, str) else part) for part in parts]
    if len(numbers) not in (1, 2) or min(numbers) <= 0:
        raise ValueError
    return (numbers[0], numbers[-1])
