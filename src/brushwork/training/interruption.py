"""Ctrl-C, SIGTERM and `brushwork stop` end a run after its step, with everything saved; a second Ctrl-C ends it at
once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from brushwork.distributed import Group, current

ECHO = 10.0
"""Seconds within which a second signal is the first one's echo: to each of several processes, the queue sends it and
torchrun too."""


class Interruption:
    """Whether the user has asked the run to stop.

    Args:
        group: the processes that are asked together; the first one answers.
    """

    def __init__(self, group: Group | None = None) -> None:
        self._noted = False
        self._noted_at = 0.0
        self._file: Path | None = None
        self._group = group or Group()

    @property
    def requested(self) -> bool:
        """Asked by a signal, or by the file that is watched: that one is taken away as it is noted."""
        if not self._noted and self._file is not None and self._file.exists():
            self._file.unlink(missing_ok=True)
            self._note()
        return self._noted

    def watch(self, file: Path) -> None:
        """From now on this file, once it is there, is a request too; of several processes the first one looks."""
        if self._group.is_first:
            self._file = file

    def agree(self) -> None:
        """Another process was asked."""
        if not self._noted:
            self._note()

    def request(self, signal_number: int, frame: FrameType | None) -> None:
        """Note the first request and say so; a second one raises KeyboardInterrupt where the program stands."""
        if not self._noted:
            self._note()
        elif self._group.size == 1 or time.monotonic() - self._noted_at > ECHO:
            raise KeyboardInterrupt

    def _note(self) -> None:
        self._noted, self._noted_at = True, time.monotonic()
        if self._group.is_first:
            _say("stopping as soon as this step is done and saved; Ctrl-C again stops at once")


def _say(text: str) -> None:
    """Straight to the error stream: the signal may have come in the middle of a print, which allows no other."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


@contextmanager
def listening() -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM while the block runs. Outside the main thread nothing can be caught, and is not."""
    interruption = Interruption(current())
    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interruption.request)
    except ValueError:  # Python lets only the main thread set handlers
        pass
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
