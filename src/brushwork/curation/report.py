"""The page of a curated set: one HTML file with everything in it, that opens anywhere and needs no server."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from brushwork import __version__, pages
from brushwork.curation.decisions import Found
from brushwork.curation.pictures import (
    OF_A_REASON,
    TITLES,
    similarities,
    some_of,
    thumbnail,
)

SHOWN_KEPT = 60
THUMBNAIL = 112
QUALITY = 80


def render(found: Found, similarity: Image.Image) -> str:
    """The page as HTML."""
    reasons = [
        {
            "code": code,
            "title": TITLES[code],
            "count": count,
            "share": count / len(found.measured),
            "frames": _shown(found, some_of(found.refused(code), OF_A_REASON)),
        }
        for code, count in found.counts().items()
    ]
    scores = similarities(found)
    kept = sorted(some_of(found.kept, SHOWN_KEPT), key=lambda name: -scores[name])
    return pages.render(
        "curation/report.html",
        {
            "found": found,
            "total": len(found.measured),
            "num_kept": len(found.kept),
            "reasons": reasons,
            "kept": _shown(found, kept),
            "similarity": embedded(similarity, "PNG"),
            "version": __version__,
        },
    )


def _shown(found: Found, names: Sequence[str]) -> list[dict[str, str]]:
    """A small picture of each frame, with its name and why."""
    scores = similarities(found)
    return [
        {
            "name": name,
            "file": Path(name).name,
            "picture": embedded(thumbnail(found.pictures[name].path, THUMBNAIL), "WEBP"),
            "why": "; ".join(reason.why for reason in found.decisions[name].reasons)
            or f"similarity {scores[name]:.3f}",
        }
        for name in names
    ]


def embedded(image: Image.Image, kind: str) -> Markup:
    """A picture as the address of itself."""
    data = io.BytesIO()
    image.save(data, format=kind, quality=QUALITY)
    return Markup(f"data:image/{kind.lower()};base64,") + base64.b64encode(data.getvalue()).decode()
