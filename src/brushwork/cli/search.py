"""`brushwork search`: which settings suit these pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.choices import Pruning, SearchedFor
from brushwork.cli.overrides import DATA_HELP, AsJson, Detach, Offline, Overrides, RecipeName, RunFiles

if TYPE_CHECKING:
    from brushwork.cli.searching import Searched


def search(
    context: typer.Context,
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help=DATA_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Folder of the search. Name an old one to go on with it.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Pictures that are not trained on: the loss is measured on them, the score against them.",
        ),
    ] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Trials to attempt, refused ones included.")] = 20,
    objective: Annotated[
        SearchedFor,
        typer.Option(
            help="What trials go by: the lowest held-out loss, or the score of what the best file draws (evaluate)."
        ),
    ] = SearchedFor.LOSS,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="What is drawn, instead of the default space.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="What is refused, instead of the seven default rules.")
    ] = None,
    show_rules: Annotated[bool, typer.Option("--show-rules", help="Print the rules and do nothing.")] = False,
    repeats: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="How often the recipe, and at the end the winner, are trained with other seeds."
        ),
    ] = 3,
    prune: Annotated[
        Pruning, typer.Option(help="End trials early that are behind the others at the same point.")
    ] = Pruning.MEDIAN,
    blind: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Trials drawn before it learns; with all of --trials, a random search."
        ),
    ] = 5,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="What is proposed follows from it.")] = 0,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the study lies, for workers on several machines.")
    ] = None,
    overrides: Overrides = None,
    detach: Detach = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Try settings from a space, learn from each, and write the best as a recipe. What --set names is not drawn.

    The same command goes on where it was stopped or killed; started twice, two workers share the trials.

    Example: brushwork search corgi/train --references corgi/heldout --recipe sd15-character --base sd15.safetensors
    --out studies/corgi
    """
    from rich.console import Console

    from brushwork.cli.searching import Asked, carry_out, prepare_search, shown_rules

    if show_rules:
        from brushwork.hpo.safety import describe

        typer.echo(describe(shown_rules(rules)))
        return
    flags = {"model.base": base, "model.offline": True if offline else None}
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    asked = Asked(
        data=needed(data, "DATA", "name the folder of pictures"),
        out=needed(out, "--out", "--out STUDY"),
        references=needed(references, "--references", "--references FOLDER of held-out pictures"),
        num_trials=trials,
        recipe=recipe,
        files=config or [],
        overrides=[*given, *(overrides or [])],
        space=space,
        rules=rules,
        repeats=repeats,
        pruning=prune.value,
        objective=objective.value,
        storage=storage,
        seed=seed,
        blind=blind,
    )
    console = Console(stderr=True)
    ready = prepare_search(asked, console)
    if detach:
        say_detached(context.obj, asked.out)
        return
    say(carry_out(ready, asked, console), as_json=as_json)


def needed(value: Path | None, name: str, fix: str) -> Path:
    """What a search cannot do without."""
    from brushwork.errors import UserError

    if value is None:
        raise UserError(f"a search needs {name}.", fix=fix)
    return value


def say_detached(words: list[str], out: Path) -> None:
    """Start the same command in tmux, and tell how to watch it."""
    from brushwork.detached import start_detached

    attach = start_detached([word for word in words if word != "--detach"], folder=out)
    typer.echo(f"{out} searches in tmux")
    typer.echo(f"  watch: {attach} (leave with Ctrl-B D), or brushwork monitor {out / 'trials'}")
    typer.echo("  stop:  Ctrl-C there; the same command goes on")


def say(found: "Searched", *, as_json: bool) -> None:
    """Tell what was found."""
    if as_json:
        told = {"done": found.done, "verdict": found.verdict, "best": found.best, "counts": found.counts}
        files = {"winner": None if found.winner is None else str(found.winner), "report": str(found.report)}
        typer.echo(json.dumps(told | files))
        return
    typer.echo(found.verdict if found.done else "not at its end; the same command goes on")
    typer.echo(f"  trials: {', '.join(f'{count} {state}' for state, count in found.counts.items())}")
    typer.echo(f"  report: {found.report}")
    if found.winner is not None:
        typer.echo(f"  recipe: brushwork train DATA --recipe {found.winner}")
