"""Every recipe trains for two steps on the bundled model: its own settings, but for size, length and the machine."""

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from safetensors import safe_open

from brushwork.config.load import recipe_names, resolve
from brushwork.film.frames import draw_folder
from brushwork.models.weights import open_base
from brushwork.training.run import train

OVERRIDES = [
    "data.resolution=64",
    "train.max_steps=2",
    "train.device=cpu",
    "train.accumulation=2",
    "schedule.warmup_steps=0",
    "save.every_minutes=off",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder, count=4, size=96, seed=5)
    return folder


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_trains(recipe: str, pictures: Path, tmp_path: Path) -> None:
    wanted = resolve(recipe=recipe).settings
    console = Console(file=StringIO())
    result = train(pictures, out=tmp_path / "run", recipe=recipe, overrides=OVERRIDES, console=console)

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    if wanted.train.mode == "full":
        assert open_base(str(result.adapter)).fingerprint("unet") != open_base("bundled").fingerprint("unet")
        return
    with safe_open(result.adapter, "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
    assert metadata["ss_network_dim"] == str(wanted.lora.rank)
    assert float(metadata["ss_network_alpha"]) == (wanted.lora.alpha or wanted.lora.rank)
    assert any(name.startswith("lora_te") for name in names) is wanted.lora.text_encoder
    assert metadata["ss_steps"] == "2"
