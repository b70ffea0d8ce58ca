"""`brushwork prepare`: pictures and captions in the form that a trainer reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.choices import SetForm
from brushwork.cli.overrides import AsJson, Data, Overrides, RecipeName, RunFiles

if TYPE_CHECKING:
    from brushwork.config.schema import Settings


def prepare(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, which is not there yet.")],
    layout: Annotated[SetForm, typer.Option(help="How the pictures lie in it.")] = SetForm.FOLDER,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", help="kohya: how often a picture is seen in an epoch, by default once.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Propose the repeats for a run of N steps, by --recipe's epochs and batch."
        ),
    ] = None,
    heldout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Hold out whole scenes, about this share of the pictures, in DIR/heldout."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="kohya: what follows the number, by default DIR's name.")] = None,
    shard_size: Annotated[
        float, typer.Option(min=0.001, metavar="MIB", help="webdataset: a shard is closed once it is larger.")
    ] = 1024,
    validate: Annotated[bool, typer.Option("--validate", help="Read what was written, and compare.")] = False,
    recipe: RecipeName = None,
    config: RunFiles = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a set as a folder, as kohya's numbered folder or as tar shards. Every picture has its caption, or nothing
    is written. What a review refuses is left out.

    Example: brushwork prepare photos --out luca --layout kohya --steps 2000 --heldout 0.1 --validate
    """
    from rich.console import Console

    from brushwork.amounts import number_of
    from brushwork.config.load import resolve
    from brushwork.data.folder import Dataset
    from brushwork.data.writing import prepare_set
    from brushwork.progress import progress_bar
    from brushwork.vision.scenes import scenes_of

    settings = resolve(recipe=recipe, files=config or [], overrides=overrides or []).settings

    def scenes(dataset: Dataset) -> dict[str, int]:
        with progress_bar(Console(stderr=True), "looking for scenes", len(dataset.samples)) as advance:
            return scenes_of(
                dataset, distance=settings.curation.near_distance, data=settings.data, on_progress=advance
            )

    prepared = prepare_set(
        data,
        out,
        form=layout.value,
        repeats=repeat or 1,
        name=name,
        validate=validate,
        data=settings.data,
        held_out=heldout,
        scenes=scenes,
        seed=settings.train.seed,
        views=_views(settings, steps, repeat),
        shard_mib=shard_size,
    )
    if as_json:
        typer.echo(json.dumps(prepared.record()))
        return
    for note in prepared.notes:
        typer.echo(f"note: {note}")
    pictures = number_of(prepared.num_pictures, "picture")
    compared = ", read again and found the same" if validate else ""
    typer.echo(f"{out}: {pictures} = {number_of(prepared.num_captions, 'caption')}{compared}")
    learned = prepared.num_pictures - prepared.held_out
    if heldout is not None:
        typer.echo(f"  {learned} in train/, {prepared.held_out} in heldout/: no scene is in both")
    if steps is not None:
        typer.echo(f"  {_proposal(settings, learned, prepared.repeats, wanted=steps)}")
    plain = steps is not None and layout is not SetForm.KOHYA
    given = [f"--set data.repeats={prepared.repeats}"] if plain else []
    given += [*([f"--recipe {recipe}"] if recipe else []), *(f"--config {file}" for file in config or [])]
    given += [f"--set {each}" for each in overrides or []]
    typer.echo("  use it: " + " ".join(["brushwork train", str(out), *given]))


def _views(settings: "Settings", steps: int | None, repeat: int | None) -> float | None:
    """Pictures that an epoch of a run of so many steps shows."""
    from brushwork.errors import UserError

    if steps is None:
        return None
    if repeat is not None:
        raise UserError("--steps proposes what --repeat sets.", fix="give one of both")
    if settings.train.epochs is None:
        raise UserError("train.epochs is off: --steps divides by it.", fix="--set train.epochs=10")
    return steps * settings.train.batch_size * settings.train.accumulation / settings.train.epochs


def _proposal(settings: "Settings", pictures: int, repeats: int, *, wanted: int) -> str:
    """What the repeats come to."""
    train = settings.train
    steps = round(pictures * repeats * (train.epochs or 1) / (train.batch_size * train.accumulation))
    batch = train.batch_size * train.accumulation
    shared = f" / a batch of {batch}" if batch > 1 else ""
    return (
        f"{pictures} pictures x {repeats} repeats x {train.epochs} epochs{shared} = {steps} steps ({wanted} wanted)"
    )
