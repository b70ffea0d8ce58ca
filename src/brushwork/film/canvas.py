"""A sheet to draw on in numbers from 0 to 1: shapes with soft edges, and places on it to draw from.

Everything is drawn four times as large and shrunk at the end, which makes the edges smooth.
"""

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

OVERSAMPLING = 4
_PARTS_OF_A_CURVE = 12


class Canvas:
    """A view of a picture: (0, 0) is its upper left, (1, 1) the lower right of the square in its middle.

    `at` gives another view of the same picture, moved, turned, mirrored and scaled.

    Args:
        light: every colour is multiplied by it: (1, 1, 1) is noon.
    """

    def __init__(self, width: int, height: int, *, light: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        self._image = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
        self._pen = ImageDraw.Draw(self._image, "RGBA")
        side = min(self._image.size)
        self._origin = ((self._image.width - side) / 2, (self._image.height - side) / 2)
        self._x_axis: Point = (side, 0.0)
        self._y_axis: Point = (0.0, side)
        self.light = tuple(light)

    def at(
        self, x: float, y: float, size: float = 1.0, *, turn: float = 0.0, mirrored: bool = False, shine: float = 0.0
    ) -> "Canvas":
        """A view with its origin at (x, y) of this one, turned clockwise by degrees.

        `shine` from 0 to 1: how much of its colour does not depend on the light.
        """
        view = object.__new__(Canvas)
        view._image, view._pen = self._image, self._pen
        view._origin = self._pixel((x, y))
        cos, sin = math.cos(math.radians(turn)) * size, math.sin(math.radians(turn)) * size
        side = -1.0 if mirrored else 1.0
        (ax, ay), (bx, by) = self._x_axis, self._y_axis
        view._x_axis = (side * (ax * cos + bx * sin), side * (ay * cos + by * sin))
        view._y_axis = (bx * cos - ax * sin, by * cos - ay * sin)
        view.light = tuple(share + (1.0 - share) * shine for share in self.light)
        return view

    def sky(self, top: Colour, bottom: Colour) -> None:
        """Fill the whole picture, from one colour above to another below; the light does not change it."""
        for row in range(self._image.height):
            share = row / self._image.height
            colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
            self._pen.line([(0, row), (self._image.width, row)], fill=colour)

    def polygon(self, points: Iterable[Point], colour: Colour, *, alpha: int = 255) -> None:
        self._pen.polygon([self._pixel(point) for point in points], fill=self._paint(colour, alpha))

    def blob(self, points: Sequence[Point], colour: Colour, *, alpha: int = 255) -> None:
        """A closed shape with a smooth edge through these points."""
        self.polygon(_smooth(points), colour, alpha=alpha)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, *, turn: float = 0.0, alpha: int = 255
    ) -> None:
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        corners = [(rx * math.cos(a), ry * math.sin(a)) for a in (math.tau * i / 72 for i in range(72))]
        self.polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners], colour, alpha=alpha)

    def stroke(self, points: Sequence[Point], thickness: float, colour: Colour) -> None:
        """A thick line with round ends and corners."""
        width = thickness * math.hypot(*self._x_axis)
        pixels = [self._pixel(point) for point in points]
        self._pen.line(pixels, fill=self._paint(colour, 255), width=round(width), joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            box = [x - width / 2, y - width / 2, x + width / 2, y + width / 2]
            self._pen.ellipse(box, fill=self._paint(colour, 255))

    def glow(self, x: float, y: float, radius: float, colour: Colour, *, alpha: int = 6) -> None:
        """Light around a point, weaker outwards."""
        for ring in range(24, 0, -1):
            self.ellipse(x, y, radius * ring / 24, radius * ring / 24, colour, alpha=alpha)

    def picture(self) -> Image.Image:
        """What was drawn, in its final size."""
        width, height = self._image.size
        return self._image.resize((width // OVERSAMPLING, height // OVERSAMPLING), Image.Resampling.BOX)

    def _pixel(self, point: Point) -> Point:
        (ox, oy), (ax, ay), (bx, by), (x, y) = self._origin, self._x_axis, self._y_axis, point
        return ox + ax * x + bx * y, oy + ay * x + by * y

    def _paint(self, colour: Colour, alpha: int) -> tuple[int, int, int, int]:
        red, green, blue = (round(c * share) for c, share in zip(colour, self.light, strict=True))
        return red, green, blue, alpha


def _smooth(points: Sequence[Point]) -> list[Point]:
    """A closed Catmull-Rom curve through the points."""
    curve = []
    for i in range(len(points)):
        p, q, r, s = (points[(i + k) % len(points)] for k in (-1, 0, 1, 2))
        for part in range(_PARTS_OF_A_CURVE):
            t = part / _PARTS_OF_A_CURVE
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
            x, y = (
                sum(w * point[axis] for w, point in zip(weights, (p, q, r, s), strict=True)) / 2 for axis in (0, 1)
            )
            curve.append((x, y))
    return curve
