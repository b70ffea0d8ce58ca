"""`brushwork search`: which settings suit these pictures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.choices import Pruning
from brushwork.cli.overrides import DATA_HELP, AsJson, Detach, Offline, Overrides, RecipeName, RunFiles


def search(
    context: typer.Context,
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help=DATA_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Folder of the search. Name an old one to go on with it.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Pictures that are not trained on: the loss on them is what is searched for."
        ),
    ] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Trials to attempt, refused ones included.")] = 20,
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

    from brushwork.cli.searching import Asked, prepare_search, shown_rules, write_winner

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
        storage=storage,
        seed=seed,
    )
    console = Console(stderr=True)
    ready = prepare_search(asked, console)
    if detach:
        say_detached(context.obj, asked.out)
        return
    from brushwork.hpo.study import search as run

    done = run(ready.plan, ready.objective, console=console)
    say(asked.out, write_winner(ready, asked), done=done, storage=storage, as_json=as_json)


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


def say(out: Path, winner: Path | None, *, done: bool, storage: str | None, as_json: bool) -> None:
    """Write the report and tell what was found."""
    from brushwork.hpo.report import make_report, read_results, write_report
    from brushwork.hpo.study import importance

    report = make_report(read_results(out), importance(out, storage), name=out.absolute().name)
    page = write_report(report, out)
    if as_json:
        told = {"done": done, "verdict": report.verdict, "best": report.best, "counts": report.counts}
        files = {"winner": None if winner is None else str(winner), "report": str(page)}
        typer.echo(json.dumps(told | files))
        return
    typer.echo(report.verdict if done else "not at its end; the same command goes on")
    typer.echo(f"  trials: {', '.join(f'{count} {state}' for state, count in report.counts.items())}")
    typer.echo(f"  report: {page}")
    if winner is not None:
        typer.echo(f"  recipe: brushwork train DATA --recipe {winner}")
