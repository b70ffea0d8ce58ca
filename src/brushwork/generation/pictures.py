"""A drawn picture on disk: the PNG with all its parameters inside, its prompt as `.txt`, the parameters as `.json`.

So a folder of drawn pictures is itself a data set of pictures and captions, and any single picture tells how it was
made, to A1111 and the programs that read its format ("parameters") and to this one ("brushwork").
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from brushwork import __version__
from brushwork.atomic import write_text, written_beside
from brushwork.errors import UserError
from brushwork.generation.prompts import Request

A1111_SAMPLERS = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
}


def save_picture(
    image: Image.Image, request: Request, path: Path, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `path` (a PNG) with the `.txt` and `.json` beside it, and return what the `.json` says.

    Args:
        extra: what decides the picture besides the request; `base` and `loras` are also told to A1111. File names
            only, no folders: pictures are given away.
    """
    record = record_of(request, extra)
    info = PngInfo()
    info.add_text("parameters", a1111_text(record))
    info.add_text("brushwork", json.dumps(record, ensure_ascii=False))
    # The picture comes last: where there is a PNG, its text and record are there too, even after a kill.
    write_text(path.with_suffix(".txt"), request.prompt + "\n")
    write_text(path.with_suffix(".json"), json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    with written_beside(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)
    return record


def record_of(request: Request, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All parameters of a picture as plain values."""
    return {**request.to_json(), **(extra or {}), "brushwork": __version__}


def read_record(path: Path) -> dict[str, Any]:
    """The parameters inside a PNG that Brushwork drew."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get("brushwork")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}).") from error
    if text is None:
        raise UserError(f"{path} was not drawn by Brushwork: it has no `brushwork` text inside.")
    record: dict[str, Any] = json.loads(text)
    return record


def already_drawn(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the picture is there, made with these parameters; files made otherwise are refused, not replaced."""
    text, facts = path.with_suffix(".txt"), path.with_suffix(".json")
    fix = "name another --out, or move the old files away"
    difference = _difference(facts, record)
    if path.exists():
        if difference is not None:
            raise UserError(f"{path} is there already, and was made otherwise: {difference}.", fix=fix)
        return _is_whole(path)
    if facts.exists() and difference is not None:
        raise UserError(f"{facts} is there already, of another picture: {difference}.", fix=fix)
    if text.exists() and text.read_text(encoding="utf-8") != record["prompt"] + "\n":
        raise UserError(f"{text} is there already, with another prompt.", fix=fix)
    return False


def a1111_text(record: Mapping[str, Any]) -> str:
    """The parameters as A1111 writes them: prompt, negative prompt, and a line of names and values."""
    tags = "".join(f" <lora:{Path(lora['file']).stem}:{lora['strength']:g}>" for lora in record.get("loras", ()))
    lines = [record["prompt"] + tags]
    if record["negative"]:
        lines.append(f"Negative prompt: {record['negative']}")
    values = {
        "Steps": record["steps"],
        "Sampler": A1111_SAMPLERS[record["sampler"]],
        "CFG scale": f"{record['guidance']:g}",
        "Seed": record["seed"],
        "Size": f"{record['width']}x{record['height']}",
    }
    if "base" in record:
        # Not `stem`: a hub id may end in "1.0".
        values["Model"] = Path(str(record["base"])).name.removesuffix(".safetensors").removesuffix(".ckpt")
    values["Version"] = f"brushwork {record['brushwork']}"
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in values.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """A1111 quotes values in which its own separators stand."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value


def _difference(path: Path, record: Mapping[str, Any]) -> str | None:
    """In what the record at `path` differs, in words; another version of Brushwork is no difference."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return f"{path.name} is missing"
    except ValueError:
        return f"{path.name} is not JSON"
    if not isinstance(old, dict):
        return f"{path.name} holds no record"
    new = json.loads(json.dumps(record))
    for key in [*new, *old]:
        if key != "brushwork" and old.get(key) != new.get(key):
            return f"its {key} is {_short(old.get(key))}, now {_short(new.get(key))}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_whole(path: Path) -> bool:
    """Whether the picture decodes to its end; one that another program cut short is drawn again."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True
