"""Several runs, one after another, each in a process of its own: what fails takes none of the others with it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from brushwork.errors import UserError
from brushwork.training.asked import Asked, settle

Ending = Literal["finished", "stopped", "failed", "not begun"]


@dataclass(frozen=True)
class Entry:
    """A file of the queue, and how its run ended."""

    file: Path
    run: Path
    ending: Ending
    told: dict[str, Any] | None = None
    """What `brushwork train --json` said."""

    def line(self) -> str:
        """For the summary."""
        if self.told is None:
            more = {"failed": f"; the reason stands above, and in {self.run / 'log.txt'}"}.get(self.ending, "")
            return f"{self.ending:9}  {self.file}{more}"
        steps = f"step {self.told['step']} of {self.told['total_steps']}"
        where = self.told["adapter"] or f"go on: brushwork resume {self.run}"
        return f"{self.ending:9}  {self.file}: {steps}, {where}"


def run_queue(files: Sequence[Path], *, recipe: str | None = None) -> list[Entry]:
    """Train what each file says. All files are read before the first run begins.

    A Ctrl-C stops the run that is going on, with everything saved, and leaves those after it.

    Raises:
        UserError: a file that no run can begin from, or two with the same run folder.
    """
    asked = [_settled(file, recipe) for file in files]
    _refuse_the_same_folder(files, asked)
    entries: list[Entry] = []
    with _passing_on() as children:
        for number, (file, settled) in enumerate(zip(files, asked, strict=True), start=1):
            if children.interrupted:
                entries.append(Entry(file, settled.folder.path, "not begun"))
                continue
            print(f"\n{number} of {len(files)}: {file}", file=sys.stderr, flush=True)  # noqa: T201
            entries.append(_trained(file, settled, recipe, children))
    return entries


def _settled(file: Path, recipe: str | None) -> Asked:
    try:
        settled = settle(files=[file], recipe=recipe)
        settled.refuse_missing_pictures()
    except UserError as error:
        raise UserError(f"{file}: {error.problem}", fix=error.fix) from error
    return settled


def _refuse_the_same_folder(files: Sequence[Path], asked: Sequence[Asked]) -> None:
    first: dict[Path, Path] = {}
    for file, settled in zip(files, asked, strict=True):
        place = settled.folder.path.absolute()
        if place in first:
            raise UserError(
                f"{first[place]} and {file} both train into {settled.folder.path}.",
                fix=f'give each a name of its own: name = "{file.stem}"',
            )
        first[place] = file


class _Children:
    """The process that runs now, and whether the user wants an end."""

    def __init__(self) -> None:
        self.running: subprocess.Popen[str] | None = None
        self.interrupted = False
        self._to_pass_on = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A terminal sends Ctrl-C to the child as well; a SIGTERM comes here alone and is passed on."""
        self.interrupted = True
        self._to_pass_on = number == signal.SIGTERM
        self.pass_on()

    def pass_on(self) -> None:
        """Once, for a second one would end the run without saving; the first may come while it is being started."""
        if self._to_pass_on and self.running is not None:
            self._to_pass_on = False
            self.running.terminate()


@contextmanager
def _passing_on() -> Iterator[_Children]:
    children = _Children()
    before = {number: signal.signal(number, children.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trained(file: Path, settled: Asked, recipe: str | None, children: _Children) -> Entry:
    words = ["train", "--config", str(file), "--json", *(["--recipe", recipe] if recipe else [])]
    children.running = subprocess.Popen(
        [sys.executable, "-m", "brushwork", *words], stdout=subprocess.PIPE, text=True
    )
    children.pass_on()
    said, _ = children.running.communicate()
    code, children.running = children.running.returncode, None
    if code != 0:
        return Entry(file, settled.folder.path, "failed")
    told = json.loads(said.splitlines()[-1])
    return Entry(file, settled.folder.path, "finished" if told["finished"] else "stopped", told)
