"""Many pictures on one sheet, each with a label that can be read."""

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND, INK = "#ffffff", "#202020"
MARGIN = 12


def contact_sheet(
    images: Iterable[Image.Image], *, labels: Sequence[str], columns: int | None = None, cell: int | None = None
) -> Image.Image:
    """Lay the pictures out in rows, each shrunk into a square of `cell` pixels with its label below.

    Args:
        images: as many as there are labels; they are opened one by one, so a generator keeps memory small.
        columns: by default so many that the sheet is about square.
        cell: by default the more pictures, the smaller.
    """
    cell = cell or cell_size(len(labels))
    columns = columns or max(1, min(len(labels), math.ceil(math.sqrt(len(labels)))))
    rows = max(1, math.ceil(len(labels) / columns))
    font = ImageFont.load_default(size=max(12, cell // 20))
    line_height = math.ceil(1.35 * font.size) if isinstance(font, ImageFont.FreeTypeFont) else 12
    num_lines = 4 if cell >= 160 else 2
    step_x, step_y = cell + MARGIN, cell + num_lines * line_height + MARGIN

    sheet = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = MARGIN + number % columns * step_x, MARGIN + number // columns * step_y
        small = image.convert("RGB")
        small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(small, (x, y + cell - small.height))
        for line_number, line in enumerate(wrap(label, width=cell, font=font, num_lines=num_lines)):
            pen.text((x, y + cell + 3 + line_number * line_height), line, fill=INK, font=font)
    return sheet


def cell_size(num_pictures: int) -> int:
    """Side of one picture on the sheet, so that thousands of pictures still make a sheet that opens."""
    return next(size for most, size in ((16, 320), (100, 224), (500, 128), (math.inf, 96)) if num_pictures <= most)


def wrap(text: str, *, width: int, font: Font, num_lines: int) -> list[str]:
    """The text in lines that fit into `width` pixels; what does not fit into `num_lines` ends in three dots."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if not line or font.getlength(longer) <= width:
                line = longer
            else:
                lines.append(line)
                line = word
        lines.append(line)
    if len(lines) > num_lines:
        lines = [*lines[: num_lines - 1], lines[num_lines - 1] + "..."]
    return [_cut(line, width=width, font=font) for line in lines]


def _cut(line: str, *, width: int, font: Font) -> str:
    """A line, shortened until it fits."""
    if font.getlength(line) <= width:
        return line
    text = line.removesuffix("...")
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
