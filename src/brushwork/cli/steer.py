"""`brushwork stop`, `save`, `sample`: act on a run that is going on, from any terminal."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that is going on.")]


def stop(run: Run) -> None:
    """Let a run finish its step, save everything and end.

    Example: brushwork stop runs/corgi
    """
    from brushwork.detached import going_on, interrupt
    from brushwork.run_files import is_run
    from brushwork.training.requests import ask

    if not is_run(run) and going_on(run):
        interrupt(run)
        typer.echo(f"{run} was still being made ready, with nothing learned yet; its command in tmux ends")
        return
    ask(run, "stop")
    typer.echo(f"{run} stops after its step, with everything saved")
    typer.echo(f"  go on: brushwork resume {run}")


def save(run: Run) -> None:
    """Let a run write its adapter and its state after this step, and go on.

    Example: brushwork save runs/corgi
    """
    from brushwork.training.requests import ask

    ask(run, "save")
    typer.echo(f"{run} writes NAME-stepNNNNNNNN and its state after this step")


def sample(run: Run) -> None:
    """Let a run draw its prompts after this step, and go on.

    Example: brushwork sample runs/corgi
    """
    from brushwork.training.requests import ask

    ask(run, "sample")
    typer.echo(f"{run} draws its prompts after this step, into {run / 'sample'}")
