"""What is said about a picture: the same words as kohya's trainer for the same draws, and what differs on purpose."""

import gzip
import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest

from brushwork.config.schema import DataConfig
from brushwork.data.wording import full_text, is_varied, num_warm, worded

ORACLE = json.loads(gzip.decompress((Path(__file__).parents[1] / "oracles" / "kohya_captions.json.gz").read_bytes()))


def by_kohyas_draws(text: str, data: DataConfig, *, step: int, seed: int) -> str:
    steps = data.token_warmup_steps
    steps = math.floor(steps * ORACLE["total_steps"]) if steps < 1 else steps
    return worded(text, data, Random(seed), step=step if step < steps else None, warmup_steps=steps)


@pytest.mark.parametrize("group", ORACLE["groups"], ids=lambda group: json.dumps(group["settings"]))
def test_the_same_draws_give_the_words_of_kohyas_trainer(group: dict[str, Any]) -> None:
    data = DataConfig(**group["settings"])
    for number, step, seed, theirs in group["said"]:
        text = full_text(ORACLE["captions"][number], data) if data.caption_prefix else ORACLE["captions"][number]
        assert by_kohyas_draws(text, data, step=step, seed=seed) == theirs, (text, step, seed)


def test_prefix_and_suffix_are_joined_by_blanks_and_left_out_where_empty() -> None:
    assert full_text("a dog", DataConfig(caption_prefix="sks,", caption_suffix="best quality")) == (
        "sks, a dog best quality"
    )
    assert full_text("a dog", DataConfig()) == "a dog"
    assert full_text("", DataConfig(caption_prefix="sks ")) == "sks"
    assert full_text("", DataConfig(caption_suffix=" fine")) == "fine"
    assert full_text("", DataConfig()) == ""


def test_the_trigger_word_stands_in_every_line_that_may_be_drawn() -> None:
    data = DataConfig(caption_prefix="sks", wildcards=True)

    assert full_text("a dog\n\na cat", data) == "sks a dog\nsks a cat"
    assert full_text("a dog\na cat", DataConfig(caption_prefix="sks", caption_suffix="!")) == "sks a dog !"


def test_said_plainly_nothing_is_left_to_chance_and_no_mark_stays() -> None:
    data = DataConfig(
        wildcards=True,
        shuffle_captions=True,
        tag_dropout=0.9,
        token_warmup_steps=9,
        keep_tokens_separator="|||",
        secondary_separator=";;;",
    )

    assert worded("mia ||| {red|blue} hat;;;scarf, {{x}}\nsecond", data, None) == "mia, red hat,scarf, {x}"


def test_a_caption_is_varied_only_where_something_is_drawn() -> None:
    assert not is_varied("a, {b|c}", DataConfig())
    assert not is_varied("a, b", DataConfig(wildcards=True, token_warmup_steps=5))
    assert is_varied("a, {b|c}", DataConfig(wildcards=True))
    assert is_varied("a\nb", DataConfig(wildcards=True))
    assert is_varied("a, b", DataConfig(shuffle_captions=True))
    assert is_varied("a, b", DataConfig(tag_dropout=0.1))


def test_the_warm_up_begins_with_its_least_and_ends_with_all() -> None:
    numbers = [num_warm(12, step=step, steps=10, least=2) for step in range(11)]

    assert numbers == [2 + step for step in range(11)]
    assert [num_warm(1, step=step, steps=10, least=3) for step in (0, 5)] == [3, 2]  # more than there are: all
