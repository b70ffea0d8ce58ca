"""`brushwork evaluate` with the bundled model: the files of a folder draw, are judged, and the best is named."""

import html
import json
import re
import shlex
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import brushwork.evaluation.drawing as drawing
import brushwork.models.weights as bases
from brushwork.cli.app import main
from brushwork.cli.evaluating import evaluator
from brushwork.config.schema import ModelConfig, SampleConfig
from brushwork.distributed import joined
from brushwork.errors import UserError
from brushwork.evaluation.prompts import Cell
from brushwork.evaluation.run import Evaluated, evaluate
from brushwork.film.frames import draw_folder
from brushwork.generation.generate import generate
from brushwork.generation.graphs import Graphs
from brushwork.generation.prompts import Request
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import inject
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.training.run import RunResult, train
from brushwork.training.standing import summarise
from replays import Replays
from several_processes import together

PROMPTS = "# portrait\nportrait of {trigger}\n# place\n{trigger} on a beach --n blurry\n"
QUICK = {
    "evaluation.seeds": "2",
    "evaluation.resamples": "100",
    "evaluation.batch_size": "3",
    "sample.steps": "1",
    "train.device": "cpu",
}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training pictures, references, prompts, and two LoRAs, one of which changes the text encoder too."""
    folder = tmp_path_factory.mktemp("film")
    draw_folder(folder / "training", count=4, size=64, seed=1)
    draw_folder(folder / "references", count=4, size=64, seed=50)
    (folder / "prompts.txt").write_text(PROMPTS)
    (folder / "loras").mkdir()
    for number, text_encoder in enumerate((False, True)):
        components: dict[str, Any] = {"unet": UNet(TINY)}
        if text_encoder:
            from brushwork.models.weights import open_base

            components |= open_base("bundled").load_text(dtype=torch.float32, device="cpu").modules
        adapter = inject(components, targets="attention", rank=1, text_encoder=text_encoder, seed=number)
        noise = torch.Generator().manual_seed(number)
        state = {
            name: replace(weights, up=0.1 * torch.randn(weights.up.shape, generator=noise))
            for name, weights in adapter.state().items()
        }
        metadata = {"ss_steps": str(100 * (number + 1))}
        write_adapter(folder / "loras" / f"luca-{number}.safetensors", state, spec=TINY, metadata=metadata)
    return folder


def look(rank: int, film: Path, out: Path, loras: Path | None = None, **more: Any) -> Evaluated:
    settings = {**QUICK, "evaluation.prompts": repr(str(film / "prompts.txt"))}
    asked = {
        "references": film / "references",
        "training": film / "training",
        "base": "bundled",
        "trigger": "a red fox",
        "size": 64,
        "out": out,
        "overrides": [f"{key}={value}" for key, value in settings.items()],
        "console": Console(file=StringIO()),
    }
    return evaluate(loras or film / "loras", **{**asked, **more})


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def evaluated(film: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluated, Path]:
    """An evaluation of the two LoRAs in a folder of its own."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(film / "loras", folder / "loras")
    return look(0, film, folder / "out", folder / "loras"), folder


def test_every_file_and_the_base_draw_the_same_cells_and_one_is_named(evaluated: tuple[Evaluated, Path]) -> None:
    result, folder = evaluated
    told = report(folder / "out")
    assert [each["name"] for each in told["candidates"]] == ["base", "luca-0", "luca-1"]
    assert [each["step"] for each in told["candidates"]] == [None, 100, 200]
    assert result.num_pictures == 12
    assert len(list((folder / "out" / "pictures").rglob("*.png"))) == 12
    assert set(told["weights"]) == {"identity", "variety", "style", "adherence", "quality"}
    assert result.choice.best is not None
    assert told["best"] == result.choice.best.candidate.name
    assert (folder / "loras" / "best.safetensors").read_bytes() == (
        folder / "loras" / f"{told['best']}.safetensors"
    ).read_bytes()
    for each in told["candidates"]:
        assert each["score"]["low"] <= each["score"]["value"] <= each["score"]["high"]
        assert all(0 <= part["value"] <= 1 for part in each["parts"].values())
        assert {picture["nearest_training_picture"] for picture in each["pictures"]} <= {
            f"{number:05d}.png" for number in range(4)
        }


def test_the_page_holds_everything_and_needs_no_network(evaluated: tuple[Evaluated, Path]) -> None:
    result, _ = evaluated
    page = result.report.read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<svg") == 2
    assert "portrait of a red fox" in page
    for link in ("pictures/luca-0/01-seed", "pictures/base/01-seed"):
        assert f'href="{link}' in page


def test_with_little_memory_every_file_draws_the_same_pictures_with_weights_that_come_and_go(
    evaluated: tuple[Evaluated, Path], film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aheads, settings = [], [f"{key}={value}" for key, value in QUICK.items()]
    streams = bases.stream_blocks

    def noting(unet: UNet, **named: Any) -> Any:
        aheads.append(named["ahead"])
        return streams(unet, **named)

    monkeypatch.setattr(bases, "stream_blocks", noting)
    settings += [f"evaluation.prompts={film / 'prompts.txt'}", "train.stream=weights", "train.stream_ahead=2"]
    look(0, film, tmp_path, low_memory=True, overrides=settings)

    assert aheads == [2]
    usual = evaluated[1] / "out" / "pictures"
    names = {file.relative_to(usual) for file in usual.rglob("*.png")}
    assert names == {file.relative_to(tmp_path / "pictures") for file in (tmp_path / "pictures").rglob("*.png")}
    for name in names:
        found, wanted = (
            np.asarray(Image.open(folder / name)).astype(int) for folder in (tmp_path / "pictures", usual)
        )
        assert np.abs(found - wanted).max() <= 2  # last bits: other sizes of batches


def test_pictures_that_leave_the_vae_in_tiles_are_told_from_those_that_do_not() -> None:
    candidate = drawing.Candidate("base")

    def file(side: int, *, low_memory: bool) -> Path:
        cell = Cell(0, Request("a fox", side, side, 1))
        studio = drawing.Studio(
            base=bases.open_base("bundled"), model=ModelConfig(), dtype=torch.float32, device=torch.device("cpu"),
            folder=Path("pictures"), cells=[cell], batch_size=1, sample=SampleConfig(), low_memory=low_memory,
        )  # fmt: skip
        return studio.file(candidate, cell)

    assert file(512, low_memory=True) == file(512, low_memory=False)
    assert file(520, low_memory=True) != file(520, low_memory=False)


def test_graphs_are_recorded_anew_for_each_file_that_draws(
    evaluated: tuple[Evaluated, Path], film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Replays()
    graphs = Graphs(lambda: card, required=True, tell=print)
    monkeypatch.setattr(drawing, "graphs_of", lambda *given, **named: graphs)

    look(0, film, tmp_path)

    assert card.recorded == 6  # a batch of three cells and one of one; the base and two files
    usual = evaluated[1] / "out" / "pictures"
    for file in usual.rglob("*.png"):
        assert (tmp_path / "pictures" / file.relative_to(usual)).read_bytes() == file.read_bytes()


def test_a_second_evaluation_draws_nothing_and_says_the_same(
    evaluated: tuple[Evaluated, Path], film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = evaluated
    before = (folder / "out" / "report.json").read_text(encoding="utf-8")
    monkeypatch.setattr(drawing, "_draw", lambda *_: pytest.fail("something was drawn again"))
    look(0, film, folder / "out", folder / "loras")
    assert (folder / "out" / "report.json").read_text(encoding="utf-8") == before


def test_an_evaluation_that_was_killed_goes_on_and_ends_the_same(
    evaluated: tuple[Evaluated, Path], film: Path, tmp_path: Path
) -> None:
    _, folder = evaluated
    shutil.copytree(folder / "out" / "pictures", tmp_path / "out" / "pictures")
    pictures = sorted((tmp_path / "out" / "pictures").rglob("*.png"))
    whole = {file: file.read_bytes() for file in pictures}
    for file in pictures[1::2]:
        file.unlink()
    (pictures[0].parent / f"{pictures[0].name}.99.partial").write_bytes(b"half a picture")
    look(0, film, tmp_path / "out")
    assert {file: file.read_bytes() for file in sorted((tmp_path / "out" / "pictures").rglob("*.png"))} == whole
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert report(tmp_path / "out") == report(folder / "out")


def test_two_processes_draw_and_say_what_one_does(
    evaluated: tuple[Evaluated, Path], film: Path, tmp_path: Path
) -> None:
    _, folder = evaluated
    first, second = together(look, film, tmp_path / "out")
    assert isinstance(first, Evaluated), first
    assert isinstance(second, Evaluated), second
    assert second.choice.reason == first.choice.reason
    assert report(tmp_path / "out") == report(folder / "out")


def test_a_file_that_fits_no_base_is_left_out_and_told(film: Path, tmp_path: Path) -> None:
    shutil.copytree(film / "loras", tmp_path / "loras")
    file = tmp_path / "loras" / "luca-1.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"luca-1\.safetensors is damaged"):
        look(0, film, tmp_path / "out", tmp_path / "loras")
    from brushwork.tensor_file import write_tensors

    write_tensors(file, {"lora_unet_nowhere.lora_down.weight": torch.ones(1, 2)}, {})
    result = look(0, film, tmp_path / "out", tmp_path / "loras")
    assert any(note.startswith("luca-1 could not draw and is left out") for note in result.notes)
    assert result.choice.best is not None
    assert result.choice.best.candidate.name == "luca-0"


def test_an_encoder_that_is_not_there_is_told_and_the_rest_is_weighed_anew(
    evaluated: tuple[Evaluated, Path], film: Path, tmp_path: Path
) -> None:
    _, folder = evaluated
    shutil.copytree(folder / "out" / "pictures", tmp_path / "out" / "pictures")
    (tmp_path / "empty").mkdir()
    settings = {**QUICK, "evaluation.prompts": repr(str(film / "prompts.txt"))}
    settings |= {"evaluation.encoder": repr(str(tmp_path / "empty"))}
    settings |= {"evaluation.text_encoder": repr(str(tmp_path / "empty"))}
    result = look(0, film, tmp_path / "out", overrides=[f"{key}={value}" for key, value in settings.items()])
    assert any("has no config.json" in note for note in result.notes)
    assert (
        "not in the score: identity, adherence; the others weigh variety 40 %, style 40 %, quality 20 %"
        in result.notes
    )


def test_pictures_that_are_already_drawn_are_judged(film: Path, tmp_path: Path) -> None:
    for name, loras in (("base", []), ("000001-epoch", [film / "loras" / "luca-0.safetensors"])):
        generate(
            out=tmp_path / "samples" / name,
            prompt=["a red fox", "a red fox on a beach", "a red fox at night"],
            base="bundled",
            loras=loras,
            steps=1,
            size=64,
            overrides=["train.device=cpu"],
            console=Console(file=StringIO()),
        )
    result = look(0, film, tmp_path / "out", samples=tmp_path / "samples")
    assert [each["name"] for each in report(tmp_path / "out")["candidates"]] == ["base", "000001-epoch"]
    assert result.choice.best is not None
    assert 'href="../samples/000001-epoch/00000.png"' in result.report.read_text(encoding="utf-8")


def test_a_folder_of_loras_needs_a_base(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing tells which base its LoRAs belong to"):
        look(0, film, tmp_path / "out", base=None)


def test_the_command_picks_and_keeps_what_a_person_picked(
    evaluated: tuple[Evaluated, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that the page's `take this` says."""
    result, folder = evaluated
    commands = re.findall(r'data-command="([^"]+)"', result.report.read_text(encoding="utf-8"))
    program, *words = shlex.split(html.unescape(commands[1]))
    assert program == "brushwork"
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["picked"] == "luca-1"
    assert (folder / "loras" / "best.safetensors").read_bytes() == (
        folder / "loras" / "luca-1.safetensors"
    ).read_bytes()
    (folder / "loras" / "pick.json").unlink()


RUN = {
    **QUICK,
    "name": "'fox'",
    "trigger": "'a red fox'",
    "data.resolution": "64",
    "lora.rank": "1",
    "train.epochs": "2",
    "train.batch_size": "4",
    "train.precision": "fp32",
    "optimizer.learning_rate": "1e-3",
    "evaluation.every_epochs": "1",
}


def learn(film: Path, out: Path, page: StringIO | None = None, **changes: str) -> RunResult:
    values = RUN | {
        "evaluation.prompts": repr(str(film / "prompts.txt")),
        "evaluation.references": repr(str(film / "references")),
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return train(
        film / "training",
        out=out,
        overrides=[f"{key}={value}" for key, value in values.items()],
        evaluate=evaluator(),
        console=Console(file=page or StringIO(), width=200),
    )


def test_a_run_evaluates_its_files_while_it_trains_as_it_would_be_done_afterwards(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = learn(film, tmp_path / "run").folder
    told = report(run / "evaluation")
    assert [(each["name"], each["epoch"]) for each in told["candidates"]] == [
        ("base", None),
        ("fox-000001", 1),
        ("fox", 2),
    ]
    assert (run / "best.safetensors").is_file()
    assert str(summarise(run)["best"]).startswith(f"{told['best']}, chosen by evaluation: ")

    # The pictures are those of the files, so that nothing is drawn again; and the network was put back as it was.
    monkeypatch.setattr(drawing, "_draw", lambda *_: pytest.fail("something was drawn again"))
    evaluate(run, console=Console(file=StringIO()))
    assert report(run / "evaluation") == told
    plain = learn(film, tmp_path / "plain", evaluation__every_epochs="off").folder
    assert (plain / "metrics.jsonl").exists()
    losses = [
        [json.loads(line)["loss"] for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (run, plain)
    ]
    assert losses[0] == losses[1]


def name_early(rank: int, file: Path) -> str:
    """The second process looks for the file before the first has written all of it."""
    import brushwork.evaluation.during as during

    def too_early(file: Path) -> None:
        raise UserError(f"{file} is damaged")

    if rank == 1:
        during.named_candidate = too_early  # type: ignore[assignment]
    with joined() as group:
        return during._named_by_first(file, group).name


def test_the_process_that_writes_a_file_names_it_for_all(film: Path) -> None:
    assert together(name_early, film / "loras" / "luca-0.safetensors") == ["luca-0", "luca-0"]
    errors = together(name_early, film / "loras" / "missing.safetensors")
    assert sorted(type(error).__name__ for error in errors) == ["SystemExit", "UserError"]


def test_an_evaluation_that_fails_does_not_end_the_run(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import brushwork.evaluation.during as during

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the eyes are closed")

    monkeypatch.setattr(during, "weigh", fail)
    result = learn(film, tmp_path / "run")
    assert result.finished
    assert (
        "fox.safetensors was not evaluated: the eyes are closed. Training goes on."
        in (result.folder / "log.txt").read_text()
    )


def test_a_run_ends_where_its_pictures_say_that_it_is_overtrained(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import brushwork.evaluation.during as during
    from brushwork.evaluation.choice import Verdict

    weigh = during.weigh
    monkeypatch.setattr(
        during, "weigh", lambda *a: replace(weigh(*a), verdict=Verdict("overtrained", "overtrained since step 1", 1))
    )
    result = learn(film, tmp_path / "run", train__epochs="3", train__stop_when="['overtrained']")
    assert (result.step, result.ended) == (1, "overtrained")
    assert (result.folder / "fox.safetensors").is_file()


def test_references_that_are_trained_on_are_refused_before_the_first_step(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="references were trained on"):
        learn(film, tmp_path / "run", evaluation__references=repr(str(film / "training")))
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_to_be_evaluated_needs_somebody_who_does_it(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody was named who makes them"):
        train(film / "training", out=tmp_path / "run", overrides=["evaluation.every_epochs=1", "train.max_steps=1"])


def test_strengths_and_running_means_are_told_to_wait_for_an_evaluation_afterwards(
    film: Path, tmp_path: Path
) -> None:
    page = StringIO()
    changes = {"train__epochs": "1", "evaluation__strengths": "[0.7, 1.0]", "evaluation__ema": "true"}
    run = learn(film, tmp_path / "run", page=page, **changes).folder
    told = report(run / "evaluation")

    note = (
        "during the training each file is tried at strength 1 alone; strengths 0.7, 1 and running means are tried by"
    )
    assert note in " ".join(page.getvalue().split())
    assert any(each.startswith(note) for each in told["notes"])
    assert [each["strength"] for each in told["candidates"]] == [1.0, 1.0]
