"""Where the film plays: backgrounds, drawn from the horizon down to the lower edge and beyond."""

import math
import random
from collections.abc import Callable

from brushwork.film.canvas import Canvas, Colour
from brushwork.film.scene import Place, Time
from brushwork.film.sky import HORIZON, LIGHTS

FAR_LEFT, FAR_RIGHT, BOTTOM = -1.0, 2.0, 2.0
"""Beyond the picture, so that wide pictures and a moved camera see no edge."""


def draw_place(canvas: Canvas, place: Place, time: Time, draw: random.Random) -> None:
    """Everything between the sky and who stands there."""
    if place == "room":
        _room(canvas, time, draw)
        return
    drawn: dict[Place, Callable[[Canvas, random.Random], None]] = {
        "meadow": _meadow,
        "forest": _forest,
        "beach": _beach,
        "town": _town,
        "mountains": _mountains,
        "desert": _desert,
        "park": _park,
        "castle": _castle,
    }
    drawn[place](canvas, draw)


def _is_night(canvas: Canvas) -> bool:
    return canvas.light[0] < 0.7


def _ground(canvas: Canvas, colour: Colour, top: float, *, waves: float = 0.0, phase: float = 0.0) -> None:
    """Land from its upper edge down, the edge straight or in hills."""
    num_steps = 40 if waves else 1
    steps = [FAR_LEFT + (FAR_RIGHT - FAR_LEFT) * i / num_steps for i in range(num_steps + 1)]
    edge = [(x, top + waves * math.sin(4.2 * x + phase)) for x in steps]
    canvas.polygon([*edge, (FAR_RIGHT, BOTTOM), (FAR_LEFT, BOTTOM)], colour)


def _box(canvas: Canvas, x: float, y: float, half: float, high: float, colour: Colour, *, lined: bool = True) -> None:
    """An upright rectangle around (x, y)."""
    canvas.polygon(
        [(x - half, y - high), (x + half, y - high), (x + half, y + high), (x - half, y + high)], colour, lined=lined
    )


def _meadow(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (166, 212, 128), HORIZON - 0.06, waves=0.05, phase=draw.uniform(0, 6))
    for _ in range(2):
        x = draw.choice((-0.05, 0.12, 0.86, 1.02)) + draw.uniform(-0.04, 0.04)
        canvas.stroke([(x, HORIZON + 0.02), (x, HORIZON - 0.08)], 0.02, (120, 86, 60))
        canvas.ellipse(x, HORIZON - 0.11, 0.075, 0.08, (84, 158, 88))
    _ground(canvas, (146, 204, 88), HORIZON + 0.06, waves=0.03, phase=draw.uniform(0, 6))
    for _ in range(26):
        x, y = draw.uniform(-0.1, 1.1), draw.uniform(HORIZON + 0.13, 1.08)
        size = 0.01 + 0.028 * (y - HORIZON)
        petals = draw.choice([(255, 255, 255), (255, 214, 80), (246, 120, 170), (170, 140, 246)])
        canvas.stroke([(x, y), (x, y + 2.4 * size)], size * 0.5, (92, 158, 70), lined=False)
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            canvas.ellipse(x + dx * size * 0.8, y + dy * size * 0.8, size * 0.7, size * 0.7, petals)
        canvas.ellipse(x, y, size * 0.6, size * 0.6, (250, 190, 60))


def _forest(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (206, 222, 240), HORIZON - 0.05, waves=0.02, phase=draw.uniform(0, 6))
    for depth in (0, 1):
        for i in range(9):
            x = -0.4 + 0.22 * i + draw.uniform(-0.06, 0.06)
            if depth and abs(x - 0.5) < 0.2:
                continue
            fir = canvas.at(x, HORIZON + 0.03 + 0.1 * depth, (0.34 + 0.3 * depth) * draw.uniform(0.85, 1.15))
            _fir(fir, (78, 128, 122) if not depth else (44, 104, 88))
    _ground(canvas, (240, 246, 255), HORIZON + 0.1, waves=0.02, phase=draw.uniform(0, 6))
    for _ in range(6):
        x, y = draw.uniform(-0.1, 1.1), draw.uniform(HORIZON + 0.18, 1.05)
        canvas.ellipse(x, y, 0.09, 0.014, (216, 228, 246), lined=False)


def _fir(canvas: Canvas, green: Colour) -> None:
    canvas.polygon([(-0.06, 0), (0.06, 0), (0.05, -0.2), (-0.05, -0.2)], (96, 66, 52))
    for base, half, top in ((-0.15, 0.34, -0.6), (-0.42, 0.27, -0.85), (-0.68, 0.19, -1.1)):
        canvas.polygon([(-half, base), (half, base), (0, top)], green)
        snow = [(-half * 0.5, (base + top) / 2), (half * 0.5, (base + top) / 2), (0, top)]
        canvas.polygon(snow, (228, 238, 250), lined=False)


def _beach(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (44, 150, 200), HORIZON - 0.08)
    for _ in range(16):
        x, y, width = draw.uniform(-0.1, 1.05), draw.uniform(HORIZON - 0.06, HORIZON + 0.07), draw.uniform(0.03, 0.08)
        canvas.stroke([(x, y), (x + width, y)], 0.007, (150, 214, 236), lined=False)
    boat = canvas.at(draw.uniform(0.06, 0.24), HORIZON - 0.075)
    boat.polygon([(-0.07, 0), (0.07, 0), (0.045, 0.035), (-0.045, 0.035)], (190, 70, 60))
    boat.polygon([(-0.004, -0.01), (-0.004, -0.16), (0.07, -0.01)], (255, 250, 240))
    boat.polygon([(-0.014, -0.01), (-0.014, -0.13), (-0.055, -0.01)], (240, 226, 206))
    _ground(canvas, (250, 250, 250), HORIZON + 0.085, waves=0.012, phase=draw.uniform(0, 6))
    _ground(canvas, (246, 220, 164), HORIZON + 0.1, waves=0.012, phase=draw.uniform(0, 6))
    _palm(canvas.at(draw.uniform(0.9, 1.0), HORIZON + 0.2, 0.62))
    for _ in range(14):
        size = draw.uniform(0.006, 0.012)
        canvas.ellipse(draw.uniform(-0.1, 1.1), draw.uniform(HORIZON + 0.16, 1.1), size * 1.5, size, (226, 192, 134))
    x, y = draw.uniform(0.05, 0.2), draw.uniform(0.88, 0.95)
    for turn in range(0, 360, 72):
        canvas.at(x, y, turn=turn).ellipse(0, -0.018, 0.01, 0.022, (244, 128, 104))


def _palm(canvas: Canvas) -> None:
    canvas.stroke([(0, 0), (-0.03, -0.3), (-0.1, -0.62)], 0.06, (160, 112, 74))
    for turn in (-75, -30, 15, 60, 100):
        leaf = canvas.at(-0.1, -0.64, turn=turn - 15)
        leaf.blob([(0, 0.02), (-0.07, -0.16), (0, -0.34), (0.05, -0.16)], (62, 150, 86))


def _town(canvas: Canvas, draw: random.Random) -> None:
    x = -0.3
    while x < 1.3:
        width, height = draw.uniform(0.18, 0.25), draw.uniform(0.26, 0.44)
        walls = draw.choice([(240, 196, 150), (206, 220, 214), (238, 170, 150), (250, 226, 170), (190, 200, 230)])
        _house(canvas.at(x, HORIZON + 0.08), width, height, walls, draw)
        x += width + 0.01
    _ground(canvas, (176, 164, 156), HORIZON + 0.08)
    for row in range(6):
        y = HORIZON + 0.12 + 0.042 * row * (1 + 0.25 * row)
        for i in range(9):
            stone = -0.05 + 0.14 * i + 0.07 * (row % 2)
            canvas.ellipse(stone, y, 0.05, 0.012 + 0.003 * row, (156, 144, 140), lined=False)


def _house(canvas: Canvas, width: float, height: float, walls: Colour, draw: random.Random) -> None:
    canvas.polygon([(0, 0), (width, 0), (width, -height), (0, -height)], walls)
    roof = draw.choice([(176, 76, 60), (120, 84, 92), (96, 110, 140)])
    canvas.polygon([(-0.015, -height), (width + 0.015, -height), (width / 2, -height - 0.13)], roof)
    night = _is_night(canvas)
    panes = canvas.at(0, 0, shine=float(night), lined=False)
    for row in range(int(height / 0.12)):
        for column in (0.28, 0.72):
            x, y = width * column, -height + 0.06 + 0.12 * row
            bright = night and draw.random() < 0.7
            colour: Colour = (255, 214, 110) if bright else (50, 66, 110) if night else (120, 160, 190)
            _box(panes, x, y, 0.026, 0.032, colour)


def _mountains(canvas: Canvas, draw: random.Random) -> None:
    for depth, colour in enumerate([(150, 166, 206), (112, 128, 170)]):
        for i in range(5):
            x = -0.3 + 0.4 * i + 0.2 * depth + draw.uniform(-0.06, 0.06)
            top = HORIZON - draw.uniform(0.3, 0.44) + 0.1 * depth
            base, half = HORIZON + 0.06, 0.32
            canvas.polygon([(x - half, base), (x, top), (x + half, base)], colour)
            left, right, y = x - half * 0.3, x + half * 0.3, top + (base - top) * 0.3
            zigzag = [(right, y), (x + 0.03, y - 0.03), (x, y + 0.015), (x - 0.04, y - 0.025), (left, y)]
            canvas.polygon([(x, top), *zigzag], (248, 250, 255), lined=False)
    _ground(canvas, (128, 164, 120), HORIZON + 0.02, waves=0.015, phase=draw.uniform(0, 6))
    for _ in range(10):
        x, y = draw.uniform(-0.1, 1.1), draw.uniform(HORIZON + 0.1, 1.05)
        size = 0.016 + 0.06 * (y - HORIZON)
        outline = [(x - size, y), (x - 0.6 * size, y - 0.7 * size), (x + 0.4 * size, y - 0.8 * size), (x + size, y)]
        canvas.blob(outline, (156, 156, 164))


def _desert(canvas: Canvas, draw: random.Random) -> None:
    for colour, top, waves in (((226, 160, 104), -0.05, 0.05), ((240, 184, 116), 0.03, 0.04)):
        _ground(canvas, colour, HORIZON + top, waves=waves, phase=draw.uniform(0, 6))
    _ground(canvas, (250, 206, 136), HORIZON + 0.12, waves=0.02, phase=draw.uniform(0, 6))
    for x in (draw.uniform(0.02, 0.16), draw.uniform(0.84, 0.98)):
        cactus = canvas.at(
            x, HORIZON + draw.uniform(0.1, 0.16), draw.uniform(0.8, 1.15), mirrored=draw.random() < 0.5
        )
        green: Colour = (72, 148, 92)
        cactus.stroke([(0, 0.0), (0, -0.3)], 0.075, green)
        cactus.stroke([(0, -0.12), (0.09, -0.14), (0.1, -0.23)], 0.05, green)
        cactus.stroke([(0, -0.17), (-0.085, -0.19), (-0.09, -0.26)], 0.045, green)
        cactus.ellipse(0.0, -0.345, 0.025, 0.02, (246, 110, 150))
    for _ in range(7):
        x, y = draw.uniform(-0.1, 0.9), draw.uniform(HORIZON + 0.2, 1.05)
        ripple = [(x, y), (x + 0.07, y - 0.012), (x + 0.14, y + 0.006), (x + 0.2, y - 0.004)]
        canvas.stroke(ripple, 0.009, (228, 176, 104), lined=False)


def _park(canvas: Canvas, draw: random.Random) -> None:
    """Autumn: trees in gold, orange and dark red, and their leaves on the ground."""
    leaves: list[Colour] = [(240, 176, 50), (222, 122, 44), (178, 64, 60)]
    _ground(canvas, (196, 170, 96), HORIZON - 0.02, waves=0.02, phase=draw.uniform(0, 6))
    for depth in (0, 1):
        for i in range(6):
            x = -0.2 + 0.28 * i + 0.1 * depth + draw.uniform(-0.05, 0.05)
            if depth and abs(x - 0.5) < 0.24:
                continue
            tree = canvas.at(x, HORIZON + 0.02 + 0.08 * depth, (0.6 + 0.35 * depth) * draw.uniform(0.9, 1.1))
            crown = draw.choice(leaves)
            tree.stroke([(0, 0), (0, -0.2)], 0.06, (110, 76, 58))
            for dx, dy, r in ((-0.09, -0.25, 0.115), (0.1, -0.24, 0.11), (0.0, -0.37, 0.135)):
                tree.ellipse(dx, dy, r, r, crown)
    _ground(canvas, (182, 158, 84), HORIZON + 0.08, waves=0.01, phase=draw.uniform(0, 6))
    path = [(0.36, HORIZON + 0.09), (0.56, HORIZON + 0.09), (0.9, BOTTOM), (-0.1, BOTTOM)]
    canvas.polygon(path, (222, 204, 168), lined=False)
    for _ in range(26):
        x, y = draw.uniform(-0.1, 1.1), draw.uniform(HORIZON + 0.14, 1.08)
        size = 0.012 + 0.016 * (y - HORIZON)
        canvas.ellipse(x, y, size * 1.3, size * 0.7, draw.choice(leaves), turn=draw.uniform(0, 180), lined=False)


def _castle(canvas: Canvas, draw: random.Random) -> None:
    _ground(canvas, (120, 176, 124), HORIZON - 0.04, waves=0.03, phase=draw.uniform(0, 6))
    castle = canvas.at(0.5 + draw.uniform(-0.05, 0.05), HORIZON + 0.1, 1.05)
    stone: Colour = (206, 200, 216)
    dark: Colour = (176, 168, 192)
    night = _is_night(canvas)
    panes = castle.at(0, 0, shine=float(night), lined=False)
    pane: Colour = (255, 214, 110) if night else (92, 96, 140)
    for x, high, half in ((-0.4, 0.46, 0.085), (0.4, 0.46, 0.085), (-0.22, 0.58, 0.075), (0.22, 0.58, 0.075)):
        _box(castle, x, -high / 2, half, high / 2, stone if abs(x) > 0.3 else dark)
        castle.polygon([(x - half - 0.025, -high), (x + half + 0.025, -high), (x, -high - 0.19)], (96, 92, 178))
        castle.polygon([(x, -high - 0.19), (x, -high - 0.26), (x + 0.075, -high - 0.225)], (236, 92, 120))
        _box(panes, x, -high + 0.1, 0.02, 0.035, pane)
    _box(castle, 0, -0.15, 0.33, 0.15, stone)
    for i in range(7):
        _box(castle, -0.3 + 0.1 * i, -0.32, 0.028, 0.025, stone, lined=False)
    castle.blob([(-0.09, 0.0), (-0.09, -0.14), (0, -0.22), (0.09, -0.14), (0.09, 0.0)], (112, 80, 72))
    _ground(canvas, (112, 182, 98), HORIZON + 0.09, waves=0.01, phase=draw.uniform(0, 6))
    path = [(0.42, HORIZON + 0.1), (0.58, HORIZON + 0.1), (0.86, BOTTOM), (0.14, BOTTOM)]
    canvas.polygon(path, (226, 210, 180), lined=False)
    for x in (draw.uniform(0.0, 0.1), draw.uniform(0.9, 1.0)):
        canvas.ellipse(x, HORIZON + 0.17, 0.085, 0.08, (78, 152, 84))
        for dx, dy in ((-0.03, -0.02), (0.03, 0.0), (0.0, -0.05)):
            canvas.ellipse(x + dx, HORIZON + 0.17 + dy, 0.014, 0.014, (250, 130, 160))


def _room(canvas: Canvas, time: Time, draw: random.Random) -> None:
    """Indoors: the time of day is seen through the window."""
    walls: Colour = draw.choice([(240, 214, 180), (206, 222, 206), (226, 204, 214)])
    inside = canvas.at(0, 0, shine=0.25)
    _ground(inside, walls, -1.0)
    red, green, blue = (round(0.93 * c) for c in walls)
    for i in range(-4, 16):
        inside.stroke([(0.1 * i, -0.5), (0.1 * i, HORIZON)], 0.02, (red, green, blue), lined=False)
    side_of_window = draw.choice((-1, 1))
    window = inside.at(0.5 + 0.28 * side_of_window, 0.26)
    _box(window, 0, 0, 0.19, 0.2, (150, 104, 72))
    _view(window.at(0, 0, shine=1.0), time)
    for points in ([(-0.165, 0), (0.165, 0)], [(0, -0.175), (0, 0.175)]):
        window.stroke(points, 0.022, (150, 104, 72), lined=False)
    for side in (False, True):
        curtain = window.at(0, 0, mirrored=side)
        curtain.blob([(0.13, -0.23), (0.24, -0.23), (0.25, 0.2), (0.18, 0.22), (0.2, 0.0)], (206, 92, 92))
    _shelf(inside.at(0.5 - 0.3 * side_of_window, 0.32), draw)
    _ground(inside, (176, 124, 84), HORIZON + 0.06)
    for i in range(5):
        y = HORIZON + 0.09 + 0.03 * i * (1 + 0.5 * i)
        inside.stroke([(-0.5, y), (1.5, y)], 0.008, (152, 102, 68), lined=False)
    inside.ellipse(0.5, 0.95, 0.5, 0.13, (110, 150, 170))
    inside.ellipse(0.5, 0.95, 0.42, 0.1, (236, 220, 190), lined=False)


def _view(canvas: Canvas, time: Time) -> None:
    light = LIGHTS[time]
    for row in range(6):
        share = row / 5
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(light.top, light.bottom, strict=True))
        _box(canvas, 0, -0.146 + 0.0585 * row, 0.165, 0.03, (red, green, blue), lined=False)
    if time == "night":
        for x, y in ((-0.1, -0.1), (0.05, -0.13), (-0.04, 0.02), (0.12, 0.05)):
            canvas.ellipse(x, y, 0.008, 0.008, (240, 244, 255))
        canvas.ellipse(0.09, -0.06, 0.045, 0.045, (250, 246, 220), lined=False)
    else:
        x, y = {"morning": (-0.09, 0.08), "noon": (-0.08, -0.09), "sunset": (0.08, 0.1)}[time]
        canvas.ellipse(x, y, 0.045, 0.045, (255, 240, 170), lined=False)


def _shelf(canvas: Canvas, draw: random.Random) -> None:
    books: list[Colour] = [(200, 80, 74), (70, 120, 170), (240, 190, 80), (96, 150, 110), (150, 100, 160)]
    for y in (-0.04, 0.17):
        x = -0.14
        while x < 0.12:
            width, high = draw.uniform(0.025, 0.042), draw.uniform(0.09, 0.14)
            _box(canvas, x + width / 2, y - high / 2, width / 2, high / 2, draw.choice(books), lined=False)
            x += width
        _box(canvas, 0, y + 0.012, 0.17, 0.014, (150, 104, 72), lined=False)
