"""What anybody can wear on the head: hats stand on its top, glasses and headphones go around its middle."""

import math

from brushwork.film.canvas import Canvas, Colour
from brushwork.film.heads import FACES, HAT_HEIGHT
from brushwork.film.scene import Character, Headwear, View

STRAW: Colour = (242, 208, 124)
RED: Colour = (214, 48, 56)
MIDNIGHT: Colour = (58, 60, 140)
GOLD: Colour = (252, 204, 66)
TEAL: Colour = (30, 176, 170)


def draw_headwear(canvas: Canvas, headwear: Headwear, character: Character, view: View) -> None:
    """Draw it on a head around the canvas's origin."""
    dx = {"front": 0.0, "left": -0.06, "right": 0.06, "behind": 0.0}[view]
    top = canvas.at(0.3 * dx, HAT_HEIGHT.get(character, -0.17))
    if headwear == "straw hat":
        _straw_hat(top)
    elif headwear == "red cap":
        _cap(top, view)
    elif headwear == "wizard hat":
        _wizard_hat(top)
    elif headwear == "golden crown":
        _crown(top)
    elif headwear == "flower wreath":
        _wreath(top)
    elif headwear == "headphones":
        _headphones(canvas.at(-0.2 * dx, 0))
    elif view != "behind":
        _glasses(canvas.at(dx, 0), character)


def _straw_hat(canvas: Canvas) -> None:
    canvas.ellipse(0, 0.02, 0.27, 0.06, STRAW)
    canvas.twin([(0, -0.15), (0.1, -0.13), (0.15, 0.0), (0, 0.025)], STRAW)
    canvas.blob([(-0.15, -0.04), (0, -0.015), (0.15, -0.04), (0.155, 0.005), (0, 0.035), (-0.155, 0.005)], RED)


def _cap(canvas: Canvas, view: View) -> None:
    canvas.twin([(0, -0.13), (0.12, -0.1), (0.185, 0.03), (0.1, 0.05), (0, 0.055)], RED)
    canvas.ellipse(0, -0.125, 0.022, 0.018, (160, 30, 40))
    if view == "behind":
        return
    side = -1 if view == "left" else 1
    canvas.blob([(side * -0.1, 0.03), (side * 0.15, 0.015), (side * 0.31, 0.06), (side * 0.1, 0.085)], (172, 32, 44))
    canvas.ellipse(side * 0.03, -0.035, 0.04, 0.038, (255, 250, 240))


def _wizard_hat(canvas: Canvas) -> None:
    canvas.ellipse(0, 0.02, 0.26, 0.055, MIDNIGHT)
    canvas.blob([(-0.155, 0.02), (-0.04, -0.22), (0.06, -0.36), (0.1, -0.35), (0.085, -0.2), (0.155, 0.02)], MIDNIGHT)
    canvas.blob([(-0.15, -0.02), (0, 0.005), (0.15, -0.02), (0.157, 0.02), (0, 0.045), (-0.157, 0.02)], GOLD)
    draw_star(canvas.at(0.01, -0.12), 0.055, GOLD)
    draw_star(canvas.at(0.06, -0.25), 0.032, GOLD)


def _crown(canvas: Canvas) -> None:
    canvas.polygon(
        [(-0.14, 0.03), (-0.165, -0.12), (-0.08, -0.05), (0, -0.15), (0.08, -0.05), (0.165, -0.12), (0.14, 0.03)],
        GOLD,
    )
    canvas.stroke([(-0.135, 0.015), (0, 0.022), (0.135, 0.015)], 0.024, (226, 160, 40), lined=False)
    for x, y, colour in ((0, -0.15, RED), (-0.16, -0.115, TEAL), (0.16, -0.115, TEAL)):
        canvas.ellipse(x, y, 0.024, 0.024, colour)
    canvas.ellipse(0, -0.03, 0.022, 0.028, RED)


def _wreath(canvas: Canvas) -> None:
    canvas.blob([(-0.2, 0.05), (0, -0.03), (0.2, 0.05), (0.19, 0.09), (0, 0.02), (-0.19, 0.09)], (86, 160, 80))
    petals: list[Colour] = [(255, 120, 170), (255, 255, 255), (255, 214, 80), (255, 255, 255), (255, 120, 170)]
    for i, colour in enumerate(petals):
        x = (i - 2) / 2
        draw_flower(canvas.at(0.17 * x, -0.01 + 0.055 * x * x), 0.062, colour)


def _headphones(canvas: Canvas) -> None:
    arc = [(0.255 * math.sin(math.radians(a)), -0.01 - 0.235 * math.cos(math.radians(a))) for a in range(-80, 81, 20)]
    canvas.stroke(arc, 0.04, (60, 64, 84))
    for side in (-1, 1):
        canvas.ellipse(side * 0.26, 0.03, 0.062, 0.085, TEAL)
        canvas.ellipse(side * 0.275, 0.03, 0.03, 0.05, (20, 120, 120), lined=False)


def _glasses(canvas: Canvas, character: Character) -> None:
    (x, y), size = FACES[character].eyes, max(1.0, FACES[character].size)
    for side in (-1, 1):
        rim = [
            (side * x + 0.088 * size * math.cos(math.tau * i / 24), y + 0.088 * size * math.sin(math.tau * i / 24))
            for i in range(25)
        ]
        canvas.ellipse(side * x, y, 0.085 * size, 0.085 * size, (255, 255, 255), alpha=70)
        canvas.stroke(rim, 0.022, (46, 40, 60), lined=False)
    canvas.stroke([(-(x - 0.085 * size), y), (x - 0.085 * size, y)], 0.022, (46, 40, 60), lined=False)


def draw_star(canvas: Canvas, radius: float, colour: Colour) -> None:
    """A star with five points around (0, 0)."""
    points = []
    for i in range(10):
        reach = radius if i % 2 == 0 else 0.45 * radius
        points.append((reach * math.sin(math.tau * i / 10), -reach * math.cos(math.tau * i / 10)))
    canvas.polygon(points, colour)


def draw_flower(canvas: Canvas, radius: float, colour: Colour) -> None:
    """A flower with five petals around (0, 0)."""
    for i in range(5):
        angle = math.tau * i / 5
        canvas.ellipse(
            0.6 * radius * math.sin(angle), -0.6 * radius * math.cos(angle), 0.5 * radius, 0.5 * radius, colour
        )
    canvas.ellipse(0, 0, 0.38 * radius, 0.38 * radius, (250, 190, 60), lined=False)
