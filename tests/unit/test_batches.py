"""The order of pictures and the number of steps."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brushwork.errors import UserError
from brushwork.training.batches import Budget

SIZES = [(512, 512), (640, 448), (448, 640)]


def budget(
    sizes: list[tuple[int, int]],
    repeats: list[int],
    *,
    batch_size: int = 2,
    accumulation: int = 1,
    **ends: int | None,
) -> Budget:
    return Budget(
        sizes=tuple(sizes),
        repeats=tuple(repeats),
        batch_size=batch_size,
        accumulation=accumulation,
        epochs=ends.get("epochs", 3),
        max_steps=ends.get("max_steps"),
        seed=7,
    )


@given(
    st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_every_epoch_shows_every_picture_as_often_as_its_repeats_say(
    pictures: list[tuple[tuple[int, int], int]], batch_size: int, accumulation: int
) -> None:
    sizes, repeats = [size for size, _ in pictures], [times for _, times in pictures]
    plan = budget(sizes, repeats, batch_size=batch_size, accumulation=accumulation)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        batches = [batch for step in steps for batch in plan.microbatches(step)]
        assert len(batches) == plan.batches_per_epoch
        assert Counter(index for batch in batches for index in batch) == Counter(dict(enumerate(repeats)))
        assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)
        assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_no_step_is_empty_and_only_the_last_of_an_epoch_is_short() -> None:
    plan = budget([SIZES[0]] * 7, [1] * 7, batch_size=2, accumulation=3)

    assert plan.batches_per_epoch == 4
    assert plan.steps_per_epoch == 2
    assert [len(plan.microbatches(step)) for step in range(4)] == [3, 1, 3, 1]


def test_epochs_differ_in_order_and_the_same_step_is_always_the_same() -> None:
    plan = budget([SIZES[0]] * 20, [1] * 20, batch_size=1)
    again = budget([SIZES[0]] * 20, [1] * 20, batch_size=1)

    first = [plan.microbatches(step) for step in range(20)]
    second = [plan.microbatches(step) for step in range(20, 40)]

    assert first != second
    assert [again.microbatches(step) for step in reversed(range(20))] == first[::-1]


def test_the_smaller_of_epochs_and_steps_ends_the_run() -> None:
    assert budget([SIZES[0]] * 10, [1] * 10, epochs=3).total_steps == 15
    assert budget([SIZES[0]] * 10, [1] * 10, epochs=3, max_steps=4).total_steps == 4
    assert budget([SIZES[0]] * 10, [1] * 10, epochs=None, max_steps=100).total_steps == 100


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.epochs and train\.max_steps are both off"):
        budget([SIZES[0]], [1], epochs=None)


def test_the_derivation_names_every_number() -> None:
    plan = budget([SIZES[0]] * 10, [1] * 6 + [10] * 4, batch_size=4, accumulation=2, epochs=3)

    assert dict(plan.lines()) == {
        "pictures seen an epoch": "46 = 6 pictures x 1 + 4 pictures x 10",
        "batches an epoch": "12 = 46 / batch size 4",
        "steps an epoch": "6 = 12 / accumulation 2, rounded up",
        "steps": "18: 3 epochs x 6 = 18",
    }
