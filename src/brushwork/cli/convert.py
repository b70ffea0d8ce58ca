"""`brushwork convert`: the same LoRA in another program's layout."""

import json
from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.choices import Layout, Precision
from brushwork.cli.outputs import new_adapter_file
from brushwork.cli.overrides import AsJson


def convert(
    lora: Annotated[Path, typer.Argument(metavar="LORA", help="A LoRA file of any layout.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    to: Annotated[Layout, typer.Option("--to", help="kohya is read by ComfyUI, A1111 and diffusers.")],
    precision: Annotated[Precision | None, typer.Option(help="Type of the numbers; by default the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a LoRA in another layout: for ComfyUI and A1111, for diffusers, or for PEFT.

    Example: brushwork convert corgi.safetensors corgi-diffusers.safetensors --to diffusers
    """
    from brushwork.lora.files import convert_adapter
    from brushwork.runtime import PRECISIONS

    dtype = None if precision is None else PRECISIONS[precision.value]
    read = convert_adapter(lora, new_adapter_file(out), layout=to.value, dtype=dtype)
    if as_json:
        made = {
            "out": str(out),
            "from": read.layout,
            "to": to.value,
            "family": read.family,
            "modules": len(read.state),
        }
        typer.echo(json.dumps(made))
        return
    typer.echo(f"{out}: {len(read.state)} modules for {read.family}, {read.layout} -> {to.value}")
