"""`brushwork.train` on eight drawn pictures and the bundled model: what comes out, and what is refused."""

import json
import os
import signal
import threading
import time
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import brushwork.training.loop as loop_module
import brushwork.training.passes as passes_module
import quick_runs
from brushwork.cache.store import Store
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.lora.files import read_adapter
from brushwork.training.checkpoint import read_state
from brushwork.training.run import RunResult, resume

QUICK = {
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.max_steps": "4",
    "train.precision": "fp32",
    "data.resolution": "64",
    "lora.rank": "2",
    "optimizer.learning_rate": "1e-3",
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "pictures"
    draw_folder(folder, count=8, size=96, seed=5)
    return folder


run = partial(quick_runs.run, QUICK)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def rows(result: RunResult) -> list[dict[str, float]]:
    return [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_files(one: Path, other: Path) -> None:
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_a_folder_of_pictures_becomes_a_lora_with_every_module_changed(pictures: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "run", lora__targets="kohya")

    assert result.finished
    assert result.adapter == tmp_path / "run" / "lora.safetensors"
    adapter = read_adapter(result.adapter)
    assert len(adapter.state) > 0
    untouched = [name for name, weights in adapter.state.items() if not weights.up.any()]
    assert untouched == []
    assert [row["step"] for row in rows(result)] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "loss.png").stat().st_size > 0


def test_the_base_and_the_pictures_are_left_as_they_were(pictures: Path, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(pictures.rglob("*"))}

    run(pictures, tmp_path / "run")

    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(pictures.rglob("*"))} == before


def test_the_loss_falls_on_the_pictures(pictures: Path, tmp_path: Path) -> None:
    changes = {"lora__targets": "kohya", "lora__rank": "8", "optimizer__learning_rate": "5e-3"}
    measure = {"validation__data": f"'{pictures}'", "validation__timesteps": "1"}
    result = run(pictures, tmp_path / "run", train__max_steps="20", save__every_epochs="off", **changes, **measure)

    measured = [row["held_out_loss"] for row in rows(result) if "held_out_loss" in row]
    assert len(measured) == 5
    assert measured[-1] < 0.95 * measured[0]


def test_held_out_losses_of_runs_with_different_seeds_can_be_compared(pictures: Path, tmp_path: Path) -> None:
    still = {"optimizer__learning_rate": "1e-9", "train__max_steps": "1", "validation__data": f"'{pictures}'"}
    losses = [
        rows(run(pictures, tmp_path / f"{number}", **still, **seeds))[-1]["held_out_loss"]
        for number, seeds in enumerate(({}, {"train__seed": "1"}, {"validation__seed": "1"}))
    ]

    assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # nothing has learned
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_the_same_command_goes_on(
    pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def stop() -> None:
        metrics = tmp_path / "stopped" / "metrics.jsonl"
        while not metrics.exists() or not metrics.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    whole = run(pictures, tmp_path / "whole", train__max_steps="10")
    threading.Thread(target=stop).start()
    stopped = run(pictures, tmp_path / "stopped", train__max_steps="10")

    assert not stopped.finished
    assert 0 < stopped.step < 10
    assert not (tmp_path / "stopped" / "lora.safetensors").exists()

    again = run(pictures, tmp_path / "stopped", train__max_steps="10")
    assert again.finished
    assert whole.adapter is not None
    assert again.adapter is not None
    assert_same_files(whole.adapter, again.adapter)


def test_resume_finds_the_newest_run_and_a_finished_one_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "runs" / "a")
    before = (tmp_path / "runs" / "a" / "lora.safetensors").stat().st_mtime_ns

    again = resume(tmp_path / "runs", console=Console(file=StringIO()))

    assert again.folder == result.folder
    assert (again.finished, again.step) == (True, 4)
    assert (tmp_path / "runs" / "a" / "lora.safetensors").stat().st_mtime_ns == before


def test_changed_settings_are_refused_with_the_difference_unless_accepted(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run")

    with pytest.raises(UserError, match=r"began with other settings:\n +optimizer\.learning_rate: 0\.001 -> 0\.002"):
        run(pictures, tmp_path / "run", optimizer__learning_rate="2e-3")

    result = run(pictures, tmp_path / "run", train__max_steps="6", accept_changes=True)
    assert (result.finished, result.step) == (True, 6)


def test_changes_that_a_run_cannot_take_are_refused_and_leave_it_as_it_was(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.suffix in (".toml", ".json")}

    for changes in (
        {"lora__rank": "4"},
        {"lora__targets": "kohya"},
        {"lora__text_encoder": "true"},
        {"lora__targets": "attention"},
    ):
        with pytest.raises(UserError, match=r"what .*run has learned does not fit these settings"):
            run(pictures, tmp_path / "run", train__max_steps="6", accept_changes=True, **changes)
    with pytest.raises(UserError, match=r"is finished, so there is nothing left .*\n +save\.layout: kohya -> peft"):
        run(pictures, tmp_path / "run", save__layout="peft", accept_changes=True)

    assert {path: path.read_bytes() for path in before} == before
    assert resume(tmp_path / "run", console=Console(file=StringIO())).finished


def test_a_run_that_is_told_to_end_earlier_gives_its_file(pictures: Path, tmp_path: Path) -> None:
    whole = run(pictures, tmp_path / "run")
    assert whole.adapter is not None
    before = tensors(whole.adapter)
    whole.adapter.unlink()

    ended = run(pictures, tmp_path / "run", train__max_steps="2", accept_changes=True)

    assert ended.adapter is not None
    assert (ended.step, ended.finished) == (4, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(ended.adapter).items())


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"loss": 1.0}', '{"step": "four"}'])
def test_a_damaged_line_of_the_metrics_is_named(pictures: Path, tmp_path: Path, line: str) -> None:
    run(pictures, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")

    with pytest.raises(UserError, match=r"metrics\.jsonl") as told:
        run(pictures, tmp_path / "run", train__max_steps="6", accept_changes=True)

    assert "remove" in str(told.value.fix)


def test_a_run_goes_on_from_another_folder_with_the_same_files(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, prompt in (("here", "a fox"), ("there", "a dog")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "prompts.txt").write_text(f"{prompt} --s 1")
    monkeypatch.chdir(tmp_path / "here")
    files = {"sample__prompts": "prompts.txt", "cache__folder": "cache", "sample__every_steps": "1"}
    run(pictures, Path("run"), train__max_steps="2", **files)
    settings = (tmp_path / "here" / "run" / "settings.toml").read_text()
    (tmp_path / "here" / "run" / "settings.toml").write_text(settings.replace("max_steps = 2", "max_steps = 3"))
    monkeypatch.chdir(tmp_path / "there")

    assert resume(tmp_path / "here" / "run", console=Console(file=StringIO())).step == 3

    drawn = sorted((tmp_path / "here" / "run" / "sample").glob("*/*.txt"))
    assert [(file.parent.name, file.read_text()) for file in drawn] == [
        (name, "a fox\n") for name in ("base", "step00000001", "step00000002", "step00000003")
    ]
    assert list((tmp_path / "there").iterdir()) == [tmp_path / "there" / "prompts.txt"]


def test_what_was_drawn_last_is_drawn_again_where_the_prompts_have_changed(pictures: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for number, prompt in ((2, "a fox"), (3, "a cat")):
        prompts.write_text(f"{prompt} --s 1")
        files = {"sample__prompts": f"'{prompts}'", "sample__every_steps": "1"}
        run(pictures, tmp_path / "run", train__max_steps=str(number), accept_changes=True, **files)

    drawn = {file.parent.name: file.read_text() for file in (tmp_path / "run" / "sample").glob("*/*.txt")}
    assert drawn == {
        "base": "a cat\n",
        "step00000001": "a fox\n",
        "step00000002": "a cat\n",
        "step00000003": "a cat\n",
    }


def test_a_changed_picture_or_caption_is_refused_unless_accepted(tmp_path: Path) -> None:
    draw_folder(tmp_path / "data", count=4, size=64, seed=1)
    run(tmp_path / "data", tmp_path / "run")
    caption = next((tmp_path / "data").glob("*.txt"))
    caption.write_text("something else")

    with pytest.raises(UserError, match=r"the pictures or captions in .*data changed since"):
        run(tmp_path / "data", tmp_path / "run", train__max_steps="4")


def test_a_folder_with_other_files_is_not_written_into(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.doc").touch()

    with pytest.raises(UserError, match=r"is not a run of Brushwork and is not empty: it holds chapter1\.doc"):
        run(pictures, tmp_path / "thesis")

    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.doc"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_and_names_the_files(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = passes_module.loss_per_picture
    calls = 0

    def spoiled(*arguments: object, **keywords: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        losses = real(*arguments, **keywords)  # type: ignore[arg-type]
        return losses * float("nan") if calls == 3 else losses

    monkeypatch.setattr(passes_module, "loss_per_picture", spoiled)

    with pytest.raises(UserError, match=r"the loss of step 3 is not finite.*\.png") as caught:
        run(pictures, tmp_path / "run", save__every_steps="1")

    assert "learning_rate" in (caught.value.fix or "")
    state = read_state(tmp_path / "run" / "state" / "state.safetensors")
    assert state.position.step == 2
    assert all(tensor.isfinite().all() for tensor in state.parameters.values())


def test_an_overflow_under_loss_scaling_skips_the_update_and_is_counted(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brushwork.training import session
    from brushwork.training.loss_scale import LossScale

    monkeypatch.setattr(session, "initial_scale", lambda fp16: LossScale(scale=2.0**131))  # overflows in fp32 as well

    result = run(pictures, tmp_path / "run", train__max_steps="6", save__every_steps="1")

    skipped = rows(result)[-1]["skipped_updates"]
    assert 1 <= skipped < 6
    state = read_state(tmp_path / "run" / "state" / "state.safetensors")
    assert state.position.loss_scale.scale == 2.0 ** (131 - skipped)
    steps = {int(step) for step in state.moments.get("step", {}).values()}
    assert steps == {6 - skipped}


def test_a_held_out_loss_that_is_not_finite_is_told_and_never_the_lowest(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brushwork.training import session

    losses = iter([0.5, float("nan"), 0.6, 0.7])
    monkeypatch.setattr(session, "fixed_loss", lambda *arguments, **keywords: next(losses))
    only_these = {"validation__data": "0.2", "validation__train_part": "0"}

    result = run(pictures, tmp_path / "run", train__batch_size="8", **only_these)

    assert [row["held_out_loss"] for row in rows(result)] == [0.5, None, 0.6, 0.7]
    assert "held-out loss of step 2 is not finite" in (tmp_path / "run" / "log.txt").read_text()
    lowest = read_state(tmp_path / "run" / "state" / "state.safetensors").position.lowest
    assert lowest is not None
    assert (lowest.loss, lowest.step) == (0.5, 1)


def test_another_seed_drops_other_activations(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brushwork.lora.inject import Adapter

    keys: list[int | None] = []
    monkeypatch.setattr(Adapter, "set_dropout_key", lambda self, key: keys.append(key))
    for seed in ("0", "1"):
        run(pictures, tmp_path / seed, train__seed=seed, train__accumulation="2", train__max_steps="2")

    drawn = [key for key in keys if key is not None]
    assert len(set(drawn)) == len(drawn) == 8


def test_a_running_mean_lies_beside_every_file(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "run", train__ema_decay="0.9", save__every_steps="2", train__max_steps="6")

    names = {path.stem for path in (tmp_path / "run").glob("*.safetensors")}
    plain = {name for name in names if not name.endswith("-ema")}
    assert plain == {"lora", "lora-000001", "lora-lowest-loss", "lora-step00000002", "lora-step00000004"}
    assert names - plain == {f"{name}-ema" for name in plain}


def test_a_cache_that_is_emptied_during_a_run_is_told_and_filled_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = passes_module.loss_per_picture
    folder = {"cache__folder": f"'{tmp_path / 'cache'}'"}

    def emptying(*arguments: object, **keywords: object) -> torch.Tensor:
        Store(tmp_path / "cache").prune()
        return real(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(passes_module, "loss_per_picture", emptying)
        with pytest.raises(UserError, match=r"was changed while the run was reading the cache: it is not there"):
            run(pictures, tmp_path / "run", **folder)

    assert run(pictures, tmp_path / "run", **folder).finished


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__clip_skip": "3"}, r"model\.clip_skip is 3; SDXL"),
        ({"model__zero_terminal_snr": "on"}, r"the prediction is epsilon"),
        ({"lora__targets": "to_querry"}, r"no layer of this base is named"),
        ({"validation__data": "1.5"}, r"a share lies between 0 and 1, found 1\.5"),
    ],
    ids=["clip_skip", "zero-terminal", "targets", "share"],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_encoded(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    from brushwork.models.weights import Base

    def load(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a network was loaded")

    for name in ("load_vae", "load_text", "load_unet"):
        monkeypatch.setattr(Base, name, load)

    with pytest.raises(UserError, match=message):
        run(pictures, tmp_path / "run", **changes)


def test_a_kill_between_the_last_picture_and_the_sheet_leaves_the_sheet_to_the_next_start(
    pictures: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\n")
    changes = {"sample__prompts": f"'{prompts}'", "sample__steps": "1", "train__max_steps": "1"}
    run(pictures, tmp_path / "run", **changes)
    sheet = tmp_path / "run" / "sample" / "sheet.png"
    whole = sheet.read_bytes()

    sheet.unlink()
    assert run(pictures, tmp_path / "run", **changes).finished
    assert sheet.read_bytes() == whole


def test_a_failing_sample_does_not_end_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brushwork.generation.pipeline import Pipeline

    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Pipeline, "latents", fail)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\n")

    result = run(pictures, tmp_path / "run", sample__prompts=f"'{prompts}'")

    assert result.finished
    assert "out of memory" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {"lora__text_encoder": "true", "lora__targets": "kohya", "optimizer__text_encoder_learning_rate": "5e-4"},
        {"lora__targets": "kohya_conv", "lora__conv_rank": "1", "lora__dropout": "0.2"},
        {"cache__text": "off", "loss__min_snr_gamma": "5.0", "loss__noise_offset": "0.05"},
        {"model__prediction": "v", "model__zero_terminal_snr": "on", "schedule__name": "cosine_with_restarts"},
    ],
    ids=["text encoders", "convolutions", "text on the fly", "v and zero-terminal"],
)
def test_every_way_of_training_moves_every_module(
    pictures: Path, tmp_path: Path, precision: str, changes: dict[str, str]
) -> None:
    result = run(pictures, tmp_path / "run", train__precision=precision, train__accumulation="2", **changes)

    assert result.adapter is not None
    adapter = read_adapter(result.adapter)
    unchanged = {name for name, weights in adapter.state.items() if not weights.up.any()}
    # SDXL reads the penultimate states of its first text encoder, so nothing reaches the last of its layers (2 here).
    # Other trainers write these modules too, and so do we.
    assert all(name.startswith("text_encoder.text_model.encoder.layers.2.") for name in unchanged)
    components = {name.split(".")[0] for name in adapter.state}
    expected = {"unet", "text_encoder", "text_encoder_2"} if "lora__text_encoder" in changes else {"unet"}
    assert components == expected


def test_text_from_the_cache_and_text_on_the_fly_train_alike(pictures: Path, tmp_path: Path) -> None:
    cached = run(pictures, tmp_path / "cached", cache__text="on")
    live = run(pictures, tmp_path / "live", cache__text="off")

    assert cached.adapter is not None
    assert live.adapter is not None
    assert_same_files(cached.adapter, live.adapter)


def test_checkpointing_changes_no_number(pictures: Path, tmp_path: Path) -> None:
    with_it = run(pictures, tmp_path / "with", train__checkpointing="true", lora__dropout="0.3")
    without = run(pictures, tmp_path / "without", train__checkpointing="false", lora__dropout="0.3")

    assert with_it.adapter is not None
    assert without.adapter is not None
    assert_same_files(with_it.adapter, without.adapter)


def test_accumulation_gives_the_gradient_of_the_larger_batch(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of two and one of four see other noise, so the noise is tied to the picture for this test."""
    from brushwork.diffusion.noise import Noise
    from brushwork.training.step import Draws

    def by_position(shape: torch.Size, objective: object, *, seed: int, step: int, microbatch: int) -> Draws:
        first = microbatch * 2
        each = [torch.Generator().manual_seed(100 * step + first + row) for row in range(shape[0])]
        return Draws(
            timesteps=torch.tensor([100 + 200 * (first + row) for row in range(shape[0])]),
            latent_noise=torch.cat([torch.randn((1, *shape[1:]), generator=source) for source in each]),
            noise=Noise(torch.cat([torch.randn((1, *shape[1:]), generator=source) for source in each])),
        )

    monkeypatch.setattr(loop_module, "draw", by_position)
    from brushwork.training.batches import Budget

    def in_order(self: Budget, step: int) -> tuple[tuple[int, ...], ...]:
        first = 4 * step % 8
        rows = tuple(range(first, first + 4))
        return (rows[:2], rows[2:]) if self.accumulation == 2 else (rows,)

    monkeypatch.setattr(Budget, "microbatches", in_order)
    two = run(pictures, tmp_path / "two", train__batch_size="2", train__accumulation="2", train__max_steps="2")
    one = run(pictures, tmp_path / "one", train__batch_size="4", train__accumulation="1", train__max_steps="2")

    left, right = (
        read_state(result.folder / "state" / "state.safetensors").moments["exp_avg"] for result in (two, one)
    )
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=1e-3, atol=1e-7)
