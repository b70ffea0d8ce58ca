"""The options that several commands share, each defined once."""

from pathlib import Path
from typing import Annotated

import typer

DATA_HELP = (
    "Pictures with captions: a folder of them, of .tar shards or of .parquet files, a pattern such as "
    "'shards/{000..010}.tar', or hf:OWNER/NAME."
)

Data = Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, e.g. --set lora.rank=8. May be given several times; `brushwork recipes --settings` "
        "lists them all.",
    ),
]

RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE.toml", help="Where to start from; see `brushwork recipes`."),
]

RunFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", metavar="FILE.toml", help="A file of settings, which goes over the recipe; ours or kohya's."
    ),
]

Detach = Annotated[
    bool,
    typer.Option("--detach", help="Start it in tmux and return: it goes on when this terminal is closed."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]

Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub; use what is on this machine.")]
