"""`brushwork compare`: runs that were evaluated, side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson

if TYPE_CHECKING:
    from brushwork.evaluation.compare import Compared


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Runs that `brushwork evaluate` has judged.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the report, by default a folder beside the first run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same prompts, seeds and references: scores with intervals, pictures side by side, what
    differs in their settings, time and memory, and which to take for what.

    Example: brushwork compare runs/corgi-sd15 runs/corgi-sdxl
    """
    from brushwork.evaluation.compare import compare as compare_runs

    say(compare_runs(*runs, out=out), as_json=as_json)


def say(found: "Compared", *, as_json: bool) -> None:
    """Show the table, what each run is good for, and where the page is."""
    if as_json:
        typer.echo(json.dumps({"report": str(found.report), **json.loads(_beside(found.report).read_text("utf-8"))}))
        return
    from brushwork.evaluation.comparison import table

    for rows in table(found.contest):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        typer.echo("")
    for pair in found.contest.pairs:
        typer.echo(f"{pair.first.name} and {pair.second.name}: {pair.words}")
    for each in found.advice:
        typer.echo(f"for {each.use}: {each.why}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"report: {found.report}")


def _beside(page: Path) -> Path:
    return page.with_suffix(".json")
