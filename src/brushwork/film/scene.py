"""What a frame shows: every attribute with its possible values, and the scene of a seed.

The values stand in a fixed order, so that their positions can serve as classes. What no camera could show at once
(a portrait of somebody jumping, a hat's wearer asleep in a tutu) is not imagined: `is_possible`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Character = Literal["fox", "bear", "rabbit", "cat", "penguin", "frog", "owl", "robot", "girl"]
Outfit = Literal["red raincoat", "yellow raincoat", "striped sweater", "blue dungarees", "green cape", "pink tutu"]
Headwear = Literal[
    "straw hat", "red cap", "wizard hat", "golden crown", "round glasses", "flower wreath", "headphones"
]
Scarf = Literal["red", "green", "yellow"]
Pose = Literal["stands", "waves", "cheers", "walks", "jumps", "sits", "sleeps"]
Expression = Literal["smiling", "laughing", "winking", "surprised", "sad", "grumpy"]
Prop = Literal["balloon", "lantern", "flower", "umbrella", "book", "ice cream", "apple", "wand"]
Place = Literal["meadow", "forest", "beach", "town", "mountains", "desert", "park", "castle", "room"]
Time = Literal["morning", "noon", "sunset", "night"]
Weather = Literal["clear", "rain", "snow", "fog"]
Camera = Literal["portrait", "half body", "full body", "wide"]
Angle = Literal["level", "low", "high", "tilted"]
View = Literal["front", "left", "right", "behind"]
Style = Literal["flat", "ink", "pastel"]

LEAD: Character = "fox"
CHARACTERS: tuple[Character, ...] = get_args(Character)

ATTRIBUTES: dict[str, tuple[str | None, ...]] = {
    "character": CHARACTERS,
    "outfit": (None, *get_args(Outfit)),
    "headwear": (None, *get_args(Headwear)),
    "scarf": (None, *get_args(Scarf)),
    "pose": get_args(Pose),
    "expression": (None, *get_args(Expression)),
    "prop": (None, *get_args(Prop)),
    "place": get_args(Place),
    "time": get_args(Time),
    "weather": get_args(Weather),
    "camera": get_args(Camera),
    "angle": get_args(Angle),
    "view": get_args(View),
    "style": get_args(Style),
}
"""Every attribute and its values, in an order that does not change: `classes` counts by it."""

_TRIES = 6000
_TRIES_OF_A_SHOT = 60
_CAMERAS: tuple[Camera, ...] = ("portrait", "half body", "full body", "full body", "wide")


@dataclass(frozen=True)
class Scene:
    """The truth of one frame.

    Args:
        outfit: what is worn on the body; None: nothing that a caption would tell.
        scarf: its colour. The lead's own blue one belongs to the lead, and is not told here.
        expression: None where no face is seen: asleep, or from behind.
        view: from where the face is seen: `left` looks to the picture's left.
        mirrored: which hand waves or holds, and on which side the tail is.
        seed: for what no caption tells: where the trees and the flowers stand.
        moment: seconds into the shot; things have moved a little.
    """

    character: Character = LEAD
    outfit: Outfit | None = None
    headwear: Headwear | None = None
    scarf: Scarf | None = None
    pose: Pose = "stands"
    expression: Expression | None = "smiling"
    prop: Prop | None = None
    place: Place = "meadow"
    time: Time = "noon"
    weather: Weather = "clear"
    camera: Camera = "full body"
    angle: Angle = "level"
    view: View = "front"
    style: Style = "flat"
    mirrored: bool = False
    seed: int = 0
    moment: float = 0.0

    def truth(self) -> dict[str, Any]:
        """The scene as a JSON object; `Scene(**truth)` is the scene again."""
        return asdict(self)


def cast_without_lead() -> tuple[Character, ...]:
    """Everybody but the lead: whom the base model may see."""
    return tuple(name for name in CHARACTERS if name != LEAD)


def classes(scene: Scene) -> dict[str, int]:
    """Each attribute's value as its position in `ATTRIBUTES`: targets for a classifier."""
    return {name: values.index(getattr(scene, name)) for name, values in ATTRIBUTES.items()}


def is_possible(scene: Scene) -> bool:
    """Whether all that the scene tells can be seen at once."""
    s = scene
    asleep, behind = s.pose == "sleeps", s.view == "behind"
    near = s.camera in ("portrait", "half body")
    unseen = [
        (s.expression is None) != (asleep or behind),
        s.camera == "portrait" and (s.pose != "stands" or s.prop is not None or s.outfit == "pink tutu" or behind),
        s.camera == "half body" and s.pose not in ("stands", "waves", "cheers"),
        near and s.angle in ("low", "high"),
        s.prop is not None and s.pose not in ("stands", "walks", "sits"),
        behind and (s.headwear == "round glasses" or s.prop == "book" or s.pose == "sits"),
        asleep and (s.view != "front" or s.outfit in ("green cape", "pink tutu")),
        s.prop == "umbrella" and (s.headwear == "wizard hat" or s.camera == "half body"),
        s.scarf is not None and s.character == LEAD,
        s.place == "room" and (s.weather != "clear" or s.angle != "level" or s.camera == "wide"),
        s.weather == "snow" and s.place in ("desert", "beach"),
        s.camera == "wide" and (s.weather == "fog" or s.view in ("left", "right")),
    ]
    return not any(unseen)


def imagine(
    seed: int,
    *,
    characters: Sequence[Character] = (LEAD,),
    accept: Callable[[Scene], bool] | None = None,
    **fixed: Any,
) -> Scene:
    """The scene of a seed, always the same one.

    Args:
        characters: who may appear.
        accept: scenes that it refuses are imagined anew, e.g. `lambda scene: not is_held_out(scene)`.
        fixed: attributes that are given, e.g. `place="beach"`.
    """
    draw = random.Random(f"film/{seed}")
    framed: dict[str, Any] = {}
    for number in range(_TRIES):
        if number % _TRIES_OF_A_SHOT == 0:  # chosen first, or only wide shots, where all is possible, would be left
            framed = {"camera": draw.choice(_CAMERAS), "place": draw.choice(get_args(Place))}
        scene = replace(_draw(draw, characters, seed), **{**framed, **fixed})
        if "expression" not in fixed and (scene.pose == "sleeps" or scene.view == "behind"):
            scene = replace(scene, expression=None)
        if is_possible(scene) and (accept is None or accept(scene)):
            return scene
    raise ValueError(f"no scene has all of this at once: {fixed}")


def _draw(draw: random.Random, characters: Sequence[Character], seed: int) -> Scene:
    def some(values: Sequence[Any], share: float) -> Any:
        return draw.choice(values) if draw.random() < share else None

    return Scene(
        character=draw.choice(characters),
        outfit=some(get_args(Outfit), 0.4),
        headwear=some(get_args(Headwear), 0.35),
        scarf=some(get_args(Scarf), 0.12),
        pose=draw.choice(get_args(Pose)),
        expression=draw.choice(get_args(Expression)),
        prop=some(get_args(Prop), 0.5),
        time=draw.choice(get_args(Time)),
        weather=draw.choice(get_args(Weather)) if draw.random() < 0.24 else "clear",
        angle=draw.choice(get_args(Angle)) if draw.random() < 0.3 else "level",
        view=draw.choice(get_args(View)) if draw.random() < 0.5 else "front",
        style=draw.choice(get_args(Style)),
        mirrored=draw.random() < 0.5,
        seed=seed,
    )
