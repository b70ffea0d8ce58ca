"""What anybody can hold, drawn around the hand at (0, 0)."""

import math

from brushwork.film.canvas import Canvas, Colour
from brushwork.film.headwear import draw_flower, draw_star
from brushwork.film.scene import Prop

DARK: Colour = (70, 46, 44)
WHITE: Colour = (255, 255, 255)

BEHIND_THE_BODY: tuple[Prop, ...] = ("umbrella", "balloon")
"""What is so large that it is drawn before the one who holds it."""

_SMALL: tuple[Prop, ...] = ("lantern", "ice cream", "apple", "wand")
"""Drawn larger than life, to be seen."""


def draw_prop(canvas: Canvas, prop: Prop, sway: float = 0.0) -> None:
    """Draw what the hand at (0, 0) holds; `sway` in degrees."""
    {
        "balloon": _balloon,
        "lantern": _lantern,
        "flower": _flower,
        "umbrella": _umbrella,
        "book": _book,
        "ice cream": _ice_cream,
        "apple": _apple,
        "wand": _wand,
    }[prop](canvas.at(0, 0, 1.2 if prop in _SMALL else 1.0, turn=sway))


def _balloon(canvas: Canvas) -> None:
    canvas.stroke([(0, 0), (0.03, -0.24), (0.07, -0.36)], 0.012, (240, 240, 240), lined=False)
    canvas.polygon([(0.05, -0.33), (0.1, -0.33), (0.075, -0.37)], (226, 168, 30), lined=False)
    canvas.ellipse(0.08, -0.5, 0.125, 0.152, (252, 204, 50))
    canvas.ellipse(0.035, -0.56, 0.03, 0.045, (255, 242, 190), turn=25, lined=False)


def _lantern(canvas: Canvas) -> None:
    shining = canvas.at(0.03, 0.1, shine=1.0)
    shining.glow(0, 0.02, 0.3, (255, 200, 90))
    canvas.stroke([(0, 0), (0.03, 0.02)], 0.015, DARK)
    canvas.polygon([(-0.04, 0.035), (0.1, 0.035), (0.07, -0.01), (-0.01, -0.01)], DARK)
    shining.polygon([(-0.052, -0.065), (0.052, -0.065), (0.06, 0.065), (-0.06, 0.065)], (255, 222, 110))
    shining.ellipse(0, 0.01, 0.026, 0.045, (255, 250, 225), lined=False)
    canvas.polygon([(-0.04, 0.165), (0.1, 0.165), (0.1, 0.19), (-0.04, 0.19)], DARK)


def _flower(canvas: Canvas) -> None:
    canvas.stroke([(-0.01, 0.06), (0.05, -0.1)], 0.022, (70, 150, 70))
    canvas.ellipse(0.045, -0.02, 0.04, 0.018, (96, 176, 80), turn=-30, lined=False)
    draw_flower(canvas.at(0.06, -0.15), 0.105, (252, 120, 184))


def _umbrella(canvas: Canvas) -> None:
    """Held so high that its dome stands over the head, to the left of the hand."""
    dome = canvas.at(-0.17, -0.74)
    canvas.stroke([(0, 0.1), (0, -0.1), (-0.17, -0.76)], 0.022, DARK)
    arc = [(0.46 * math.cos(math.radians(a)), -0.3 * math.sin(math.radians(a))) for a in range(0, 181, 12)]
    scallops = [
        (x, 0.02 * math.cos((x + 0.46) / 0.92 * 8 * math.pi) - 0.02)
        for x in (i / 16 * 0.92 - 0.46 for i in range(17))
    ]
    dome.polygon([*arc, *scallops], (232, 62, 72))
    for left, right in ((-0.23, 0.0), (0.23, 0.46)):
        panel = [(left, -0.02), (right, -0.02), (0.6 * right, -0.2), (0.03 * right, -0.298), (0.6 * left, -0.22)]
        dome.blob(panel, (250, 232, 220), lined=False)
    dome.ellipse(0, -0.31, 0.02, 0.026, DARK)


def _book(canvas: Canvas) -> None:
    """Held with both hands before the body."""
    canvas.polygon([(-0.2, -0.12), (0, -0.09), (0.2, -0.12), (0.2, 0.11), (0, 0.14), (-0.2, 0.11)], (196, 84, 54))
    for side in (-1, 1):
        page = [(0, -0.095), (side * 0.165, -0.125), (side * 0.165, 0.07), (0, 0.1)]
        canvas.polygon(page, (252, 248, 236), lined=False)
        for row in range(4):
            y = -0.07 + 0.037 * row
            canvas.stroke([(side * 0.035, y), (side * 0.135, y - 0.022)], 0.013, (150, 146, 164), lined=False)
    canvas.stroke([(0, -0.09), (0, 0.1)], 0.012, (150, 60, 40), lined=False)


def _ice_cream(canvas: Canvas) -> None:
    canvas.polygon([(-0.055, -0.06), (0.055, -0.06), (0.0, 0.09)], (232, 180, 104))
    canvas.stroke([(-0.03, -0.04), (0.015, 0.03)], 0.01, (200, 144, 76), lined=False)
    canvas.stroke([(0.03, -0.04), (-0.015, 0.03)], 0.01, (200, 144, 76), lined=False)
    canvas.ellipse(0, -0.085, 0.068, 0.058, (255, 178, 200))
    canvas.ellipse(0, -0.16, 0.054, 0.05, (184, 236, 208))
    canvas.ellipse(0.012, -0.215, 0.022, 0.022, (220, 40, 60))


def _apple(canvas: Canvas) -> None:
    canvas.stroke([(0.02, -0.07), (0.04, -0.12)], 0.016, DARK)
    canvas.blob(
        [
            (0.02, -0.075),
            (0.085, -0.085),
            (0.1, -0.01),
            (0.05, 0.055),
            (-0.01, 0.055),
            (-0.06, -0.01),
            (-0.045, -0.085),
        ],
        (222, 44, 54),
    )
    canvas.ellipse(0.075, -0.11, 0.036, 0.016, (110, 190, 80), turn=-25)
    canvas.ellipse(-0.02, -0.035, 0.016, 0.024, (255, 170, 160), lined=False)


def _wand(canvas: Canvas) -> None:
    canvas.stroke([(-0.01, 0.06), (0.06, -0.16)], 0.024, (104, 72, 60))
    shining = canvas.at(0.07, -0.2, shine=1.0)
    shining.glow(0, 0, 0.17, (255, 240, 150))
    draw_star(shining, 0.085, (255, 224, 84))
    for x, y in ((0.11, -0.06), (-0.1, -0.09), (0.06, 0.1)):
        draw_star(shining.at(x, y), 0.026, WHITE)
