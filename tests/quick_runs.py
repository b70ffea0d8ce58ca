"""Whole runs that take seconds: `train` with changed settings, and nothing said on the screen."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console

from brushwork.training.run import RunResult, train


def run(
    settings: Mapping[str, str],
    data: Path,
    out: Path,
    *,
    page: StringIO | None = None,
    accept_changes: bool = False,
    **changes: str,
) -> RunResult:
    """Train with `settings` and, over them, `changes`: `train__seed="2"` is `train.seed=2`.

    Args:
        page: what is said is written there.
    """
    values = {**settings, **{key.replace("__", "."): value for key, value in changes.items()}}
    return train(
        data,
        out=out,
        overrides=[f"{key}={value}" for key, value in values.items()],
        accept_changes=accept_changes,
        console=Console(file=page or StringIO(), width=200),
    )
