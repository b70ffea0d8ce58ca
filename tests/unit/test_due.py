"""When something happens in a run: each interval as it is set, everything at the end, and nothing in between."""

import pytest

from brushwork.config.load import resolve
from brushwork.training.batches import Budget
from brushwork.training.due import Due, due_after
from brushwork.training.space import count_files

NOTHING = ("save.every_epochs=off", "validation.every_epochs=off", "sample.every_epochs=off")
BUDGET = Budget(
    sizes=((64, 64),) * 4, repeats=(1,) * 4, batch_size=1, accumulation=1, epochs=3, max_steps=None, seed=0
)


def due(
    done: int,
    *overrides: str,
    evaluates: bool = False,
    requests: frozenset[str] = frozenset(),
    save_state: bool = False,
) -> Due:
    """After so many steps of a run of 3 epochs with 4 steps each."""
    settings = resolve(overrides=[*NOTHING, *overrides]).settings
    return due_after(done, settings, BUDGET, evaluates=evaluates, requests=requests, save_state=save_state)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["save.every_epochs=1"], {4: Due(epoch_file=1, state=True), 8: Due(epoch_file=2, state=True)}),
        (["save.every_epochs=2"], {8: Due(epoch_file=2, state=True)}),
        (["save.every_steps=5"], {5: Due(step_file=5, state=True), 10: Due(step_file=10, state=True)}),
        (["validation.every_epochs=1"], {4: Due(validate=True), 8: Due(validate=True)}),
        (["validation.every_steps=7"], {7: Due(validate=True)}),
        (["sample.prompts=p.txt", "sample.every_epochs=2"], {8: Due(sample=True)}),
        (["sample.prompts=p.txt", "sample.every_steps=6"], {6: Due(sample=True)}),
        (["sample.every_steps=6"], {}),
        (["evaluation.every_epochs=1"], {}),
    ],
)
def test_each_interval_is_kept_and_nothing_else_happens(overrides: list[str], expected: dict[int, Due]) -> None:
    found = {done: due(done, *overrides) for done in range(1, 12)}

    assert {done: each for done, each in found.items() if each != Due()} == expected


def test_the_end_writes_one_last_file_measures_and_draws_whatever_the_intervals() -> None:
    assert due(12) == Due(final_file=True, state=True, validate=True)
    everything = due(12, "save.every_epochs=1", "save.every_steps=1", "sample.prompts=p.txt")
    assert everything == Due(final_file=True, state=True, validate=True, sample=True)


def test_another_terminal_may_ask_and_a_late_state_is_saved_alone() -> None:
    assert due(3, requests=frozenset({"save"})) == Due(step_file=3, state=True)
    assert due(3, requests=frozenset({"sample"})) == Due(sample=True)
    assert due(3, save_state=True) == Due(state=True)


def test_an_evaluation_has_a_file_to_draw_with_whatever_the_interval_of_the_files() -> None:
    found = {done: due(done, "evaluation.every_epochs=2", evaluates=True) for done in range(1, 13)}

    assert {done: each for done, each in found.items() if each != Due()} == {
        8: Due(epoch_file=2, state=True, evaluate=True),
        12: Due(final_file=True, state=True, validate=True, evaluate=True),
    }
    assert due(4, evaluates=True) == Due(), "evaluation is off by default"


@pytest.mark.parametrize(
    ("overrides", "num_files"),
    [
        (["save.every_epochs=1"], 4),
        (["save.every_epochs=2", "save.every_steps=5"], 5),
        (["evaluation.every_epochs=1"], 4),
        (["evaluation.every_epochs=1", "save.every_epochs=2"], 4),
        (["evaluation.every_epochs=1", "train.ema_decay=0.9"], 8),
        (["save.every_steps=1", "save.keep_last=3"], 6),  # a new one is there before the oldest goes
    ],
)
def test_the_disk_is_asked_for_room_for_every_file_that_comes(overrides: list[str], num_files: int) -> None:
    settings = resolve(overrides=[*NOTHING, *overrides]).settings
    after = [due(done, *overrides, evaluates=True) for done in range(1, 13)]
    written = sum(file is not None for each in after for file in (each.epoch_file, each.step_file))

    assert count_files(settings, BUDGET) == num_files
    if settings.save.keep_last is None and settings.train.ema_decay is None:
        assert num_files == written + 2  # the last, and the one with the lowest loss
