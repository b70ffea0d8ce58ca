"""The lists of `name=value` in kohya's files: `network_args`, `optimizer_args`, `lr_scheduler_args`."""

import ast
from collections.abc import Sequence
from typing import Any

from brushwork.errors import UserError


def parse_arguments(key: str, texts: Sequence[str]) -> dict[str, Any]:
    """`["weight_decay=0.1", "betas=0.9,0.99"]` -> `{"weight_decay": 0.1, "betas": (0.9, 0.99)}`"""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"{key}: {text!r} is not of the form name=value.", fix=f'{key} = ["weight_decay=0.01"]')
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """As Python reads it, and where it does not, the bare text: `True`, `1e-2`, `0.9,0.99`, `locon`."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
