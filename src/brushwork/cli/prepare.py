"""`brushwork prepare`: pictures and captions in the form that a trainer reads."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.choices import SetForm
from brushwork.cli.overrides import AsJson, Data, Overrides


def prepare(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, which is not there yet.")],
    layout: Annotated[SetForm, typer.Option(help="How the pictures lie in it.")] = SetForm.FOLDER,
    repeat: Annotated[int, typer.Option(metavar="N", help="kohya: how often a picture is seen in an epoch.")] = 1,
    name: Annotated[str | None, typer.Option(help="kohya: what follows the number, by default DIR's name.")] = None,
    validate: Annotated[bool, typer.Option("--validate", help="Read what was written, and compare.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a set as a folder, as kohya's numbered folder or as tar shards. Every picture has its caption, or nothing
    is written.

    Example: brushwork prepare photos --out luca --layout kohya --repeat 10 --validate
    """
    from brushwork.config.load import resolve
    from brushwork.data.writing import prepare_set

    settings = resolve(overrides=overrides or []).settings.data
    prepared = prepare_set(data, out, form=layout.value, repeats=repeat, name=name, validate=validate, data=settings)
    if as_json:
        typer.echo(json.dumps(prepared.record()))
        return
    for note in prepared.notes:
        typer.echo(f"note: {note}")
    compared = ", read again and found the same" if validate else ""
    typer.echo(f"{out}: {prepared.num_pictures} pictures = {prepared.num_captions} captions{compared}")
    typer.echo(f"  use it: brushwork train {out}")
