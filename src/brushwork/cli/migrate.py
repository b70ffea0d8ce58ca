"""`brushwork migrate`: settings of kohya's trainer as ours, SD 1.5's for SDXL, one character's for another."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.outputs import new_settings_file
from brushwork.cli.overrides import AsJson

if TYPE_CHECKING:
    from brushwork.config.carry import SetSize


class Family(StrEnum):
    """What settings can be carried over to."""

    sdxl = "sdxl"


def migrate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.toml...", help="Settings of kohya's trainer, with its file for data sets, or ours."
        ),
    ],
    to: Annotated[Family | None, typer.Option("--to", help="Carry settings for SD 1.5 over to SDXL.")] = None,
    character: Annotated[
        str | None, typer.Option(metavar="NAME|OLD=NEW", help="Carry them over to another character.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="The pictures to train, for the number of epochs and repeats."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="By default the file is printed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the settings of kohya's trainer as a file of ours, and carry settings over.

    What changes and why is told on the error stream, and in the file beside each line.

    Example: brushwork migrate kohya.toml > brushwork.toml
    """
    from brushwork.atomic import write_text
    from brushwork.config.migrate import migrate as run

    target = None if out is None else new_settings_file(out)
    made = run(
        files,
        to=None if to is None else "sdxl",
        character=character,
        data=data,
        trained=_trained(files),
        out=target,
        measure=_measure,
    )
    if target is not None:
        write_text(target, made.text)
    if as_json:
        changes = {change.key: {"old": change.old, "new": change.new, "why": change.why} for change in made.changes}
        typer.echo(json.dumps({"out": out and str(out), "changes": changes, "told": made.told, "toml": made.text}))
        return
    for line in (*made.told, *(f"changed: {change}" for change in made.changes)):
        typer.echo(line, err=True)
    if target is None:
        typer.echo(made.text, nl=False)
        return
    typer.echo(f"{target}: {len(made.changes)} settings changed, {len(made.told)} notes at its top")


def _trained(files: list[Path]) -> str | None:
    """The pictures of the run whose settings.toml is given."""
    from brushwork.run_files import DESCRIPTION_FILE

    for file in files:
        if (description := file.parent / DESCRIPTION_FILE).is_file():
            return str(json.loads(description.read_text(encoding="utf-8"))["data"])
    return None


def _measure(folder: str) -> "SetSize | None":
    """The size of a set, from the names of its files."""
    from brushwork.config.carry import SetSize
    from brushwork.config.schema import DataConfig
    from brushwork.data.forms import find_pictures
    from brushwork.errors import UserError

    try:
        layout = find_pictures(Path(folder).expanduser(), data=DataConfig(), offline=True)
    except UserError:
        return None
    repeats = [picture.repeats for picture in layout.pictures.values()]
    if not repeats:
        return None
    numbered = any(picture.class_tokens for picture in layout.pictures.values()) or max(repeats) > 1
    return SetSize(len(repeats), sum(repeats), numbered)
