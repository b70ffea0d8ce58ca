"""What a run tells of itself, and how it is watched and steered."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import brushwork.training.passes as passes_module
import brushwork.training.session as session_module
import quick_runs
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.generation.generate import generate
from brushwork.training.checkpoint import read_state
from brushwork.training.requests import ask
from brushwork.training.run import resume
from brushwork.training.standing import summarise
from brushwork.training.verdict import Verdict

QUICK = {
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.max_steps": "6",
    "train.precision": "fp32",
    "data.resolution": "64",
    "lora.rank": "2",
    "optimizer.learning_rate": "1e-3",
    "validation.timesteps": "1",
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "pictures"
    draw_folder(folder, count=8, size=96, seed=5)
    return folder


run = partial(quick_runs.run, QUICK)


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_held_out_and_a_fixed_part_of_the_training_set_are_measured_alike_and_judged(
    pictures: Path, tmp_path: Path
) -> None:
    page = StringIO()
    result = run(
        pictures, tmp_path / "run", page=page, validation__data="0.25", validation__every_epochs="off",
        validation__every_steps="2", validation__train_part="3", save__every_epochs="off",
    )  # fmt: skip

    measured = [row for row in rows(result.folder) if "held_out_loss" in row]
    assert [row["step"] for row in measured] == [2, 4, 6]
    assert all(isinstance(row["train_part_loss"], float) for row in measured)
    assert [row["verdict"] for row in measured][:2] == ["still learning: too early to say more"] * 2
    told = [line for line in page.getvalue().splitlines() if "training part" in line]
    assert len(told) == 3
    first = measured[0]
    assert f"step 2: held out {first['held_out_loss']:.4f}, training part {first['train_part_loss']:.4f}" in told[0]
    assert summarise(result.folder)["verdict"] == measured[-1]["verdict"]

    table = [line.split() for line in page.getvalue().splitlines()]
    assert ["step", "loss", "held", "out", "rate", "images/s", "wait", "memory"] in table
    last = rows(result.folder)[-1]
    assert ["6", f"{last['smoothed_loss']:.4f}", f"{last['held_out_loss']:.4f}"] in [line[:3] for line in table]
    assert all(row["seconds"] >= row["data_wait_seconds"] >= 0 for row in rows(result.folder))  # type: ignore[operator]


def says(kind: str, at_step: int) -> object:
    def judge(rows: list[dict[str, int]], **settings: object) -> Verdict:
        return Verdict(kind if rows[-1]["step"] >= at_step else "learning", "made up")  # type: ignore[arg-type]

    return judge


def test_a_run_ends_where_a_verdict_that_was_asked_for_falls_and_goes_on_when_it_is_no_longer_asked_for(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(pictures, tmp_path / "whole")
    monkeypatch.setattr(session_module, "judge", says("flat", 4))
    asked = {"validation__every_steps": "2", "train__stop_when": "['flat']"}
    early = run(pictures, tmp_path / "early", **asked)

    assert (early.finished, early.step, early.ended) == (True, 4, "flat")
    assert early.adapter == tmp_path / "early" / "lora.safetensors"
    assert summarise(early.folder)["finished"] is True

    page = StringIO()
    again = resume(early.folder, console=Console(file=page, width=200))
    assert (again.finished, again.step) == (True, 4)
    assert "it ended at step 4 of 6, being flat (train.stop_when)" in page.getvalue()

    on = run(pictures, tmp_path / "early", accept_changes=True, validation__every_steps="2")
    assert (on.finished, on.step, on.ended) == (True, 6, None)
    assert whole.adapter is not None
    assert on.adapter is not None
    one, other = load_file(whole.adapter), load_file(on.adapter)
    assert all(one[name].equal(other[name]) for name in one)


def test_a_verdict_that_was_not_asked_for_ends_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "judge", says("oscillating", 1))
    result = run(pictures, tmp_path / "run", train__stop_when="['flat', 'overtrained']", validation__data="0.25")
    assert (result.step, result.ended) == (6, None)


def test_to_stop_when_overtrained_needs_pictures_that_are_held_out(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.stop_when = overtrained needs pictures that are held out"):
        run(pictures, tmp_path / "run", train__stop_when="['overtrained']")


def test_a_mean_on_the_cpu_is_the_same_file_and_generate_takes_it(pictures: Path, tmp_path: Path) -> None:
    beside = run(pictures, tmp_path / "a", train__ema_decay="0.9")
    on_cpu = run(pictures, tmp_path / "b", train__ema_decay="0.9", train__ema_device="cpu")

    one, other = (load_file(result.folder / "lora-ema.safetensors") for result in (beside, on_cpu))
    assert all(one[name].equal(other[name]) for name in one)
    drawn = generate(
        out=tmp_path / "drawn", prompt="a fox", loras=[str(on_cpu.folder)], ema=True, size=64, steps=1,
        overrides=["train.device=cpu"], console=Console(file=StringIO()),
    )  # fmt: skip
    assert [each.file for each in drawn.applied] == ["lora-ema.safetensors"]


def test_ema_without_anything_that_has_a_mean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is named"):
        generate(out=tmp_path / "drawn", prompt="a fox", ema=True, console=Console(file=StringIO()))


def fails_above(pictures_at_once: int, monkeypatch: pytest.MonkeyPatch, *, from_call: int = 0) -> list[int]:
    """An allocator that has room for so many pictures only; -> how many were asked of it each time."""
    asked: list[int] = []
    whole = passes_module.loss_per_picture

    def loss_per_picture(unet: object, batch: object, *rest: object, **settings: object) -> object:
        count = len(batch.names)  # type: ignore[attr-defined]
        asked.append(count)
        if count > pictures_at_once and len(asked) > from_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")
        return whole(unet, batch, *rest, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(passes_module, "loss_per_picture", loss_per_picture)
    return asked


def test_a_batch_that_finds_no_memory_is_cut_and_gives_the_same_numbers(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"train__batch_size": "4", "train__max_steps": "2", "optimizer__learning_rate": "1e-4"}
    whole = run(pictures, tmp_path / "whole", **changes)
    asked, page = fails_above(1, monkeypatch), StringIO()
    cut = run(pictures, tmp_path / "cut", page=page, **changes)

    assert asked == [4, 2] + 8 * [1], "halved until it fits, and remembered"
    one, other = rows(whole.folder), rows(cut.folder)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    assert [row["gradient_norm"] for row in other] == pytest.approx([row["gradient_norm"] for row in one], rel=1e-4)
    assert page.getvalue().count("memory ran out with") == 2
    assert "Tried to allocate 2.00 GiB" in page.getvalue()
    assert read_state(cut.folder / "state" / "state.safetensors").position.pictures_at_once == 1


def test_a_run_that_has_no_memory_for_one_picture_stops_with_everything_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_above(0, monkeypatch, from_call=2)
    changes = {"train__max_steps": "4", "save__every_epochs": "off", "train__checkpointing": "false"}
    with pytest.raises(UserError, match="memory ran out in step 3, one picture at a time") as caught:
        run(pictures, tmp_path / "run", **changes)

    assert "Everything up to step 2 is saved" in caught.value.problem
    assert "--set train.checkpointing=true" in str(caught.value.fix)
    monkeypatch.undo()
    assert run(pictures, tmp_path / "run", accept_changes=True, train__max_steps="4").finished


def test_another_terminal_lets_a_run_save_draw_and_stop(pictures: Path, tmp_path: Path) -> None:
    folder, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    prompts.write_text("a fox --w 64 --h 64 --s 1\n")

    def until(there: Callable[[], bool]) -> None:
        while not there():
            time.sleep(0.01)

    def steer() -> None:
        until(lambda: (folder / "metrics.jsonl").exists())
        ask(folder, "save")
        ask(folder, "sample")
        until(lambda: any(folder.glob("sample/step*/*.png")))
        ask(folder, "stop")

    thread = threading.Thread(target=steer)
    thread.start()
    result = run(
        pictures, folder, train__max_steps="400", train__epochs="400", save__every_epochs="off",
        sample__prompts=f"'{prompts}'", sample__every_epochs="off", sample__at_first="false",
    )  # fmt: skip
    thread.join()

    assert not result.finished
    saved = list(folder.glob("lora-step*.safetensors"))
    assert len(saved) == 1
    assert len(load_file(saved[0])) > 0
    assert not (folder / "sample" / "base").exists(), "sample.at_first is off"
    assert read_state(folder / "state" / "state.safetensors").position.step == result.step
