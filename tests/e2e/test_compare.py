"""`brushwork compare` of two runs: a base of each family, each drawn at its own size; and `brushwork report RUN`."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import brushwork
from brushwork.cli.app import main
from brushwork.evaluation.run import evaluate
from brushwork.film.frames import draw_folder
from quick_runs import run
from random_base import SMALL_SD15, write_random_base

PROMPTS = "portrait of {trigger}\n{trigger} on a beach\n{trigger} at night\n"


TRAINING = {
    "train.max_steps": "2",
    "train.batch_size": "2",
    "train.device": "cpu",
    "lora.rank": "2",
    "validation.every_steps": "1",
    "validation.timesteps": "1",
    "validation.data": "0.25",
    "evaluation.seeds": "1",
    "evaluation.resamples": "100",
    "evaluation.encoder": "bundled",
    "evaluation.batch_size": "3",
    "sample.steps": "1",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled base, of the family of SDXL, at 96 pixels, and one of SD 1.5 at 64; both evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    draw_folder(folder / "training", count=4, size=96, seed=1)
    draw_folder(folder / "references", count=4, size=96, seed=50)
    (folder / "prompts.txt").write_text(PROMPTS)
    write_random_base(folder / "sd15", spec=SMALL_SD15)
    for name, base, size, trigger in (
        ("xl", "bundled", 96, "a red fox"),
        ("small", str(folder / "sd15"), 64, "l4ca"),
    ):
        settings = TRAINING | {"model.base": repr(base), "data.resolution": str(size), "trigger": repr(trigger)}
        settings |= {"evaluation.prompts": repr(str(folder / "prompts.txt"))}
        trained = run(settings, folder / "training", folder / name).folder
        evaluate(trained, references=folder / "references", console=Console(file=StringIO()))
    return folder


def call(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_runs_of_both_families_are_compared_on_the_prompts_that_they_share(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", str(runs / "xl"), str(runs / "small"), "--json") == 0
    told = json.loads(capsys.readouterr().out)

    assert Path(told["report"]) == runs / "compare-xl-small" / "report.html"
    assert told["prompts"] == ["portrait", "on a beach", "at night"]  # whatever calls the subject in each
    assert [(each["family"], each["size"]) for each in told["runs"]] == [("sdxl", [96, 96]), ("sd15", [64, 64])]
    assert told["num_bases"] == 2
    scores = {each["name"]: each["score"]["value"] for each in told["runs"]}
    assert told["pairs"][0]["score"]["value"] == pytest.approx(scores["xl"] - scores["small"], abs=2e-4)
    assert {"model.base", "data.resolution", "trigger"} <= set(told["settings_that_differ"])
    assert "lora.rank" not in told["settings_that_differ"]
    quick = next(each for each in told["advice"] if each["use"] == "fast drawing, or a small card")
    assert quick["why"] == "small: the smaller network, 2.25 times fewer pixels"
    assert all(each["training"]["steps"] == 2 for each in told["runs"])
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "https://" not in page
    assert page.count("data:image/webp") == 6
    assert 'href="../small/evaluation/pictures/lora/01-seed' in page

    assert call("compare", str(runs / "small"), str(runs / "xl")) == 0
    shown = capsys.readouterr().out
    assert "small and xl: " in shown
    assert "for pictures as good as can be had: " in shown


def test_runs_of_one_base_have_the_figures_that_each_had_alone(runs: Path, tmp_path: Path) -> None:
    """One base, the same prompts, seeds and references: the yardstick is that of each evaluation."""
    shutil.copytree(runs / "small", tmp_path / "other")
    found = brushwork.compare(runs / "small", tmp_path / "other", out=tmp_path / "out")

    told = json.loads((runs / "small" / "evaluation" / "report.json").read_text())
    alone = next(each for each in told["candidates"] if each["name"] == "lora")
    together = json.loads((tmp_path / "out" / "report.json").read_text())["runs"][0]
    for key in ("score", "copies", "leaning", "copies_too_much"):
        assert together[key] == alone[key], key
    assert together["parts"] == alone["parts"]
    assert found.ties == ("other",)


def test_a_run_that_was_never_evaluated_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", str(runs / "small"), str(runs / "training")) == 1
    assert f"fix: brushwork evaluate {runs / 'training'} --references HELD_OUT" in capsys.readouterr().err


def test_the_report_of_a_run_holds_its_curves_and_what_it_cost(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "run"
    shutil.copytree(runs / "small", trained, ignore=shutil.ignore_patterns("evaluation"))
    made = brushwork.report(trained)
    told = json.loads(made.figures.read_text())
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]

    assert told["standing"]["step"] == 2
    assert told["standing"]["changed"]["lora.rank"] == 2
    assert told["spent"]["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert told["spent"]["lowest"] == min([row["held_out_loss"], row["step"]] for row in rows)
    assert told["evaluation"] is None
    page = made.page.read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 1
    assert "Nobody has looked yet" in page

    shutil.copytree(runs / "small" / "evaluation", trained / "evaluation")
    assert call("report", str(trained), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["evaluation"]["best"] == "lora"
    assert "Nobody has looked yet" not in made.page.read_text(encoding="utf-8")
    assert call("report", str(runs)) == 1
    assert "holds no search and no run" in capsys.readouterr().err
