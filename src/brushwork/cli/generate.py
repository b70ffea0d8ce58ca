"""`brushwork generate`: prompts go in, a folder of pictures comes out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson, Offline, Overrides

if TYPE_CHECKING:
    from brushwork.generation.generate import Generated


def generate(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the pictures. One that was begun is continued.")
    ],
    prompt: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What to draw.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file of prompts, one a line; --n --w --h --d --s --l --ss work."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="bundled, a diffusers folder, a .safetensors file, or a hub id. By default the LoRA run's."
        ),
    ] = None,
    vae: Annotated[str | None, typer.Option(metavar="VAE", help="Another VAE than the base's own.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:STRENGTH]", help="An adapter, or a run folder. May be given several times."),
    ] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What to keep away from.")] = "",
    num_images: Annotated[
        int | None,
        typer.Option(metavar="N", help="So many pictures, of the prompts shuffled. By default one of each."),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="B", help="Pictures drawn at once; changes no picture.")] = 1,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="768x512, or 512. By default what the base was trained on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps of the sampler.")] = None,
    guidance: Annotated[
        float | None, typer.Option(metavar="G", help="How strongly the prompt is followed; 1 is not at all.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="ddpm, ddim, euler, euler_ancestral, dpmpp_2m.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Of the first picture; each next one takes one more.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Use the running mean that the training saved.")] = False,
    fuse: Annotated[bool, typer.Option("--fuse", help="Add the adapters into the weights: a little faster.")] = False,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Least memory, not least time.")] = False,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Draw pictures, with or without LoRAs.

    Example: brushwork generate --base sdxl.safetensors --lora runs/corgi:0.8 --prompt "a corgi" --out pictures
    """
    from brushwork.amounts import number_of
    from brushwork.generation.generate import generate as run

    result = run(
        out=out,
        prompt=prompt,
        prompts=prompts,
        base=base,
        vae=vae,
        loras=lora or [],
        negative=negative,
        num_images=num_images,
        batch_size=batch_size,
        size=size,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        seed=seed,
        ema=ema,
        fuse=fuse,
        low_memory=low_memory,
        overrides=[*(["model.offline=true"] if offline else []), *(overrides or [])],
    )
    if as_json:
        typer.echo(json.dumps(describe(result)))
        return
    pictures = number_of(len(result.pictures), "picture")
    kept = f", {result.num_kept} of them from before" if result.num_kept else ""
    typer.echo(f"{result.folder}: {pictures}{kept}, with prompts and parameters")
    typer.echo(f"  contact sheet: {result.contact_sheet}")


def describe(result: "Generated") -> dict[str, object]:
    """A result as plain values."""
    return {
        "folder": str(result.folder),
        "pictures": [str(path) for path in result.pictures],
        "contact_sheet": str(result.contact_sheet),
        "num_kept": result.num_kept,
        "applied": [
            {
                "file": each.file,
                "strength": each.strength,
                "num_applied": each.num_applied,
                "num_modules": each.num_modules,
            }
            for each in result.applied
        ],
    }
