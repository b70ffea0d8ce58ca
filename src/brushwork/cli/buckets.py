"""`brushwork buckets`: where each picture lies in training, what is cut off, and a sheet to look at."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Data, Offline, Overrides, RecipeName, RunFiles


def buckets(
    data: Data,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the pictures with what is kept of each.")
    ] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Show which bucket each picture falls into, what is cut off it and what is enlarged.

    Example: brushwork buckets photos --recipe sdxl-standard --set buckets.enabled=true --sheet crops.png
    """
    from brushwork.training.bucket_check import check_buckets

    flags = {"model.base": base, "model.offline": True if offline else None}
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    checked = check_buckets(
        data, recipe=recipe, files=config or [], overrides=[*given, *(overrides or [])], sheet=sheet
    )
    typer.echo(json.dumps(checked.record()) if as_json else str(checked))
