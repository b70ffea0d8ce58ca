"""The head of each character, around its middle: from the ears at about -0.4 down to the chin at 0.2."""

from brushwork.film.canvas import Canvas, Colour, Point
from brushwork.film.characters import BUILDS
from brushwork.film.faces import WHITE, Face, draw_face
from brushwork.film.scene import Character, Expression, View

BLUSH: Colour = (250, 140, 110)
PINK: Colour = (250, 168, 184)
HAIR: Colour = (244, 122, 168)
DEEP_HAIR: Colour = (222, 92, 144)
SCREEN: Colour = (38, 48, 84)

FACES: dict[Character, Face] = {
    "fox": Face(),
    "bear": Face((0.105, -0.035), mouth=(0.105, 1.0), line=(62, 36, 30)),
    "rabbit": Face((0.1, -0.01), mouth=(0.1, 0.9), line=(96, 60, 70)),
    "cat": Face((0.115, -0.02), "balls", 1.0, (250, 218, 80), (0.1, 0.9), line=(28, 24, 36)),
    "penguin": Face((0.095, -0.03), mouth=(0.07, 1.0), beak=True, line=(30, 40, 70)),
    "frog": Face((0.145, -0.165), "balls", 1.05, WHITE, (0.055, 1.7), line=(20, 62, 40)),
    "owl": Face((0.108, -0.035), "balls", 1.15, (255, 200, 70), (0.065, 0.95), beak=True, line=(64, 40, 88)),
    "robot": Face((0.1, -0.01), "lights", 1.1, mouth=(0.085, 1.0), line=(120, 240, 250)),
    "girl": Face((0.1, 0.02), mouth=(0.105, 0.9), line=(96, 52, 60)),
}

HAT_HEIGHT: dict[Character, float] = {"frog": -0.13, "robot": -0.18, "rabbit": -0.17, "girl": -0.2, "penguin": -0.2}
"""Where hats sit; -0.17 for those not named."""

_TURN = {"front": 0.0, "left": -0.06, "right": 0.06, "behind": 0.0}


def draw_head(canvas: Canvas, character: Character, expression: Expression | None, view: View) -> None:
    """Draw a head; no expression: asleep. `view` is as the canvas has it, not mirrored."""
    dx = _TURN[view]
    if character == "girl" and view != "behind":
        _hair_behind(canvas.at(-0.3 * dx, 0))
    ears = canvas.at(-0.35 * dx, 0)
    for mirrored in (False, True):
        _ear(ears.at(0, 0, mirrored=mirrored), character, behind=view == "behind", bent=mirrored)
    if character == "robot":
        ears.stroke([(0, -0.18), (0, -0.32)], 0.022, (134, 146, 162))
        ears.ellipse(0, -0.34, 0.042, 0.042, (240, 80, 80))
    _skull(canvas, character, behind=view == "behind")
    if view == "behind":
        return
    face = canvas.at(dx, 0)
    _mask(face, character)
    draw_face(face, FACES[character], expression)
    if character == "girl":
        _fringe(canvas.at(0.5 * dx, 0))


def _ear(canvas: Canvas, character: Character, *, behind: bool, bent: bool) -> None:
    """The right ear, or the left one on a mirrored canvas."""
    build = BUILDS[character]
    inner = build.body if behind else build.belly or build.body
    if character == "fox":
        canvas.blob([(0.05, -0.16), (0.19, -0.37), (0.225, -0.34), (0.235, -0.06)], build.body)
        canvas.blob([(0.165, -0.33), (0.19, -0.37), (0.225, -0.34), (0.23, -0.24), (0.2, -0.27)], build.feet)
        canvas.blob([(0.1, -0.16), (0.178, -0.29), (0.2, -0.2), (0.19, -0.1)], inner, lined=False)
    elif character == "cat":
        canvas.blob([(0.03, -0.15), (0.185, -0.34), (0.215, -0.32), (0.24, -0.04)], build.body)
        canvas.blob(
            [(0.1, -0.15), (0.18, -0.27), (0.2, -0.2), (0.2, -0.1)], build.body if behind else PINK, lined=False
        )
    elif character == "bear":
        canvas.ellipse(0.185, -0.165, 0.09, 0.088, build.body)
        canvas.ellipse(0.185, -0.16, 0.052, 0.05, inner, lined=False)
    elif character == "rabbit":
        ear = canvas.at(0.1, -0.14, turn=38 if bent else 8)
        ear.blob(
            [(-0.06, 0.04), (-0.075, -0.16), (-0.03, -0.34), (0.035, -0.34), (0.075, -0.16), (0.06, 0.04)], build.body
        )
        if not behind:
            ear.blob(
                [(-0.025, -0.02), (-0.038, -0.16), (0, -0.29), (0.038, -0.16), (0.025, -0.02)], PINK, lined=False
            )
    elif character == "frog":
        canvas.ellipse(0.145, -0.16, 0.1, 0.098, build.body)
    elif character == "owl":
        canvas.blob([(0.06, -0.15), (0.2, -0.29), (0.24, -0.27), (0.235, -0.06)], build.limbs)
    elif character == "robot":
        canvas.polygon([(0.22, -0.07), (0.275, -0.05), (0.275, 0.07), (0.22, 0.09)], (134, 146, 162))


def _skull(canvas: Canvas, character: Character, *, behind: bool) -> None:
    build = BUILDS[character]
    if character == "fox":
        canvas.twin([(0, -0.21), (0.16, -0.17), (0.24, -0.03), (0.29, 0.09), (0.17, 0.15), (0, 0.2)], build.body)
    elif character == "cat":
        canvas.twin([(0, -0.19), (0.16, -0.17), (0.25, -0.03), (0.27, 0.07), (0.16, 0.165), (0, 0.19)], build.body)
    elif character == "robot":
        canvas.twin([(0, -0.19), (0.2, -0.19), (0.235, -0.155), (0.235, 0.145), (0.2, 0.18), (0, 0.18)], build.body)
        if behind:
            for y in (-0.06, 0.0, 0.06):
                canvas.stroke([(-0.09, y), (0.09, y)], 0.02, (134, 146, 162), lined=False)
    elif character == "frog":
        canvas.twin([(0, -0.15), (0.17, -0.14), (0.27, 0.0), (0.26, 0.1), (0.14, 0.17), (0, 0.185)], build.body)
    elif character == "girl":
        if behind:
            canvas.twin([(0, -0.24), (0.2, -0.19), (0.28, 0.0), (0.27, 0.18), (0.12, 0.22), (0, 0.21)], HAIR)
        else:
            canvas.ellipse(0, 0.015, 0.225, 0.195, (255, 216, 190))
    else:
        canvas.ellipse(0, -0.005, 0.255, 0.21, build.body)


def _mask(canvas: Canvas, character: Character) -> None:
    """What the fur or the feathers paint on the face, nose and cheeks."""
    build = BUILDS[character]
    belly = build.belly or build.body
    soft = canvas.at(0, 0, lined=False)
    if character == "fox":
        half: list[Point] = [(0.09, -0.005), (0.18, 0.05), (0.27, 0.085), (0.165, 0.14), (0.06, 0.185), (0, 0.195)]
        soft.twin([(0, 0.04), *half], belly)
        _nose(soft, 0.062, 0.04, build.line)
    elif character == "bear":
        soft.ellipse(0, 0.09, 0.115, 0.088, belly)
        _nose(soft, 0.055, 0.045, build.line)
    elif character == "rabbit":
        soft.ellipse(0, 0.11, 0.1, 0.07, WHITE)
        _nose(soft, 0.062, 0.026, (240, 120, 150))
    elif character == "cat":
        soft.ellipse(0, 0.105, 0.105, 0.07, belly)
        _nose(soft, 0.065, 0.026, (244, 150, 160))
        for side in (-1, 1):
            for dy in (-0.014, 0.026):
                soft.stroke([(side * 0.15, 0.09 + dy / 2), (side * 0.29, 0.085 + 2 * dy)], 0.011, (214, 210, 224))
    elif character == "penguin":
        soft.twin([(0, -0.075), (0.1, -0.15), (0.195, -0.07), (0.19, 0.08), (0.1, 0.17), (0, 0.18)], belly)
    elif character == "frog":
        soft.twin([(0, 0.07), (0.15, 0.06), (0.24, 0.08), (0.14, 0.165), (0, 0.18)], belly)
    elif character == "owl":
        for side in (-1, 1):
            soft.ellipse(side * 0.108, -0.035, 0.118, 0.122, belly)
    elif character == "robot":
        canvas.twin([(0, -0.125), (0.16, -0.125), (0.185, -0.1), (0.185, 0.11), (0.16, 0.135), (0, 0.135)], SCREEN)
    if character not in ("robot", "owl"):
        y = {"girl": 0.09, "frog": 0.03}.get(character, 0.075)
        for side in (-1, 1):
            soft.ellipse(side * 0.17, y, 0.04, 0.026, BLUSH if character != "cat" else PINK, alpha=150)


def _nose(canvas: Canvas, y: float, size: float, colour: Colour) -> None:
    canvas.twin(
        [(0, y - 0.4 * size), (size, y - 0.4 * size), (0.55 * size, y + 0.4 * size), (0, y + 0.65 * size)], colour
    )
    canvas.ellipse(-0.3 * size, y - 0.12 * size, 0.25 * size, 0.15 * size, WHITE, alpha=110)


def _hair_behind(canvas: Canvas) -> None:
    canvas.twin([(0, -0.25), (0.2, -0.2), (0.285, 0.0), (0.29, 0.2), (0.17, 0.215), (0, 0.15)], DEEP_HAIR)


def _fringe(canvas: Canvas) -> None:
    """Hair over the forehead and down beside the face."""
    outer = [(-0.26, 0.1), (-0.27, -0.08), (-0.17, -0.22), (0, -0.25), (0.17, -0.22), (0.27, -0.08), (0.26, 0.1)]
    inner = [(0.21, -0.01), (0.14, -0.09), (0.06, -0.06), (-0.03, -0.1), (-0.13, -0.06), (-0.21, -0.01)]
    canvas.blob(
        [*outer, *inner],
        HAIR,
    )
    canvas.stroke([(-0.12, -0.18), (0.0, -0.205), (0.1, -0.185)], 0.018, (255, 170, 204), lined=False)
