"""`brushwork buckets`: which bucket each picture falls into, before anything is encoded, and a sheet to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console

from brushwork.atomic import written_beside
from brushwork.config.load import resolve
from brushwork.data.bucket_report import BucketReport, Framed
from brushwork.data.buckets import sizes_in_words
from brushwork.data.picture import open_rgb
from brushwork.data.transform import Placement
from brushwork.errors import UserError
from brushwork.generation.grid import contact_sheet
from brushwork.training.prepare import Preparation, prepare_aloud

MOST_ON_SHEET = 100
"""Pictures on a sheet, those that lose most first."""
SIDE_ON_SHEET = 640
"""Pictures are shrunk to this before the frame is drawn, so that its line keeps its width."""


@dataclass(frozen=True)
class BucketsChecked:
    """What `check_buckets` found out, and the sheet that it drew."""

    report: BucketReport
    sizes: str
    held_out: int
    sheet: Path | None
    num_on_sheet: int

    def __str__(self) -> str:
        lines = [f"buckets: {self.sizes}", str(self.report)]
        if self.sheet is not None:
            shown, total = self.num_on_sheet, len(self.report.pictures)
            which = f"all {total} pictures" if shown == total else f"the {shown} of {total} pictures that lose most"
            lines.append(f"{self.sheet}: {which}; what is dark is cut off")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        sheet = None if self.sheet is None else str(self.sheet)
        return self.report.record() | {"sizes": self.sizes, "sheet": sheet}


def check_buckets(
    data: str | Path,
    *,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    sheet: str | Path | None = None,
    console: Console | None = None,
) -> BucketsChecked:
    """Tell which bucket each picture falls into, what is cut off and what is enlarged; draw it where asked.

    Args:
        data: pictures with captions beside them, as for `train`.
        recipe: name or `.toml` file of a recipe.
        files: settings files, the later ones winning.
        overrides: single settings as `key=value`.
        sheet: a PNG to write: every picture with its frame.
        console: where the progress is shown; by default the error stream.
    """
    console = console or Console(stderr=True)
    sheet = None if sheet is None else _new_picture(Path(sheet))
    settings = resolve(recipe=recipe, files=files, overrides=overrides).settings
    preparation = prepare_aloud(Path(data), settings, console)
    report = preparation.bucket_report
    shown = 0 if sheet is None else draw_sheet(preparation, sheet)
    words = sizes_in_words(preparation.buckets, [row.size for row in report.rows])
    return BucketsChecked(report, words, len(preparation.held_out), sheet, shown)


def draw_sheet(preparation: Preparation, path: Path) -> int:
    """Draw the pictures that lose most with their frames; -> how many are on the sheet."""
    data = preparation.settings.data
    samples = {picture.sample.name: picture.sample for picture in preparation.pictures}
    ordered = sorted(
        preparation.bucket_report.pictures,
        key=lambda each: (-each.placement.cut_share, -each.placement.enlargement, each.name),
    )[:MOST_ON_SHEET]

    def drawn() -> Iterator[Image.Image]:
        for each in ordered:
            sample = samples[each.name]
            image = open_rgb(sample.path, background=data.background, max_pixels=data.max_pixels, crop=sample.box)
            yield with_frame(image, each.placement)

    sheet = contact_sheet(drawn(), labels=[_label(each) for each in ordered])
    with written_beside(path) as partial:
        sheet.save(partial, format="PNG")
    return len(ordered)


def with_frame(image: Image.Image, placement: Placement) -> Image.Image:
    """The whole picture, dark where it is cut off, with a line around what is trained."""
    small = image.copy()
    small.thumbnail((SIDE_ON_SHEET, SIDE_ON_SHEET), Image.Resampling.LANCZOS)
    across = small.width / placement.resized.width
    down = small.height / placement.resized.height
    left, top = placement.crop.left * across, placement.crop.top * down
    box = (
        round(left),
        round(top),
        min(small.width, round(left + placement.target.width * across)),
        min(small.height, round(top + placement.target.height * down)),
    )
    dark = Image.blend(small, Image.new("RGB", small.size, "black"), 0.7)
    dark.paste(small.crop(box), box[:2])
    line = max(2, max(small.size) // 160)
    ImageDraw.Draw(dark).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="#ff3030", width=line)
    return dark


def _label(each: Framed) -> str:
    placement = each.placement
    parts = [f"{placement.target.width}x{placement.target.height}", f"{100 * placement.cut_share:.0f} % cut"]
    if placement.enlargement > 1.005:
        parts.append(f"enlarged {placement.enlargement:.1f}x")
    return f"{each.name}\n{', '.join(parts)}"


def _new_picture(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: the sheet is written as .png.", fix=f"--sheet {path.stem or 'frames'}.png")
    if path.exists():
        raise UserError(
            f"{path} is there already and is not replaced.", fix="choose another name, or remove it first"
        )
    return path
