"""What a person looks at: the kept frames, the refused ones by reason, and how like the references all are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from brushwork.curation.decisions import Found
from brushwork.curation.rules import Code
from brushwork.generation.grid import BACKGROUND, INK, MARGIN, contact_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ON_A_SHEET = 600
OF_A_REASON = 16
"""Frames that are shown of each reason, evenly over all that it refused."""
CELL = 128
ENOUGH_PIXELS = 1 << 28

TITLES: dict[Code, str] = {
    "unreadable": "cannot be read",
    "too_small": "too small",
    "black": "black",
    "flat": "flat",
    "dark": "dark",
    "over_bright": "over-bright",
    "low_contrast": "low in contrast",
    "bars": "bars",
    "subtitles": "subtitles",
    "noisy": "noisy",
    "compressed": "compressed",
    "upscaled": "enlarged",
    "motion_blur": "blurred by movement",
    "blurred": "blurred",
    "dissolve": "going over into another shot",
    "occluded": "something stands before the subject",
    "cut_off": "the subject goes on beyond the picture",
    "exact_duplicate": "exact duplicates",
    "unlike_references": "unlike the references",
    "like_others": "like the counter-examples",
    "near_duplicate": "near-duplicates of better frames",
    "not_chosen": "not chosen: others cover them",
}


def thumbnail(path: object, side: int = CELL) -> Image.Image:
    """A small picture of a frame; grey where it cannot be opened."""
    try:
        with Image.open(Path(str(path))) as image:
            if image.width * image.height > ENOUGH_PIXELS:
                raise ValueError("too many pixels")
            image.draft("RGB", (2 * side, 2 * side))
            small = image.convert("RGB")
    except Exception:  # what decoders raise on a damaged file is of a dozen types; the frame has its reason already
        return Image.new("RGB", (side, side), "#c8c8c8")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def some_of(names: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly over all."""
    if len(names) <= most:
        return list(names)
    return [names[place * len(names) // most] for place in range(most)]


def kept_sheet(found: Found) -> Image.Image:
    """The frames of the set, the most similar to the references first."""
    scores = similarities(found)
    names = sorted(some_of(found.kept, MOST_ON_A_SHEET), key=lambda name: -scores[name])
    labels = [f"{Path(name).name}\n{scores[name]:.3f}" for name in names]
    images = (thumbnail(found.pictures[name].path) for name in names)
    return contact_sheet(images, labels=labels, cell=CELL)


def refused_sheet(found: Found) -> Image.Image:
    """A band for each reason, with some of the frames that it refused."""
    bands = []
    for code, count in found.counts().items():
        names = some_of(found.refused(code), OF_A_REASON)
        images = (thumbnail(found.pictures[name].path) for name in names)
        band = contact_sheet(images, labels=[label(found, name) for name in names], columns=8, cell=CELL)
        bands.append((f"{TITLES[code]} ({code}): {count}", band))
    return _stacked(bands)


def label(found: Found, name: str) -> str:
    """The frame's name, and the beginning of why."""
    return f"{Path(name).name}\n{found.decisions[name].reasons[0].why}"


def similarities(found: Found) -> dict[str, float]:
    """Similarity of each readable frame."""
    return dict(zip(found.readable, found.likeness.scores.tolist(), strict=True))


def _stacked(bands: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    font, line = ImageFont.load_default(size=20), 34
    width = max([400, *(band.width for _, band in bands)])
    height = sum(band.height + line for _, band in bands)
    sheet = Image.new("RGB", (width, max(height, line)), BACKGROUND)
    pen, top = ImageDraw.Draw(sheet), 0
    for title, band in bands or [("nothing was refused", Image.new("RGB", (1, 1), BACKGROUND))]:
        pen.text((MARGIN, top + 8), title, fill=INK, font=font)
        sheet.paste(band, (0, top + line)) if bands else None
        top += line + band.height
    return sheet


def draw_similarity(found: Found) -> Image.Image:
    """How like the references frames, references and counter-examples are, and where the threshold stands."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    likeness = found.likeness
    num = 1 if likeness.confidence is None else 2
    figure = Figure(figsize=(8, 3.4 * num), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(num, 1, squeeze=False)[:, 0]
    groups = [
        ("frames", likeness.scores, "#9aa5b1"),
        ("references, each beside the others", likeness.references, "#2f7d4f"),
    ]
    if likeness.others is not None:
        groups.append(("counter-examples", likeness.others, "#b3452c"))
    low = min(float(values.min()) for _, values, _ in groups if len(values))
    high = max(float(values.max()) for _, values, _ in groups if len(values))
    _histogram(axes[0], groups, low=low, high=high, limit=likeness.threshold.value)
    axes[0].set_title(
        f"similarity to the references; threshold {likeness.threshold.value:.3f}: {likeness.threshold.how}",
        fontsize=9,
    )
    if likeness.confidence is not None and likeness.held_out is not None:
        told = [
            ("frames", likeness.confidence, "#9aa5b1"),
            ("references, each left out", likeness.held_out[0], "#2f7d4f"),
            ("counter-examples, each left out", likeness.held_out[1], "#b3452c"),
        ]
        _histogram(axes[1], told, low=0.0, high=1.0, limit=None)
        axes[1].set_title("how likely it is the subject and none of the counter-examples", fontsize=9)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _histogram(
    axis: "Axes", groups: Sequence[tuple[str, object, str]], *, low: float, high: float, limit: float | None
) -> None:
    """The share of each group in every step; each group adds up to 1."""
    edges = np.linspace(low, max(high, low + 1e-3), 41)
    for name, values, colour in groups:
        numbers = np.asarray(values)
        if numbers.size:
            share = np.full(numbers.size, 1 / numbers.size)
            axis.hist(
                numbers, bins=list(edges), weights=share, label=f"{name} ({numbers.size})", color=colour, alpha=0.6
            )
    if limit is not None:
        axis.axvline(limit, color="#202020", linewidth=1.2, linestyle="--")
    axis.set_ylabel("share")
    axis.legend(fontsize=8, frameon=False, loc="upper left")
