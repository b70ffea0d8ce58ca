"""`brushwork curate`: a folder of raw frames becomes a clean set, with a reason for every frame."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Offline, Overrides


def curate(
    frames: Annotated[Path, typer.Argument(metavar="FRAMES", help="The folder of raw frames, which is only read.")],
    references: Annotated[Path, typer.Option(metavar="DIR", help="Pictures that show the subject; 30 are good.")],
    out: Annotated[Path, typer.Option(metavar="SET", help="The folder to write, which is not there yet.")],
    others: Annotated[
        Path | None,
        typer.Option("--not", metavar="DIR", help="Counter-examples: others that the subject is mixed up with."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="Of what passes, so many that together show the most.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="A folder of CLIP, SigLIP or DINOv2, a hub id, or bundled.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A DETR or YOLOS, which tells how much of whom is seen."),
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=SHARE", help='Of those that --keep chooses: "a portrait=0.3". Several times.'),
    ] = None,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Keep the frames that show the subject and are good, one of those that are nearly the same, and say of every
    other why not. Nothing is deleted or moved: SET gets links, curation.jsonl and report.html.

    Example: brushwork curate frames --references mia --not others --out set --keep 400

    Example: brushwork curate frames --references mia --out set --keep 400 --quota "a portrait=0.3"

    Example: brushwork curate frames --references mia --out set --detector hustvl/yolos-small
    """
    from brushwork.curation.run import curate as run

    changed = [*(overrides or [])]
    changed += [] if keep is None else [f"curation.keep={keep}"]
    changed += [] if encoder is None else [f"curation.encoder={json.dumps(encoder)}"]
    changed += [] if detector is None else [f"curation.detector={json.dumps(detector)}"]
    changed += [f"curation.quotas={json.dumps(quota)}"] if quota else []
    done = run(frames, references=references, others=others, out=out, overrides=changed, offline=offline)
    if as_json:
        typer.echo(json.dumps(done.record()))
        return
    for note in done.found.notes:
        typer.echo(f"note: {note}")
    for code, count in done.found.counts().items():
        typer.echo(f"  {count:6} {code}")
    typer.echo(f"{out}: {done.num_kept} of {len(done.found.measured)} frames")
    typer.echo(f"  look at it: {out / 'report.html'}")
    typer.echo(f"  go on: brushwork review {out}")
