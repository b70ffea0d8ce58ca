"""`brushwork demo`: the whole way on drawn pictures and the bundled model, with nothing to download."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson, Overrides

if TYPE_CHECKING:
    from brushwork.demonstration.run import Demonstration


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the run and the report.")] = Path("runs/demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Draw 24 pictures of a fox, train a LoRA on them with the bundled tiny model, and show what came of it.

    Takes two to three minutes on two cores. The same command goes on where it was stopped.

    Example: brushwork demo --out runs/demo
    """
    from brushwork.demonstration.run import demo as run

    say(run(out, overrides=overrides or []), as_json=as_json)


def say(result: "Demonstration", *, as_json: bool) -> None:
    """Tell what was made and where, or how to go on."""
    from brushwork.cli.train import describe

    if as_json:
        report = None if result.report is None else str(result.report)
        typer.echo(json.dumps({**describe(result.run), "report": report, "figures": result.figures}))
        return
    if result.report is None or result.figures is None:
        typer.echo(f"stopped at step {result.run.step} of {result.run.total_steps}; everything is saved")
        typer.echo(f"  go on: brushwork demo --out {result.folder}")
        return
    typer.echo(f"{result.report}: open it in a browser")
    before, after = result.figures["asked"]["0"], result.figures["asked"]["1"]
    typer.echo(f"  the fox: in {before['character']} of {before['of']} pictures before,", nl=False)
    typer.echo(f" in {after['character']} of {after['of']} after")
    typer.echo(f"  LoRA: {result.run.adapter}")
    typer.echo(f"  curve: {result.run.curve}")
