"""`brushwork inspect`: what a run folder, a LoRA or a base model is."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from brushwork.cli.overrides import AsJson, Offline


def inspect(
    what: Annotated[str, typer.Argument(metavar="RUN|LORA|BASE", help="A folder, a file, `bundled`, or a hub id.")],
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Tell what a run, a LoRA or a base model is, and where a run stands.

    Example: brushwork inspect runs/corgi
    """
    found = _described(what, offline=offline)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        typer.echo(line)


def _described(what: str, *, offline: bool) -> dict[str, Any]:
    """Find out which of the three it is. Each is imported alone: a run is told without loading torch."""
    from brushwork.run_files import STATE_FILE, is_run
    from brushwork.training.run_folder import newest_run

    path = Path(what)
    if path.name in STATE_FILE.parts:
        path = next((run for run in path.resolve().parents[:2] if is_run(run)), path)
    if _is_adapter(path):
        from brushwork.lora import summary

        return summary.summarise(path)
    if path.is_dir() and not (path / "unet").is_dir():
        from brushwork.training import standing

        return standing.summarise(newest_run(path))
    from brushwork.models.weights import open_base

    return {"kind": "base", **open_base(what, offline=offline).describe()}


def _is_adapter(path: Path) -> bool:
    """Whether it is a LoRA or one of its kin, which the reader then names: a file, or a folder of diffusers."""
    if path.is_dir():
        return (path / "pytorch_lora_weights.safetensors").is_file()
    return path.is_file() and _holds_adapter(path)


def _holds_adapter(path: Path) -> bool:
    """Whether the keys of a file are those of a LoRA or one of its kin, which the reader then names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return any(re.search(r"lora|hada_|lokr_|dora_scale|\.alpha$", key) for key in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False  # the reader of bases tells what is wrong with it


def _lines(found: dict[str, Any]) -> list[str]:
    """A name and a value on each line; a table has its own lines, and what is empty is left away."""
    lines: list[str] = []
    for name, value in found.items():
        label = name.replace("_", " ")
        if value in ({}, [], None, ""):
            continue
        if isinstance(value, dict):
            inner = [f"  {key} = {_shown(key, item)}" for key, item in value.items()]
            lines += [label, *inner]
        elif isinstance(value, list):
            lines += [label, *(f"  {item}" for item in value)]
        else:
            lines.append(f"{label:20}{_shown(name, value)}")
    return lines


def _shown(name: str, value: Any) -> str:
    from brushwork.amounts import bytes_in_words

    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "bytes":
        return bytes_in_words(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
