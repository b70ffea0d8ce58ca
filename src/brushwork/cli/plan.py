"""`brushwork plan`: what a run would do and need, before anything is loaded, and what would make it fit."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Data, Offline, Overrides, RecipeName, RunFiles


def plan(
    data: Data,
    recipe: RecipeName = None,
    config: RunFiles = None,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    vram: Annotated[
        float | None, typer.Option(metavar="GIB", min=0.1, help="Choose settings that fit so much memory.")
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Choose settings that fit the card of this machine.")] = False,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Show the plan of a run: its steps, what it needs of memory, and what would need less.

    Example: brushwork plan photos --recipe sdxl-standard --base sdxl.safetensors --vram 12
    """
    from brushwork.training.memory_report import plan_memory

    flags = {"model.base": base, "model.offline": True if offline else None}
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    planned = plan_memory(
        data,
        recipe=recipe,
        files=config or [],
        overrides=[*given, *(overrides or [])],
        limit_gib=vram,
        fit=fit,
        show_run=not as_json,
    )
    typer.echo(json.dumps(planned.record()) if as_json else str(planned))
