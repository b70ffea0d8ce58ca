"""A run beside a base in fewer bits: it learns, is cut and goes on, samples, tells of itself, and is drawn again."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from brushwork.config.schema import TrainConfig
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.generation import generate as generating
from brushwork.generation.generate import generate
from brushwork.records import read_rows
from brushwork.training.run import train

SETTINGS = [
    "train.device=cpu",
    "train.precision=fp32",
    "train.max_steps=4",
    "data.resolution=64",
    "lora.rank=4",
    "lora.targets=kohya_conv",
    "optimizer.learning_rate=1e-3",
    "schedule.name=constant",
    "schedule.warmup_steps=0",
    "save.every_epochs=off",
    "validation.data=0.25",
    "sample.steps=1",
]
QUIET = Console(file=StringIO())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder, count=4, size=64, seed=5)
    return folder


def test_a_run_beside_nf4_is_cut_goes_on_to_the_bit_and_tells_of_itself(pictures: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox --w 64 --h 64\n")
    settings = [*SETTINGS, "model.quantize=nf4", f"sample.prompts={prompts.as_posix()}"]
    whole = train(pictures, out=tmp_path / "whole", overrides=settings, console=QUIET)
    train(pictures, out=tmp_path / "cut", overrides=[*settings, "train.max_steps=2"], console=QUIET)
    cut = train(pictures, out=tmp_path / "cut", overrides=settings, accept_changes=True, console=QUIET)

    one, other = load_file(whole.adapter), load_file(cut.adapter)
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [row["loss"] for row in read_rows(tmp_path / "whole" / "metrics.jsonl")]
    exact = train(pictures, out=tmp_path / "exact", overrides=SETTINGS, console=QUIET)
    usual = [row["loss"] for row in read_rows(tmp_path / "exact" / "metrics.jsonl")]
    assert losses != usual
    assert losses == pytest.approx(usual, rel=0.1)  # beside the rounded base, and not beside another one
    with safe_open(whole.adapter, "pt") as file, safe_open(exact.adapter, "pt") as usual_file:
        assert file.metadata()["ss_base_quantize"] == "nf4"
        assert "ss_base_quantize" not in usual_file.metadata()
        assert set(file.keys()) == set(usual_file.keys())
    assert len(list((tmp_path / "whole" / "sample").rglob("*-prompt1.png"))) >= 2

    drawn = generate(
        out=tmp_path / "drawn", prompt="a fox", loras=[tmp_path / "whole"], size=64, steps=1, console=QUIET
    )
    record = json.loads(drawn.pictures[0].with_suffix(".json").read_text())
    assert record["quantize"] == "nf4"  # as the run's samples were drawn
    with pytest.raises(UserError, match="kept in fewer bits"):
        generate(
            out=tmp_path / "fused", prompt="a fox", loras=[tmp_path / "whole"], size=64, steps=1, fuse=True,
            console=QUIET,
        )  # fmt: skip


def test_a_run_learns_the_same_bits_beside_a_base_that_comes_and_goes(pictures: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "model.quantize=nf4", "train.max_steps=1"]
    usual = train(pictures, out=tmp_path / "usual", overrides=settings, console=QUIET)
    coming = train(pictures, out=tmp_path / "coming", overrides=[*settings, "train.stream=all"], console=QUIET)

    found, wanted = load_file(coming.adapter), load_file(usual.adapter)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_pictures_are_drawn_the_same_with_weights_that_come_and_go(tmp_path: Path) -> None:
    given = {"prompt": "a fox", "size": 64, "steps": 2, "console": QUIET}
    (usual,) = generate(out=tmp_path / "usual", **given).pictures  # type: ignore[arg-type]
    (coming,) = generate(out=tmp_path / "coming", overrides=["train.stream=weights"], **given).pictures  # type: ignore[arg-type]
    (apart,) = generate(out=tmp_path / "apart", overrides=["sample.guide=apart"], **given).pictures  # type: ignore[arg-type]
    (rounded,) = generate(out=tmp_path / "rounded", overrides=["model.quantize=int8"], **given).pictures  # type: ignore[arg-type]

    assert coming.read_bytes() == usual.read_bytes()

    def off(picture: Path) -> np.ndarray:
        found, wanted = (np.asarray(Image.open(path), dtype=float) for path in (picture, usual))
        return np.abs(found - wanted)

    assert off(apart).max() <= 2  # last bits: other sizes of batches
    assert 0 < off(rounded).mean() < 4  # of 255


@pytest.mark.parametrize(("guide", "low_memory", "apart"), [
    ("auto", False, False), ("auto", True, True), ("together", True, False), ("apart", False, True),
])  # fmt: skip
def test_how_guidance_is_computed(
    guide: str, low_memory: bool, apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(generating, "_draw", lambda pipeline, todo, size, console: made.append(pipeline))
    monkeypatch.setattr(generating, "_write_sheet", lambda path, jobs: None)

    generate(
        out=tmp_path / "out", prompt="a fox", size=64, low_memory=low_memory, overrides=[f"sample.guide={guide}"],
        console=QUIET,
    )  # fmt: skip

    assert made[0].guide_separately is apart


@pytest.mark.parametrize(("stream", "device", "low_memory", "fuse", "ahead"), [
    ("off", "cuda", False, False, None),
    ("off", "cuda", True, False, 1),  # the least memory
    ("off", "cuda", True, True, None),  # fused weights are the card's own
    ("off", "cpu", True, False, None),  # there is nowhere else to keep them
    ("weights", "cpu", False, False, 1),
])  # fmt: skip
def test_which_weights_come_and_go(stream: str, device: str, low_memory: bool, fuse: bool, ahead: int | None) -> None:
    settings = TrainConfig(stream=stream)  # type: ignore[arg-type]

    assert generating.ahead_for(settings, torch.device(device), low_memory=low_memory, fuse=fuse) == ahead
