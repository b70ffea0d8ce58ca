"""What another terminal asks of a run: a file for each request, `RUN/requests/save`, which the loop takes away.

Files, because they reach a run wherever it was started: in another terminal, in tmux, on another machine that shares
the disk.
"""

from pathlib import Path
from typing import Literal

from brushwork.config.load import read_toml
from brushwork.errors import UserError
from brushwork.run_files import SETTINGS_FILE, is_run
from brushwork.training.run_folder import RunFolder

Request = Literal["stop", "save", "sample"]


def ask(run: Path, request: Request) -> None:
    """Leave a request for a run that is going on.

    Raises:
        UserError: there is no such run, it is not going on, or it has nothing to do the request with.
    """
    if not is_run(run):
        raise UserError(f"{run} is not the folder of a run.", fix="name a folder that `brushwork train` made")
    settings = read_toml(run / SETTINGS_FILE)
    folder = RunFolder(run, settings.name)
    if not folder.is_running():
        raise UserError(f"{run} is not running.", fix=f"brushwork resume {run}")
    if request == "sample" and settings.sample.prompts is None:
        raise UserError(
            f"{run} has no prompts to draw.",
            fix="begin a run with --sample-prompts FILE; or brushwork save, then brushwork generate",
        )
    leave(folder, request)


def leave(folder: RunFolder, request: Request) -> None:
    """Put a request where the run that is going on will find it."""
    folder.requests.mkdir(exist_ok=True)
    (folder.requests / request).touch()


def take(folder: RunFolder) -> frozenset[Request]:
    """The requests to save and to draw, which are taken away; one to stop is left to whoever watches for it."""
    taken: set[Request] = set()
    for request in ("save", "sample"):
        try:
            (folder.requests / request).unlink()
        except FileNotFoundError:
            continue
        taken.add(request)
    return frozenset(taken)


def forget(folder: RunFolder) -> None:
    """Take away what was asked of an earlier process and never answered."""
    for request in ("stop", "save", "sample"):
        (folder.requests / request).unlink(missing_ok=True)
