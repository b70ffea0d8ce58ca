"""The bar that a person sees: what it says in a narrow terminal, and where there is none."""

import re
from io import StringIO

import pytest
from rich.console import Console

from brushwork.progress import progress_bar

NOTE = "loss 1.3092, lr 5.45e-06, 5.96 images/s, 0.5 GiB, held out 1.2345"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_count_and_the_time_left_are_seen_however_narrow_the_terminal_is(width: int) -> None:
    page = StringIO()
    console = Console(file=page, force_terminal=True, width=width, color_system=None)

    with progress_bar(console, "encoding pictures", 1000) as advance:
        advance(123, 1000, NOTE)

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", page.getvalue())
    line = next(line for line in reversed(shown.splitlines()) if "encoding pictures" in line)
    assert re.search(r"encoding pictures \S+ +123/1000 0:00:0\d left \S*:", line), line
    assert "loss 1.3092, lr 5.45e-06" in shown


def test_without_a_terminal_there_are_about_ten_lines() -> None:
    page = StringIO()

    with progress_bar(Console(file=page, width=40), "training", 200) as advance:
        for done in [*range(0, 200, 3), 200, 200]:
            advance(done, 200, NOTE)

    lines = page.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"training 200/200 {NOTE}"
