"""`brushwork resume`: go on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson
from brushwork.cli.train import AcceptChanges, say


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN|FOLDER", help="A run folder, or a folder of them: the newest.")],
    accept_changes: AcceptChanges = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped or killed, with the settings that it began with.

    Example: brushwork resume runs
    """
    from brushwork.training.run import resume as go_on

    say(go_on(run, accept_changes=accept_changes), as_json=as_json)
