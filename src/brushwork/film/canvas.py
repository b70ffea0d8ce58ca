"""A sheet to draw on in numbers from 0 to 1: shapes with soft edges, and places on it to draw from.

Everything is drawn four times as large on whole pixels and shrunk at the end: the edges are smooth, and the same
on every machine.

Shapes in this file:  P points of an outline
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
Outline = npt.NDArray[np.float64]  # (P, 2)
Tint = tuple[float, float, float]

OVERSAMPLING = 4
_PARTS_OF_A_CURVE = 7
_SMALLEST_OUTLINED = 0.035
"""Share of the picture's side: what is smaller is drawn without a line around it, which would fill it."""


@dataclass(frozen=True)
class Brush:
    """How shapes are drawn in one style.

    Args:
        line: width of the line around shapes, as a share of the picture's side; 0: none.
        ink: colour of that line; None: the shape's own, darker.
        wash: how far every colour is mixed with the paper.
    """

    line: float = 0.0
    ink: Colour | None = None
    wash: float = 0.0
    paper: Colour = (252, 246, 236)


class Canvas:
    """A view of a picture: (0, 0) is its upper left, (1, 1) the lower right of the square in its middle.

    `at` gives another view of the same picture, moved, turned, mirrored and scaled.

    Args:
        light: every colour is multiplied by it: (1, 1, 1) is noon.
    """

    def __init__(self, width: int, height: int, *, light: Tint = (1.0, 1.0, 1.0), brush: Brush | None = None) -> None:
        self._image = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
        self._pen = ImageDraw.Draw(self._image)
        self._glaze = ImageDraw.Draw(self._image, "RGBA")  # mixes with what is below; slower
        self._brush = brush or Brush()
        self._colours: dict[tuple[Colour, Tint], Colour] = {}
        side = min(self._image.size)
        self._side = side
        self._origin = np.array([(self._image.width - side) / 2, (self._image.height - side) / 2])
        self._axes = np.array([[side, 0.0], [0.0, side]])  # rows: one step along x, one along y
        self.light: Tint = light
        self._lined = self._brush.line > 0
        self._traced: list[Outline] | None = None

    def at(
        self,
        x: float,
        y: float,
        size: float = 1.0,
        *,
        turn: float = 0.0,
        mirrored: bool = False,
        shine: float = 0.0,
        lined: bool = True,
    ) -> "Canvas":
        """A view with its origin at (x, y) of this one, turned clockwise by degrees.

        `shine` from 0 to 1: how much of its colour does not depend on the light. `lined`: with the style's lines.
        """
        view = object.__new__(Canvas)
        view.__dict__.update(self.__dict__)
        view._origin = self._origin + np.array([x, y]) @ self._axes
        cos, sin = math.cos(math.radians(turn)) * size, math.sin(math.radians(turn)) * size
        side = -1.0 if mirrored else 1.0
        view._axes = np.array([[side * cos, side * sin], [-sin, cos]]) @ self._axes
        red, green, blue = (share + (1.0 - share) * shine for share in self.light)
        view.light = (red, green, blue)
        view._lined = self._lined and lined
        return view

    def traced(self) -> "Canvas":
        """The same view, which remembers from here on what was drawn through it: see `box`."""
        view = self.at(0, 0)
        view._traced = []
        return view

    def untraced(self) -> "Canvas":
        """The same view for what does not belong to the thing traced: its shadow, what it holds."""
        view = self.at(0, 0)
        view._traced = None
        return view

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in the final picture's pixels of all that was drawn through a traced view."""
        if not self._traced:
            return (0, 0, 0, 0)
        points = np.concatenate(self._traced) / OVERSAMPLING
        width, height = (side // OVERSAMPLING for side in self._image.size)
        left, top = np.floor(points.min(axis=0)).astype(int).tolist()
        right, bottom = np.ceil(points.max(axis=0)).astype(int).tolist()
        left, right = (min(max(x, 0), width) for x in (left, right))
        top, bottom = (min(max(y, 0), height) for y in (top, bottom))
        return (left, top, right, bottom)

    def sky(self, top: Colour, bottom: Colour) -> None:
        """Fill the whole picture, from one colour above to another below; the light does not change it."""
        share = (np.arange(self._image.height) / self._image.height)[:, None]  # (H, 1)
        ends = [np.array(self._mix(colour), dtype=np.float64) for colour in (top, bottom)]
        rows = np.floor(ends[0] + (ends[1] - ends[0]) * share + 0.501).astype(np.uint8)[:, None]  # (H, 1, 3)
        self._image.paste(Image.fromarray(rows).resize(self._image.size, Image.Resampling.NEAREST))

    def polygon(
        self, points: Sequence[Point] | Outline, colour: Colour, *, alpha: int = 255, lined: bool = True
    ) -> None:
        """A shape with straight edges; `lined`: with the style's line around it."""
        pixels = self._pixels(points)
        if self._is_outside(pixels):
            return
        flat = pixels.ravel().tolist()
        if alpha < 255:
            self._glaze.polygon(flat, fill=(*self._paint(colour), alpha))
            return
        self._pen.polygon(flat, fill=self._paint(colour))
        if self._lined and lined and np.ptp(pixels, axis=0).max() > _SMALLEST_OUTLINED * self._side:
            width = max(2, round(self._brush.line * self._side))
            self._pen.line([*flat, *flat[:4]], fill=self._line(colour), width=width)

    def blob(self, points: Sequence[Point], colour: Colour, *, alpha: int = 255, lined: bool = True) -> None:
        """A closed shape with a smooth edge through these points."""
        self.polygon(_smooth(tuple(points)), colour, alpha=alpha, lined=lined)

    def twin(self, half: Sequence[Point], colour: Colour, *, alpha: int = 255, lined: bool = True) -> None:
        """A smooth shape that is the same on both sides, given by its right half from the top to the bottom."""
        self.blob([*half, *((-x, y) for x, y in half[-2:0:-1])], colour, alpha=alpha, lined=lined)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour,
        *,
        turn: float = 0.0,
        alpha: int = 255,
        lined: bool = True,
    ) -> None:
        across = max(rx, ry) * math.hypot(*self._axes[0])
        circle = _circle(12 if across < 8 else 24 if across < 40 else 60)
        points: Outline = circle * np.array([rx, ry])
        if turn:
            cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            points = points @ np.array([[cos, sin], [-sin, cos]])
        self.polygon(points + np.array([x, y]), colour, alpha=alpha, lined=lined)

    def stroke(self, points: Sequence[Point], thickness: float, colour: Colour, *, lined: bool = True) -> None:
        """A thick line with round ends and corners."""
        pixels = self._pixels(points)
        if self._is_outside(pixels):
            return
        width = thickness * math.hypot(*self._axes[0])
        if self._lined and lined and width > 0.6 * _SMALLEST_OUTLINED * self._side:
            self._thick(pixels, width + 2 * round(self._brush.line * self._side * 0.6), self._line(colour))
        self._thick(pixels, width, self._paint(colour))

    def glow(self, x: float, y: float, radius: float, colour: Colour, *, alpha: int = 12) -> None:
        """Light around a point, weaker outwards."""
        for ring in range(12, 0, -1):
            self.ellipse(x, y, radius * ring / 12, radius * ring / 12, colour, alpha=alpha)

    def picture(self) -> Image.Image:
        """What was drawn, in its final size."""
        return self._image.reduce(OVERSAMPLING)

    def _thick(self, pixels: npt.NDArray[np.int64], width: float, fill: Colour) -> None:
        whole = max(1, math.floor(width + 0.501))
        self._pen.line(pixels.ravel().tolist(), fill=fill, width=whole)
        if whole < 3:
            return
        radius = whole / 2
        for x, y in pixels.tolist():
            self._pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)

    def _pixels(self, points: Sequence[Point] | Outline) -> npt.NDArray[np.int64]:
        """Whole pixels. The odd thousandth keeps a point that lies just between two off the edge of rounding."""
        exact = np.asarray(points, dtype=np.float64) @ self._axes + self._origin
        if self._traced is not None:
            self._traced.append(exact)
        whole: npt.NDArray[np.int64] = np.floor(exact + 0.501).astype(np.int64)
        return whole

    def _is_outside(self, pixels: npt.NDArray[np.int64]) -> bool:
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        width, height = self._image.size
        margin = 0.12 * self._side
        return bool(right < -margin or bottom < -margin or left > width + margin or top > height + margin)

    def _paint(self, colour: Colour) -> Colour:
        """The colour in this view's light, mixed with the style's paper."""
        known = self._colours.get((colour, self.light))
        if known is None:
            red, green, blue = (min(255, round(c * share)) for c, share in zip(colour, self.light, strict=True))
            known = self._colours[colour, self.light] = self._mix((red, green, blue))
        return known

    def _mix(self, colour: Colour) -> Colour:
        wash, paper = self._brush.wash, self._brush.paper
        red, green, blue = (round(c + (p - c) * wash) for c, p in zip(colour, paper, strict=True))
        return red, green, blue

    def _line(self, colour: Colour) -> Colour:
        if self._brush.ink is not None:
            return self._brush.ink
        red, green, blue = (round(c * 0.72) for c in self._paint(colour))
        return red, green, blue


@functools.cache
def _circle(num_points: int) -> Outline:
    angles = np.arange(num_points) * (math.tau / num_points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@functools.lru_cache(maxsize=2048)
def _smooth(points: tuple[Point, ...]) -> Outline:
    """A closed Catmull-Rom curve through the points."""
    p = np.array(points)
    before, after, then = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    t = (np.arange(_PARTS_OF_A_CURVE) / _PARTS_OF_A_CURVE)[:, None, None]
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
    curve: Outline = sum(w * point for w, point in zip(weights, (before, p, after, then), strict=True)) / 2
    return curve.transpose(1, 0, 2).reshape(-1, 2)
