"""The words of a run: the same whenever they are asked for, all of them known ahead, and spread evenly."""

from collections import Counter, defaultdict

import pytest

from brushwork.config.schema import DataConfig
from brushwork.training.batches import Budget
from brushwork.training.captions import Captioned, Captions, dropped_captions

TAGS = "fox, red hat, snow, night, smiling, from behind, close-up, film still, blue, wind"


def captions(
    *,
    epochs: int = 6,
    repeats: tuple[int, ...] = (1, 3, 2),
    variants: int | None = 4,
    max_steps: int | None = None,
    seed: int = 5,
    text: str = TAGS,
    **data: object,
) -> Captions:
    budget = Budget(
        sizes=((64, 64),) * len(repeats),
        repeats=repeats,
        batch_size=2,
        accumulation=2,
        epochs=epochs,
        max_steps=max_steps,
        seed=seed,
    )
    settings = DataConfig(**data)  # type: ignore[arg-type]
    pictures = [Captioned(f"{index}.png", text, settings) for index in range(len(repeats))]
    return Captions(pictures, budget, seed=seed, variants=variants)


def shown(words: Captions) -> list[tuple[int, int, str]]:
    """Step, picture and caption of every showing."""
    found = []
    for step in range(words.budget.total_steps):
        for microbatch, indices in enumerate(words.budget.microbatches(step)):
            found += [
                (step, index, said)
                for index, said in zip(indices, words.shown(step, microbatch, indices), strict=True)
            ]
    return found


def test_a_caption_that_nothing_changes_is_shown_as_it_is() -> None:
    assert {said for _, _, said in shown(captions(text="a fox,in the  snow"))} == {"a fox,in the  snow"}


def test_what_is_said_at_a_step_does_not_depend_on_what_was_asked_before() -> None:
    words = captions(shuffle_captions=True, tag_dropout=0.2)
    step = words.budget.total_steps - 1
    indices = words.budget.microbatches(step)[0]

    assert captions(shuffle_captions=True, tag_dropout=0.2).shown(step, 0, indices) == words.shown(step, 0, indices)
    assert captions(shuffle_captions=True, seed=6).all().isdisjoint(words.all())


@pytest.mark.parametrize(
    "data",
    [
        {"shuffle_captions": True, "keep_tokens": 1},
        {"shuffle_captions": True, "tag_dropout": 0.3, "token_warmup_steps": 7, "token_warmup_min": 2},
        {"token_warmup_steps": 0.5},
        {"shuffle_captions": True, "caption_dropout": 0.4, "caption_dropout_every_epochs": 3},
    ],
)
@pytest.mark.parametrize("limits", [{}, {"variants": None}, {"max_steps": 4}, {"epochs": 1, "variants": 1}])
def test_every_caption_that_is_shown_is_known_ahead(data: dict[str, object], limits: dict[str, int]) -> None:
    words = captions(**data, **limits)  # type: ignore[arg-type]

    assert {said for _, _, said in shown(words)} - {""} <= words.all()


def test_variants_are_shown_in_turn_whatever_the_repeats() -> None:
    by_picture: dict[int, list[str]] = defaultdict(list)
    for _, index, said in shown(captions(shuffle_captions=True, epochs=8)):
        by_picture[index].append(said)

    for index, times in ((0, 8), (1, 24), (2, 16)):
        said = by_picture[index]
        assert len(said) == times
        assert said == [said[place % 4] for place in range(times)]  # the fifth showing is the first again
        assert len(set(said)) == 4
    assert set(by_picture[0]).isdisjoint(by_picture[1])  # each picture has draws of its own


def test_without_a_limit_no_showing_repeats_another() -> None:
    counts = Counter(said for _, _, said in shown(captions(shuffle_captions=True, variants=None, epochs=9)))

    assert max(counts.values()) == 1
    assert len(counts) == 9 * 6


def test_kept_tags_stay_in_front_and_nothing_is_lost_by_shuffling() -> None:
    said = captions(shuffle_captions=True, keep_tokens=2, variants=None).all()

    assert all(caption.startswith("fox, red hat, ") for caption in said)
    assert {tuple(sorted(caption.split(", "))) for caption in said} == {tuple(sorted(TAGS.split(", ")))}


def test_tags_come_in_during_the_warm_up() -> None:
    words = captions(repeats=(1,), epochs=14, token_warmup_steps=10, token_warmup_min=0)

    numbers = [len([tag for tag in said.split(", ") if tag]) for _, _, said in shown(words)]

    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10]


def test_a_warm_up_below_one_is_a_share_of_the_run() -> None:
    share = captions(token_warmup_steps=0.5, epochs=10, shuffle_captions=True)
    steps = captions(token_warmup_steps=share.budget.total_steps // 2, epochs=10, shuffle_captions=True)

    assert shown(share) == shown(steps)


def test_every_third_epoch_has_no_captions() -> None:
    words = captions(caption_dropout_every_epochs=3, epochs=7)

    empty = {words.budget.epoch_of(step) + 1 for step, _, said in shown(words) if said == ""}
    full = {words.budget.epoch_of(step) + 1 for step, _, said in shown(words) if said != ""}

    assert empty == {3, 6}
    assert full == {1, 2, 4, 5, 7}


def test_captions_are_dropped_at_their_rate_and_the_same_way_every_time() -> None:
    batches = [dropped_captions([0.25] * 4, seed=1, step=step, microbatch=0) for step in range(1000)]

    assert batches == [dropped_captions([0.25] * 4, seed=1, step=step, microbatch=0) for step in range(1000)]
    # 4,000 draws: three standard deviations are 0.02
    assert sum(map(sum, batches)) / 4000 == pytest.approx(0.25, abs=0.02)
    assert dropped_captions([0.0] * 3, seed=1, step=0, microbatch=0) == [False] * 3
    assert dropped_captions([1.0, 0.0, 1.0], seed=1, step=0, microbatch=0) == [True, False, True]
