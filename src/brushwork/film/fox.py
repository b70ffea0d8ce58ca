"""The lead of the film: a red fox with a blue scarf, drawn from the ground (0, 0) up to the ears (0, -1)."""

from brushwork.film.canvas import Canvas, Colour, Point
from brushwork.film.scene import Mood, Pose, Prop

RED: Colour = (226, 88, 44)
SHADE: Colour = (190, 64, 36)
CREAM: Colour = (255, 240, 220)
DARK: Colour = (70, 38, 36)
BLUSH: Colour = (250, 140, 110)
BLUE: Colour = (38, 104, 205)
DEEP_BLUE: Colour = (24, 72, 158)
WHITE: Colour = (255, 255, 255)

HAND: Point = (0.26, -0.27)
"""Where the fox holds what it holds."""


def draw_fox(canvas: Canvas, pose: Pose, mood: Mood, prop: Prop | None) -> None:
    """Draw the whole fox; what the camera does not see is cut off by the picture's edge."""
    if pose == "sleeps":
        _asleep(canvas)
        return
    lift = -0.16 if pose == "jumps" else 0.0
    canvas.ellipse(0, 0.0, 0.26 + lift / 2, 0.035, (30, 40, 60), alpha=70)
    body = canvas.at(0, lift)
    _tail(body, up=pose == "jumps")
    if pose == "sits":
        _haunches(body)
        body = body.at(0, 0.05)
    elif pose == "jumps":
        _leg(body, (-0.09, -0.2), (-0.2, -0.02))
        _leg(body, (0.09, -0.2), (0.21, -0.06))
    else:
        _leg(body, (-0.075, -0.2), (-0.085, -0.02))
        _leg(body, (0.075, -0.2), (0.085, -0.02))
    body.blob([(-0.12, -0.42), (0.12, -0.42), (0.165, -0.2), (0.1, -0.09), (-0.1, -0.09), (-0.165, -0.2)], RED)
    body.blob([(-0.06, -0.4), (0.06, -0.4), (0.1, -0.2), (0.05, -0.1), (-0.05, -0.1), (-0.1, -0.2)], CREAM)
    _arms(body, pose, prop)
    _head(body.at(0, -0.62), mood)
    _scarf(body, flying=pose == "jumps")


def _leg(canvas: Canvas, hip: Point, foot: Point) -> None:
    canvas.stroke([hip, foot], 0.1, SHADE)
    canvas.ellipse(foot[0] + 0.008, foot[1] - 0.005, 0.07, 0.04, DARK)


def _haunches(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.ellipse(side * 0.12, -0.09, 0.1, 0.095, SHADE)
        canvas.ellipse(side * 0.15, -0.015, 0.085, 0.038, DARK)


def _tail(canvas: Canvas, *, up: bool) -> None:
    tail = canvas.at(0.08, -0.18, turn=-22 if up else 0)
    tail.blob([(0, 0.04), (0.16, 0.1), (0.33, 0.0), (0.38, -0.2), (0.3, -0.36), (0.22, -0.22), (0.12, -0.08)], SHADE)
    tail.blob([(0.385, -0.19), (0.3, -0.37), (0.225, -0.22), (0.265, -0.185), (0.3, -0.21), (0.34, -0.165)], CREAM)


def _arms(canvas: Canvas, pose: Pose, prop: Prop | None) -> None:
    left, right = (-0.17, -0.22), (0.17, -0.22)
    if pose == "waves":
        right = (0.37, -0.5)
    elif pose == "jumps":
        left, right = (-0.36, -0.44), (0.36, -0.44)
    elif prop is not None:
        right = HAND
    for shoulder, paw in (((-0.115, -0.37), left), ((0.115, -0.37), right)):
        if paw == right and prop is not None:
            _held(canvas.at(*paw), prop)
        canvas.stroke([shoulder, paw], 0.08, SHADE)
        canvas.ellipse(*paw, 0.05, 0.05, DARK)


def _held(canvas: Canvas, prop: Prop) -> None:
    if prop == "balloon":
        canvas.stroke([(0, 0), (0.03, -0.24), (0.06, -0.36)], 0.01, (240, 240, 240))
        canvas.ellipse(0.07, -0.5, 0.12, 0.15, (250, 200, 50))
        canvas.ellipse(0.03, -0.56, 0.03, 0.045, (255, 240, 180), turn=25)
    elif prop == "flower":
        canvas.stroke([(-0.01, 0.04), (0.06, -0.09)], 0.018, (70, 150, 70))
        for turn in range(0, 360, 60):
            canvas.at(0.07, -0.11, turn=turn).ellipse(0, -0.05, 0.028, 0.04, (250, 130, 190))
        canvas.ellipse(0.07, -0.11, 0.03, 0.03, (255, 220, 90))
    else:
        shining = canvas.at(0.03, 0.1, shine=1.0)
        shining.glow(0, 0.02, 0.3, (255, 200, 90))
        canvas.stroke([(0, 0), (0.03, 0.02)], 0.015, DARK)
        canvas.polygon([(-0.03, 0.03), (0.09, 0.03), (0.075, 0.0), (-0.015, 0.0)], DARK)
        shining.polygon([(-0.045, -0.065), (0.045, -0.065), (0.052, 0.06), (-0.052, 0.06)], (255, 225, 120))
        shining.ellipse(0, 0.01, 0.022, 0.04, (255, 250, 225))
        canvas.polygon([(-0.035, 0.16), (0.095, 0.16), (0.095, 0.18), (-0.035, 0.18)], DARK)


def _head(canvas: Canvas, mood: Mood | None) -> None:
    """Around (0, 0); no mood: asleep."""
    for side in (False, True):
        ear = canvas.at(0, 0, mirrored=side)
        ear.blob([(0.05, -0.16), (0.19, -0.37), (0.225, -0.34), (0.235, -0.06)], RED)
        ear.blob([(0.165, -0.33), (0.19, -0.37), (0.225, -0.34), (0.23, -0.24), (0.2, -0.27)], DARK)
        ear.blob([(0.1, -0.16), (0.178, -0.29), (0.2, -0.2), (0.19, -0.1)], CREAM)
    face = [(0, -0.21), (0.16, -0.17), (0.24, -0.03), (0.29, 0.09), (0.17, 0.15), (0, 0.2)]
    canvas.blob([*face, *((-x, y) for x, y in face[-2:0:-1])], RED)
    for side in (False, True):
        cheek = canvas.at(0, 0, mirrored=side)
        cheek.blob(
            [(0, 0.04), (0.09, -0.005), (0.18, 0.05), (0.27, 0.085), (0.165, 0.14), (0.06, 0.185), (0, 0.195)], CREAM
        )
        cheek.ellipse(0.165, 0.075, 0.04, 0.026, BLUSH, alpha=170)
        _eye(cheek.at(0.11, -0.02), mood)
    canvas.blob([(-0.04, 0.045), (0.04, 0.045), (0.022, 0.078), (0, 0.088), (-0.022, 0.078)], DARK)
    canvas.ellipse(-0.012, 0.056, 0.01, 0.006, (150, 120, 120))
    _mouth(canvas.at(0, 0.115), mood)


def _eye(canvas: Canvas, mood: Mood | None) -> None:
    if mood is None:
        canvas.stroke([(-0.04, 0.0), (-0.015, 0.018), (0.015, 0.018), (0.04, 0.0)], 0.016, DARK)
        return
    size = 1.2 if mood == "surprised" else 1.0
    canvas.ellipse(0, 0, 0.036 * size, 0.052 * size, DARK)
    canvas.ellipse(0.012, -0.02, 0.014 * size, 0.017 * size, WHITE)
    canvas.ellipse(-0.012, 0.022, 0.007, 0.008, WHITE)
    if mood == "grumpy":
        canvas.stroke([(-0.05, -0.04), (0.05, -0.085)], 0.022, DARK)
    elif mood == "surprised":
        canvas.stroke([(-0.03, -0.095), (0.03, -0.1)], 0.016, DARK)


def _mouth(canvas: Canvas, mood: Mood | None) -> None:
    if mood == "surprised":
        canvas.ellipse(0, 0.025, 0.022, 0.03, DARK)
    elif mood == "grumpy":
        canvas.stroke([(-0.04, 0.03), (-0.015, 0.015), (0.015, 0.015), (0.04, 0.03)], 0.014, DARK)
    elif mood == "smiling":
        canvas.blob([(-0.055, -0.005), (0, 0.012), (0.055, -0.005), (0.03, 0.045), (0, 0.055), (-0.03, 0.045)], DARK)
        canvas.ellipse(0, 0.038, 0.022, 0.013, (240, 110, 100))
    else:
        canvas.stroke([(-0.025, 0.0), (0, 0.012), (0.025, 0.0)], 0.012, DARK)


def _scarf(canvas: Canvas, *, flying: bool) -> None:
    canvas.blob([(-0.15, -0.46), (0, -0.43), (0.15, -0.46), (0.165, -0.39), (0, -0.345), (-0.165, -0.39)], BLUE)
    canvas.stroke([(-0.14, -0.4), (0, -0.362), (0.14, -0.4)], 0.012, DEEP_BLUE)
    end = canvas.at(-0.075, -0.385, turn=75 if flying else 8)
    end.blob([(-0.045, 0), (0.045, 0), (0.055, 0.2), (-0.055, 0.2)], BLUE)
    end.polygon([(-0.055, 0.14), (0.055, 0.14), (0.056, 0.165), (-0.056, 0.165)], (235, 240, 250))
    canvas.ellipse(-0.075, -0.385, 0.05, 0.042, DEEP_BLUE)


def _asleep(canvas: Canvas) -> None:
    canvas.ellipse(0, 0.0, 0.45, 0.05, (30, 40, 60), alpha=70)
    canvas.blob([(-0.2, -0.02), (-0.16, -0.25), (0.08, -0.33), (0.33, -0.24), (0.4, -0.06), (0.25, 0.0)], RED)
    canvas.blob([(0.43, -0.12), (0.38, 0.02), (0.1, 0.035), (0.0, 0.03), (0.03, -0.08), (0.2, -0.1)], SHADE)
    canvas.blob([(0.08, 0.034), (-0.06, 0.02), (-0.02, -0.075), (0.1, -0.09), (0.07, -0.055), (0.11, -0.02)], CREAM)
    _scarf(canvas.at(-0.3, 0.34, 1.12, turn=-8), flying=True)
    _head(canvas.at(-0.2, -0.17, 0.92, turn=-8), None)
    for step, (x, y) in enumerate([(0.1, -0.45), (0.2, -0.58), (0.32, -0.72)]):
        size = 0.03 + 0.012 * step
        canvas.stroke([(x, y), (x + size, y), (x, y + size), (x + size, y + size)], 0.012, WHITE)
