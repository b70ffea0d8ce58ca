"""`brushwork extract`: a file of weights alone from the state of a run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.choices import Layout, Precision
from brushwork.cli.outputs import new_adapter_file
from brushwork.cli.overrides import AsJson


def extract(
    state: Annotated[Path, typer.Argument(metavar="STATE", help="A run folder, or its state/state.safetensors.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    layout: Annotated[Layout, typer.Option(help="kohya is read by ComfyUI, A1111 and diffusers.")] = Layout.KOHYA,
    precision: Annotated[Precision, typer.Option(help="Type of the numbers.")] = Precision.FP16,
    ema: Annotated[
        bool, typer.Option("--ema", help="The running mean of the weights, where the run keeps one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the LoRA that is in the state of a run, at the step where it stands.

    Example: brushwork extract runs/corgi corgi-now.safetensors
    """
    from brushwork.training.extract import extract as run

    result = run(state, new_adapter_file(out), layout=layout.value, precision=precision.value, ema=ema)
    if as_json:
        typer.echo(json.dumps(result.record()))
        return
    typer.echo(f"{result.out}: {result.num_modules} modules as of step {result.step}")
