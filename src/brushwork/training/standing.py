"""Where a run stands, told from its folder alone: `brushwork inspect RUN`."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from brushwork.config.load import differences, read_toml
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.records import read_rows
from brushwork.run_files import SETTINGS_FILE
from brushwork.training.run_folder import RunFolder


def summarise(run: Path) -> dict[str, Any]:
    """Describe a run in plain values; no tensor is read."""
    settings = read_toml(run / SETTINGS_FILE)
    folder = RunFolder(run, settings.name)
    description = folder.read_description()
    saved = saved_position(folder.state_file) if folder.state_file.exists() else {"step": 0}
    step = saved["step"]
    rows = read_rows(folder.metrics_file) if folder.metrics_file.exists() else []
    last = rows[-1] if rows else {}
    adapters = sorted(run.glob(f"{settings.name}*.safetensors"), key=lambda file: file.stat().st_mtime)
    return {
        "kind": "run",
        "folder": str(run),
        "name": settings.name,
        "finished": folder.final_file.exists()
        and (step >= description["total_steps"] or saved.get("ended") is not None),
        "ended": saved.get("ended"),
        "step": step,
        "total_steps": description["total_steps"],
        "logged_step": last.get("step", 0),
        "smoothed_loss": last.get("smoothed_loss"),
        "held_out_loss": _newest(rows, "held_out_loss"),
        "train_part_loss": _newest(rows, "train_part_loss"),
        "verdict": next((row["verdict"] for row in reversed(rows) if "verdict" in row), None),
        "data": description["data"],
        "pictures": description["num_pictures"],
        "held_out": description["num_held_out"],
        "base": description["base"],
        "family": description["family"],
        "resolution": description["resolution"],
        "changed": {key: new for key, _, new in differences(Settings(), settings)},
        "adapters": [file.name for file in adapters],
        "best": _best(run),
        "samples": sum(1 for _ in folder.samples.rglob("*.png")),
        "quarantined": len(read_rows(folder.quarantine_file)) if folder.quarantine_file.exists() else 0,
    }


def saved_position(state_file: Path) -> dict[str, Any]:
    """Where the run would go on, from the header of its state."""
    try:
        with safe_open(state_file, framework="pt") as file:
            told = (file.metadata() or {}).get("brushwork_state")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{state_file} is damaged ({error}).", fix="the adapter files beside it are not affected"
        ) from error
    if told is None:
        raise UserError(f"{state_file} is not the state of a run.", fix="name a folder that `brushwork train` made")
    return dict(json.loads(told)["position"])


def _best(run: Path) -> str | None:
    """The file that is named the best, and by whom, where somebody has looked."""
    try:
        told = json.loads((run / "best.json").read_text(encoding="utf-8"))
        return f"{told['name']}, chosen by {told['chosen_by']}: {told['reason']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _newest(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    return values[-1] if values else None
