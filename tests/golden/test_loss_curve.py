"""Twenty steps whose losses are stored: a change that should not alter training shows that it does not.

One curve is of random weights, which stay what they are; the other of the bundled model on frames of the lead, so
that it also tells when the model in the package has become another one, or a worse one. `make golden` writes the
curves anew; the commit that does so says why they moved.
"""

import json
import os
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from brushwork.film.frames import draw_folder
from brushwork.models.weights import open_base
from brushwork.records import read_rows
from brushwork.training.run import train
from random_base import write_random_base

CURVE = Path(__file__).with_name("loss_curve.json")
BUNDLED_CURVE = Path(__file__).with_name("bundled_curve.json")
SETTINGS = {
    "train.device": "cpu",
    "train.precision": "fp32",
    "train.batch_size": "2",
    "train.accumulation": "2",
    "train.max_steps": "20",
    "train.ema_decay": "0.9",
    "data.resolution": "64",
    "lora.rank": "4",
    "lora.targets": "kohya",
    "lora.dropout": "0.1",
    "optimizer.learning_rate": "1e-3",
    "schedule.warmup_steps": "5",
    "loss.min_snr_gamma": "5.0",
    "loss.noise_offset": "0.05",
    "save.every_epochs": "off",
}


def write_pictures(folder: Path) -> None:
    """Six plain pictures that depend on nothing: coloured waves of different widths."""
    folder.mkdir()
    rows, columns = np.mgrid[0:80, 0:96]
    for number in range(6):
        wave = np.stack([np.sin(rows * (number + 1) / 17 + columns * channel / 23) for channel in range(3)], axis=-1)
        Image.fromarray((127.5 + 127.0 * wave).astype(np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"coloured waves, number {number}")


def losses_of(data: Path, out: Path, **changes: str) -> list[float]:
    overrides = [f"{key}={value}" for key, value in {**SETTINGS, **changes}.items()]
    train(data, out=out, overrides=overrides, console=Console(file=StringIO()))
    return [row["loss"] for row in read_rows(out / "metrics.jsonl")]


def test_the_stored_loss_curve_still_comes_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    write_random_base(tmp_path / "base")

    losses = losses_of(tmp_path / "data", tmp_path / "run", **{"model.base": str(tmp_path / "base")})

    if os.environ.get("BRUSHWORK_WRITE_GOLDEN"):
        CURVE.write_text(json.dumps(losses, indent=1) + "\n")
    # Other processors add up in another order; after 20 steps of AdamW that has been seen to move the loss by 1e-4.
    assert losses == pytest.approx(json.loads(CURVE.read_text()), rel=1e-3)


def test_the_bundled_model_learns_the_lead_as_it_did(tmp_path: Path) -> None:
    draw_folder(tmp_path / "data", 6, 64, style="flat")

    losses = losses_of(tmp_path / "data", tmp_path / "run")

    unet = open_base("bundled").fingerprint("unet")
    if os.environ.get("BRUSHWORK_WRITE_GOLDEN"):
        BUNDLED_CURVE.write_text(json.dumps({"unet": unet, "losses": losses}, indent=1) + "\n")
    stored = json.loads(BUNDLED_CURVE.read_text())
    assert losses == pytest.approx(stored["losses"], rel=1e-3), (
        "training has changed" if unet == stored["unet"] else "the bundled model has become another: `make golden`"
    )
