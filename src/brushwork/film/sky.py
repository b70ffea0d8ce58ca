"""Time of day and weather: the light, the sky and what hangs in it, and what falls from it."""

import math
import random
from dataclasses import dataclass

from brushwork.film.canvas import Canvas, Colour, Tint
from brushwork.film.scene import Time, Weather

HORIZON = 0.62


@dataclass(frozen=True)
class Light:
    """A time of day: the colours of the sky, and what the light multiplies every colour by."""

    top: Colour
    bottom: Colour
    tint: Tint


LIGHTS: dict[Time, Light] = {
    "morning": Light((168, 206, 232), (255, 212, 196), (1.0, 0.94, 0.87)),
    "noon": Light((66, 156, 236), (190, 230, 252), (1.0, 1.0, 1.0)),
    "sunset": Light((104, 70, 146), (255, 150, 84), (1.0, 0.8, 0.68)),
    "night": Light((14, 20, 56), (50, 68, 132), (0.62, 0.65, 0.9)),
}
GREY: dict[Time, tuple[Colour, Colour]] = {
    "morning": ((166, 174, 190), (214, 204, 204)),
    "noon": ((134, 150, 170), (188, 198, 208)),
    "sunset": ((106, 86, 122), (196, 144, 126)),
    "night": ((24, 28, 52), (54, 62, 96)),
}
"""The sky behind rain, snow and fog."""


def light_of(time: Time, weather: Weather) -> Tint:
    """What every colour is multiplied by."""
    red, green, blue = LIGHTS[time].tint
    if weather in ("rain", "fog"):
        return 0.88 * red, 0.9 * green, 0.95 * blue
    return red, green, blue


def draw_sky(canvas: Canvas, time: Time, weather: Weather, draw: random.Random) -> None:
    """The sky down to the lower edge, with sun or moon, stars and clouds."""
    if weather != "clear":
        canvas.sky(*GREY[time])
        for _ in range(5):
            cloud = canvas.at(draw.uniform(-0.1, 1.1), draw.uniform(0.02, 0.3), draw.uniform(0.9, 1.5), lined=False)
            _cloud(cloud, (206, 212, 224) if weather == "snow" else (170, 178, 194))
        return
    light = LIGHTS[time]
    canvas.sky(light.top, light.bottom)
    shining = canvas.at(0, 0, shine=1.0)
    if time == "night":
        for _ in range(34):
            size = draw.uniform(0.003, 0.007)
            shining.ellipse(draw.uniform(-0.1, 1.1), draw.uniform(-0.2, HORIZON), size, size, (235, 240, 255))
        shining.glow(0.8, 0.18, 0.2, (200, 210, 255), alpha=6)
        _crescent(shining.at(0.8, 0.18, 0.08, turn=-30))
        return
    x, y = {"morning": (0.14, 0.42), "noon": (0.2, 0.13), "sunset": (0.8, HORIZON - 0.09)}[time]
    shining.glow(x, y, 0.34, (255, 245, 190))
    shining.ellipse(x, y, 0.085, 0.085, (255, 240, 180) if time != "sunset" else (255, 222, 120), lined=False)
    for _ in range(3):
        cloud = canvas.at(draw.uniform(-0.1, 1.1), draw.uniform(0.06, 0.34), draw.uniform(0.6, 1.1), lined=False)
        _cloud(cloud, (252, 252, 255))


def draw_fog(canvas: Canvas, time: Time) -> None:
    """A veil over what is far: drawn between the place and who stands there."""
    colour: Colour = {"morning": (232, 226, 226), "noon": (224, 230, 236), "sunset": (230, 196, 184)}.get(
        time, (96, 106, 146)
    )
    veil = canvas.at(0, 0, shine=1.0, lined=False)
    for top, alpha in ((-2.0, 96), (0.28, 60), (0.42, 60), (0.56, 40)):
        veil.polygon([(-1.5, top), (2.5, top + 0.04), (2.5, 2.5), (-1.5, 2.5)], colour, alpha=alpha)


def draw_falling(canvas: Canvas, weather: Weather, draw: random.Random, moment: float) -> None:
    """Rain or snow before everything, further down with every moment."""
    shining = canvas.at(0, 0, shine=0.7, lined=False)
    if weather == "rain":
        for _ in range(46):
            x, y, long = draw.uniform(-0.1, 1.2), draw.uniform(-0.1, 1.0), draw.uniform(0.05, 0.09)
            y = (y + 0.1 + 1.9 * moment) % 1.15 - 0.12
            shining.stroke([(x, y), (x - 0.25 * long, y + long)], 0.008, (206, 224, 246))
    elif weather == "snow":
        for _ in range(44):
            x, y, size = draw.uniform(-0.05, 1.05), draw.uniform(-0.05, 1.05), draw.uniform(0.007, 0.016)
            y = (y + 0.05 + 0.35 * moment) % 1.1 - 0.05
            shining.ellipse(x, y, size, size, (252, 252, 255))


def _crescent(canvas: Canvas) -> None:
    outer = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(64, 297, 8)]
    inner = [(0.45 + 0.9 * math.cos(math.radians(a)), 0.9 * math.sin(math.radians(a))) for a in range(269, 90, -8)]
    canvas.polygon([*outer, *inner], (250, 246, 220), lined=False)


def _cloud(canvas: Canvas, colour: Colour) -> None:
    for x, y, radius in ((-0.1, 0.02, 0.05), (-0.03, -0.015, 0.075), (0.06, 0.0, 0.06), (0.12, 0.025, 0.04)):
        canvas.ellipse(x, y, radius * 1.15, radius * 0.8, colour)
