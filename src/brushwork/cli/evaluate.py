"""`brushwork evaluate`: which file of a run is the good one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.overrides import AsJson, Offline, Overrides

if TYPE_CHECKING:
    from brushwork.evaluation.run import Evaluated


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN|FOLDER", help="A run folder, or any folder of LoRAs with --base.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Pictures of the subject that were not trained on. By default those that the run held out.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id. By default the run's."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Prompts, one a line, {trigger} in them. By default Brushwork's own 30."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Pictures of each prompt.")] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(metavar="S", help="Strength to try each file at. May be given several times."),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Also try the running means beside the files.")] = False,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Measure pictures that are already drawn: a folder in it for each file."),
    ] = None,
    training: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What was trained on, where the run does not tell.")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(metavar="WORD", help="What calls the subject. By default the run's.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the pictures. By default what was trained at.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What sees the pictures: a folder of transformers, a hub id, or bundled."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="B", help="Pictures drawn at once.")] = None,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Least memory, not least time.")] = False,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Choose this file yourself, e.g. luca-000008 or luca-000008:0.8; nothing is drawn."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For pictures and report, by default RUN/evaluation.")
    ] = None,
    overrides: Overrides = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Let every file of a run draw the same prompts, measure likeness, variety, style, prompts, quality and copying,
    and name the best, with the reason. The same command goes on where it was stopped.

    Example: brushwork evaluate runs/corgi --references corgi-heldout
    """
    from brushwork.errors import UserError

    if pick is not None:
        if run is None:
            raise UserError("--pick needs the run whose file it is.", fix=f"brushwork evaluate RUN --pick {pick}")
        _pick(run, pick, as_json=as_json)
        return
    from brushwork.evaluation.run import evaluate as evaluate_run

    flags = {
        "evaluation.prompts": None if prompts is None else str(prompts),
        "evaluation.seeds": seeds,
        "evaluation.strengths": strength,
        "evaluation.ema": True if ema else None,
        "evaluation.encoder": encoder,
        "evaluation.batch_size": batch_size,
        "model.offline": True if offline else None,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    result = evaluate_run(
        run,
        references=references,
        base=base,
        training=training,
        trigger=trigger,
        samples=samples,
        size=size,
        out=out,
        low_memory=low_memory,
        overrides=[*given, *(overrides or [])],
    )
    say(result, as_json=as_json)


def _pick(run: Path, name: str, *, as_json: bool) -> None:
    from brushwork.evaluation.best import pick

    chosen = pick(run, name)
    if as_json:
        typer.echo(json.dumps({"picked": chosen.name, "best": str(run / "best.safetensors")}))
        return
    strength = "" if chosen.strength == 1 else f", to be used at strength {chosen.strength:g}"
    typer.echo(f"{run / 'best.safetensors'}: a copy of {chosen.file}{strength}; kept until you pick another")


def say(result: "Evaluated", *, as_json: bool) -> None:
    """Tell which file is named, why, and where the report is."""
    if as_json:
        typer.echo(json.dumps(describe(result)))
        return
    typer.echo(f"take {result.choice.best.candidate.name}" if result.choice.best else "no file is named")
    typer.echo(f"  {result.choice.reason}")
    typer.echo(f"  {result.verdict.text}")
    if result.picked is not None:
        typer.echo(f"  picked by a person, and so the best: {result.picked}")
    for note in result.notes:
        typer.echo(f"  note: {note}")
    if result.best is not None:
        typer.echo(f"  best:   {result.best}")
    typer.echo(f"  report: {result.report}")


def describe(result: "Evaluated") -> dict[str, object]:
    """A result as plain values."""
    best = result.choice.best
    return {
        "folder": str(result.folder),
        "report": str(result.report),
        "best": None if best is None else best.candidate.name,
        "best_file": None if result.best is None else str(result.best),
        "picked": result.picked,
        "reason": result.choice.reason,
        "ties": [each.candidate.name for each in result.choice.ties],
        "verdict": result.verdict.kind,
        "verdict_text": result.verdict.text,
        "overtrained_since_step": result.verdict.since,
        "notes": list(result.notes),
        "num_pictures": result.num_pictures,
    }
