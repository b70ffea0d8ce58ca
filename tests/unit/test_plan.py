"""The plan that is shown before a run: what it counts is what the run then does."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.training import report
from brushwork.training.learner import make_learner
from brushwork.training.plan import cut_captions, show_plan
from brushwork.training.prepare import Preparation, prepare
from brushwork.training.run_folder import RunFolder
from brushwork.training.space import needed_space
from brushwork.training.step import Objective
from brushwork.training.what_learns import count_what_learns


def planned(tmp_path: Path, *overrides: str) -> Preparation:
    if not (tmp_path / "data").exists():
        draw_folder(tmp_path / "data", count=5, size=64, seed=2)
    settings = resolve(overrides=["train.device=cpu", "data.resolution=64", *overrides]).settings
    return prepare(tmp_path / "data", settings)


@pytest.mark.parametrize(
    "overrides",
    [
        ["lora.targets=attention"],
        ["train.mode=full"],
        ["lora.targets=kohya_conv", "lora.rank=4", "lora.conv_rank=2"],
        ["lora.targets=kohya", "lora.text_encoder=true"],
    ],
)
def test_the_parameters_that_are_counted_are_those_that_learn(tmp_path: Path, overrides: list[str]) -> None:
    plan = planned(tmp_path, *overrides)
    unet = plan.base.load_unet(dtype=plan.dtype, device="cpu")
    text = plan.base.load_text(dtype=plan.dtype, device="cpu")

    objective = Objective(schedule=plan.schedule, prediction="epsilon", scaling_factor=1.0)
    trained = make_learner(
        unet, text, plan.base, plan.settings, objective=objective, dtype=plan.dtype, device=plan.device
    )

    for component, (modules, parameters) in count_what_learns(plan).items():
        real = [each for name, each in trained.learner.parameters.items() if name.split(".")[0] == component]
        per_module = 1 if "train.mode=full" in overrides else 2
        assert (modules, parameters) == (len(real) // per_module, sum(each.numel() for each in real)), component
    total = sum(parameters for _, parameters in count_what_learns(plan).values())
    assert total == sum(each.numel() for each in trained.learner.parameters.values())


def test_captions_that_are_too_long_are_counted_before_the_start(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "data" / "00000.txt").write_text("a fox " * 60)

    assert cut_captions(planned(tmp_path)) == {"00000.png": 120 - 75}
    assert cut_captions(planned(tmp_path, "model.max_tokens=150")) == {}


def test_the_captions_that_are_counted_are_those_that_are_trained_on(tmp_path: Path) -> None:
    assert "5 different, 0 pictures without" in shown(tmp_path)
    assert "3 different, 0 pictures without" in shown(tmp_path, "validation.data=0.4")


def test_the_plan_names_the_caption_that_loses_most_and_what_reads_it(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "data" / "00000.txt").write_text("a fox " * 60)
    (tmp_path / "data" / "00001.txt").write_text("a fox " * 38)

    assert "2 of 5 captions are longer than 75 tokens and lose 1 to 45, most of all 00000.png" in shown(tmp_path)
    assert "--set model.max_tokens=150 reads more" in shown(tmp_path)
    assert "max_tokens" not in shown(tmp_path, "model.max_tokens=150")


def test_a_choice_is_measured_by_its_longest_form(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "data" / "00000.txt").write_text("{short|" + "a fox " * 60 + "}")

    assert cut_captions(planned(tmp_path, "data.wildcards=true")) == {"00000.png": 45}


def test_the_plan_says_what_becomes_of_captions(tmp_path: Path) -> None:
    assert "wording" not in shown(tmp_path)

    varied = shown(tmp_path, "data.shuffle_captions=true", "data.keep_tokens=1", "data.tag_dropout=0.1")

    assert "tags shuffled, 1 kept in front; 10% of tags dropped; 8 forms of each in turn" in varied
    fresh = shown(tmp_path, "data.shuffle_captions=true", "lora.text_encoder=true")
    assert "a new form each time" in fresh


def test_the_files_that_evaluations_need_are_told_and_counted(tmp_path: Path) -> None:
    told = shown(tmp_path, "train.epochs=3", "save.every_epochs=off", "evaluation.every_epochs=1")

    assert (
        "for each evaluation and at the end: up to 4 adapters" in told
    )  # two, the last, and that of the lowest loss


def shown(tmp_path: Path, *overrides: str) -> str:
    page = Console(file=StringIO(), width=400)
    folder = RunFolder(tmp_path / "run", "lora")
    show_plan(page, planned(tmp_path, *overrides), folder, num_sample_prompts=0)
    return page.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_space_that_is_planned_covers_what_is_written(tmp_path: Path) -> None:
    from brushwork.training.run import train

    overrides = ["train.device=cpu", "data.resolution=64", "train.max_steps=6", "train.ema_decay=0.9", "lora.rank=4"]
    overrides += ["save.every_steps=2", "save.keep_last=1"]
    plan = planned(tmp_path, *overrides)
    train(tmp_path / "data", out=tmp_path / "run", overrides=overrides, console=Console(file=StringIO()))

    space = needed_space(plan, sum(parameters for _, parameters in count_what_learns(plan).values()))

    files = sorted((tmp_path / "run").glob("*.safetensors"))
    assert len(files) <= space.num_files
    headers = 64 * 1024
    assert all(space.file <= file.stat().st_size <= space.file + headers for file in files)
    state = (tmp_path / "run" / "state" / "state.safetensors").stat().st_size
    assert space.state <= state <= space.state + 4 * headers


def test_a_run_that_does_not_fit_on_the_disk_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(report.shutil, "disk_usage", lambda path: Usage)

    with pytest.raises(UserError, match=r"the run would write .* and 1000 bytes are free there"):
        show_plan(
            Console(file=StringIO()), planned(tmp_path), RunFolder(tmp_path / "run", "lora"), num_sample_prompts=0
        )


def test_brackets_in_captions_and_folders_are_shown_as_they_are(tmp_path: Path) -> None:
    page = Console(file=StringIO(), width=400)
    draw_folder(tmp_path / "my [bold]set[/bold]", count=1, size=64, seed=2)
    next((tmp_path / "my [bold]set[/bold]").glob("*.txt")).write_text("a fox [red] in a hat [/x]")
    settings = resolve(overrides=["train.device=cpu", "data.resolution=64"]).settings
    plan = prepare(tmp_path / "my [bold]set[/bold]", settings)

    show_plan(page, plan, RunFolder(tmp_path / "run [/y]", "lora"), num_sample_prompts=0)

    shown = page.file.getvalue()  # type: ignore[attr-defined]
    for text in ("a fox [red] in a hat [/x]", "my [bold]set[/bold]", "run [/y]"):
        assert text in shown, text


def test_a_caption_of_a_thousand_words_does_not_fill_the_screen(tmp_path: Path) -> None:
    page = Console(file=StringIO(), width=100)
    planned(tmp_path)
    for file in (tmp_path / "data").glob("*.txt"):
        file.write_text("fox " * 1000)

    show_plan(page, planned(tmp_path), RunFolder(tmp_path / "run", "lora"), num_sample_prompts=0)

    shown = page.file.getvalue()  # type: ignore[attr-defined]
    assert len(shown.splitlines()) < 40
    assert "(3999 characters)" in shown
