"""`brushwork queue`: runs, one after another."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, RecipeName


def queue(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.toml...", help="Files of settings; data.path names the pictures.")
    ],
    recipe: RecipeName = None,
    as_json: AsJson = False,
) -> None:
    """Train what each file says, one after another, and go on after a failure.

    All files are read first. Exits with 1 if a run failed. Ctrl-C saves the run that is going on and leaves the rest.

    Example: brushwork queue corgi.toml fox.toml --recipe sdxl-standard
    """
    from brushwork.training.queue import run_queue

    entries = run_queue(files, recipe=recipe)
    if as_json:
        typer.echo(
            json.dumps([{"file": str(each.file), "ending": each.ending, "run": each.told} for each in entries])
        )
    else:
        typer.echo("\n".join(each.line() for each in entries))
    if any(each.ending != "finished" for each in entries):
        raise typer.Exit(1)
