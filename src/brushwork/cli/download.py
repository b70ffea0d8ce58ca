"""`brushwork download`: fetch a base model or a data set once, so that everything after works offline."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def download(
    hub_id: Annotated[
        str, typer.Argument(metavar="HUB-ID", help="owner/name, owner/name/FILE.safetensors, or hf:owner/name.")
    ],
    vae: Annotated[bool, typer.Option("--vae", help="It is a VAE, for --vae of other commands.")] = False,
    transformers: Annotated[
        bool, typer.Option("--transformers", help="It is an image encoder or a model that writes captions.")
    ] = False,
    variant: Annotated[str | None, typer.Option(help="fp16: the half as large files, where there are any.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a base model, a VAE, an encoder or a data set from the hub: the files that are read, nothing else.

    Example: brushwork download stabilityai/stable-diffusion-xl-base-1.0 --variant fp16

    Example: brushwork download openai/clip-vit-large-patch14 --transformers

    Example: brushwork download hf:lambdalabs/naruto-blip-captions
    """
    if hub_id.startswith("hf:"):
        _download_data(hub_id, as_json=as_json)
        return
    from brushwork.errors import UserError
    from brushwork.models.hub import download as run

    if vae and transformers:
        raise UserError("--vae and --transformers: a model is one of the two.", fix="leave one of them out")
    place = run(hub_id, "vae" if vae else "transformers" if transformers else "base", variant=variant)
    if as_json:
        typer.echo(json.dumps({"id": hub_id, "path": str(place)}))
        return
    typer.echo(f"{hub_id} is in {place}")
    option = "--vae" if vae else "--encoder" if transformers else "--base"
    typer.echo(f"  use it, also offline: {option} {hub_id}")


def _download_data(hub_id: str, *, as_json: bool) -> None:
    """A data set has a prefix, which tells it from a model of the same name."""
    from brushwork.data.huggingface import fetch

    folder, _ = fetch(hub_id)
    if as_json:
        typer.echo(json.dumps({"id": hub_id, "path": str(folder)}))
        return
    typer.echo(f"{hub_id} is in {folder}")
    typer.echo(f"  use it, also offline: brushwork train {hub_id}")
