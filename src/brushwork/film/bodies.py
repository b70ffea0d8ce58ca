"""A character as a whole: legs, body, tail, arms, clothes and head, from the ground (0, 0) up to the ears (0, -1)."""

import math
from dataclasses import dataclass

from brushwork.film.canvas import Canvas, Colour, Point
from brushwork.film.characters import BUILDS, Build
from brushwork.film.clothes import CLOTH, SLEEVES, TROUSERS, darker, draw_cape, draw_outfit, draw_scarf
from brushwork.film.heads import draw_head
from brushwork.film.headwear import draw_headwear
from brushwork.film.props import BEHIND_THE_BODY, draw_prop
from brushwork.film.scene import LEAD, Pose, Scene, View

SHADOW: Colour = (30, 40, 60)
HAND: Point = (0.27, -0.27)
"""Where anybody holds what they hold."""
SHOULDER: Point = (0.115, -0.37)
_FLIPPED: dict[View, View] = {"left": "right", "right": "left", "front": "front", "behind": "behind"}


@dataclass(frozen=True)
class Stance:
    """Where hands and feet are, from the body's middle; no feet: it sits."""

    left: Point
    right: Point
    feet: tuple[Point, Point] | None
    lift: float = 0.0
    lean: float = 0.0


def draw_character(canvas: Canvas, scene: Scene) -> None:
    """Draw the whole character; what the camera does not see is cut off by the picture's edge.

    The canvas is mirrored where the scene is.
    """
    view = _FLIPPED[scene.view] if scene.mirrored else scene.view
    if scene.pose == "sleeps":
        _asleep(canvas, scene)
        return
    build, behind = BUILDS[scene.character], view == "behind"
    stance = _stance(scene.pose, swing=math.sin(math.tau * scene.moment), holds=scene.prop)
    breath = 0.006 * math.sin(math.tau * 0.5 * scene.moment)
    canvas.untraced().ellipse(0, 0.0, 0.28 * build.width + stance.lift / 2, 0.035, SHADOW, alpha=70)
    body = canvas.at(0, stance.lift, turn=stance.lean)
    waving = 10 * math.sin(math.tau * 0.7 * scene.moment)
    if scene.prop in BEHIND_THE_BODY:
        draw_prop(body.untraced().at(*stance.right), scene.prop, 0.4 * waving)
    if not behind:
        if scene.outfit == "green cape":
            draw_cape(body, build.width, 0.05 + 0.003 * waving if scene.pose in ("walks", "jumps") else 0.0)
        _tail(body, scene, waving)
    if stance.feet is None:
        _haunches(body, build, TROUSERS.get(scene.outfit) if scene.outfit else None)
        body = body.at(0, 0.05)
    else:
        _legs(body, scene, stance.feet)
    if behind:  # what is held is before the body, as the arms are
        _arms(body, scene, stance, waving)
    _torso(body, scene, behind=behind)
    if not behind and scene.prop != "book":
        _arms(body, scene, stance, waving)
    flying = scene.pose in ("jumps", "walks")
    scarf = "blue" if scene.character == LEAD else scene.scarf
    head = body.at(0, -0.62 + breath)
    if behind and scene.outfit == "green cape":
        draw_cape(body, build.width, 0.05 if flying else 0.0)
    draw_head(head, scene.character, scene.expression, view)
    if scene.headwear is not None:
        draw_headwear(head, scene.headwear, scene.character, view)
    if scarf is not None:
        draw_scarf(body, scarf, flying=flying, behind=behind, sway=waving)
    if behind:
        _tail(body, scene, waving)
    elif scene.prop == "book":
        draw_prop(body.untraced().at(0, -0.24), "book")
        _arms(body, scene, stance, waving)


def _stance(pose: Pose, *, swing: float, holds: str | None) -> Stance:
    left, right = (-0.185, -0.215), (0.185, -0.215)
    feet: tuple[Point, Point] | None = ((-0.085, -0.02), (0.085, -0.02))
    lift = lean = 0.0
    if pose == "waves":
        right = (0.37 + 0.02 * swing, -0.5 - 0.03 * swing)
    elif pose == "cheers":
        left, right = (-0.35, -0.55 - 0.03 * swing), (0.35, -0.55 - 0.03 * swing)
    elif pose == "walks":
        step = 0.75 + 0.25 * swing
        feet = ((-0.15 * step, -0.035), (0.15 * step, -0.02))
        left, right, lean = (-0.26, -0.26 + 0.03 * swing), (0.24, -0.2 - 0.03 * swing), 5.0
    elif pose == "jumps":
        left, right, lift = (-0.36, -0.46), (0.36, -0.46), -0.17 - 0.03 * swing
        feet = ((-0.2, -0.03), (0.21, -0.07))
    elif pose == "sits":
        feet = None
    if holds == "book":
        left, right = (-0.15, -0.2), (0.15, -0.2)
    elif holds is not None:
        right = HAND
    return Stance(left, right, feet, lift, lean)


def _legs(canvas: Canvas, scene: Scene, feet: tuple[Point, Point]) -> None:
    build = BUILDS[scene.character]
    cloth = TROUSERS.get(scene.outfit) if scene.outfit else None
    for side, (x, y) in zip((-1, 1), feet, strict=True):
        spread = side * 0.02 * (build.width - 1) * 5
        hip = (side * 0.078 * build.width, -0.19)
        thickness = 0.07 if scene.character in ("robot", "girl") else 0.1
        canvas.stroke([hip, (x + spread, y)], thickness, cloth or build.limbs)
        long = 1.35 if scene.character in ("penguin", "owl", "frog") else 1.0
        canvas.ellipse(x + spread + side * 0.008, y - 0.003, 0.07 * long, 0.04, build.feet)


def _haunches(canvas: Canvas, build: Build, cloth: Colour | None) -> None:
    for side in (-1, 1):
        canvas.ellipse(side * 0.12 * build.width, -0.09, 0.1, 0.095, cloth or build.limbs)
        canvas.ellipse(side * 0.15 * build.width, -0.015, 0.085, 0.042, build.feet)


def _torso(canvas: Canvas, scene: Scene, *, behind: bool) -> None:
    build, w = BUILDS[scene.character], BUILDS[scene.character].width
    if scene.character == "robot":
        corners = [(0, -0.43), (0.12, -0.43), (0.155, -0.4), (0.165, -0.12), (0.13, -0.085), (0, -0.085)]
        canvas.twin([(x * w, y) for x, y in corners], build.body)
        if not behind:
            canvas.ellipse(-0.055, -0.29, 0.035, 0.035, (250, 96, 96))
            for y in (-0.31, -0.27):
                canvas.stroke([(0.03, y), (0.1, y)], 0.018, (110, 120, 140), lined=False)
    elif scene.character == "girl":
        canvas.twin([(0, -0.43), (0.1 * w, -0.42), (0.15 * w, -0.26), (0.25 * w, -0.1), (0, -0.075)], build.body)
        if not behind:
            canvas.twin([(0, -0.43), (0.09, -0.425), (0.06, -0.37), (0, -0.345)], (255, 250, 244), lined=False)
    else:
        outline = [(0, -0.42), (0.12 * w, -0.42), (0.168 * w, -0.2), (0.1 * w, -0.09), (0, -0.085)]
        canvas.twin(outline, build.body)
        if build.belly is not None and not behind:
            share = 0.8 if scene.character in ("penguin", "frog") else 0.62
            belly = [
                (0, -0.4),
                (0.1 * share * w, -0.39),
                (0.165 * share * w, -0.2),
                (0.08 * share * w, -0.105),
                (0, -0.1),
            ]
            canvas.twin(belly, build.belly, lined=False)
            if scene.character == "owl":
                for x, y in ((-0.05, -0.29), (0.05, -0.29), (0, -0.23), (-0.05, -0.17), (0.05, -0.17)):
                    canvas.stroke([(x - 0.025, y), (x, y + 0.02), (x + 0.025, y)], 0.014, build.limbs, lined=False)
    if scene.outfit is not None and not (behind and scene.outfit == "green cape"):
        draw_outfit(canvas, scene.outfit, w, behind=behind)
    canvas.ellipse(0, -0.425, 0.13 * w, 0.035, SHADOW, alpha=50)  # of the head


def _arms(canvas: Canvas, scene: Scene, stance: Stance, waving: float) -> None:
    build = BUILDS[scene.character]
    sleeve = SLEEVES.get(scene.outfit) if scene.outfit else None
    spread = 0.11 * (build.width - 1)
    for side, (x, y) in ((-1, stance.left), (1, stance.right)):
        shoulder = (side * SHOULDER[0] * build.width, SHOULDER[1])
        paw = (x + side * spread, y) if scene.prop is None or side < 0 else (x, y)
        if side > 0 and scene.prop is not None and scene.prop not in (*BEHIND_THE_BODY, "book"):
            draw_prop(canvas.untraced().at(*paw), scene.prop, 0.3 * waving)
        if build.arms == "wings" and sleeve is None:
            _wing(canvas, shoulder, paw, build.limbs)
            continue
        thickness = 0.056 if scene.character in ("robot", "girl") else 0.08
        canvas.stroke([shoulder, paw], thickness, build.limbs)
        canvas.ellipse(*paw, 0.05, 0.05, build.hands)
        if sleeve is not None:
            elbow = (shoulder[0] + 0.72 * (paw[0] - shoulder[0]), shoulder[1] + 0.72 * (paw[1] - shoulder[1]))
            canvas.stroke([shoulder, elbow], 0.094, darker(sleeve, 0.93))


def _wing(canvas: Canvas, shoulder: Point, tip: Point, colour: Colour) -> None:
    along = (tip[0] - shoulder[0], tip[1] - shoulder[1])
    length = math.hypot(*along)
    wing = canvas.at(*shoulder, turn=math.degrees(math.atan2(along[1], along[0])))
    wing.blob(
        [(-0.04, 0), (0.3 * length, -0.065), (length + 0.03, -0.02), (length + 0.03, 0.02), (0.3 * length, 0.065)],
        colour,
    )


def _tail(canvas: Canvas, scene: Scene, waving: float) -> None:
    build = BUILDS[scene.character]
    turn = (-22.0 if scene.pose == "jumps" else 0.0) + 0.8 * waving
    x = 0.0 if scene.view == "behind" else 0.08 * build.width
    if scene.character == "fox":
        tail = canvas.at(x, -0.18, turn=turn)
        shape = [(0, 0.04), (0.16, 0.1), (0.33, 0.0), (0.38, -0.2), (0.3, -0.36), (0.22, -0.22), (0.12, -0.08)]
        tail.blob(shape, build.limbs)
        tip = [(0.385, -0.19), (0.3, -0.37), (0.225, -0.22), (0.265, -0.185), (0.3, -0.21), (0.34, -0.165)]
        tail.blob(tip, (255, 240, 220), lined=False)
    elif scene.character == "cat":
        tail = canvas.at(x, -0.14, turn=turn)
        tail.stroke(
            [(0, 0), (0.12, 0.04), (0.22, -0.01), (0.27, -0.12), (0.26, -0.23), (0.31, -0.31)], 0.058, build.limbs
        )
        tail.ellipse(0.315, -0.315, 0.034, 0.034, (240, 236, 240), lined=False)
    elif scene.character == "rabbit":
        canvas.ellipse(x * 2 if x else 0, -0.15, 0.07, 0.068, (255, 252, 255))
    elif scene.character == "bear" and scene.view == "behind":
        canvas.ellipse(0, -0.15, 0.05, 0.048, build.limbs)


def _asleep(canvas: Canvas, scene: Scene) -> None:
    """Lying on the side, the head on the paws, in clothes if any."""
    build = BUILDS[scene.character]
    cloth = CLOTH[scene.outfit] if scene.outfit else None
    canvas.untraced().ellipse(0, 0.0, 0.45, 0.05, SHADOW, alpha=70)
    body = cloth or build.body
    canvas.blob([(-0.2, -0.02), (-0.16, -0.25), (0.08, -0.33), (0.33, -0.24), (0.4, -0.06), (0.25, 0.0)], body)
    if scene.outfit == "striped sweater":
        for x, top in ((0.02, -0.3), (0.12, -0.31), (0.22, -0.28), (0.32, -0.21)):
            canvas.stroke([(x, top), (x + 0.03, -0.15), (x + 0.01, -0.03)], 0.036, (48, 62, 116), lined=False)
    elif cloth is not None:
        canvas.stroke([(0.05, -0.29), (0.12, -0.15), (0.09, -0.03)], 0.016, darker(cloth), lined=False)
    if scene.character == "fox":
        canvas.blob([(0.43, -0.12), (0.38, 0.02), (0.1, 0.035), (0.0, 0.03), (0.03, -0.08), (0.2, -0.1)], build.limbs)
        tip = [(0.08, 0.034), (-0.06, 0.02), (-0.02, -0.075), (0.1, -0.09), (0.07, -0.055), (0.11, -0.02)]
        canvas.blob(tip, (255, 240, 220), lined=False)
    elif scene.character == "cat":
        canvas.stroke([(0.38, -0.04), (0.3, 0.015), (0.16, 0.02), (0.04, 0.0)], 0.055, build.limbs)
    else:
        if scene.character == "rabbit":
            canvas.ellipse(0.4, -0.12, 0.07, 0.068, (255, 252, 255))
        for x in (0.2, 0.34):
            canvas.ellipse(x, -0.01, 0.08, 0.042, build.feet)
    scarf = "blue" if scene.character == LEAD else scene.scarf
    if scarf is not None:
        draw_scarf(canvas.at(-0.3, 0.34, 1.12, turn=-8), scarf, flying=True, behind=False)
    breath = 0.008 * math.sin(math.tau * 0.4 * scene.moment)
    head = canvas.at(-0.2, -0.17 + breath, 0.92, turn=-8)
    draw_head(head, scene.character, None, "front")
    if scene.headwear is not None:
        draw_headwear(head, scene.headwear, scene.character, "front")
    for step, (x, y) in enumerate([(0.1, -0.45), (0.2, -0.58), (0.32, -0.72)]):
        size = 0.03 + 0.012 * step
        letter = canvas.untraced().at(x, y, mirrored=scene.mirrored, lined=False)  # a Z whichever way it lies
        letter.stroke([(0, 0), (size, 0), (0, size), (size, size)], 0.014, (255, 255, 255))
