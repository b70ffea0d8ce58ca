"""Runs and pictures with a base in fewer bits, or one that comes and goes."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from brushwork.config.schema import TrainConfig
from brushwork.film.frames import draw_folder
from brushwork.generation import generate as generating
from brushwork.generation.generate import generate
from brushwork.training.run import train

SETTINGS = [
    "train.device=cpu",
    "train.precision=fp32",
    "train.max_steps=1",
    "data.resolution=64",
    "lora.rank=4",
    "lora.targets=kohya_conv",
    "optimizer.learning_rate=1e-3",
    "schedule.name=constant",
    "schedule.warmup_steps=0",
    "save.every_epochs=off",
]
QUIET = Console(file=StringIO())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder, count=4, size=64, seed=5)
    return folder


def test_a_run_learns_the_same_bits_beside_a_base_that_comes_and_goes(pictures: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "model.quantize=nf4"]
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

    assert generating._ahead(settings, torch.device(device), low_memory=low_memory, fuse=fuse) == ahead
