"""`brushwork review`: the page's server, from the first line to the last. It listens on this machine alone."""

import errno
import logging
import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.amounts import number_of
from brushwork.config.schema import DataConfig
from brushwork.data.reviews import review_file
from brushwork.errors import UserError
from brushwork.studio.decisions import Decisions
from brushwork.studio.frames import ReviewSet, read_review_set
from brushwork.studio.gate import Gate, new_token
from brushwork.studio.page import add_page, interface
from brushwork.studio.renderings import Renderings
from brushwork.studio.serving import picture_server

LOOPBACK = "127.0.0.1"
FIRST_PORT = 8720
PORTS_TRIED = 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Reviewed:
    """How a review ended."""

    file: Path
    kept: int
    refused: int
    left: int

    def __str__(self) -> str:
        total = self.kept + self.refused + self.left
        return f"{self.kept} kept, {self.refused} refused, {self.left} left of {total}; written to {self.file}"


def review(
    place: Path,
    *,
    data: DataConfig,
    references: Path | None = None,
    links: bool = False,
    port: int | None = None,
    opens: bool = True,
    say: Say,
) -> Reviewed:
    """Serve the page until Ctrl-C.

    Args:
        references: approved pictures, to compare with.
        links: show files outside the set where a link in it leads to them.
        port: by default the first free one from 8720 on.
        opens: whether a browser is opened.
        say: prints a line.

    Raises:
        UserError: NiceGUI is not installed, the port is taken, or the set cannot be read.
    """
    interface()
    import uvicorn  # comes with NiceGUI

    say(f"reading {place}")
    reviewed = read_review_set(place, data=data, references=references, links=links)
    decisions = Decisions(reviewed)
    listener = _listener(port)
    with listener:
        address = _address(listener, token := new_token())
        server = picture_server(reviewed, Renderings(max_pixels=data.max_pixels))
        add_page(server, decisions, run=secrets.token_hex(4))
        gate = Gate(server, token=token, port=listener.getsockname()[1])
        for note in reviewed.notes:
            say(f"note: {note}")
        say(f"{_count(reviewed)} in {reviewed.root}: {decisions.summary()}")
        say(f"  open {address}")
        say("  end with Ctrl-C; every decision is saved when you see it")
        running = uvicorn.Server(
            uvicorn.Config(gate, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="on")
        )
        if opens:
            threading.Thread(target=_open, args=(running, address, say), daemon=True).start()
        _serve(running, listener)
    kept, refused = decisions.counts["keep"], decisions.counts["refuse"]
    return Reviewed(review_file(reviewed.root), kept, refused, decisions.total - kept - refused)


def _listener(port: int | None) -> socket.socket:
    """A socket that listens on this machine alone."""
    tried = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS_TRIED), 0]
    for number in tried:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # a port that was just left is free; on Windows this would take one that is in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, number))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise UserError(
                f"--port {number} cannot be listened on: {error.strerror}.", fix="leave --port out, or --port 8720"
            ) from error
    raise UserError(
        f"--port {port} is taken by another program, maybe by another review.",
        fix="leave --port out, and a free one is taken",
    )


def _address(listener: socket.socket, token: str) -> str:
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}/?token={token}"


def _count(reviewed: ReviewSet) -> str:
    beside = f", {number_of(len(reviewed.references), 'reference')}" if reviewed.references else ""
    return number_of(len(reviewed.frames), "picture") + beside


def _open(server: Any, address: str, say: Say) -> None:
    """Open a browser once the server answers."""
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    port = address.split(":")[2].split("/")[0]
    if not (_has_screen() and _shown(address)):
        say("  no browser could be opened here: open the address above yourself. From another machine, first")
        say(f"  ssh -L {port}:{LOOPBACK}:{port} THIS-MACHINE")


def _has_screen() -> bool:
    """Whether a browser would have a window; without a screen, Python may start one that takes over the terminal."""
    wanted = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in wanted)


def _shown(address: str) -> bool:
    try:
        return webbrowser.get().open(address)
    except webbrowser.Error:
        return False


def _serve(server: Any, listener: socket.socket) -> None:
    """Until Ctrl-C or a kill that asks."""
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # windows that are open when it ends are not an error
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
