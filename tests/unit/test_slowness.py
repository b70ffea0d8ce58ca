"""Why a run is slow is told where it can be seen, and only there."""

from brushwork.records import Row
from brushwork.training.slowness import Memory, causes

ROOMY, FULL = Memory(2**33, 2**34, "card"), Memory(int(0.97 * 2**34), 2**34, "card")


def rows(seconds: list[float], *, waited: float = 0.0) -> list[Row]:
    return [{"seconds": each, "data_wait_seconds": waited * each} for each in seconds]


def test_a_run_that_waits_for_its_data_is_told_how_long_and_what_to_do() -> None:
    told = causes(rows([2.0] * 30, waited=0.5), ROOMY)

    assert list(told) == ["data"]
    assert told["data"].startswith("50% of the last 20 steps went by waiting for data (1.00 s a step)")
    assert "cache.folder" in told["data"]


def test_a_little_waiting_is_nothing_to_tell() -> None:
    assert causes(rows([2.0] * 30, waited=0.2), ROOMY) == {}
    assert causes(rows([0.01] * 30, waited=0.9), ROOMY) == {}, "a hundredth of a second is no bottleneck"
    assert causes(rows([2.0] * 10, waited=0.9), ROOMY) == {}, "the first steps prove nothing"


def test_full_memory_with_slower_steps_is_told_as_spilling() -> None:
    told = causes(rows([9.0] * 3 + [1.0] * 20 + [3.0] * 20), FULL)

    assert list(told) == ["memory"]
    assert "memory is full (15.5 of 16.0 GiB of the card) and a step takes 3.00 s, 3.0 times" in told["memory"]


def test_full_memory_alone_and_slow_steps_alone_are_nothing_to_tell() -> None:
    assert causes(rows([1.0] * 60), FULL) == {}
    assert causes(rows([1.0] * 25 + [3.0] * 25), ROOMY) == {}


def test_more_memory_than_there_is_is_told_from_the_first_step() -> None:
    told = causes(rows([1.0]), Memory(2**35, 2**34, "card"))
    assert told["memory"].startswith("more memory is held than there is (32.0 of 16.0 GiB of the card)")
