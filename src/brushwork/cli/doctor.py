"""`brushwork doctor`: is this machine fit, and what would make it so."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Ask the hub whether it answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at this machine: card, precision, memory, disk, packages, and which recipe suits.

    Exits with 1 where something stands in the way of training.

    Example: brushwork doctor --online
    """
    from dataclasses import asdict

    from brushwork.machine import examine

    findings = []
    for finding in examine(online=online):
        findings.append(finding)
        if as_json:
            continue
        advice = f"  ->  {finding.fix}" if finding.fix else ""
        typer.echo(f"{finding.verdict:9}{finding.about:17}{finding.found}{advice}")
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(1)
