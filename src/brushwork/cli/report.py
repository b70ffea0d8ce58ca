"""`brushwork report`: what a search found, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a `brushwork search`, finished or not.")],
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the study lies, if the search was given one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html and report.json: the best trial, what mattered, slices, refused and pruned trials, history.

    Example: brushwork report studies/corgi
    """
    from brushwork.errors import UserError
    from brushwork.hpo.report import make_report, read_results, write_report

    results = read_results(study)
    named = results.get("about", {}).get("storage")
    if storage is None and named is not None:
        raise UserError(f"{study} keeps its study in {named}.", fix=f"brushwork report {study} --storage URL")
    from brushwork.hpo.study import importance

    made = make_report(results, importance(study, storage), name=study.absolute().name)
    page = write_report(made, study)
    if as_json:
        typer.echo((study / "report.json").read_text(encoding="utf-8").strip())
        return
    typer.echo(f"{page}: {made.verdict}")
