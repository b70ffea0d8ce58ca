"""`brushwork merge`: LoRAs become part of a base."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Offline


def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="bundled, a folder, a .safetensors file, or a hub id.")],
    loras: Annotated[
        list[str], typer.Argument(metavar="LORA[:STRENGTH]...", help="Adapter files or run folders, e.g. corgi:0.8")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .safetensors file, if the base is one; else a folder.")
    ],
    ema: Annotated[bool, typer.Option("--ema", help="Use the running means that the trainings saved.")] = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Add LoRAs to the weights of a base, for programs that load no LoRA, or to train on.

    Example: brushwork merge sdxl.safetensors corgi.safetensors:0.8 corgi-sdxl.safetensors
    """
    from brushwork.generation.adapters import wanted
    from brushwork.generation.merge import merge as merged

    made = merged(base, [wanted(lora) for lora in loras], out, ema=ema, offline=offline)
    if as_json:
        typer.echo(json.dumps(made.record()))
        return
    for lora in made.loras:
        typer.echo(f"{lora['file']}: {lora['modules']} modules, strength {lora['strength']:g}")
    typer.echo(f"{made.out}: {made.num_changed} tensors changed, the rest as in {base}")
