"""What a run tells of itself, and how it is watched and steered."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

import brushwork.training.session as session_module
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.generation.generate import generate
from brushwork.training.run import RunResult, resume, train
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


def run(data: Path, out: Path, *, page: StringIO | None = None, accept: bool = False, **changes: str) -> RunResult:
    values = QUICK | {key.replace("__", "."): value for key, value in changes.items()}
    return train(
        data,
        out=out,
        overrides=[f"{key}={value}" for key, value in values.items()],
        accept_changes=accept,
        console=Console(file=page or StringIO(), width=200),
    )


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


def test_measuring_does_not_change_what_is_learned(pictures: Path, tmp_path: Path) -> None:
    plain = run(pictures, tmp_path / "plain")
    watched = run(pictures, tmp_path / "watched", validation__train_part="4", validation__every_steps="1")

    assert plain.adapter is not None
    assert watched.adapter is not None
    one, other = load_file(plain.adapter), load_file(watched.adapter)
    assert all(one[name].equal(other[name]) for name in one)


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

    on = run(pictures, tmp_path / "early", accept=True, validation__every_steps="2")
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
