"""`brushwork cache`: what is computed once of pictures and captions, and kept."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Data, Offline, Overrides, RecipeName, RunFiles

cache = typer.Typer(help="Fill, check or empty the cache of latents and text states.")

Folder = Annotated[
    str | None, typer.Option("--folder", metavar="DIR", help="The cache; by default the one in your account.")
]


@cache.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@cache.command()
def build(
    data: Data,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Another VAE than the base's own.")] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Encode a folder before training; `brushwork train` with the same settings then starts at once.

    Example: brushwork cache build photos --base sdxl.safetensors --recipe sdxl-standard
    """
    from brushwork.training.cache_ahead import build_cache

    flags = {"model.base": base, "model.vae": vae, "model.offline": True if offline else None}
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    built = build_cache(data, recipe=recipe, files=config or [], overrides=[*given, *(overrides or [])])
    if as_json:
        typer.echo(json.dumps(built.record()))
        return
    typer.echo(str(built))


@cache.command()
def verify(folder: Folder = None, as_json: AsJson = False) -> None:
    """Read every entry and name the damaged ones. Nothing is removed; a run makes damaged ones anew.

    Example: brushwork cache verify
    """
    from brushwork.cache.store import Store, cache_folder

    store = Store(cache_folder(folder))
    problems = store.verify()
    num_entries = len(list(store.keys()))
    if as_json:
        typer.echo(json.dumps({"folder": str(store.folder), "entries": num_entries, "damaged": problems}))
    else:
        typer.echo(f"{store.folder}: {num_entries} entries, {len(problems)} damaged")
        for key, problem in problems.items():
            typer.echo(f"  {store.path(key)}: {problem}")
    if problems:
        raise typer.Exit(1)


@cache.command()
def prune(
    days: Annotated[
        float, typer.Option(min=0, help="Keep what was read within so many days. 0 empties the cache.")
    ] = 30.0,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Remove what nothing has read for some time. It is made again where it is needed.

    Example: brushwork cache prune --days 7
    """
    from brushwork.amounts import bytes_in_words
    from brushwork.cache.beside import prune_beside
    from brushwork.cache.store import Store, cache_folder

    whole = cache_folder(folder)
    removed = {"entries": Store(whole).prune(unused_days=days), **prune_beside(whole, unused_days=days)}
    num_bytes = sum(each.num_bytes for each in removed.values())
    counts = {kind: each.entries for kind, each in removed.items()}
    if as_json:
        total = sum(counts.values())
        typer.echo(json.dumps({"folder": str(whole), "removed": total, "bytes": num_bytes, "files": counts}))
        return
    told = ", ".join(f"{count} of {kind}" for kind, count in counts.items() if count) or "nothing"
    typer.echo(f"{whole}: removed {told}; {bytes_in_words(num_bytes)}")
