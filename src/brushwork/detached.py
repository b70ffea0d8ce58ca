"""A command that goes on when its terminal is closed: in tmux, on a server of its own.

Of its own, because a tmux server that is there already would give the command the surroundings that it was started
with: other CUDA cards, another Python.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from brushwork.errors import UserError


def start_detached(words: Sequence[str], *, folder: Path) -> str:
    """Start `brushwork WORDS` in tmux; -> what to type to look at it.

    Where the command fails, its last words stay there to be read; where it ends well, the session goes.

    Args:
        folder: what it works in. One command at a time is detached for a folder.

    Raises:
        UserError: there is no tmux, or a command is going on for this folder.
    """
    program = shutil.which("tmux")
    if program is None:
        raise UserError(
            "--detach needs tmux, which is not installed.",
            fix="apt install tmux (or brew install tmux); without it: nohup brushwork ... > terminal.txt 2>&1 &",
        )
    name = session_name(folder)
    server = [program, "-L", name]
    attach = f"tmux -L {name} attach"
    if (alive := _is_alive(server, name)) is True:
        raise UserError(f"a command is going on in tmux for {folder}.", fix=f"{attach}, or brushwork stop {folder}")
    if alive is False:  # what failed there before has been left to be read
        _run([*server, "kill-server"])
    begin = ["new-session", "-d", "-s", name, "-x", "160", "-y", "50", "-c", str(Path.cwd())]
    started = _run(
        [*server, *begin, sys.executable, "-m", "brushwork", *words, ";", "set-option", "remain-on-exit", "failed"]
    )
    if started.returncode != 0:
        raise UserError(f"tmux could not start the command: {started.stderr.strip()}", fix="run it without --detach")
    return attach


def going_on(folder: Path) -> str | None:
    """What to type to look at the command that is going on in tmux for a folder; None where there is none."""
    program, name = shutil.which("tmux"), session_name(folder)
    if program is None or not _is_alive([program, "-L", name], name):
        return None
    return f"tmux -L {name} attach"


def interrupt(folder: Path) -> None:
    """Press Ctrl-C in the command that is going on in tmux for a folder."""
    name = session_name(folder)
    _run([shutil.which("tmux") or "tmux", "-L", name, "send-keys", "-t", name, "C-c"])


def session_name(folder: Path) -> str:
    """A name that tmux takes and that no other folder has."""
    whole = str(folder.absolute())
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", folder.absolute().name)
    return f"brushwork-{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:4]}"


def _is_alive(server: Sequence[str], name: str) -> bool | None:
    """Whether the command of a session is going on; None where there is no session."""
    dead = _run([*server, "list-panes", "-t", name, "-F", "#{pane_dead}"])
    return "0" in dead.stdout.split() if dead.returncode == 0 else None


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)
