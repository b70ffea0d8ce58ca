"""The recipes hold the values of the guides behind them, say what to expect, and one is advised for each card."""

from typing import Any

import pytest

from brushwork.config.cards import advice
from brushwork.config.comments import Expectation, expectation, reasons
from brushwork.config.load import flatten, read_recipe, recipe_names, resolve
from brushwork.training.contradictions import caches_text

COMMON = {
    "train.mode": "lora",
    "train.batch_size": 1,
    "train.checkpointing": True,
    "train.precision": "auto",
    "train.epochs": 10,
    "train.max_steps": None,
    "train.ema_decay": None,
    "lora.targets": "attention_out",
    "lora.dropout": 0.0,
    "lora.text_encoder": False,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.01,
    "schedule.name": "cosine",
    "schedule.warmup_steps": 0,
    "loss.kind": "mse",
    "loss.min_snr_gamma": None,
    "loss.noise_offset": 0.0,
    "buckets.enabled": False,
    "cache.vae_batch_size": 1,
    "data.flip": False,
}
"""What holds for a recipe unless it says otherwise below."""

CHARACTER = {
    "lora.targets": "kohya",
    "lora.text_encoder": True,
    "optimizer.name": "adamw8bit",
    "schedule.name": "cosine_with_restarts",
    "schedule.warmup_steps": 100,
    "loss.min_snr_gamma": 5.0,
    "loss.noise_offset": 0.05,
    "train.epochs": 20,
    "save.every_epochs": 2,
    "sample.every_epochs": 2,
}

VALUES: dict[str, dict[str, Any]] = {
    "sdxl-standard": {
        "data.resolution": 1024,
        "lora.rank": 16,
        "lora.alpha": None,
        "train.accumulation": 4,
        "train.max_steps": 2000,
        "schedule.warmup_steps": 100,
        "cache.text": "off",
    },
    "sdxl-low-memory": {
        "data.resolution": 768,
        "lora.rank": 8,
        "lora.alpha": None,
        "train.accumulation": 8,
        "train.epochs": 15,
        "train.max_steps": 3000,
        "train.ema_decay": 0.9999,
        "schedule.warmup_steps": 150,
        "loss.min_snr_gamma": 5.0,
        "loss.noise_offset": 0.1,
    },
    "sdxl-512-tiny-vram": {"data.resolution": 512, "lora.rank": 4, "lora.alpha": 16, "train.accumulation": 4},
    "sdxl-768": {"data.resolution": 768, "lora.rank": 8, "lora.alpha": 32},
    "sdxl-1024-r16": {"data.resolution": 1024, "lora.rank": 16, "lora.alpha": 32},
    "sdxl-full-finetune": {
        "data.resolution": 1024,
        "train.mode": "full",
        "optimizer.name": "adamw8bit",
        "optimizer.learning_rate": 1e-5,
        "schedule.warmup_steps": 100,
        "save.keep_last": 2,
    },
    "sd15-character": CHARACTER
    | {
        "data.resolution": 512,
        "lora.rank": 64,
        "lora.alpha": 32,
        "lora.dropout": 0.1,
        "optimizer.learning_rate": 8e-5,
        "optimizer.text_encoder_learning_rate": 4e-5,
        "schedule.cycles": 2,
        "train.batch_size": 4,
        "train.accumulation": 2,
    },
    "sdxl-16gb": CHARACTER
    | {
        "data.resolution": 1024,
        "lora.rank": 128,
        "lora.alpha": 96,
        "optimizer.text_encoder_learning_rate": 6e-5,
        "schedule.cycles": 3,
        "train.accumulation": 8,
        "buckets.enabled": True,
        "buckets.min_side": 640,
        "buckets.max_side": 1536,
        "buckets.step": 64,
        "buckets.no_upscale": True,
    },
}


@pytest.mark.parametrize("name", VALUES)
def test_a_recipe_has_the_values_of_its_guide(name: str) -> None:
    found = flatten(resolve(recipe=name).settings)
    wanted = COMMON | VALUES[name]
    assert {key: found[key] for key in wanted} == wanted


def test_every_recipe_is_held_against_its_guide() -> None:
    assert set(recipe_names()) == {*VALUES, "tiny"}


def test_text_is_encoded_once_except_where_the_guide_wants_otherwise() -> None:
    cached = {name for name in VALUES if caches_text(resolve(recipe=name).settings)}
    assert set(VALUES) - cached == {"sdxl-standard", "sd15-character", "sdxl-16gb"}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_tells_card_memory_and_time_in_a_form_that_can_be_listed(name: str) -> None:
    told = expectation(read_recipe(name).header)
    assert told is not None
    assert told.measured is (name == "tiny"), "a figure is called measured once it has been"


def test_what_to_expect_is_read_from_the_words() -> None:
    header = ["Mine.", "", "What to expect: a card of 16 GB, 13-14 GB of memory,", "4-6 hours (not measured: ...)."]
    assert expectation(header) == Expectation("16 GB", "13-14 GB", "4-6 hours", measured=False)
    assert expectation(["Mine, for which nothing is said."]) is None


def test_the_reason_of_a_value_stands_behind_it() -> None:
    text = (
        '# Mine.\nname = "a" # first\n[lora]\nrank = 3\nconv-rank = 2  # small: "#" is no comment\n[data]\n# alone\n'
    )
    text += 'background = "#ff0000"\n'
    assert reasons(text) == {"name": "first", "lora.conv_rank": 'small: "#" is no comment'}


@pytest.mark.parametrize(
    ("card", "memory", "capability", "recipe"),
    [
        ("RTX 4090", 23.5, (8, 9), "sdxl-standard"),
        ("RTX 4080", 15.7, (8, 9), "sdxl-standard"),
        ("RTX 4070 Ti", 11.7, (8, 9), "sdxl-low-memory"),
        ("RTX 3060", 11.8, (8, 6), "sdxl-low-memory"),
        ("RTX 2080 Ti", 10.7, (7, 5), "sdxl-512-tiny-vram"),
        ("RTX 4060", 7.6, (8, 9), "sdxl-512-tiny-vram"),
        ("RTX 3050", 7.7, (8, 6), "sdxl-512-tiny-vram"),
        ("RTX 2060", 5.8, (7, 5), None),
        ("A100", 39.4, (8, 0), "sdxl-standard"),
        ("H200", 139.8, (9, 0), "sdxl-standard"),
        ("none", None, None, "tiny"),
    ],
)
def test_a_recipe_is_advised_for_each_card(
    card: str, memory: float | None, capability: tuple[int, int] | None, recipe: str | None
) -> None:
    assert advice(memory, capability).recipe == recipe, card


def test_what_is_advised_is_there_and_no_more_than_its_guide_says_fits() -> None:
    for memory in (*range(1, 48), None):
        found = advice(memory)
        assert {*found.others, found.recipe} - {None} <= set(recipe_names())
    smallest = {advice(memory).recipe: memory for memory in range(48, 0, -1)}
    assert (smallest["sdxl-standard"], smallest["sdxl-low-memory"], smallest["sdxl-512-tiny-vram"]) == (16, 12, 8)
    assert "sdxl-full-finetune" in advice(39.4).others
    assert "sdxl-full-finetune" not in advice(24).others


def test_a_card_without_bf16_is_told_what_it_computes_in() -> None:
    assert "fp16 with loss scaling" in advice(16, (7, 5)).why
    assert "neither bf16 nor tensor cores" in advice(11, (6, 1)).why
    assert "bf16" not in advice(16, (8, 6)).why
