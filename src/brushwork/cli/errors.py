"""How a command ends: what is printed about an error, and the exit code.

0 done, 1 failed, 2 misused, 130 interrupted.
"""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import typer

from brushwork.errors import UserError

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
UNREACHABLE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE}

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
DEBUG_VARIABLE = "BRUSHWORK_DEBUG"


def exit_code(command: Callable[[], Any], *, debug: bool, usage: str = "brushwork --help") -> int:
    """Run a command to its end, say on stderr what went wrong, and give the code to exit with.

    Args:
        usage: what to type after a misuse, where the error does not know its command.
    """
    try:
        code = command()
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserError as error:
        if debug:
            traceback.print_exc()
        show_error(error.problem, fix=error.fix)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        show_error("interrupted; what was saved before is unharmed.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `brushwork recipes | head`. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        told = _system_problem(error)
        if told is None:
            _show_unexpected(error, debug=debug)
            return FAILED
        if debug:
            traceback.print_exc()
        show_error(told[0], fix=told[1])
        return FAILED
    except Exception as error:
        if _is_misuse(error):
            show_error(error.format_message(), fix=_usage(error) or usage)  # type: ignore[attr-defined]
            return MISUSED
        _show_unexpected(error, debug=debug)
        return FAILED


def show_error(problem: str, *, fix: str | None = None) -> None:
    """Print the problem, and below it what to type."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    first, *rest = problem.splitlines() or [""]
    console.print(Text("error: ", style="bold red") + Text(first, style="default"))
    for line in rest:
        console.print(Text(f"  {line}"))
    if fix is not None:
        console.print(Text("  fix: ", style="bold green") + Text(fix.replace("\n", "\n       "), style="default"))


def _is_misuse(error: Exception) -> bool:
    # Newer versions of typer bring their own copy of click. Both have this method; neither class is public.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage(error: Exception) -> str | None:
    context = getattr(error, "ctx", None)
    return None if context is None else f"{context.command_path} --help"


def _system_problem(error: OSError) -> tuple[str, str] | None:
    """What is wrong with a file or the disk, and what to do; None where it does not look like the user's affair."""
    reason = os.strerror(error.errno) if error.errno else ""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if error.errno in NO_ROOM:
        return (
            f"{where}{reason}.",
            "make room there, then give the same command again: it goes on from what is saved",
        )
    if not where:
        return None
    if error.errno in FORBIDDEN:
        return f"{where}{reason}.", "choose another place, or change who may read and write there"
    if error.errno in UNREACHABLE:
        return f"{where}{reason}.", "look whether the place is spelled right and its disk is there"
    return None


def _show_unexpected(error: Exception, *, debug: bool) -> None:
    """An error that is ours, not the user's: a short line, and the traceback in a file."""
    problem = f"{type(error).__name__}: {error}"
    if debug:
        traceback.print_exc()
        show_error(problem)
        return
    with tempfile.NamedTemporaryFile("w", prefix="brushwork-error-", suffix=".txt", delete=False) as file:
        traceback.print_exc(file=file)
    show_error(
        f"{problem}\nThis is a fault of Brushwork or of a library that it uses. The traceback is in {file.name}",
        fix="run the same with --debug to see it here, and report it",
    )
