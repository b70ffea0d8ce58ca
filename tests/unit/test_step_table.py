"""The table that goes by while a run trains."""

from io import StringIO

from rich.console import Console

from brushwork.training.step_table import StepTable


def printed(steps: range, *, every: int | None, total: int, measured: tuple[int, ...] = ()) -> list[str]:
    page = StringIO()
    table = StepTable(Console(file=page, width=80), every=every, total=total)
    for step in steps:
        row = {
            "step": step, "smoothed_loss": 0.12345, "learning_rate": 1e-4, "images_per_second": 1.5,
            "data_wait": 0.25, "memory_gib": 7.52,
        }  # fmt: skip
        table.add(row | ({"held_out_loss": 0.11} if step in measured else {}))
    return page.getvalue().splitlines()


def test_the_table_has_step_loss_rate_and_memory_under_their_headings() -> None:
    headings, row = printed(range(10, 11), every=10, total=100)

    assert headings.split() == ["step", "loss", "held", "out", "rate", "images/s", "wait", "memory"]
    assert row.split() == ["10", "0.1235", "1.00e-04", "1.50", "25%", "7.5", "GiB"]
    assert len(headings) == len(row) <= 80


def test_a_row_comes_every_so_many_steps_at_validations_and_at_the_end() -> None:
    lines = printed(range(1, 26), every=10, total=25, measured=(7,))
    assert [line.split()[0] for line in lines[1:]] == ["7", "10", "20", "25"]


def test_unset_makes_about_twenty_rows_of_any_run() -> None:
    assert len(printed(range(1, 2001), every=None, total=2000)) == 1 + 20
    assert len(printed(range(1, 6), every=None, total=5)) == 1 + 5
