"""Several processes learn, cache and draw what one does; they begin, stop and fail together."""

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import brushwork.distributed as distributed
import quick_runs
from brushwork.cache.store import Store
from brushwork.config.schema import TrainConfig
from brushwork.distributed import Group, joined
from brushwork.errors import UserError
from brushwork.generation.generate import generate
from brushwork.training import validation
from brushwork.training.cache_ahead import build_cache
from brushwork.training.checkpoint import read_state
from brushwork.training.processes import refuse_idle_processes, refuse_other_states
from brushwork.training.run import RunResult, resume
from several_processes import together

QUICK = {
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.batch_size": "2",
    "train.accumulation": "3",
    "train.max_steps": "4",
    "train.checkpointing": "false",
    "data.resolution": "64",
    "lora.rank": "2",
    "lora.dropout": "0.1",
    "optimizer.learning_rate": "1e-3",
    "validation.data": "0.2",
    "sample.steps": "1",
}


def learn(rank: int, data: Path, out: Path, **changes: str) -> RunResult:
    return quick_runs.run(QUICK | {"sample.prompts": str(data.parent / "prompts.txt")}, data, out, **changes)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    return learn(0, data, tmp_path_factory.mktemp("alone") / "run").folder


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(run: Path, other: Path) -> None:
    """The same curve and the same weights, to float tolerance: sums are added up in another order."""
    for key in ("step", "loss", "held_out_loss", "gradient_norm", "learning_rate"):
        found, expected = ([row.get(key) or 0.0 for row in rows(each)] for each in (run, other))
        assert found == pytest.approx(expected, rel=1e-5), key
    found_state, expected_state = (read_state(each / "state" / "state.safetensors") for each in (run, other))
    assert found_state.parameters.keys() == expected_state.parameters.keys()
    for name, expected_parameter in expected_state.parameters.items():
        # AdamW divides by the gradient's size: where that is next to nothing, its last bits decide.
        torch.testing.assert_close(
            found_state.parameters[name], expected_parameter, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_several_processes_learn_what_one_learns(data: Path, alone: Path, tmp_path: Path) -> None:
    """One takes two batches of the first step, and the other has nothing to do in the short last one of an epoch."""
    results = together(learn, data, tmp_path / "run")
    assert [result.step for result in results] == [4, 4]
    assert_same_run(tmp_path / "run", alone)
    names = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (tmp_path / "run", alone)]
    assert names[0] == names[1]
    for picture in sorted((alone / "sample" / "base").glob("*.png")):  # before anything is learned: the same bits
        assert (tmp_path / "run" / "sample" / "base" / picture.name).read_bytes() == picture.read_bytes()


def stopped(rank: int, data: Path, out: Path) -> RunResult:
    """Rank 1 alone is told to stop, in its second step."""
    from brushwork.training import passes

    plain = passes.loss_per_picture

    def signalled(*arguments: Any, **more: Any) -> Any:
        if rank == 1 and (out / "metrics.jsonl").exists() and len(rows(out)) >= 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments, **more)

    passes.loss_per_picture = signalled
    try:
        return learn(rank, data, out)
    finally:
        passes.loss_per_picture = plain


def test_what_one_is_told_all_do_and_another_number_of_processes_goes_on(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    results = together(stopped, data, tmp_path / "run")
    assert [(result.step, result.finished) for result in results] == [(results[0].step, False)] * 2
    assert 1 < results[0].step < 4
    assert read_state(tmp_path / "run" / "state" / "state.safetensors").position.step == results[0].step

    assert resume(tmp_path / "run", console=Console(file=StringIO())).finished
    assert_same_run(tmp_path / "run", alone)


def learn_beside_a_full_card(rank: int, data: Path, out: Path) -> RunResult:
    """Memory runs out once in rank 1 alone, while it measures what was held out."""
    plain, failures = validation.loss_per_picture, iter([torch.OutOfMemoryError("CUDA out of memory")])

    def losses(*arguments: Any, **more: Any) -> Any:
        if rank == 1 and (failure := next(failures, None)) is not None:
            raise failure
        return plain(*arguments, **more)

    validation.loss_per_picture = losses
    try:
        return learn(rank, data, out, sample__prompts="off")
    finally:
        validation.loss_per_picture = plain


def test_where_one_cannot_measure_nobody_does_and_all_go_on_together(data: Path, alone: Path, tmp_path: Path) -> None:
    results = together(learn_beside_a_full_card, data, tmp_path / "run")

    assert [result.finished for result in results] == [True, True]
    found, expected = rows(tmp_path / "run"), rows(alone)
    measured = [[row["held_out_loss"] for row in run if "held_out_loss" in row] for run in (found, expected)]
    assert measured[0] == [None, *(pytest.approx(loss, rel=1e-5) for loss in measured[1][1:])]
    for key in ("loss", "train_part_loss"):
        assert [row.get(key, 0.0) for row in found] == pytest.approx(
            [row.get(key, 0.0) for row in expected], rel=1e-5
        )
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("was not measured: CUDA out of memory. Training goes on.") == 1


def fill(rank: int, data: Path, cache: Path) -> int:
    """-> how many entries this process made."""
    made = []
    plain = Store.write
    Store.write = lambda self, key, *rest, **more: (made.append(key), plain(self, key, *rest, **more))[1]  # type: ignore
    overrides = [f"{key}={value}" for key, value in QUICK.items()]
    try:
        build_cache(data, overrides=[*overrides, f"cache.folder={cache}"], console=Console(file=StringIO()))
    finally:
        Store.write = plain  # type: ignore[method-assign]
    return len(made)


def test_each_process_encodes_its_share(data: Path, tmp_path: Path) -> None:
    one = fill(0, data, tmp_path / "one")
    several = together(fill, data, tmp_path / "several")
    entries = [sorted(Store(tmp_path / name).keys()) for name in ("one", "several")]
    assert entries[0] == entries[1]
    assert len(entries[0]) == one <= sum(several) <= one + 1  # both may have made the empty caption
    assert min(several) >= one // 2 - 1
    for key in entries[0]:
        left, right = (Store(tmp_path / name).read(key) for name in ("one", "several"))
        assert all(torch.equal(left[name], right[name]) for name in left)


def draw(rank: int, out: Path) -> int:
    made = generate(
        out=out,
        prompt=["a fox", "a bird", "a house"],
        size=64,
        steps=2,
        overrides=["train.device=cpu"],
        console=Console(file=StringIO()),
    )
    return made.num_kept


def test_several_processes_draw_the_pictures_of_one(tmp_path: Path) -> None:
    draw(0, tmp_path / "one")
    assert together(draw, tmp_path / "several") == [0, 0]
    left, right = (sorted((tmp_path / name).rglob("*")) for name in ("one", "several"))
    assert [path.name for path in left] == [path.name for path in right]
    for one, other in zip(left, right, strict=True):
        if one.suffix == ".png":
            assert one.read_bytes() == other.read_bytes(), one.name
    (tmp_path / "several" / "00001.png").unlink()
    assert together(draw, tmp_path / "several") == [2, 2]
    assert (tmp_path / "several" / "00001.png").read_bytes() == (tmp_path / "one" / "00001.png").read_bytes()


def test_an_error_in_all_is_told_by_one(data: Path, tmp_path: Path) -> None:
    errors = together(learn_with_one_batch, data, tmp_path)
    assert sorted(type(error).__name__ for error in errors) == ["SystemExit", "UserError"]
    assert not (tmp_path / "run").exists()


def learn_with_one_batch(rank: int, data: Path, tmp_path: Path) -> RunResult:
    return learn(rank, data, tmp_path / "run", train__accumulation="1")


def learn_from_other_pictures(rank: int, data: Path, tmp_path: Path) -> RunResult:
    return learn(rank, data, tmp_path / "run", data__caption_prefix="mine" if rank else "yours")


def test_processes_that_see_other_captions_are_refused(data: Path, tmp_path: Path) -> None:
    errors = together(learn_from_other_pictures, data, tmp_path)
    told = [str(error) for error in errors if isinstance(error, UserError)]
    assert len(told) == 1
    assert "process 1 sees other settings than process 0" in told[0]
    assert not (tmp_path / "run").exists()


def test_processes_that_find_a_run_at_different_steps_are_refused() -> None:
    errors = together(go_on_from, [4, 0])
    told = [str(error) for error in errors if isinstance(error, UserError)]
    assert len(told) == 1
    assert "at different steps: 4, 0" in told[0]


def go_on_from(rank: int, steps: list[int]) -> None:
    with joined() as group:
        refuse_other_states(steps[rank], group)


def sum_up(rank: int) -> list[Any]:
    distributed.NUMBERS_AT_ONCE = 5  # so that the sums are made in pieces
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (7,), (1,))]
    parameters[0].grad = torch.full((2, 2), 1.0 + rank)
    parameters[2].grad = torch.arange(7.0) if rank == 1 else None
    with joined() as group:
        group.sum_gradients(parameters)
        told = [group.any(rank == 1), group.any(False), group.from_first(rank), group.total(0.5 + rank)]
    return [None if each.grad is None else each.grad.tolist() for each in parameters] + told


def test_gradients_are_summed_and_what_nobody_has_stays_away() -> None:
    expected = [[[3.0, 3.0], [3.0, 3.0]], None, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], None, True, False, 0, 2.0]
    assert together(sum_up) == [expected, expected]


def test_the_fix_for_idle_processes_keeps_the_pictures_of_a_step_where_it_can() -> None:
    refuse_idle_processes(TrainConfig(batch_size=1, accumulation=4), Group(0, 4))
    with pytest.raises(UserError, match="4 processes share the batches of a step") as caught:
        refuse_idle_processes(TrainConfig(batch_size=8, accumulation=1), Group(0, 4))
    assert "--set train.batch_size=2 --set train.accumulation=4 " in str(caught.value.fix)
    with pytest.raises(UserError) as caught:
        refuse_idle_processes(TrainConfig(), Group(0, 4))
    assert "(a step now sees 1 picture, then 4)" in str(caught.value.fix)


def test_torchrun_shows_an_error_once_and_the_first_process_speaks(data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "brushwork"]
    done = subprocess.run(
        [*torchrun, "train", str(data), "--out", str(tmp_path / "run"), "--set", "train.device=cpu"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: 2 processes share the batches of a step") == 1, done.stderr
