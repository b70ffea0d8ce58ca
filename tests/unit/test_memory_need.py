"""What a run needs is counted from its own step, and what is advised needs less."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.models.bundled import bundled_folder
from brushwork.models.weights import open_base
from brushwork.runtime import BESIDE
from brushwork.training import memory_need, memory_report
from brushwork.training.memory_need import POLICIES, Option, fitted, need_of, options
from brushwork.training.memory_report import plan_memory
from brushwork.training.prepare import Preparation, prepare

SETTINGS = ["train.device=cpu", "train.precision=fp32", "train.checkpointing=false", "lora.rank=4"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder, count=4, size=128, seed=5)
    return folder


def prepared(pictures: Path, *more: str) -> Preparation:
    return prepare(pictures, resolve(overrides=[*SETTINGS, *more]).settings)


def test_the_parts_are_those_of_the_files_and_settings(pictures: Path) -> None:
    need = need_of(prepared(pictures))
    with safe_open(bundled_folder() / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        names = list(file.keys())
        weights = sum(file.get_tensor(name).numel() for name in names)

    assert need.base == 4 * weights
    assert need.text == 0  # cached
    assert need.total == sum(size for _, size in need.parts)
    ema = need_of(prepared(pictures, "train.ema_decay=0.99"))
    assert ema.learns == pytest.approx(need.learns * 16 / 12, rel=1e-3)  # weights, two moments; and the mean
    assert need_of(prepared(pictures, "cache.text=off")).text > 0


def test_a_larger_picture_batch_or_type_needs_more(pictures: Path) -> None:
    need = need_of(prepared(pictures)).step

    assert need_of(prepared(pictures, "train.batch_size=4")).step == pytest.approx(4 * need, rel=0.15)
    assert need_of(prepared(pictures, "data.resolution=64")).step < need / 2
    assert need_of(prepared(pictures, "train.precision=bf16")).step < 0.7 * need
    assert need_of(prepared(pictures, "train.path=plain")).step > 1.3 * need


def test_each_policy_needs_less_than_the_one_before(pictures: Path) -> None:
    needs = [need_of(prepared(pictures, f"train.recompute={policy}")) for policy in POLICIES]

    assert [need.step for need in needs] == sorted((need.step for need in needs), reverse=True)
    assert [need.flops for need in needs] == sorted(need.flops for need in needs)


def test_a_base_in_fewer_bits_and_one_that_comes_and_goes_are_counted_as_they_lie_there(pictures: Path) -> None:
    plain = need_of(prepared(pictures))
    for form, share in (("int8", 0.33), ("fp8", 0.33), ("nf4", 0.27)):  # of float32; what is no block's weight stays
        few = need_of(prepared(pictures, f"model.quantize={form}"))
        assert few.base == pytest.approx(share * plain.base, rel=0.05), form
        assert few.flops == plain.flops
        loaded = replace(open_base("bundled"), quantize=form).load_unet(dtype=torch.float32, device="cpu")
        assert few.base == sum(tensor.nbytes for tensor in (*loaded.parameters(), *loaded.buffers()))

    needs = [need_of(prepared(pictures, f"train.stream={way}")) for way in ("weights", "all")]
    assert needs[0].base == needs[1].base < 0.3 * plain.base
    assert needs[0].step == plain.step
    large = [need_of(prepared(pictures, "data.resolution=512", f"train.stream={way}")) for way in ("off", "all")]
    assert large[1].step < 0.9 * large[0].step  # what is kept waits elsewhere, where it is a MiB or more
    ahead = need_of(prepared(pictures, "train.stream=weights", "train.stream_ahead=3"))
    assert needs[0].base < ahead.base < plain.base


def test_a_card_is_advised_to_round_and_to_stream(pictures: Path) -> None:
    plan = prepared(pictures, "train.recompute=block")
    here = {change for changes, _ in memory_need._changed(plan) for change in changes}
    card = {
        change
        for changes, _ in memory_need._changed(replace(plan, device=torch.device("cuda")))
        for change in changes
    }

    assert {"model.quantize=int8", "model.quantize=nf4"} <= here
    assert card - here == {"train.stream=weights", "train.stream=all"}  # a CPU has nowhere else to keep them
    need = need_of(plan)
    told = {
        change: memory_report._line(Option((change,), need, 1.0))
        for change in ("model.quantize=int8", "train.stream=all", "optimizer.name=adamw8bit")
    }
    assert "rounded" in told["model.quantize=int8"]
    assert "from the host" in told["train.stream=all"]
    assert told["optimizer.name=adamw8bit"].endswith("no more time")


def test_full_training_counts_every_weight_that_learns(pictures: Path) -> None:
    whole = need_of(prepared(pictures, "train.mode=full"))

    assert whole.learns == 3 * whole.base  # itself, and two moments of AdamW; beside the float32 network
    assert whole.step > whole.base  # its gradients
    rounded = need_of(prepared(pictures, "train.mode=full", "train.precision=bf16"))
    assert rounded.learns == 4 * whole.base  # float32 weights and gradients, two moments; beside the network in bf16


def test_what_is_advised_needs_less_and_the_cheapest_comes_first(pictures: Path) -> None:
    plan = prepared(pictures, "train.batch_size=4", "cache.text=off")
    found = options(plan)

    assert all(option.need.total < need_of(plan).total for option in found)
    assert [round(option.time, 2) for option in found] == sorted(round(option.time, 2) for option in found)
    changes = {option.changes for option in found}
    assert {("cache.text=on",), ("train.recompute=ff",), ("train.recompute=block",)} <= changes
    assert ("train.batch_size=2", "train.accumulation=2") in changes


def test_the_settings_that_fit_do_fit_and_keep_the_pictures_of_an_update(pictures: Path) -> None:
    plan = prepared(pictures, "train.batch_size=4", "train.accumulation=2")
    now = need_of(plan).total
    as_it_is, fits = fitted(plan, now)
    assert (as_it_is.changes, as_it_is.time, fits) == ((), 1.0, True)

    least, fits = fitted(plan, 0)
    assert not fits
    assert {"train.recompute=block", "train.batch_size=1", "train.accumulation=8"} <= set(least.changes)

    limit = (now + 2 * least.need.total) // 3
    chosen, fits = fitted(plan, limit)
    assert fits
    again = prepared(pictures, "train.batch_size=4", "train.accumulation=2", *chosen.changes)
    assert need_of(again).total == chosen.need.total <= limit
    assert again.settings.train.batch_size * again.settings.train.accumulation == 8


def test_the_command_says_what_fits_or_that_nothing_does(pictures: Path) -> None:
    told = [f"{setting}" for setting in SETTINGS]
    free = plan_memory(pictures, overrides=told, show_run=False)
    assert "what would need less:" in str(free)
    assert json.loads(json.dumps(free.record()))["total"] == free.need.total

    roomy = plan_memory(pictures, overrides=told, limit_gib=4.0, show_run=False)
    assert "fits 3.4 GiB as it is" in str(roomy)
    tight = plan_memory(pictures, overrides=told, limit_gib=BESIDE + 0.001, show_run=False)
    assert not tight.fits
    assert "does not fit 1.0 MiB" in str(tight)
    assert "data.resolution" in str(tight)
    with pytest.raises(UserError, match="this machine has none") as refused:
        plan_memory(pictures, overrides=told, fit=True, show_run=False)
    assert refused.value.fix == "--vram 12"
