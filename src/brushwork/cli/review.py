"""`brushwork review`: look at every picture of a set, and keep or refuse it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Overrides


def review(
    data: Annotated[Path, typer.Argument(metavar="SET", help="Folder of pictures, with curation.jsonl or without.")],
    references: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Approved pictures, shown beside for comparison.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where the page is served; by default the first free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    links: Annotated[
        bool, typer.Option("--links", help="Show files outside SET too, where links in it lead to them.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Keep or refuse pictures on a local page, by keyboard or by touch. Every decision goes to SET/review.jsonl at
    once; nothing is deleted, and every command leaves out what is refused.

    Example: brushwork review photos --references approved
    """
    from brushwork.config.load import resolve
    from brushwork.studio.server import review as serve

    settings = resolve(overrides=overrides or []).settings.data
    done = serve(
        data,
        data=settings,
        references=references,
        links=links,
        port=port,
        opens=open_browser,
        say=lambda line: typer.echo(line, err=as_json),
    )
    if as_json:
        typer.echo(
            json.dumps({"file": str(done.file), "kept": done.kept, "refused": done.refused, "left": done.left})
        )
        return
    typer.echo(f"{data}: {done}")
