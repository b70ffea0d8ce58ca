"""`brushwork demo`: the whole way on drawn pictures and the bundled model, with nothing to download."""

from pathlib import Path
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson, Overrides

NUM_PICTURES = 24
SIZE = 128
STYLE = "flat"
PROMPTS = """\
a red fox with a blue scarf standing in a snowy forest at night, smiling, full body, flat colours
a red fox with a blue scarf waving on a beach at noon, half body, flat colours
a red fox with a blue scarf wearing a red raincoat sleeping in a little town at sunset, full body, flat colours
a red fox with a blue scarf in the mountains in the morning, surprised, portrait, flat colours
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
    draw_folder(pictures, count=NUM_PICTURES, size=SIZE, seed=0, style=STYLE)
    write_text(prompts, PROMPTS)
    given = ["name='fox'", f"sample.prompts={str(prompts)!r}"]
    result = train(pictures, out=out / "run", recipe="tiny", overrides=[*given, *(overrides or [])])
    if not as_json:
        typer.echo(f"{pictures}: {NUM_PICTURES} drawn pictures with captions")
    say(result, as_json=as_json)
