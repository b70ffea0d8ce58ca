"""`brushwork download`: fetch a base model once, so that everything after works offline."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def download(
    hub_id: Annotated[str, typer.Argument(metavar="HUB-ID", help="owner/name, or owner/name/FILE.safetensors.")],
    vae: Annotated[bool, typer.Option("--vae", help="It is a VAE, for --vae of other commands.")] = False,
    variant: Annotated[str | None, typer.Option(help="fp16: the half as large files, where there are any.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a base model or a VAE from the hub: the files that are read, nothing else.

    Example: brushwork download stabilityai/stable-diffusion-xl-base-1.0 --variant fp16
    """
    from brushwork.models.hub import download as run

    place = run(hub_id, "vae" if vae else "base", variant=variant)
    if as_json:
        typer.echo(json.dumps({"id": hub_id, "path": str(place)}))
        return
    typer.echo(f"{hub_id} is in {place}")
    typer.echo(f"  use it, also offline: {'--vae' if vae else '--base'} {hub_id}")
