"""`brushwork report`: what a search found, or where a run stands, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="STUDY|RUN", help="Folder of a `brushwork search` or of a run, finished or not.")
    ],
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the study lies, if the search was given one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html and report.json: of a search the best trial, what mattered, slices, refused and pruned
    trials, history; of a run its curves, verdict, evaluation, settings, memory and time.

    Example: brushwork report studies/corgi
    """
    from brushwork.cli.reporting import report as write

    made = write(folder, storage=storage)
    if as_json:
        typer.echo(made.figures.read_text(encoding="utf-8").strip())
        return
    typer.echo(f"{made.page}: {made.sentence}")
