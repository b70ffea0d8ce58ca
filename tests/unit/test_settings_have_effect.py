"""Each setting changes what a run does: which pictures and words it sees, in which steps, and how weights move.

The settings of the loss are tried in test_step.py; that every setting is read at all, in tests/architecture.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from brushwork.config.load import resolve
from brushwork.config.schema import DataConfig, FolderConfig, OptimizerConfig, ScheduleConfig
from brushwork.data.folders import OF_A_FOLDER, settings_of
from brushwork.film.frames import draw_folder
from brushwork.models.weights import open_configured
from brushwork.training.beginning import make_adapter
from brushwork.training.learning_rate import factor
from brushwork.training.optimizers import make_optimizer
from brushwork.training.prepare import Preparation, measured_part, prepare
from brushwork.training.space import count_files, needed_space
from brushwork.training.what_learns import meta_components

NOT_TRIED_HERE = {
    "data.path": "the command takes it where no folder is named",
    "data.folders": "below, and test_folders.py",
    "data.image_column": "test_parquet.py",
    "data.caption_column": "test_parquet.py",
    "data.caption_extension": "test_folder.py",
    "data.class_prompt": "test_folder.py",
    "data.max_missing_captions": "refuses; test_folder.py",
    "data.max_missing_masks": "refuses; test_masks.py",
    "data.max_pixels": "quarantines; test_folder.py",
    "buckets.sizes": "test_buckets.py",
    "buckets.min_side": "test_buckets.py",
    "cache.folder": "test_places.py",
    "cache.vae_batch_size": "changes the time alone",
}

SEEN = {
    "data.resolution": ["data.resolution=128"],
    "data.repeats": ["data.repeats=3"],
    "data.caption_prefix": ["data.caption_prefix=mia"],
    "data.caption_suffix": ["data.caption_suffix=film"],
    "data.shuffle_captions": ["data.shuffle_captions=true"],
    "data.keep_tokens": ["data.keep_tokens=2", "data.shuffle_captions=true"],
    "data.keep_tokens_separator": ["data.keep_tokens_separator=in", "data.shuffle_captions=true"],
    "data.caption_separator": ["data.caption_separator=a", "data.shuffle_captions=true"],
    "data.secondary_separator": ["data.secondary_separator=in", "data.shuffle_captions=true"],
    "data.tag_dropout": ["data.tag_dropout=0.5"],
    "data.wildcards": ["data.wildcards=true"],
    "data.token_warmup_min": ["data.token_warmup_min=3", "data.token_warmup_steps=100"],
    "data.token_warmup_steps": ["data.token_warmup_steps=100"],
    "data.caption_dropout": ["data.caption_dropout=0.5"],
    "data.caption_dropout_every_epochs": ["data.caption_dropout_every_epochs=2"],
    "data.masks": ["data.masks=alpha"],
    "data.flip": ["data.flip=true"],
    "data.random_crop": ["data.random_crop=true"],
    "data.background": ["data.background=black"],
    "buckets.enabled": ["buckets.enabled=true"],
    "buckets.max_side": ["buckets.max_side=72", "buckets.enabled=true", "buckets.step=8"],
    "buckets.step": ["buckets.step=24", "buckets.enabled=true"],
    "buckets.no_upscale": ["buckets.no_upscale=true", "buckets.enabled=true", "data.resolution=512"],
    "cache.caption_variants": ["cache.caption_variants=2", "data.shuffle_captions=true"],
    "cache.crops": ["cache.crops=2", "data.random_crop=true"],
    "cache.text": ["cache.text=off"],
    "model.clip_skip": ["model.clip_skip=2"],
    "model.max_tokens": ["model.max_tokens=150"],
    "train.batch_size": ["train.batch_size=2"],
    "train.accumulation": ["train.accumulation=2"],
    "train.epochs": ["train.epochs=3"],
    "train.max_steps": ["train.max_steps=7"],
    "train.seed": ["train.seed=1"],
    "train.precision": ["train.precision=bf16"],
    "train.mode": ["train.mode=full"],
    "train.ema_decay": ["train.ema_decay=0.9"],
    "save.precision": ["save.precision=fp32"],
    "save.keep_last": ["save.keep_last=1"],
    "save.every_epochs": ["save.every_epochs=2"],
    "save.every_steps": ["save.every_steps=2"],
    "validation.data": ["validation.data=0.4"],
    "validation.train_part": ["validation.train_part=1", "validation.data=0.4"],
}


@pytest.fixture(scope="module", autouse=True)
def _base_opened_once() -> Iterator[None]:
    """Opening a base takes longer than all the rest of a plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brushwork.training.prepare.open_configured", lru_cache(open_configured))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five wide pictures, some of them transparent, whose captions hold tags and choices."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, count=5, size=96, seed=2)
    for path in sorted(folder.glob("*.png")):
        wide = Image.open(path).convert("RGBA").resize((120, 80))
        wide.putalpha(Image.linear_gradient("L").resize((120, 80)))
        wide.save(path)
        path.with_suffix(".txt").write_text(f"fox {path.stem}, a hat in a park, {{red|blue}} sky, snow in sun, drawn")
    return folder


def planned(pictures: Path, overrides: list[str]) -> Preparation:
    base = ["train.device=cpu", "train.precision=fp32", "data.resolution=64"]
    return prepare(pictures, resolve(overrides=[*base, *overrides]).settings)


def what_happens(plan: Preparation) -> list[Any]:
    """All that the plan knows of the run, without what it was told."""
    steps = [
        [
            (indices, plan.wording.shown(step, number, indices))
            for number, indices in enumerate(plan.budget.microbatches(step))
        ]
        for step in range(min(plan.budget.total_steps, 20))
    ]
    return [
        plan.budget.lines(),
        plan.dtype,
        plan.caches_text,
        plan.text_key("a fox"),
        [picture.views for picture in (*plan.pictures, *plan.held_out)],
        steps,
        len(plan.held_out),
        len(measured_part(plan)),
        count_files(plan.settings, plan.budget),
        needed_space(plan, 1000),
    ]


@pytest.mark.parametrize("name", SEEN)
def test_a_setting_changes_what_the_run_sees_does_or_writes(pictures: Path, name: str) -> None:
    setting, *others = SEEN[name]

    assert setting.startswith(f"{name}=")
    assert what_happens(planned(pictures, [*others, setting])) != what_happens(planned(pictures, others))


def test_all_settings_of_data_buckets_and_cache_are_tried() -> None:
    keys = {key for key in resolve().origins if key.split(".")[0] in ("data", "buckets", "cache")}

    assert sorted(keys - set(SEEN) - set(NOT_TRIED_HERE)) == []


@pytest.mark.parametrize("name", OF_A_FOLDER)
def test_a_folder_of_its_own_setting_is_read_by_it(name: str) -> None:
    values = {
        "path": "a",
        "class_prompt": "b",
        "caption_extension": ".c",
        "masks": "d",
        "repeats": 7,
        "keep_tokens": 7,
    }
    kind = str(DataConfig.model_fields[name].annotation)
    value: Any = values.get(name, True if "bool" in kind else 0.5 if "float" in kind else "e")
    data = DataConfig(folders=(FolderConfig(**({"path": "a"} | {name: value})),))

    assert getattr(settings_of(data, 1), name) == value != getattr(DataConfig(), name)


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        ({"name": "linear"}, {}),
        ({"warmup_steps": 5}, {}),
        ({"cycles": 2}, {"name": "cosine_with_restarts"}),
        ({"power": 2.0}, {"name": "polynomial"}),
        ({"decay_steps": 5}, {}),
        ({"min_factor": 0.1}, {}),
    ],
    ids=str,
)
def test_a_setting_of_the_schedule_changes_the_rate(settings: dict[str, Any], others: dict[str, Any]) -> None:
    def rates(**values: Any) -> list[float]:
        return [factor(step, total_steps=20, schedule=ScheduleConfig(**values)) for step in range(20)]

    assert rates(**others, **settings) != rates(**others)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adafactor"},
        {"learning_rate": 1e-3},
        {"text_encoder_learning_rate": 1e-3},
        {"text_encoder_2_learning_rate": 1e-3},
        {"lora_plus_ratio": 16.0},
        {"betas": (0.5, 0.9)},
        {"eps": 1e-2},
        {"weight_decay": 0.5},
    ],
    ids=str,
)
def test_a_setting_of_the_optimizer_changes_how_weights_move(settings: dict[str, Any]) -> None:
    assert not torch.equal(moved(OptimizerConfig(**settings)), moved(OptimizerConfig()))


def test_an_argument_of_the_rule_changes_how_weights_move() -> None:
    told = OptimizerConfig(name="adafactor", arguments={"clip_threshold": 0.1})

    assert not torch.equal(moved(told), moved(OptimizerConfig(name="adafactor")))


def moved(settings: OptimizerConfig) -> torch.Tensor:
    """Where the weights of three components stand after four steps."""
    names = [f"{part}.{half}" for part in ("unet", "text_encoder", "text_encoder_2") for half in ("down", "up")]
    weights = {name: nn.Parameter(torch.ones(2, 2)) for name in names}
    optimizer = make_optimizer(weights, settings)
    for size in (1.0, -0.3, 0.1, 0.2):
        for weight in weights.values():
            weight.grad = torch.tensor([[size, 1.0], [-size, 0.2]])
        optimizer.step()
    return torch.stack([weight.detach() for weight in weights.values()])


@pytest.mark.parametrize(
    ("setting", "others"),
    [
        ("lora.rank=3", []),
        ("lora.targets=attention", []),
        ("lora.conv_rank=2", ["lora.targets=kohya_conv"]),
        ("lora.text_encoder=true", []),
        ("lora.alpha=3", []),
        ("lora.rslora=true", []),
        ("lora.conv_alpha=3", ["lora.targets=kohya_conv"]),
        ("lora.dropout=0.1", []),
        ("lora.rank_dropout=0.1", []),
        ("lora.module_dropout=0.1", []),
    ],
)
def test_a_setting_of_the_adapter_changes_its_layers(pictures: Path, setting: str, others: list[str]) -> None:
    def layers(overrides: list[str]) -> list[Any]:
        plan = planned(pictures, overrides)
        adapter = make_adapter(meta_components(plan), plan.settings.lora, plan.base.spec, seed=0)
        return [
            (name, each.down.shape, each.alpha, each.scale, each.dropout) for name, each in adapter.layers.items()
        ]

    assert layers([*others, setting]) != layers(others)


def test_the_same_settings_make_the_same_run(pictures: Path) -> None:
    assert what_happens(planned(pictures, [])) == what_happens(planned(pictures, []))
