"""`brushwork demo`, as it is typed: one command, nothing to download, and it says where everything is."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import brushwork.demonstration.run as demonstration
from brushwork.cli.app import main
from brushwork.demonstration.run import Demonstration, demo
from brushwork.demonstration.scenes import ASKED, OTHERS
from brushwork.errors import UserError
from brushwork.film.captions import caption
from brushwork.film.scorer import Scorer
from brushwork.generation.generate import generate

QUICK = ["train.max_steps=2", "train.batch_size=1", "sample.steps=1", "train.device=cpu"]


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Two prompts, one other character, 64 pixels."""
    scorer = Scorer().eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "ASKED", ASKED[:2])
        patch.setattr(demonstration, "OTHERS", OTHERS[:1])
        patch.setattr(demonstration, "SIZE", 64)
        patch.setattr(demonstration, "packaged_scorer", lambda: scorer)
        yield


def run(out: Path) -> Demonstration:
    return demo(out, overrides=QUICK, console=Console(file=StringIO()))


@pytest.fixture(scope="module")
def made(_small: None, tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    return run(tmp_path_factory.mktemp("demos") / "a demo")


@pytest.fixture
def copy(made: Demonstration, tmp_path: Path) -> Path:
    """The finished demo, to be changed."""
    return Path(shutil.copytree(made.folder, tmp_path / "demo"))


def written_at(folder: Path) -> dict[str, int]:
    """Everything that took work to make: when it was last written."""
    kept = [*folder.rglob("0*.png"), *folder.rglob("*.safetensors"), *folder.rglob("metrics.jsonl")]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in kept}


def test_the_demo_makes_a_lora_pictures_figures_and_a_report(made: Demonstration) -> None:
    assert made.run.finished
    assert made.report == made.folder / "report.html"
    assert made.figures == json.loads((made.folder / "figures.json").read_text())
    assert made.figures is not None
    assert {strength: counts["of"] for strength, counts in made.figures["asked"].items()} == {
        "0": 2,
        "0.5": 2,
        "1": 2,
        "1.5": 2,
    }
    for name in ("pictures/00023.png", "pictures/00023.txt", "run/fox.safetensors", "run/loss.png"):
        assert (made.folder / name).is_file(), name
    assert made.report.stat().st_size > 10_000


def test_the_same_command_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(
    made: Demonstration, copy: Path
) -> None:
    before, pages = written_at(copy), [(copy / name).read_bytes() for name in ("report.html", "figures.json")]
    (copy / "strength-1.partial").mkdir()  # killed after the first picture
    (copy / "strength-1" / "00000.png").rename(copy / "strength-1.partial" / "00000.png")
    shutil.rmtree(copy / "strength-1")
    (copy / "report.html").unlink()

    run(copy)

    after = written_at(copy)
    assert len(before) == 24 + 4 * 2 + 2 + 4  # frames, asked, others; adapters, state and metrics
    assert before.keys() == after.keys()
    anew = {name for name in before if before[name] != after[name]}
    assert anew == {"strength-1/00000.png", "strength-1/00001.png"}
    for name in before:
        assert (copy / name).read_bytes() == (made.folder / name).read_bytes(), name
    assert [(copy / name).read_bytes() for name in ("report.html", "figures.json")] == pages


def test_strength_0_is_the_base_without_the_lora(made: Demonstration, tmp_path: Path) -> None:
    record = json.loads((made.folder / "strength-0" / "00000.json").read_text())
    base = generate(
        out=tmp_path / "base",
        base="bundled",
        prompt=[caption(scene) for scene in ASKED[:2]],
        size=64,
        batch_size=demonstration.PICTURES_AT_ONCE,
        **{name: record[name] for name in ("steps", "guidance", "sampler", "seed")},
        overrides=["train.device=cpu"],
        console=Console(file=StringIO()),
    )

    def pixels(path: Path) -> bytes:
        return demonstration._opened(path).tobytes()

    for path in base.pictures:
        assert pixels(made.folder / "strength-0" / path.name) == pixels(path)
        assert pixels(made.folder / "strength-1.5" / path.name) != pixels(path)


def test_the_command_says_where_everything_is(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "--out", str(copy), *(word for each in QUICK for word in ("--set", each))]

    with pytest.raises(SystemExit) as end:
        main(words)

    assert end.value.code == 0
    told = capsys.readouterr().out
    for name in ("report.html", "run/fox.safetensors", "run/loss.png"):
        assert str(copy / name) in told
    assert "the fox: in " in told


def test_a_demo_that_was_stopped_says_how_to_go_on(
    made: Demonstration, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demonstration, "train", lambda *_, **__: replace(made.run, step=1, adapter=None))
    (copy / "report.html").unlink()

    with pytest.raises(SystemExit):
        main(["demo", "--out", str(copy)])

    told = capsys.readouterr().out
    assert "stopped at step 1 of 2; everything is saved" in told
    assert f"go on: brushwork demo --out {copy}" in told
    assert not (copy / "report.html").exists()


def test_a_demo_without_a_lora_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="full makes none"):
        demo(tmp_path / "demo", overrides=["train.mode=full"])

    assert not (tmp_path / "demo").exists()
