"""Ctrl-C, SIGTERM and `brushwork stop` end a run after its step, with everything saved; a second Ctrl-C ends it at
once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


class Interruption:
    """Whether the user has asked the run to stop."""

    def __init__(self) -> None:
        self._noted = False
        self._file: Path | None = None

    @property
    def requested(self) -> bool:
        """Asked by a signal, or by the file that is watched: that one is taken away as it is noted."""
        if not self._noted and self._file is not None and self._file.exists():
            self._file.unlink(missing_ok=True)
            self._note()
        return self._noted

    def watch(self, file: Path) -> None:
        """From now on this file, once it is there, is a request too."""
        self._file = file

    def request(self, signal_number: int, frame: FrameType | None) -> None:
        """Note the first request and say so; a second one raises KeyboardInterrupt where the program stands."""
        if self._noted:
            raise KeyboardInterrupt
        self._note()

    def _note(self) -> None:
        self._noted = True
        _say("stopping as soon as this step is done and saved; Ctrl-C again stops at once")


def _say(text: str) -> None:
    """Straight to the error stream: the signal may have come in the middle of a print, which allows no other."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


@contextmanager
def listening() -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM while the block runs. Outside the main thread nothing can be caught, and is not."""
    interruption = Interruption()
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
