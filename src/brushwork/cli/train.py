"""`brushwork train`: a folder of pictures and captions goes in, a LoRA comes out."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brushwork.cli.choices import StopWhen
from brushwork.cli.overrides import DATA_HELP, AsJson, Detach, Offline, Overrides, RecipeName, RunFiles

if TYPE_CHECKING:
    from brushwork.training.run import RunResult

AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Go on with a run although its settings, data or base have changed."),
]


def train(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help=f"{DATA_HELP} A file of kohya's may name it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder, by default runs/NAME. Name an old one to go on with it.")
    ] = None,
    recipe: RecipeName = None,
    config: RunFiles = None,
    base: Annotated[
        str | None, typer.Option(help="bundled, a diffusers folder, a .safetensors file, or a hub id.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Another VAE than the base's own.")] = None,
    name: Annotated[str | None, typer.Option(help="Begins the names of the files.")] = None,
    validation: Annotated[
        str | None, typer.Option(metavar="SHARE|DIR", help="Held-out pictures to measure on: 0.1, or a folder.")
    ] = None,
    sample_prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw these prompts during the run, one a line.")
    ] = None,
    sample_every: Annotated[int | None, typer.Option(metavar="EPOCHS", help="How often to draw them.")] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(metavar="EPOCHS", help="Let the files draw, and say which is the best so far; see evaluate."),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="For that: pictures not trained on. By default those that are held out."),
    ] = None,
    stop_when: Annotated[
        list[StopWhen] | None,
        typer.Option(help="End the run early when a validation or an evaluation says so. May be given twice."),
    ] = None,
    overrides: Overrides = None,
    accept_changes: AcceptChanges = False,
    wait_for_captions: Annotated[
        bool, typer.Option("--wait-for-captions", help="Begin only when every picture has its caption.")
    ] = False,
    detach: Detach = False,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA on a folder of pictures and captions.

    Ctrl-C finishes the step and saves; the same command goes on from there.

    Example: brushwork train photos --base sdxl.safetensors --recipe sdxl-standard --name corgi
    """
    from brushwork.cli.evaluating import evaluator
    from brushwork.training.asked import settle
    from brushwork.training.run import train as run

    flags = {
        "model.base": base,
        "model.vae": vae,
        "name": name,
        "validation.data": validation,
        "sample.prompts": sample_prompts,
        "sample.every_epochs": sample_every,
        "evaluation.every_epochs": evaluate_every,
        "evaluation.references": references,
        "train.stop_when": [each.value for each in stop_when] if stop_when else None,
        "model.offline": True if offline else None,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    given += overrides or []
    if detach:
        settled = settle(data, out=out, recipe=recipe, files=config or [], overrides=given)
        settled.refuse_missing_pictures()
        say_detached(context.obj, settled.folder.path)
        return
    result = run(
        data,
        out=out,
        recipe=recipe,
        files=config or [],
        overrides=given,
        accept_changes=accept_changes,
        wait=wait_for_captions,
        evaluate=evaluator(),
    )
    say(result, as_json=as_json)


def say_detached(words: list[str], folder: Path) -> None:
    """Start the same command without `--detach` in tmux, and tell how to watch it."""
    from brushwork.detached import start_detached

    attach = start_detached([word for word in words if word != "--detach"], folder=folder)
    typer.echo(f"{folder} trains in tmux")
    typer.echo(f"  watch: brushwork monitor {folder}, or {attach} (leave with Ctrl-B D)")
    typer.echo(f"  stop:  brushwork stop {folder}")


def say(result: "RunResult", *, as_json: bool) -> None:
    """Tell what a run made and where, or how to go on with it."""
    if as_json:
        typer.echo(json.dumps(describe(result)))
        return
    if result.adapter is None:
        typer.echo(f"stopped at step {result.step} of {result.total_steps}; everything is saved")
        typer.echo(f"  go on: brushwork resume {result.folder}")
        return
    early = "" if result.ended is None else f" of {result.total_steps}, ended early: {result.ended}"
    typer.echo(f"{result.adapter}: {result.step} steps{early}, loss {result.smoothed_loss:.4f}")
    typer.echo(f"  curve: {result.curve}")
    if result.samples is not None:
        typer.echo(f"  pictures: {result.samples}")
    if (what := next_command(result)) is not None:
        typer.echo(f"  next: {what}")


def next_command(result: "RunResult") -> str | None:
    """What finds out which file of a run that has ended is the good one; None where its pictures were judged."""
    from brushwork.evaluation.during import judged_files
    from brushwork.evaluation.subjects import FEWEST

    if result.mode == "full":  # whole bases, which nothing compares
        return f"brushwork generate --base {result.adapter} --prompt TEXT --out DIR"
    if judged_files(result.folder):
        return None
    if result.num_held_out >= FEWEST:
        return f"brushwork evaluate {result.folder}, to find the best of its files"
    return f"brushwork evaluate {result.folder} --references DIR, with pictures of it that were not trained on"


def describe(result: "RunResult") -> dict[str, object]:
    """A result as plain values."""
    return {
        "run": str(result.folder),
        "finished": result.finished,
        "ended": result.ended,
        "step": result.step,
        "total_steps": result.total_steps,
        "smoothed_loss": result.smoothed_loss if math.isfinite(result.smoothed_loss) else None,
        "adapter": None if result.adapter is None else str(result.adapter),
        "curve": str(result.curve) if result.curve.exists() else None,
        "samples": None if result.samples is None else str(result.samples),
    }
