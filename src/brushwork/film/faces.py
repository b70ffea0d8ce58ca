"""Eyes, brows and mouths: what an expression looks like on each kind of face, around the middle of the head."""

from dataclasses import dataclass
from typing import Literal

from brushwork.film.canvas import Canvas, Colour
from brushwork.film.scene import Expression

WHITE: Colour = (255, 255, 255)
TONGUE: Colour = (240, 110, 100)
TEAR: Colour = (90, 180, 250)
BEAK: Colour = (252, 168, 50)


@dataclass(frozen=True)
class Face:
    """Where the features are.

    Args:
        eyes: half the distance between them, and their height.
        kind: dark dots, coloured balls with a pupil, or lights on a screen.
        iris: colour of a ball around its pupil.
    """

    eyes: tuple[float, float] = (0.11, -0.02)
    kind: Literal["dots", "balls", "lights"] = "dots"
    size: float = 1.0
    iris: Colour = WHITE
    mouth: tuple[float, float] = (0.115, 1.0)
    beak: bool = False
    line: Colour = (70, 38, 36)


def draw_face(canvas: Canvas, face: Face, expression: Expression | None) -> None:
    """Draw the features; no expression: asleep."""
    for mirrored in (False, True):
        eye = canvas.at(0, 0, mirrored=mirrored).at(*face.eyes, face.size, lined=False)
        _eye(eye, face, expression, winks=expression == "winking" and not mirrored)
        _brow(eye, face, expression)
    y, width = face.mouth
    if face.beak:
        _beak(canvas.at(0, y, width), face, expression)
    else:
        _mouth(canvas.at(0, y, width, lined=False), face, expression)


def _eye(canvas: Canvas, face: Face, expression: Expression | None, *, winks: bool) -> None:
    closed = expression is None or expression == "laughing" or winks
    if closed and face.kind == "balls":
        canvas.ellipse(0, 0, 0.062, 0.062, face.iris if face.iris != WHITE else (226, 226, 226))
    if expression is None:
        canvas.stroke([(-0.042, 0.0), (-0.016, 0.02), (0.016, 0.02), (0.042, 0.0)], 0.018, face.line)
    elif closed:
        canvas.stroke([(-0.045, 0.018), (-0.016, -0.014), (0.016, -0.014), (0.045, 0.018)], 0.021, face.line)
    elif face.kind == "lights":
        size = 1.35 if expression == "surprised" else 1.0
        canvas.ellipse(0, 0, 0.036 * size, 0.046 * size, face.line)
        canvas.ellipse(0.01, -0.016, 0.012, 0.015, WHITE)
    else:
        _open_eye(canvas.at(0, 0, 1.25 if expression == "surprised" else 1.0), face)


def _open_eye(canvas: Canvas, face: Face) -> None:
    if face.kind == "balls":
        canvas.ellipse(0, 0, 0.062, 0.064, face.iris)
        canvas.ellipse(0, 0.002, 0.034, 0.044, (34, 26, 34))
        canvas.ellipse(0.012, -0.017, 0.013, 0.015, WHITE)
    else:
        canvas.ellipse(0, 0, 0.038, 0.055, face.line)
        canvas.ellipse(0.012, -0.021, 0.015, 0.018, WHITE)
        canvas.ellipse(-0.012, 0.024, 0.008, 0.009, WHITE)


def _brow(canvas: Canvas, face: Face, expression: Expression | None) -> None:
    if expression == "grumpy":
        canvas.stroke([(-0.055, -0.04), (0.055, -0.09)], 0.024, face.line)
    elif expression == "sad":
        canvas.stroke([(-0.05, -0.105), (0.05, -0.07)], 0.018, face.line)
        canvas.blob([(0.05, 0.05), (0.072, 0.1), (0.05, 0.122), (0.028, 0.1)], TEAR)
    elif expression == "surprised":
        canvas.stroke([(-0.035, -0.1), (0.0, -0.115), (0.035, -0.105)], 0.018, face.line)


def _mouth(canvas: Canvas, face: Face, expression: Expression | None) -> None:
    if expression == "surprised":
        canvas.ellipse(0, 0.026, 0.024, 0.034, face.line)
    elif expression in ("grumpy", "sad"):
        canvas.stroke([(-0.042, 0.032), (-0.015, 0.014), (0.015, 0.014), (0.042, 0.032)], 0.016, face.line)
    elif expression == "laughing":
        canvas.blob(
            [(-0.075, -0.012), (0, 0.004), (0.075, -0.012), (0.05, 0.055), (0, 0.075), (-0.05, 0.055)], face.line
        )
        canvas.ellipse(0, 0.05, 0.032, 0.018, TONGUE)
    elif expression == "smiling":
        canvas.blob(
            [(-0.055, -0.005), (0, 0.012), (0.055, -0.005), (0.03, 0.045), (0, 0.055), (-0.03, 0.045)], face.line
        )
        canvas.ellipse(0, 0.038, 0.022, 0.013, TONGUE)
    elif expression == "winking":
        canvas.stroke([(-0.045, 0.0), (-0.015, 0.022), (0.02, 0.02), (0.05, -0.008)], 0.016, face.line)
    else:
        canvas.stroke([(-0.025, 0.0), (0, 0.012), (0.025, 0.0)], 0.014, face.line)


def _beak(canvas: Canvas, face: Face, expression: Expression | None) -> None:
    if expression in ("laughing", "surprised", "smiling"):
        drop = 0.085 if expression != "smiling" else 0.06
        half = 0.058 if expression != "surprised" else 0.036
        canvas.blob([(-half, 0.0), (half, 0.0), (0.03, drop), (0, drop + 0.012), (-0.03, drop)], face.line)
        canvas.ellipse(0, drop - 0.012, 0.025, 0.015, TONGUE)
    canvas.twin([(0, -0.05), (0.045, -0.02), (0.07, 0.012), (0, 0.045)], BEAK)
    if expression in ("grumpy", "sad"):
        canvas.stroke([(-0.06, 0.03), (0, 0.01), (0.06, 0.03)], 0.014, (190, 104, 30), lined=False)
