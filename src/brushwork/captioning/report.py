"""The faults of a set's captions as files: JSON for programs, and a page of the worst with their pictures."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image
from rich.console import Console

from brushwork import pages
from brushwork.atomic import write_text
from brushwork.captioning.captioner import opened
from brushwork.captioning.checks import KINDS, SHOWN, Checked, check_captions
from brushwork.captioning.profile import Profile
from brushwork.config.schema import DataConfig, Settings
from brushwork.data.picture import BadPictureError

JSON, PAGE = "captions-report.json", "captions-report.html"
THUMBNAIL = 320
"""Pixels of the longer side."""

FURTHER = 90
"""How many captions are told after the worst, as text alone."""

COLUMNS = 24
"""Bars of the picture of lengths."""


def write_report(checked: Checked, folder: Path, *, data: DataConfig) -> tuple[Path, Path]:
    """Write both files into a folder; -> their paths."""
    write_text(folder / JSON, json.dumps(checked.record(), ensure_ascii=False, indent=1) + "\n")
    write_text(folder / PAGE, render(checked, data=data))
    return folder / JSON, folder / PAGE


def check_and_report(
    place: Path,
    *,
    settings: Settings,
    profile: Profile | None = None,
    encoder: str | None = None,
    console: Console | None = None,
) -> Checked:
    """Look at all captions of a folder, and write what was found into it.

    Args:
        encoder: a CLIP that compares captions with pictures: a folder, a hub id or `bundled`.
    """
    fit = None
    if encoder is not None:
        from brushwork.captioning.fit import fit_of

        fit = fit_of(encoder, settings=settings, console=console)
    checked = check_captions(place, settings=settings, profile=profile, fit=fit)
    write_report(checked, checked.root if checked.root.is_dir() else checked.root.parent, data=settings.data)
    return checked


def render(checked: Checked, *, data: DataConfig) -> str:
    """The page: one file with everything in it, that opens anywhere."""
    worst = checked.worst
    return pages.render(
        "captioning/report.html",
        {
            "checked": checked,
            "kinds": KINDS,
            "worst": [(name, _thumbnail(checked, name, data)) for name in worst[:SHOWN]],
            "further": worst[SHOWN : SHOWN + FURTHER],
            "num_untold": max(0, len(worst) - SHOWN - FURTHER),
            "bars": bars(list(checked.tokens.values()), checked.best, checked.limit),
        },
    )


def bars(counts: Sequence[int], best: tuple[int, int], limit: int) -> list[dict[str, object]]:
    """How many captions are of each length: bars of equal width, up to the longest caption or what the base reads."""
    if not counts:
        return []
    width = max(1, -(-max(*counts, limit) // COLUMNS))
    found = [0] * (max(counts) // width + 1)
    for count in counts:
        found[count // width] += 1
    return [
        {
            "first": place * width,
            "last": place * width + width - 1,
            "count": count,
            "height": round(100 * count / max(found)),
            "kind": "over"
            if place * width > limit
            else "best"
            if best[0] <= place * width + width // 2 <= best[1]
            else "",
        }
        for place, count in enumerate(found)
    ]


def _thumbnail(checked: Checked, name: str, data: DataConfig) -> Markup | None:
    """A picture as the address of itself; None where it cannot be opened."""
    assert checked.layout is not None
    try:
        picture = opened(checked.layout, name, data)
    except BadPictureError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, format="WEBP", quality=85)
    return Markup("data:image/webp;base64,") + base64.b64encode(encoded.getvalue()).decode()
