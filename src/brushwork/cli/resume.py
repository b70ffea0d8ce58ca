"""`brushwork resume`: go on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Detach
from brushwork.cli.train import AcceptChanges, say, say_detached


def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN|FOLDER", help="A run folder, or a folder of them: the newest.")],
    accept_changes: AcceptChanges = False,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped or killed, with the settings that it began with.

    Example: brushwork resume runs
    """
    from brushwork.cli.evaluating import evaluator
    from brushwork.training.run import resume as go_on
    from brushwork.training.run_folder import newest_run

    if detach:
        say_detached(context.obj, newest_run(run))
        return
    say(go_on(run, accept_changes=accept_changes, evaluate=evaluator()), as_json=as_json)
