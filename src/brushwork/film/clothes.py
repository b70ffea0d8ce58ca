"""What anybody can wear on the body and around the neck: drawn over the body, in the body's own numbers."""

from brushwork.film.canvas import Canvas, Colour, Point
from brushwork.film.scene import Outfit

RED: Colour = (214, 44, 52)
YELLOW: Colour = (250, 206, 56)
NAVY: Colour = (48, 62, 116)
DENIM: Colour = (66, 116, 190)
GREEN: Colour = (40, 140, 84)
PINK: Colour = (250, 150, 196)
GOLD: Colour = (252, 204, 76)
CREAM: Colour = (250, 246, 236)

SLEEVES: dict[Outfit, Colour] = {
    "red raincoat": RED,
    "yellow raincoat": YELLOW,
    "striped sweater": CREAM,
}
TROUSERS: dict[Outfit, Colour] = {"blue dungarees": DENIM}
CLOTH: dict[Outfit, Colour] = {
    **SLEEVES,
    **TROUSERS,
    "green cape": GREEN,
    "pink tutu": PINK,
}
"""The colour that an outfit shows most."""

SCARVES: dict[str, tuple[Colour, Colour]] = {
    "blue": ((38, 104, 205), (24, 72, 158)),
    "red": ((216, 52, 58), (160, 30, 44)),
    "green": ((60, 160, 84), (34, 112, 60)),
    "yellow": ((250, 208, 62), (206, 154, 30)),
}


def darker(colour: Colour, share: float = 0.8) -> Colour:
    red, green, blue = (round(c * share) for c in colour)
    return red, green, blue


def draw_outfit(canvas: Canvas, outfit: Outfit, width: float, *, behind: bool) -> None:
    """Draw what covers the body of a character as wide as `width`, seen from the front or from behind."""
    if outfit in ("red raincoat", "yellow raincoat"):
        _raincoat(canvas, CLOTH[outfit], width, behind=behind)
    elif outfit == "striped sweater":
        _sweater(canvas, width)
    elif outfit == "blue dungarees":
        _dungarees(canvas, width, behind=behind)
    elif outfit == "green cape":
        if behind:
            draw_cape(canvas, width)
        else:
            _clasp(canvas, width)
    else:
        _tutu(canvas, width)


def draw_cape(canvas: Canvas, width: float, sway: float = 0.0) -> None:
    """What hangs down the back; from the front it is drawn before the body."""
    half: list[Point] = [(0.1 * width, -0.44), (0.17 * width, -0.4), (0.3 * width, -0.1), (0.27 * width, -0.035)]
    left = [(-x + sway, y) if y > -0.2 else (-x, y) for x, y in reversed(half)]
    right = [(x + sway, y) if y > -0.2 else (x, y) for x, y in half]
    canvas.blob([*right, (0.1 * width + sway, -0.07), (-0.1 * width + sway, -0.04), *left], GREEN)
    for x in (-0.09, 0.09):
        canvas.stroke([(x * width, -0.34), (1.5 * x * width + sway, -0.12)], 0.016, darker(GREEN), lined=False)


def draw_scarf(canvas: Canvas, colour: str, *, flying: bool, behind: bool, sway: float = 0.0) -> None:
    """A scarf around the neck, its end hanging down or blowing aside."""
    bright, deep = SCARVES[colour]
    canvas.blob([(-0.15, -0.46), (0, -0.43), (0.15, -0.46), (0.165, -0.39), (0, -0.345), (-0.165, -0.39)], bright)
    canvas.stroke([(-0.14, -0.4), (0, -0.362), (0.14, -0.4)], 0.012, deep, lined=False)
    if behind:
        return
    end = canvas.at(-0.075, -0.385, turn=(75 if flying else 8) + sway)
    end.blob([(-0.045, 0), (0.045, 0), (0.055, 0.2), (-0.055, 0.2)], bright)
    end.polygon([(-0.055, 0.14), (0.055, 0.14), (0.056, 0.165), (-0.056, 0.165)], (235, 240, 250), lined=False)
    canvas.ellipse(-0.075, -0.385, 0.05, 0.042, deep)


def _raincoat(canvas: Canvas, cloth: Colour, width: float, *, behind: bool) -> None:
    canvas.twin(
        [(0, -0.43), (0.125 * width, -0.43), (0.18 * width, -0.22), (0.215 * width, -0.075), (0, -0.06)], cloth
    )
    deep = darker(cloth)
    canvas.stroke([(-0.2 * width, -0.088), (0, -0.072), (0.2 * width, -0.088)], 0.02, deep, lined=False)
    if behind:
        canvas.twin([(0, -0.45), (0.12 * width, -0.43), (0.09 * width, -0.34), (0, -0.31)], deep)  # the hood
        return
    canvas.stroke([(0, -0.42), (0, -0.08)], 0.014, deep, lined=False)
    for side in (-1, 1):
        x = side * 0.11 * width
        canvas.polygon(
            [(x - 0.04, -0.2), (x + 0.04, -0.2), (x + 0.036, -0.14), (x - 0.036, -0.14)], deep, lined=False
        )
    for y in (-0.34, -0.26, -0.18):
        canvas.ellipse(0.028, y, 0.015, 0.015, CREAM)


def _sweater(canvas: Canvas, width: float) -> None:
    canvas.twin([(0, -0.43), (0.13 * width, -0.43), (0.185 * width, -0.2), (0.14 * width, -0.1), (0, -0.09)], CREAM)
    for y, half in ((-0.355, 0.135), (-0.275, 0.153), (-0.195, 0.165), (-0.12, 0.13)):
        canvas.stroke([(-half * width, y), (0, y + 0.018), (half * width, y)], 0.034, NAVY, lined=False)


def _dungarees(canvas: Canvas, width: float, *, behind: bool) -> None:
    for side in (-1, 1):
        canvas.stroke([(side * 0.075 * width, -0.42), (side * 0.075 * width, -0.28)], 0.034, DENIM)
    canvas.twin([(0, -0.26), (0.15 * width, -0.27), (0.18 * width, -0.2), (0.12 * width, -0.075), (0, -0.075)], DENIM)
    if behind:
        return
    canvas.polygon(
        [(-0.09 * width, -0.345), (0.09 * width, -0.345), (0.1 * width, -0.235), (-0.1 * width, -0.235)], DENIM
    )
    canvas.polygon([(-0.045, -0.28), (0.045, -0.28), (0.04, -0.215), (-0.04, -0.215)], darker(DENIM), lined=False)
    for side in (-1, 1):
        canvas.ellipse(side * 0.075 * width, -0.33, 0.018, 0.018, GOLD)


def _clasp(canvas: Canvas, width: float) -> None:
    canvas.twin([(0, -0.41), (0.14 * width, -0.455), (0.17 * width, -0.39), (0, -0.35)], GREEN)
    canvas.ellipse(0, -0.378, 0.028, 0.028, GOLD)


def _tutu(canvas: Canvas, width: float) -> None:
    canvas.twin([(0, -0.34), (0.12 * width, -0.34), (0.16 * width, -0.2), (0, -0.17)], darker(PINK, 0.9))
    for i in range(7):
        x = (i - 3) / 3
        canvas.ellipse(0.2 * x * width, -0.155 + 0.016 * abs(x), 0.07 * width, 0.055, PINK)
    canvas.ellipse(0, -0.185, 0.2 * width, 0.042, (255, 196, 222), lined=False)
