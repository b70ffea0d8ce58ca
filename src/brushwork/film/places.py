"""Where the film plays, and in what light: backgrounds, drawn from the horizon down to the lower edge."""

import math
import random
from dataclasses import dataclass

from brushwork.film.canvas import Canvas, Colour
from brushwork.film.scene import Place, Time

HORIZON = 0.62
FAR_LEFT, FAR_RIGHT, BOTTOM = -1.5, 2.5, 2.5
"""Beyond the picture, so that wide pictures and a moved camera see no edge."""


@dataclass(frozen=True)
class Light:
    """A time of day: the colours of the sky, and what the light multiplies every colour by."""

    top: Colour
    bottom: Colour
    tint: tuple[float, float, float]


LIGHTS: dict[Time, Light] = {
    "morning": Light((150, 200, 235), (255, 226, 190), (1.0, 0.95, 0.88)),
    "noon": Light((70, 160, 235), (190, 228, 250), (1.0, 1.0, 1.0)),
    "sunset": Light((96, 70, 140), (255, 150, 84), (1.0, 0.82, 0.7)),
    "night": Light((14, 20, 56), (48, 66, 128), (0.64, 0.66, 0.88)),
}


def draw_sky(canvas: Canvas, time: Time, draw: random.Random) -> None:
    """Sky with what hangs in it."""
    light = LIGHTS[time]
    canvas.sky(light.top, light.bottom)
    shining = canvas.at(0, 0, shine=1.0)
    if time == "night":
        for _ in range(90):
            size = draw.uniform(0.002, 0.006)
            shining.ellipse(draw.uniform(-0.5, 1.5), draw.uniform(-0.3, HORIZON), size, size, (235, 240, 255))
        shining.glow(0.8, 0.18, 0.2, (200, 210, 255), alpha=3)
        _crescent(shining.at(0.8, 0.18, 0.08, turn=-30))
        return
    x, y = {"morning": (0.16, 0.4), "noon": (0.2, 0.12), "sunset": (0.78, HORIZON - 0.08)}[time]
    shining.glow(x, y, 0.34, (255, 245, 190))
    shining.ellipse(x, y, 0.08, 0.08, (255, 244, 196) if time != "sunset" else (255, 226, 130))
    for _ in range(3):
        _cloud(canvas.at(draw.uniform(-0.1, 1.1), draw.uniform(0.06, 0.34), draw.uniform(0.6, 1.1)))


def draw_place(canvas: Canvas, place: Place, draw: random.Random) -> None:
    """Everything between the sky and the lead."""
    {"meadow": _meadow, "forest": _forest, "beach": _beach, "town": _town, "mountains": _mountains}[place](
        canvas, draw
    )


def _crescent(canvas: Canvas) -> None:
    outer = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(64, 297, 4)]
    inner = [(0.45 + 0.9 * math.cos(math.radians(a)), 0.9 * math.sin(math.radians(a))) for a in range(269, 90, -4)]
    canvas.polygon([*outer, *inner], (250, 246, 220))


def _cloud(canvas: Canvas) -> None:
    for x, y, radius in ((-0.1, 0.02, 0.05), (-0.03, -0.015, 0.075), (0.06, 0.0, 0.06), (0.12, 0.025, 0.04)):
        canvas.ellipse(x, y, radius * 1.15, radius * 0.8, (255, 255, 255), alpha=215)


def _ground(canvas: Canvas, colour: Colour, top: float, *, waves: float = 0.0, phase: float = 0.0) -> None:
    """Land from its upper edge down, the edge straight or in hills."""
    steps = [FAR_LEFT + (FAR_RIGHT - FAR_LEFT) * i / 120 for i in range(121)]
    edge = [(x, top + waves * math.sin(4.2 * x + phase)) for x in steps]
    canvas.polygon([*edge, (FAR_RIGHT, BOTTOM), (FAR_LEFT, BOTTOM)], colour)


def _meadow(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (120, 186, 120), HORIZON - 0.06, waves=0.05, phase=draw.uniform(0, 6))
    _ground(canvas, (104, 180, 84), HORIZON + 0.06, waves=0.03, phase=draw.uniform(0, 6))
    for _ in range(70):
        x, y = draw.uniform(-0.6, 1.6), draw.uniform(HORIZON + 0.12, 1.15)
        size = 0.008 + 0.02 * (y - HORIZON)
        petals = draw.choice([(255, 255, 255), (255, 214, 80), (240, 120, 160), (170, 140, 240)])
        canvas.stroke([(x, y), (x, y + 2.4 * size)], size * 0.5, (70, 140, 60))
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            canvas.ellipse(x + dx * size * 0.8, y + dy * size * 0.8, size * 0.7, size * 0.7, petals)
        canvas.ellipse(x, y, size * 0.6, size * 0.6, (250, 190, 60))


def _forest(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (206, 222, 240), HORIZON - 0.05, waves=0.02, phase=draw.uniform(0, 6))
    for depth in (0, 1):
        for i in range(11):
            x = -0.6 + 0.22 * i + draw.uniform(-0.06, 0.06)
            if depth and abs(x - 0.5) < 0.2:
                continue
            _fir(canvas.at(x, HORIZON + 0.03 + 0.1 * depth, (0.34 + 0.3 * depth) * draw.uniform(0.85, 1.15)))
    _ground(canvas, (240, 246, 255), HORIZON + 0.1, waves=0.02, phase=draw.uniform(0, 6))
    for _ in range(80):
        size = draw.uniform(0.004, 0.009)
        canvas.ellipse(draw.uniform(-0.5, 1.5), draw.uniform(-0.2, 1.1), size, size, (255, 255, 255), alpha=230)


def _fir(canvas: Canvas) -> None:
    canvas.polygon([(-0.06, 0), (0.06, 0), (0.05, -0.2), (-0.05, -0.2)], (96, 66, 52))
    for base, half, top in ((-0.15, 0.34, -0.6), (-0.42, 0.27, -0.85), (-0.68, 0.19, -1.1)):
        canvas.polygon([(-half, base), (half, base), (0, top)], (44, 104, 88))
        canvas.polygon([(-half * 0.5, (base + top) / 2), (half * 0.5, (base + top) / 2), (0, top)], (228, 238, 250))


def _beach(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (40, 140, 190), HORIZON - 0.08)
    for _ in range(36):
        x, y, width = draw.uniform(-0.6, 1.6), draw.uniform(HORIZON - 0.06, HORIZON + 0.08), draw.uniform(0.02, 0.07)
        canvas.stroke([(x, y), (x + width, y)], 0.006, (150, 214, 236))
    boat = canvas.at(draw.uniform(0.06, 0.24), HORIZON - 0.075)
    boat.polygon([(-0.07, 0), (0.07, 0), (0.045, 0.035), (-0.045, 0.035)], (190, 70, 60))
    boat.polygon([(-0.004, -0.01), (-0.004, -0.16), (0.07, -0.01)], (255, 250, 240))
    boat.polygon([(-0.014, -0.01), (-0.014, -0.13), (-0.055, -0.01)], (240, 226, 206))
    _ground(canvas, (250, 250, 250), HORIZON + 0.085, waves=0.012, phase=draw.uniform(0, 6))
    _ground(canvas, (244, 218, 164), HORIZON + 0.1, waves=0.012, phase=draw.uniform(0, 6))
    for _ in range(40):
        size = draw.uniform(0.004, 0.01)
        canvas.ellipse(draw.uniform(-0.5, 1.5), draw.uniform(HORIZON + 0.16, 1.1), size * 1.5, size, (224, 190, 134))


def _town(canvas: Canvas, draw: random.Random) -> None:
    x = -0.6
    while x < 1.6:
        width, height = draw.uniform(0.17, 0.24), draw.uniform(0.26, 0.44)
        walls = draw.choice([(240, 196, 150), (206, 220, 214), (238, 170, 150), (250, 226, 170), (190, 200, 230)])
        _house(canvas.at(x, HORIZON + 0.08), width, height, walls, draw)
        x += width + 0.01
    _ground(canvas, (176, 164, 156), HORIZON + 0.08)
    for row in range(7):
        y = HORIZON + 0.12 + 0.035 * row * (1 + 0.25 * row)
        for i in range(24):
            stone = -0.9 + 0.12 * i + 0.06 * (row % 2)
            canvas.ellipse(stone, y, 0.045, 0.012 + 0.002 * row, (152, 140, 136))


def _house(canvas: Canvas, width: float, height: float, walls: Colour, draw: random.Random) -> None:
    canvas.polygon([(0, 0), (width, 0), (width, -height), (0, -height)], walls)
    roof = draw.choice([(176, 76, 60), (120, 84, 92), (96, 110, 140)])
    canvas.polygon([(-0.015, -height), (width + 0.015, -height), (width / 2, -height - 0.13)], roof)
    night = canvas.light[0] < 0.9
    panes = canvas.at(0, 0, shine=float(night))
    for row in range(int(height / 0.12)):
        for column in (0.28, 0.72):
            x, y = width * column, -height + 0.06 + 0.12 * row
            bright = night and draw.random() < 0.7
            colour: Colour = (255, 214, 110) if bright else (50, 66, 110) if night else (120, 160, 190)
            panes.polygon(
                [(x - 0.024, y - 0.03), (x + 0.024, y - 0.03), (x + 0.024, y + 0.03), (x - 0.024, y + 0.03)], colour
            )


def _mountains(canvas: Canvas, draw: random.Random) -> None:
    for depth, colour in enumerate([(140, 156, 196), (108, 124, 164)]):
        for i in range(7):
            x = -0.7 + 0.4 * i + 0.2 * depth + draw.uniform(-0.06, 0.06)
            top = HORIZON - draw.uniform(0.3, 0.42) + 0.1 * depth
            base, half = HORIZON + 0.06, 0.32
            canvas.polygon([(x - half, base), (x, top), (x + half, base)], colour)
            share = 0.3
            left, right, y = x - half * share, x + half * share, top + (base - top) * share
            zigzag = [(right, y), (x + 0.03, y - 0.03), (x, y + 0.015), (x - 0.04, y - 0.025), (left, y)]
            canvas.polygon([(x, top), *zigzag], (248, 250, 255))
    _ground(canvas, (128, 164, 120), HORIZON + 0.02, waves=0.015, phase=draw.uniform(0, 6))
    for _ in range(14):
        x, y = draw.uniform(-0.5, 1.5), draw.uniform(HORIZON + 0.1, 1.05)
        size = 0.012 + 0.05 * (y - HORIZON)
        canvas.blob(
            [(x - size, y), (x - 0.6 * size, y - 0.7 * size), (x + 0.4 * size, y - 0.8 * size), (x + size, y)],
            (150, 150, 156),
        )
