"""What can be told of one picture without knowing what it should show: sharpness, light, damage, bars, lettering.

Each measure is one short function with its source. Those of sharpness and light are taken at a normal size, so that
a frame of 4,000 pixels and one of 500 compare; those of damage at the size that the file has, because scaling hides
it. Only numpy and Pillow are needed, so that many processes can measure and start at once.

Shapes in this file:  H, W height and width   P places   N samples across an edge   M length of a line at the border
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Light = npt.NDArray[np.uint8]  # (H, W)
Colours = npt.NDArray[np.uint8]  # (H, W, 3)

SCHEMA = 2
"""Raised when a measure changes: what was measured before is measured again."""

NORMAL_SIDE = 512
"""The shorter side at which sharpness and light are measured. What is smaller is taken as it is."""

WINDOW_SIDE = 1024
"""Damage is measured in the middle of the picture, a square of this side: 4,000 pixels tell no more."""


@dataclass(frozen=True)
class Quality:
    """What was measured of one picture. Shares and light go from 0 to 1."""

    width: int
    """Pixels of the file, after EXIF turned it; so is `height`."""
    height: int
    edge_width: float | None
    """Pixels over which the sharp edges rise, at the normal size, in the direction in which they are sharpest: 1 is
    as sharp as can be, a Gaussian blur of deviation s gives 2.5 s. None where there is no edge."""
    edge_width_worst: float | None
    """The same in the direction in which they are softest. An ideal picture has 1.41 there, on the diagonal."""
    brightness: float
    """Mean light."""
    shadows: float
    """Light that 5 % of the pixels stay below."""
    highlights: float
    """Light that 99 % of the pixels stay below."""
    dark: float
    """Share of the pixels with less than 16 of 255."""
    clipped: float
    """Share of the pixels with a channel at its end (254 or 255): what was brighter is lost."""
    contrast: float
    """Standard deviation of light."""
    step: float
    """Difference of neighbours that 99.5 % of them stay below; in a flat frame next to nothing."""
    noise: float
    """Standard deviation of the grain."""
    blockiness: float
    """Steps on the borders of 8 x 8 blocks, as a multiple of the steps inside them; 1 without compression."""
    repeats: float
    """Share of rows and columns that equal the one before: 1 - 1/k where each pixel was made into k x k."""
    lettering: float
    """How densely thin bright strokes fill a line in the lower part: subtitles from 0.3 up."""
    bar_left: int
    """Width of a bar along this border, in the file's pixels; 0 without; so are the other three."""
    bar_top: int
    bar_right: int
    bar_bottom: int

    @property
    def direction(self) -> float:
        """How many times as soft the edges are in one direction as in another; movement makes it large."""
        return self.edge_width_worst / self.edge_width if self.edge_width and self.edge_width_worst else 1.0

    @property
    def bars(self) -> float:
        """Share of the height or width that one of two opposite bars takes; a bar on one side alone is none."""
        upright, level = min(self.bar_left, self.bar_right), min(self.bar_top, self.bar_bottom)
        return max(upright / self.width, level / self.height)

    def record(self) -> dict[str, Any]:
        """As plain values, rounded to what is significant."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}

    def parts(self) -> dict[str, float]:
        """Sharpness, exposure and cleanness, each from 0 to 1, for a score or to choose the best of some alike."""
        return {
            "sharpness": 0.0 if not self.edge_width_worst else min(1.0, np.sqrt(2).item() / self.edge_width_worst),
            "exposure": _ramp(self.highlights, 0.05, 0.5) * (1 - self.clipped * _ramp(self.shadows, 0.2, 0.6)),
            "cleanness": (1 - _ramp(self.noise, 0.02, 0.15))
            * (1 - _ramp(self.blockiness, 1.3, 3.0))
            * (1 - _ramp(self.repeats, 0.1, 0.5))
            * (1 - _ramp(self.lettering, 0.2, 0.4))
            * (1 - _ramp(self.bars, 0.0, 0.25)),
        }

    def score(self) -> float:
        """All parts in one number: their product."""
        return float(np.prod(list(self.parts().values())))


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def measure(picture: Image.Image) -> Quality:
    """Everything that is measured of a picture, in about 25 ms at 512 x 512; to four decimals, as it is kept."""
    picture = picture.convert("RGB")
    colours = np.asarray(picture)
    small = at_normal_size(picture)
    light, small_colours = np.asarray(small.convert("L")), np.asarray(small)
    window = np.asarray(_middle(picture).convert("L"))
    widths = [width for width in edge_widths(light).values() if width is not None]
    shadows, highlights = (float(value) / 255 for value in np.percentile(light, [5, 99]))
    left, top, right, bottom = bars(colours)
    found = Quality(
        width=picture.width,
        height=picture.height,
        edge_width=min(widths, default=None),
        edge_width_worst=max(widths, default=None),
        brightness=float(light.mean()) / 255,
        shadows=shadows,
        highlights=highlights,
        dark=float((light < 16).mean()),
        clipped=float((_brightest(small_colours) >= 254).mean()),
        contrast=float(light.std()) / 255,
        step=strongest_step(light),
        noise=noise(window),
        blockiness=blockiness(window),
        repeats=repeats(window),
        lettering=lettering(small_colours),
        bar_left=left,
        bar_top=top,
        bar_right=right,
        bar_bottom=bottom,
    )
    values: dict[str, Any] = {
        name: round(value, 4) if isinstance(value, float) else value for name, value in found.record().items()
    }
    return Quality(**values)


def at_normal_size(picture: Image.Image) -> Image.Image:
    """The picture with a shorter side of 512 pixels; a smaller one as it is, because scaling up makes no detail."""
    factor = min(picture.size) / NORMAL_SIDE
    if factor <= 1:
        return picture
    width, height = (max(1, round(side / factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _middle(picture: Image.Image) -> Image.Image:
    left, top = (max(0, (side - WINDOW_SIDE) // 2) for side in picture.size)
    right, bottom = min(picture.width, left + WINDOW_SIDE), min(picture.height, top + WINDOW_SIDE)
    return picture.crop((left, top, right, bottom))


DIRECTIONS = {"across": (0, 1), "down": (1, 0), "falling": (1, 1), "rising": (1, -1)}
"""Steps (y, x) from a pixel to the neighbour that it is compared with."""

_REACH = np.arange(-7, 9)
"""Samples across an edge, of which the step is between the eighth and the ninth."""


def edge_widths(light: Light) -> dict[str, float | None]:
    """(H, W) -> for each direction, pixels over which the sharp ones among the strong edges rise.

    After Marziliano et al., "A no-reference perceptual blur metric", ICIP 2002: how wide an edge is, and not how
    strong (as the variance of the Laplacian tells), so that a drawing with large even faces, a dark picture and a
    face before a soft background count as sharp as they are. The width is the height of the edge over its slope;
    exact up to 8 pixels, and at least 8 above.
    """
    return {name: _edge_width(light, *step) for name, step in DIRECTIONS.items()}


def _edge_width(light: Light, dy: int, dx: int) -> float | None:
    """The quartile of the widths of the strongest 1 % of all steps: what is sharp decides, not the background."""
    left = max(0, -dx)
    height, width = light.shape
    if height < len(_REACH) or width < len(_REACH):
        return None
    before, after = light[: height - dy, left : width - max(0, dx)], light[dy:, left + dx : width + min(0, dx)]
    steps = np.maximum(before, after) - np.minimum(before, after)  # (H - dy, W - |dx|)
    least = max(_LEAST_STEP, _rank_from_above(steps, max(50, steps.size // 100)))
    y, x = np.nonzero(steps >= least)
    if len(y) < _LEAST_PLACES:
        return None
    every = max(1, len(y) // _MOST_PLACES)
    y, x = y[::every], x[::every]
    rows = np.clip(y[:, None] + _REACH * dy, 0, height - 1)
    columns = np.clip(x[:, None] + left + _REACH * dx, 0, width - 1)
    across = light[rows, columns]  # (P, N)
    rise = across.max(axis=1).astype(np.float32) - across.min(axis=1)
    return float(np.percentile(rise / steps[y, x], 25) * np.hypot(dx, dy))


_LEAST_STEP = 6
"""Smaller differences of neighbours are no edges."""
_LEAST_PLACES = 30
_MOST_PLACES = 4000


def _rank_from_above(values: Light, rank: int) -> int:
    """The value that about `rank` others reach or exceed."""
    above = np.bincount(values.ravel(), minlength=256)[::-1].cumsum()
    return int(255 - np.searchsorted(above, rank))


def strongest_step(light: Light) -> float:
    """(H, W) -> the difference of neighbours, of 1, that 99.5 % of them stay below."""
    if min(light.shape) < 2:
        return 0.0
    steps = [np.abs(np.diff(light.astype(np.int16), axis=axis)) for axis in (0, 1)]
    return max(_rank_from_above(step.astype(np.uint8), max(1, step.size // 200)) for step in steps) / 255


def noise(light: Light) -> float:
    """(H, W) -> deviation of the grain, of 1.

    Immerkaer, "Fast noise variance estimation", CVIU 1996: a mask that answers neither to even faces nor to edges.
    With the median in place of the mean (Donoho and Johnstone 1994), so that fine drawing does not count as grain.
    """
    if min(light.shape) < 3:
        return 0.0
    x = light.astype(np.int16)
    rows = x[:-2] - 2 * x[1:-1] + x[2:]
    answer = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    return float(np.median(answer)) / 0.6745 / 6 / 255


def blockiness(light: Light) -> float:
    """(H, W) -> the steps where blocks of 8 pixels meet, as a multiple of those elsewhere.

    After Wang, Sheikh and Bovik, "No-reference perceptual quality assessment of JPEG compressed images", ICIP 2002.
    The blocks may begin anywhere (a frame that was cut out), and both directions must show them.
    """
    return min(_blockiness(lines) for lines in (light, light.T))


def _blockiness(lines: Light) -> float:
    steps = np.abs(np.diff(lines.astype(np.int16), axis=1)).clip(max=_CLEAR_EDGE).mean(axis=0)  # (W - 1,)
    whole = len(steps) // 8 * 8
    if whole < 32:
        return 1.0
    phases = steps[:whole].reshape(-1, 8).mean(axis=0)
    inside = np.delete(phases, phases.argmax()).mean()
    return float(phases.max() / (inside + 0.05))  # 0.05: two even faces have no ratio


_CLEAR_EDGE = 20
"""Steps above this, of 255, are drawn edges and count no more than this."""


def repeats(light: Light) -> float:
    """(H, W) -> the smaller of the shares of rows and of columns that equal the one before."""
    if min(light.shape) < 2:
        return 0.0
    return min(float((lines[1:] == lines[:-1]).all(axis=1).mean()) for lines in (light, light.T))


def lettering(colours: Colours) -> float:
    """(H, W, 3) -> how much of half a line's width, in the lower 40 %, thin bright strokes fill.

    A stroke is bright in itself and much brighter than something near on its left and on its right. What the whole
    lower part has of them (grass, grain) is taken off.
    """
    height, width = colours.shape[:2]
    bright = _brightest(colours[height * 6 // 10 :])
    reach, tall, wide = max(2, round(height / 24)), max(3, round(height / 20)), max(8, width // 2)
    if bright.shape[0] <= tall or width <= 2 * reach + wide:
        return 0.0
    lowest = _running_min(bright, reach + 1)
    ground = np.maximum(lowest[:, :-reach], lowest[:, reach:])
    inner = bright[:, reach:-reach]
    strokes = (inner > _BRIGHT) & (inner > np.minimum(ground, 255 - _STANDS_OUT) + np.uint8(_STANDS_OUT))
    sums = np.pad(strokes.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32), ((1, 0), (1, 0)))
    filled = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    return max(0.0, float(filled.max() / (tall * wide) - np.median(strokes.mean(axis=1))))


_BRIGHT, _STANDS_OUT = 190, 90
"""Of 255: how bright a letter is at least, and how much brighter than what is beside it."""


def _brightest(colours: Colours) -> Light:
    """(H, W, 3) -> (H, W): numpy's own maximum along so short an axis takes thirty times as long."""
    brightest: Light = np.maximum(np.maximum(colours[..., 0], colours[..., 1]), colours[..., 2])
    return brightest


def _running_min(lines: Light, count: int) -> Light:
    """(H, W) -> (H, W - count + 1): the smallest of `count` values from each place on."""
    have = 1
    while have < count:
        more = min(have, count - have)
        lines = np.minimum(lines[:, :-more], lines[:, more:])
        have += more
    return lines


def bars(colours: Colours) -> tuple[int, int, int, int]:
    """(H, W, 3) -> widths of the bars of one colour at the left, top, right and bottom border, in pixels.

    A bar ends at once and along its whole length; an even sky or the white ground of a drawing does not. Opposite
    bars have one colour: a wall above and a floor below are none.
    """
    top, bottom = _opposite_bars(colours)
    left, right = _opposite_bars(colours[top : len(colours) - bottom].swapaxes(0, 1))
    return left, top, right, bottom


def _opposite_bars(lines: Colours) -> tuple[int, int]:
    first, last = _bar(lines), _bar(lines[::-1])
    if first and last and _share_other(lines[-1], np.median(lines[0], axis=0)) > 0.01:
        return 0, 0
    return first, last


_SAME = 12
"""Differences up to this, of 255, are of one colour: compression makes as much."""


def _bar(lines: Colours) -> int:
    """(lines from the border inwards, M, 3) -> how many lines the bar has"""
    if not lines.size:
        return 0
    colour = np.median(lines[0], axis=0)
    for count in range(len(lines)):
        if _share_other(lines[count], colour) > 0.01:
            ends = max(_share_other(line, colour) for line in lines[count : count + 3])
            return count if ends > 0.8 else 0
    return 0


def _share_other(line: npt.NDArray[np.uint8], colour: npt.NDArray[np.float64]) -> float:
    return float((np.abs(line - colour).max(axis=1) > _SAME).mean())
