"""What a frame shows: chosen from a seed, told in a caption that is exactly true."""

import random
from dataclasses import dataclass
from typing import Literal

Place = Literal["meadow", "forest", "beach", "town", "mountains"]
Time = Literal["morning", "noon", "sunset", "night"]
Pose = Literal["stands", "waves", "sits", "jumps", "sleeps"]
Mood = Literal["smiling", "surprised", "grumpy"]
Camera = Literal["close-up", "half body", "full body"]
Prop = Literal["balloon", "lantern", "flower"]

LEAD = "a red fox with a blue scarf"

WORDS_OF_PLACE: dict[Place, str] = {
    "meadow": "on a meadow",
    "forest": "in a snowy forest",
    "beach": "on a beach",
    "town": "in a little town",
    "mountains": "in the mountains",
}
WORDS_OF_TIME: dict[Time, str] = {
    "morning": "in the morning",
    "noon": "at noon",
    "sunset": "at sunset",
    "night": "at night",
}
WORDS_OF_PROP: dict[Prop, str] = {"balloon": "a yellow balloon", "lantern": "a lantern", "flower": "a flower"}


@dataclass(frozen=True)
class Scene:
    """The truth of one frame."""

    place: Place
    time: Time
    pose: Pose
    mood: Mood
    camera: Camera
    prop: Prop | None
    mirrored: bool
    seed: int
    """For what no caption tells: where the trees and the flowers stand."""

    def caption(self) -> str:
        """The frame in words."""
        does = "" if self.camera == "close-up" else f" {self.pose}"
        words = f"{LEAD}{does} {WORDS_OF_PLACE[self.place]} {WORDS_OF_TIME[self.time]}"
        if self.prop is not None:
            words += f", holding {WORDS_OF_PROP[self.prop]}"
        if self.pose != "sleeps":
            words += f", {self.mood}"
        return f"{words}, {self.camera}"


def imagine(seed: int) -> Scene:
    """The scene of a seed, always the same one."""
    draw = random.Random(f"film/{seed}")
    pose: Pose = draw.choice(["stands", "waves", "sits", "jumps", "sleeps"])
    camera: Camera = draw.choice(["close-up", "half body", "full body", "full body"])
    if pose in ("jumps", "sleeps") or (pose == "sits" and camera == "half body"):
        camera = "full body"  # what the caption tells must be seen
    prop: Prop | None = draw.choice(["balloon", "lantern", "flower", None, None, None])
    if pose in ("waves", "jumps", "sleeps") or camera == "close-up":
        prop = None
    return Scene(
        place=draw.choice(list(WORDS_OF_PLACE)),
        time=draw.choice(list(WORDS_OF_TIME)),
        pose=pose,
        mood=draw.choice(["smiling", "smiling", "surprised", "grumpy"]),
        camera=camera,
        prop=prop,
        mirrored=draw.random() < 0.5,
        seed=seed,
    )
