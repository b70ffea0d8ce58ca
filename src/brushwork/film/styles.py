"""The three ways in which the film is drawn: flat colours, ink outlines, and pastel on soft paper."""

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from brushwork.film.canvas import Brush, Canvas
from brushwork.film.scene import Style

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

BRUSHES: dict[Style, Brush] = {
    "flat": Brush(),
    "ink": Brush(line=0.0075, ink=(38, 30, 46)),
    "pastel": Brush(line=0.006, wash=0.17),
}


def finish(canvas: Canvas, style: Style) -> Image.Image:
    """The picture; on soft paper its colours fade towards the edges, and the paper's grain is seen."""
    image = canvas.picture()
    if style != "pastel":
        return image
    soft = image.filter(ImageFilter.Kernel((3, 3), (0, 1, 0, 1, 8, 1, 0, 1, 0)))
    weight, grain = _paper(*image.size)
    paper = np.array(BRUSHES[style].paper, dtype=np.int32)
    pixels = np.asarray(soft, dtype=np.int32)
    washed = (pixels * weight + paper * (256 - weight) + 128) // 256 + grain
    return Image.fromarray(np.clip(washed, 0, 255).astype(np.uint8))


def noise(width: int, height: int, *, offset: int) -> npt.NDArray[np.int32]:
    """Numbers from 0 to 255 without pattern: -> (H, W), others for each offset."""
    y, x = np.mgrid[0:height, 0:width].astype(np.uint32)
    return (_hash(x + np.uint32(offset), y + np.uint32(offset)) % np.uint32(256)).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _paper(width: int, height: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Of 256, how much paint each pixel carries (H, W, 1); and the grain of the paper (H, W, 1).

    Whole numbers all through: the same on every machine.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.uint32)
    margin = max(2, min(width, height) // 16)
    edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)).astype(np.int64)
    waver = _waver(x, y, 3 * margin) * margin // 400  # the border of the paint is not straight
    paint = np.clip((edge - waver + 1) * 256 // margin, 0, 256)
    grain = (_hash(x, y) % np.uint32(5)).astype(np.int32) - 2
    return paint.astype(np.int32)[..., None], grain[..., None]


def _waver(x: npt.NDArray[np.uint32], y: npt.NDArray[np.uint32], cell: int) -> npt.NDArray[np.int64]:
    """Smooth noise from 0 to 255: numbers on a grid, mixed between its points."""
    column, row = x // np.uint32(cell), y // np.uint32(cell)
    u, v = (x % np.uint32(cell)).astype(np.int64), (y % np.uint32(cell)).astype(np.int64)
    one = np.uint32(1)
    corners = ((column, row), (column + one, row), (column, row + one), (column + one, row + one))
    a, b, c, d = ((_hash(*corner) % np.uint32(256)).astype(np.int64) for corner in corners)
    mixed = (a * (cell - u) + b * u) * (cell - v) + (c * (cell - u) + d * u) * v
    return (mixed // (cell * cell)).astype(np.int64)


def _hash(x: npt.NDArray[np.uint32], y: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A number without pattern for each place."""
    value = x * np.uint32(0x9E3779B1) ^ y * np.uint32(0x85EBCA77)
    value = (value ^ (value >> np.uint32(15))) * np.uint32(0xC2B2AE3D)
    mixed: npt.NDArray[np.uint32] = value ^ (value >> np.uint32(13))
    return mixed
