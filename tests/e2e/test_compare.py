"""`brushwork compare` of two evaluations: two bases, each drawn at a size of its own; and `brushwork report RUN`."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

import brushwork
from brushwork.cli.app import main
from brushwork.evaluation.run import evaluate
from brushwork.film.frames import draw_folder
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import inject
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from quick_runs import run
from random_base import write_random_base

PROMPTS = "portrait of {trigger}\n{trigger} on a beach\n{trigger} at night\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with a LoRA each, evaluated: one of the bundled base at 64 pixels, one of another at 96."""
    folder = tmp_path_factory.mktemp("runs")
    draw_folder(folder / "training", count=4, size=64, seed=1)
    draw_folder(folder / "references", count=4, size=64, seed=50)
    (folder / "prompts.txt").write_text(PROMPTS)
    write_random_base(folder / "other-base")
    for number, (name, base, size, trigger) in enumerate(
        (("small", "bundled", 64, "a red fox"), ("large", str(folder / "other-base"), 96, "l4ca"))
    ):
        adapter = inject({"unet": UNet(TINY)}, targets="attention", rank=1, seed=number)
        noise = torch.Generator().manual_seed(number)
        state = {
            key: replace(weights, up=0.1 * torch.randn(weights.up.shape, generator=noise))
            for key, weights in adapter.state().items()
        }
        write_adapter(folder / name / "luca.safetensors", state, spec=TINY, metadata={"ss_steps": "100"})
        evaluate(
            folder / name,
            references=folder / "references",
            training=folder / "training",
            base=base,
            trigger=trigger,
            size=size,
            overrides=[
                f"evaluation.prompts={str(folder / 'prompts.txt')!r}",
                "evaluation.seeds=1",
                "evaluation.resamples=100",
                "evaluation.encoder=bundled",
                "evaluation.batch_size=3",
                "sample.steps=1",
                "train.device=cpu",
            ],
            console=Console(file=StringIO()),
        )
    return folder


def call(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_two_runs_of_two_bases_are_compared_on_the_prompts_that_they_share(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", str(runs / "small"), str(runs / "large"), "--json") == 0
    told = json.loads(capsys.readouterr().out)

    assert Path(told["report"]) == runs / "compare-small-large" / "report.html"
    assert told["prompts"] == ["portrait", "on a beach", "at night"]  # whatever calls the subject in each
    assert [each["size"] for each in told["runs"]] == [[64, 64], [96, 96]]
    assert told["num_bases"] == 2
    assert set(told["weights"]) == {"identity", "variety", "style", "quality"}
    assert "not in the score: adherence" in told["notes"]  # a base of random weights follows no prompt
    scores = {each["name"]: each["score"]["value"] for each in told["runs"]}
    assert told["pairs"][0]["score"]["value"] == pytest.approx(scores["small"] - scores["large"], abs=2e-4)
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "https://" not in page
    assert page.count("data:image/webp") == 6
    assert 'href="../small/evaluation/pictures/luca/01-seed' in page

    assert call("compare", str(runs / "small"), str(runs / "large")) == 0
    shown = capsys.readouterr().out
    assert "small and large: " in shown
    assert "for pictures as good as can be had: " in shown


def test_runs_of_one_base_have_the_figures_that_each_had_alone(runs: Path, tmp_path: Path) -> None:
    """One base, the same prompts, seeds and references: the yardstick is that of each evaluation."""
    shutil.copytree(runs / "small", tmp_path / "other")
    found = brushwork.compare(runs / "small", tmp_path / "other", out=tmp_path / "out")

    told = json.loads((runs / "small" / "evaluation" / "report.json").read_text())
    alone = next(each for each in told["candidates"] if each["name"] == "luca")
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
    settings = {"model.base": "bundled", "data.resolution": "64", "train.max_steps": "2", "train.device": "cpu"}
    settings |= {"lora.rank": "2", "train.batch_size": "2", "validation.data": "0.25", "validation.every_steps": "1"}
    trained = run(settings, runs / "training", tmp_path / "run", validation__timesteps="1").folder
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
    assert told["evaluation"]["best"] == "luca"
    assert "Nobody has looked yet" not in made.page.read_text(encoding="utf-8")
    assert call("report", str(runs)) == 1
    assert "holds no search and no run" in capsys.readouterr().err
