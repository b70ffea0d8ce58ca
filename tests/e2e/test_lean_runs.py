"""A run takes the lean path unless it is told otherwise, and learns the same on it."""

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from brushwork.config.schema import TrainConfig
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.lean.network import LeanUNet
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.records import read_rows
from brushwork.training import passes
from brushwork.training.learner import network_over
from brushwork.training.run import train

SETTINGS = [
    "train.device=cpu",
    "train.precision=fp32",
    "train.max_steps=4",
    "train.batch_size=2",
    "data.resolution=64",
    "lora.rank=4",
    "lora.targets=kohya_conv",
    "lora.dropout=0.1",
    "lora.text_encoder=true",
    "optimizer.learning_rate=1e-3",
    "schedule.warmup_steps=0",
    "save.precision=fp32",
    "save.every_epochs=off",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder, count=4, size=64, seed=5)
    return folder


def run(pictures: Path, out: Path, *more: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    result = train(pictures, out=out, overrides=[*SETTINGS, *more], console=Console(file=StringIO()))
    losses = [row["loss"] for row in read_rows(out / "metrics.jsonl") if "loss" in row]
    return losses, load_file(result.adapter)


def test_the_lean_path_learns_what_the_plain_one_learns(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    real = passes.loss_per_picture

    def watch(network: object, *given: object, **named: object) -> torch.Tensor:
        taken.append(type(network))
        return real(network, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(passes, "loss_per_picture", watch)
    plain_losses, plain = run(pictures, tmp_path / "plain", "train.path=plain")
    lean_losses, lean = run(pictures, tmp_path / "lean")

    assert set(taken[:4]) == {UNet}
    assert set(taken[4:]) == {LeanUNet}
    assert lean_losses == pytest.approx(plain_losses, rel=1e-5)
    assert lean.keys() == plain.keys()
    for name, tensor in plain.items():
        # AdamW makes a whole step of a gradient near zero, so a last bit may move a weight: one in thousands.
        apart = (lean[name] - tensor).abs() > 1e-5 + 1e-3 * tensor.abs()
        assert apart.float().mean() < 0.01, name


@pytest.mark.parametrize("recompute", ["keep", "ff", "qkv+ff", "block"])
def test_what_is_computed_twice_changes_nothing(pictures: Path, tmp_path: Path, recompute: str) -> None:
    usual, _ = run(pictures, tmp_path / "usual", "train.max_steps=2")
    losses, _ = run(pictures, tmp_path / "run", "train.max_steps=2", f"train.recompute={recompute}")

    assert losses == pytest.approx(usual, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "problem", "fix"),
    [
        (["train.path=lean", "train.mode=full", "lora.text_encoder=false"], "for a frozen base", "train.path=auto"),
        (["train.path=plain", "train.recompute=ff"], "for the lean path", "train.checkpointing=true"),
        (["train.path=plain", "train.recompute=keep"], "for the lean path", "train.checkpointing=false"),
    ],
)
def test_a_path_that_cannot_be_taken_is_refused(
    pictures: Path, tmp_path: Path, settings: list[str], problem: str, fix: str
) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        run(pictures, tmp_path / "run", *settings)
    assert fix in refused.value.fix
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("train_settings", "device", "lean"),
    [
        (TrainConfig(), "cpu", True),
        (TrainConfig(), "cuda", True),
        (TrainConfig(), "mps", False),
        (TrainConfig(recompute="ff"), "mps", True),
        (TrainConfig(path="lean"), "mps", True),
        (TrainConfig(path="plain"), "cpu", False),
        (TrainConfig(mode="full"), "cpu", False),
    ],
)
def test_which_path_is_taken(train_settings: TrainConfig, device: str, lean: bool) -> None:
    with torch.device("meta"):
        unet = UNet(TINY)
    assert isinstance(network_over(unet, train_settings, torch.device(device)), LeanUNet) is lean
