"""What a person sees of a run: the table before the start, a line for a step, a log file."""

import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from brushwork.amounts import bytes_in_words
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.records import Row

logger = logging.getLogger("brushwork")


def as_text(table: Table) -> str:
    """A table as lines of plain text, for the log."""
    page = Console(file=StringIO(), width=160, no_color=True)
    with page.capture() as captured:
        page.print(table, highlight=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def shortened(text: str, *, most: int = 100) -> str:
    """A text that may be of any length, in a line or two."""
    return text if len(text) <= most else f"{text[:most].rstrip()} ... ({len(text)} characters)"


def check_disk(folder: Path, needed: int, *, fix: str) -> str:
    """How much of the free disk a run takes, in words.

    Args:
        fix: what to do where it does not fit.

    Raises:
        UserError: it does not fit.
    """
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"the run would write {bytes_in_words(needed)} below {folder}, and "
            f"{bytes_in_words(free)} are free there.",
            fix=fix,
        )
    return f"{bytes_in_words(needed)} of {bytes_in_words(free)} free"


def plan_table(title: str, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> Table:
    """The plan of a run: sections of lines, each a name and a value.

    Values are shown as they are: captions and folders may hold the square brackets of rich's markup.
    """
    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for number, (heading, lines) in enumerate(sections):
        if number:
            table.add_row()
        for position, (name, value) in enumerate(lines):
            table.add_row(heading if position == 0 else "", name, Text(value))
    return table


@contextmanager
def logged(console: Console, log_file: Path, group: Group) -> Iterator[None]:
    """Send the program's messages to the screen, and with every step to the end of `log_file`; of several processes,
    those of the first."""
    if not group.is_first:
        silence = logging.NullHandler()
        logger.addHandler(silence)
        try:
            yield
        finally:
            logger.removeHandler(silence)
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log_file, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    to_screen = RichHandler(logging.INFO, console=console, show_time=False, show_path=False, markup=False)
    previous = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in (to_file, to_screen):
        logger.addHandler(handler)
    try:
        yield
    except UserError as error:
        to_file.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (error,), None))
        raise
    finally:
        logger.setLevel(previous)
        for handler in (to_file, to_screen):
            logger.removeHandler(handler)
            handler.close()


def tell_verdict(row: Row) -> None:
    """What a validation measured and what it says; said aloud where it measured, or where something is to be done."""
    measured = [
        f"{name} {row[key]:.4f}"
        for key, name in (("held_out_loss", "held out"), ("train_part_loss", "training part"))
        if row.get(key) is not None
    ]
    aloud = bool(measured) or not row["verdict"].startswith("still learning")
    told = ", ".join([*measured, row["verdict"]])
    logger.log(logging.INFO if aloud else logging.DEBUG, "step %d: %s", row["step"], told)


def tell_once(problems: Mapping[str, str], told: set[str]) -> None:
    """Warn of each kind of problem the first time that it is seen."""
    for kind, words in problems.items():
        if kind not in told:
            told.add(kind)
            logger.warning("%s", words)


def step_note(row: Row) -> str:
    """A step in one line: loss, learning rate, pictures a second, memory."""
    parts = [
        f"loss {row['smoothed_loss']:.4f}",
        f"lr {row['learning_rate']:.2e}",
        f"{row['images_per_second']:.2f} images/s",
        f"{row['memory_gib']:.1f} GiB",
    ]
    if row.get("memory_reserved_gib") is not None:
        parts[-1] += f" at most, {row['memory_reserved_gib']:.1f} held"
    if row.get("held_out_loss") is not None and math.isfinite(row["held_out_loss"]):
        parts.append(f"held out {row['held_out_loss']:.4f}")
    if row["skipped_updates"]:
        parts.append(f"{row['skipped_updates']} skipped")
    if row["data_wait"] > 0.2:
        parts.append(f"waiting for data {row['data_wait']:.0%}")
    return ", ".join(parts)
