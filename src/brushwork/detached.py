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
    dead = _run([*server, "list-panes", "-t", name, "-F", "#{pane_dead}"])
    if dead.returncode == 0 and "0" in dead.stdout.split():
        raise UserError(f"a command is going on in tmux for {folder}.", fix=f"{attach}, or brushwork stop {folder}")
    if dead.returncode == 0:  # what failed there before has been left to be read
        _run([*server, "kill-server"])
    begin = ["new-session", "-d", "-s", name, "-x", "160", "-y", "50", "-c", str(Path.cwd())]
    started = _run(
        [*server, *begin, sys.executable, "-m", "brushwork", *words, ";", "set-option", "remain-on-exit", "failed"]
    )
    if started.returncode != 0:
        raise UserError(f"tmux could not start the command: {started.stderr.strip()}", fix="run it without --detach")
    return attach


def session_name(folder: Path) -> str:
    """A name that tmux takes and that no other folder has."""
    whole = str(folder.absolute())
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", folder.absolute().name)
    return f"brushwork-{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:4]}"


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)
