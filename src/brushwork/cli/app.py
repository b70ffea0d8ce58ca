"""The command `brushwork`: which commands there are. Each lives in a file of its own.

Nothing heavy is imported here or at the top of a command's file, so that `brushwork --help` answers at once.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from typing import Annotated

import typer

import brushwork
from brushwork.cli.buckets import buckets
from brushwork.cli.cache import cache
from brushwork.cli.caption import caption
from brushwork.cli.captions import captions
from brushwork.cli.compare import compare
from brushwork.cli.convert import convert
from brushwork.cli.curate import curate
from brushwork.cli.demo import demo
from brushwork.cli.doctor import doctor
from brushwork.cli.download import download
from brushwork.cli.errors import DEBUG_VARIABLE, exit_code
from brushwork.cli.evaluate import evaluate
from brushwork.cli.extract import extract
from brushwork.cli.generate import generate
from brushwork.cli.inspect import inspect
from brushwork.cli.merge import merge
from brushwork.cli.migrate import migrate
from brushwork.cli.monitor import monitor
from brushwork.cli.plan import plan
from brushwork.cli.prepare import prepare
from brushwork.cli.queue import queue
from brushwork.cli.recipes import recipes
from brushwork.cli.report import report
from brushwork.cli.resume import resume
from brushwork.cli.review import review
from brushwork.cli.search import search
from brushwork.cli.steer import sample, save, stop
from brushwork.cli.train import train

app = typer.Typer(
    name="brushwork",
    help="Teach Stable Diffusion a style or a character, from a folder of pictures to a LoRA.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # `--batch_size` is taken for `--batch-size`: other trainers write underscores.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)

app.command()(demo)
app.command()(train)
app.command()(plan)
app.command()(resume)
app.command()(queue)
app.command()(monitor)
app.command()(stop)
app.command()(save)
app.command()(sample)
app.command()(generate)
app.command()(evaluate)
app.command()(compare)
app.command()(search)
app.command()(report)
app.command()(inspect)
app.command()(extract)
app.command()(convert)
app.command()(merge)
app.command()(curate)
app.command()(review)
app.command()(prepare)
app.command()(buckets)
app.command()(migrate)
app.command()(caption)
app.command()(captions)
app.add_typer(cache, name="cache")
app.command()(download)
app.command()(recipes)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"brushwork {brushwork.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # Threads that wait in a busy loop starve one another as soon as another program wants a core: with one beside it
    # on two cores, `brushwork demo` had made a single step after five minutes. Sleeping, it takes half a minute.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Where bitsandbytes is installed, every import of it by others tells what would speed up 4-bit weights.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get(DEBUG_VARIABLE))
    words = [word for word in words if word != "--debug"]
    named = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]
    usage = f"brushwork {words[0]} --help" if words and words[0] in named else "brushwork --help"
    run = partial(app, words, prog_name="brushwork", standalone_mode=False, obj=words)
    with nullcontext() if _speaks() else redirect_stdout(StringIO()):
        code = exit_code(run, debug=debug, usage=usage)
    sys.exit(code)


def _speaks() -> bool:
    """Whether results are printed here: of the processes that torchrun started, the first speaks for all."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
