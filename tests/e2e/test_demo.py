"""`brushwork demo`, as it is typed: one command, nothing to download, and it says where everything is."""

import json
import subprocess
import sys
from pathlib import Path

BRUSHWORK = [sys.executable, "-m", "brushwork"]


def test_the_demo_makes_a_lora_a_curve_and_pictures_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "a demo"
    quick = ["--set", "train.max_steps=2", "--set", "sample.every_steps=2", "--set", "sample.steps=2"]

    done = subprocess.run([*BRUSHWORK, "demo", "--out", out, *quick], capture_output=True, text=True, check=True)

    for made in ("pictures/00023.png", "run/fox.safetensors", "run/loss.png", "run/sample/sheet.png"):
        assert (out / made).is_file(), made
    assert str(out / "run" / "fox.safetensors") in done.stdout
    assert str(out / "run" / "loss.png") in done.stdout
    assert str(out / "run" / "sample") in done.stdout

    again = subprocess.run(
        [*BRUSHWORK, "demo", "--out", out, *quick, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(again.stdout)["finished"] is True
