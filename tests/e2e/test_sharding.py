"""Full fine-tuning in pieces: several processes that hold one network together learn what one process learns."""

import shutil
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_processes import assert_same_run, rows

import quick_runs
from brushwork.config.load import resolve
from brushwork.distributed import Group, current, joined
from brushwork.errors import UserError
from brushwork.models.spec import SDXL
from brushwork.models.unet import UNet
from brushwork.models.weights import open_base
from brushwork.training.checkpoint import read_state
from brushwork.training.contradictions import refuse_contradictions
from brushwork.training.loop import Loop
from brushwork.training.optimizers import RULES, refuse_unfit_optimizer
from brushwork.training.run import RunResult, resume
from brushwork.training.sharding import Whole, load_shards, own_rows
from several_processes import together

QUICK = {
    "train.mode": "full",
    "train.sharding": "full",
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.batch_size": "2",
    "train.accumulation": "3",
    "train.max_steps": "3",
    "train.ema_decay": "0.9",
    "data.resolution": "64",
    "optimizer.learning_rate": "1e-4",
    "optimizer.max_grad_norm": "0.1",
    "validation.data": "0.2",
    "validation.timesteps": "1",
    "sample.steps": "1",
    "sample.sampler": "ddim",
    "save.precision": "fp32",
}


def learn(rank: int, data: Path, out: Path, **changes: str) -> RunResult:
    return quick_runs.run(QUICK | {"sample.prompts": str(data.parent / "prompts.txt")}, data, out, **changes)


def go_on(rank: int, run: Path) -> RunResult:
    return resume(run, console=Console(file=StringIO()))


def stop_after_first(rank: int, data: Path, out: Path) -> RunResult:
    """Rank 1 is told to stop in its first step."""
    plain = Loop._update

    def told(self: Loop, *arguments: Any) -> Any:
        row = plain(self, *arguments)
        if rank == 1:
            self.interruption.agree()
        return row

    Loop._update = told  # type: ignore[method-assign]
    try:
        return learn(rank, data, out)
    finally:
        Loop._update = plain  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process, for which the setting changes nothing."""
    return learn(0, data, tmp_path_factory.mktemp("alone") / "run").folder


@pytest.fixture(scope="module")
def pieces(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, its network in two pieces."""
    run = tmp_path_factory.mktemp("pieces") / "run"
    assert [result.step for result in together(learn, data, run)] == [3, 3]
    return run


def state_file(run: Path) -> Path:
    return run / "state" / "state.safetensors"


def assert_same_files(run: Path, other: Path) -> None:
    names = [{path.relative_to(each).as_posix() for path in each.rglob("*")} for each in (run, other)]
    assert names[0] == names[1]


def test_pieces_learn_what_the_whole_learns_and_write_the_same_files(alone: Path, pieces: Path) -> None:
    """One takes two batches of the first step; in the short last one of an epoch one looks on."""
    assert_same_run(pieces, alone)
    assert_same_files(pieces, alone)
    ours, theirs = (read_state(state_file(run)) for run in (pieces, alone))
    assert ours.ema is not None
    assert theirs.ema is not None
    for kind in ("exp_avg", "exp_avg_sq", "step"):
        assert ours.moments[kind].keys() == theirs.moments[kind].keys()
        for name, expected in theirs.moments[kind].items():
            torch.testing.assert_close(ours.moments[kind][name], expected, rtol=1e-3, atol=1e-6)
    for name, expected in theirs.ema.items():
        torch.testing.assert_close(ours.ema[name], expected, rtol=1e-4, atol=2e-5)
    for picture in sorted((alone / "sample" / "base").glob("*.png")):  # before anything is learned: the same bits
        assert (pieces / "sample" / "base" / picture.name).read_bytes() == picture.read_bytes()


def test_the_saved_base_is_whole(pieces: Path) -> None:
    state = read_state(state_file(pieces))
    assert state.ema is not None
    for name, expected in (("lora", state.parameters), ("lora-ema", state.ema)):
        saved = open_base(str(pieces / name)).load_unet(dtype=torch.float32, device="cpu").state_dict()
        assert {f"unet.{key}" for key in saved} == expected.keys()
        assert [key for key, tensor in saved.items() if not torch.equal(tensor, expected[f"unet.{key}"])] == []


def test_a_stopped_run_goes_on_with_the_same_bytes_or_with_another_number_of_processes(
    data: Path, alone: Path, pieces: Path, tmp_path: Path
) -> None:
    stopped = together(stop_after_first, data, tmp_path / "run")
    assert [(result.step, result.finished) for result in stopped] == [(1, False)] * 2
    shutil.copytree(tmp_path / "run", tmp_path / "one")

    assert [result.finished for result in together(go_on, tmp_path / "run")] == [True, True]
    assert state_file(tmp_path / "run").read_bytes() == state_file(pieces).read_bytes()
    assert go_on(0, tmp_path / "one").finished
    assert_same_run(tmp_path / "one", alone)


def learn_in_bf16(rank: int, data: Path, out: Path) -> RunResult:
    changes = {"train__precision": "bf16", "train__checkpointing": "false", "optimizer__name": "schedulefree"}
    changes |= {"train__ema_decay": "off", "schedule__name": "constant", "train__max_steps": "2"}
    return learn(rank, data, out, sample__prompts="off", **changes)


def test_bf16_with_a_rule_that_keeps_a_mean(data: Path, tmp_path: Path) -> None:
    """The network computes in bf16 on float32 weights, whether it lies in pieces or not."""
    alone = learn_in_bf16(0, data, tmp_path / "alone").folder
    together(learn_in_bf16, data, tmp_path / "run")
    for key in ("loss", "held_out_loss", "gradient_norm"):
        found, expected = ([row.get(key) or 0.0 for row in rows(each)] for each in (tmp_path / "run", alone))
        assert found == pytest.approx(expected, rel=2e-3), key  # bf16 has 8 bits
    ours, theirs = (read_state(state_file(run)) for run in (tmp_path / "run", alone))
    assert {tensor.dtype for tensor in ours.parameters.values()} == {torch.float32}
    assert ours.numbers == theirs.numbers
    for name, expected in theirs.used_parameters().items():
        # Two steps of 1e-4, each up or down: where a gradient is next to nothing, bf16 decides which.
        torch.testing.assert_close(ours.used_parameters()[name], expected, rtol=0, atol=4e-4)


def hold_three(rank: int) -> list[Any]:
    """Three processes: what each holds, and what comes of it when it is put together."""
    with joined() as group:
        base = open_base("bundled")
        shards = load_shards(base, dtype=torch.float32, device=torch.device("cpu"), group=group)
        held = sum(piece.numel() for piece in shards.parameters.values())
        whole: dict[str, torch.Tensor] = {}
        pieces = {"parameter": shards.parameters}
        shards.hand_over(pieces, lambda: whole.update(Whole(shards, "parameter", shards.parameters)))
        expected = base.load_unet(dtype=torch.float32, device="cpu").state_dict()
        different = [name for name in whole if not torch.equal(whole[name], expected[name.removeprefix("unet.")])]
        uneven = [name for name, shape in shards.shapes.items() if shape[0] % 3]
        same_memory = all(
            shards.parameters[f"unet.{name}"].data_ptr() == weight.to_local().data_ptr()  # type: ignore[operator]
            for name, weight in shards.unet.named_parameters()
        )
        with suppress(OSError):
            shards.hand_over(pieces, disk_is_full)
        together_again = group.total(1.0)
        inputs = torch.ones(1, 4, 8, 8), torch.tensor([5]), torch.ones(1, 77, base.spec.context_width)
        more = torch.ones(1, base.spec.pooled_width or 0), torch.full((1, 6), 64.0)
        with shards.gathered(), torch.no_grad():
            outputs = [shards.unet(*inputs, *more) for _ in range(rank)]  # as often as it likes
        reference = base.load_unet(dtype=torch.float32, device="cpu")(*inputs, *more)
        equal = all(torch.equal(output, reference) for output in outputs)
    return [held, len(whole), different, len(uneven) > 0, same_memory, equal, together_again, len(expected)]


def disk_is_full() -> None:
    raise OSError(28, "No space left on device")


def test_three_processes_hold_a_third_each_and_together_the_whole() -> None:
    """Where writing fails, nobody waits for more; drawing and measuring need nobody else."""
    results = together(hold_three, size=3)
    for held, _, different, has_uneven, same_memory, equal, together_again, _ in results:
        assert (different, has_uneven, same_memory, equal, together_again) == ([], True, True, True, 3.0)
        assert held < 0.36 * sum(each[0] for each in results)
    assert [found[1] for found in results] == [results[0][-1], 0, 0]


def run_out(rank: int, data: Path, out: Path) -> RunResult:
    def losses(self: Loop, *arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    Loop._losses = losses  # type: ignore[method-assign]
    return learn(rank, data, out, sample__prompts="off")


def test_where_memory_runs_out_nothing_is_tried_again_and_the_way_out_is_told(data: Path, tmp_path: Path) -> None:
    errors = [error for error in together(run_out, data, tmp_path / "run") if isinstance(error, UserError)]
    assert len(errors) == 1
    assert "a network in pieces (train.sharding) cannot try again in smaller parts" in errors[0].problem
    assert errors[0].fix is not None
    assert "--set train.batch_size=1   with twice the train.accumulation" in errors[0].fix
    assert "--set optimizer.name=adamw8bit" not in errors[0].fix  # which is refused beside train.sharding
    assert "--set train.mode=lora" not in errors[0].fix


def test_rows_are_dealt_out_without_a_gap() -> None:
    for rows_of_it in (1, 2, 7, 12):
        whole = torch.arange(rows_of_it * 2.0).view(rows_of_it, 2)
        dealt = [own_rows(whole, Group(rank, 4)) for rank in range(4)]
        assert torch.equal(torch.cat(dealt), whole)


def test_what_cannot_be_cut_is_refused_with_the_reason_and_what_can() -> None:
    def settings(*more: str) -> Any:
        return resolve(overrides=["train.sharding=full", "train.mode=full", *more]).settings

    with pytest.raises(UserError, match=r"a few megabytes\. The frozen base"):
        refuse_contradictions(settings("train.mode=lora"))
    unfit = {name for name, rule in RULES.items() if rule.needs_whole is not None}
    assert unfit == RULES.keys() - {"adamw", "lion", "schedulefree"}
    for name in unfit:
        with pytest.raises(UserError, match=f"optimizer.name = {name} needs more, for it") as caught:
            refuse_unfit_optimizer(settings(f"optimizer.name={name}"))
        assert "--set optimizer.name=adamw (of those that move each number by itself: adamw, lion, schedulefree)" in (
            caught.value.fix or ""
        )


def test_the_plan_for_sdxl_is_16_bytes_for_each_weight() -> None:
    from brushwork.training.space import bytes_per_weight

    asked = ["train.mode=full", "train.sharding=full"]
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in UNet(SDXL).parameters())
    assert weights == 2_567_463_684
    assert bytes_per_weight(resolve(overrides=asked).settings) == 16
    assert bytes_per_weight(resolve(overrides=[*asked, "train.ema_decay=0.99"]).settings) == 20
    assert current().size == 1
