"""`brushwork monitor`: watch a run, or a folder of runs, from any terminal."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def monitor(
    run: Annotated[Path, typer.Argument(metavar="RUN|FOLDER", help="A run folder, or a folder of them.")],
    once: Annotated[bool, typer.Option("--once", help="Print it once instead of watching.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a run: its curves, what it said last, the samples made, the time left. Ctrl-C ends the watching only.

    Example: brushwork monitor runs/corgi
    """
    from rich.console import Console

    from brushwork.detached import going_on
    from brushwork.errors import UserError
    from brushwork.run_files import is_run
    from brushwork.training.monitor import look, runs_in
    from brushwork.training.watching import shown, watch

    if not is_run(run) and (attach := going_on(run)) is not None:
        raise UserError(f"{run} is still being made ready.", fix=f"give it a moment; what it says: {attach}")
    runs = runs_in(run)
    console = Console(highlight=False)
    if as_json:
        typer.echo(json.dumps([look(each).described() for each in runs]))
    elif once or not console.is_terminal:
        typer.echo("\n".join(shown([look(each) for each in runs], console)))
    else:
        watch(runs, console)
