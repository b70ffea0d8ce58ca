"""Which pictures are set aside."""

from pathlib import Path

import pytest

from brushwork.data.folder import Dataset, Sample
from brushwork.data.split import hold_out
from brushwork.errors import UserError


def dataset(*digests: str) -> Dataset:
    samples = [
        Sample(f"{number}.png", Path(f"{number}.png"), "", 1, 8, 8, digest) for number, digest in enumerate(digests)
    ]
    return Dataset(Path("set"), tuple(samples))


def digests(part: Dataset) -> list[str]:
    return [sample.digest for sample in part.samples]


LETTERS = "abcdefghijklmnopqrst"


def test_the_share_is_set_aside_and_nothing_is_lost_or_reordered() -> None:
    kept, aside = hold_out(dataset(*LETTERS), 0.2, seed=3)

    assert len(aside.samples) == 4
    assert sorted(digests(kept) + digests(aside)) == list(LETTERS)
    assert digests(kept) == sorted(digests(kept))
    assert digests(aside) == sorted(digests(aside))


def test_the_choice_follows_from_the_bytes_and_the_seed() -> None:
    first = hold_out(dataset(*LETTERS), 0.2, seed=3)[1]
    backwards = hold_out(dataset(*reversed(LETTERS)), 0.2, seed=3)[1]
    others = {tuple(digests(hold_out(dataset(*LETTERS), 0.2, seed=seed)[1])) for seed in range(20)}

    assert set(digests(first)) == set(digests(backwards))
    assert len(others) > 10


def test_a_picture_that_is_added_moves_at_most_one_other() -> None:
    before = set(digests(hold_out(dataset(*LETTERS), 0.2, seed=3)[1]))
    after = set(digests(hold_out(dataset(*LETTERS, "new"), 0.2, seed=3)[1]))

    assert len(before - after) <= 1


def test_copies_of_a_picture_stay_on_one_side() -> None:
    for seed in range(10):
        kept, aside = hold_out(dataset("a", "b", "a", "c", "b"), 0.4, seed=seed)

        assert not set(digests(kept)) & set(digests(aside))


def test_each_side_has_at_least_one_picture() -> None:
    for share in (0.01, 0.99):
        kept, aside = hold_out(dataset("a", "b", "c"), share, seed=0)

        assert kept.samples
        assert aside.samples


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 5.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        hold_out(dataset("a", "b"), share, seed=0)


def test_one_picture_cannot_be_split() -> None:
    with pytest.raises(UserError, match="nothing can be held out"):
        hold_out(dataset("a", "a"), 0.5, seed=0)
