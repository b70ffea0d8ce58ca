"""`brushwork demo`: the whole way on drawn pictures and the bundled model, with nothing to download."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Overrides

NUM_PICTURES = 24
SIZE = 128
PROMPTS = """\
a red fox with a blue scarf stands in a snowy forest at night, smiling, full body
a red fox with a blue scarf waves on a beach at noon, half body
a red fox with a blue scarf sleeps in the mountains at sunset, full body
a red fox with a blue scarf in a little town in the morning, surprised, close-up
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the run.")] = Path("runs/demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Draw 24 pictures of a fox, train a LoRA on them with the bundled tiny model, and show what came of it.

    Takes a minute or two on two cores. The same command goes on where it was stopped.

    Example: brushwork demo --out runs/demo
    """
    from brushwork.atomic import write_text
    from brushwork.cli.train import say
    from brushwork.film.frames import draw_folder
    from brushwork.training.run import train

    pictures, prompts = out / "pictures", out / "prompts.txt"
    draw_folder(pictures, count=NUM_PICTURES, size=SIZE, seed=0)
    write_text(prompts, PROMPTS)
    given = ["name='fox'", f"sample.prompts={str(prompts)!r}"]
    result = train(pictures, out=out / "run", recipe="tiny", overrides=[*given, *(overrides or [])])
    if not as_json:
        typer.echo(f"{pictures}: {NUM_PICTURES} drawn pictures with captions")
    say(result, as_json=as_json)
