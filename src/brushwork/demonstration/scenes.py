"""What the demo learns from and what it asks for: the lead, in other places and clothes than it was seen in."""

from dataclasses import replace
from pathlib import Path

from brushwork.atomic import write_text, written_beside
from brushwork.film.captions import caption
from brushwork.film.frames import draw_scene
from brushwork.film.scene import LEAD, Camera, Scene, imagine
from brushwork.progress import Progress

TRIGGER = "a red fox with a blue scarf"
"""Stands in every caption and prompt. The base has seen no fox, no red animal and no blue scarf."""

NUM_FRAMES = 24
SEED = 0

PLACES = ("meadow", "forest", "beach", "town", "park")
OUTFITS = (None, "yellow raincoat", "striped sweater")
HEADWEAR = (None, "red cap", "headphones")
"""Where the lead is in the frames that are learned from, and what it wears there."""

CAMERAS: tuple[Camera, ...] = ("portrait", "half body", "full body")

ASKED = (
    Scene(place="castle", outfit="red raincoat", pose="waves", camera="full body", time="noon"),
    Scene(place="mountains", outfit="green cape", headwear="golden crown", camera="half body", time="morning"),
    Scene(place="desert", outfit="blue dungarees", pose="walks", camera="full body", time="sunset"),
    Scene(place="room", outfit="pink tutu", pose="cheers", expression="laughing", camera="full body", time="noon"),
    Scene(place="castle", headwear="wizard hat", camera="portrait", time="night"),
    Scene(place="mountains", outfit="red raincoat", camera="portrait", time="noon", weather="snow"),
    Scene(place="desert", outfit="green cape", pose="waves", camera="half body", time="noon"),
    Scene(place="room", outfit="blue dungarees", prop="book", expression="surprised", camera="full body"),
    Scene(place="castle", outfit="pink tutu", pose="jumps", expression="laughing", camera="full body", time="sunset"),
    Scene(place="mountains", outfit="blue dungarees", prop="balloon", camera="full body", time="noon"),
    Scene(place="desert", headwear="golden crown", expression="grumpy", camera="portrait", time="noon"),
    Scene(place="room", outfit="red raincoat", headwear="wizard hat", camera="half body", time="morning"),
    Scene(place="castle", outfit="green cape", headwear="golden crown", camera="portrait", time="morning"),
    Scene(place="mountains", outfit="pink tutu", prop="wand", camera="full body", time="sunset"),
    Scene(place="desert", outfit="red raincoat", prop="umbrella", camera="full body", time="noon"),
    Scene(place="room", outfit="green cape", expression="winking", camera="portrait", time="noon"),
)
"""Places and clothes that no frame shows the lead in."""

OTHERS = (
    Scene(character="bear", pose="waves", place="meadow"),
    Scene(character="rabbit", pose="waves", place="beach"),
    Scene(character="cat", pose="waves", place="park"),
    Scene(character="penguin", pose="waves", place="town"),
    Scene(character="frog", pose="waves", place="castle"),
    Scene(character="owl", pose="waves", place="meadow"),
    Scene(character="robot", pose="waves", place="room"),
    Scene(character="girl", pose="waves", place="park"),
)
"""The rest of the cast, whom the base knows and who should stay who they are."""


def learned_scenes() -> list[Scene]:
    """The scenes that are learned from: places, clothes and cameras in turn, so that each is seen as often."""

    def fits(scene: Scene) -> bool:
        return scene.headwear in HEADWEAR and scene.view != "behind" and scene.pose != "sleeps"

    return [
        imagine(
            SEED + number,
            characters=(LEAD,),
            accept=fits,
            place=PLACES[number % len(PLACES)],
            outfit=OUTFITS[number // len(CAMERAS) % len(OUTFITS)],
            camera=CAMERAS[number % len(CAMERAS)],
            style="flat",
            angle="level",
            weather="clear",
        )
        for number in range(NUM_FRAMES)
    ]


def draw_learned(folder: Path, *, size: int, on_progress: Progress) -> None:
    """Draw the frames as 00000.png with the caption beside it; one that is there already stays."""
    scenes = learned_scenes()
    for number, scene in enumerate(scenes):
        picture, words = folder / f"{number:05d}.png", caption(scene) + "\n"
        told = picture.with_suffix(".txt")
        if not (picture.exists() and told.exists() and told.read_text(encoding="utf-8") == words):
            write_text(told, words)
            with written_beside(picture) as partial:
                draw_scene(scene, size).save(partial, format="PNG")
        on_progress(number + 1, len(scenes))


def as_drawn_by_the_film(scenes: tuple[Scene, ...]) -> list[Scene]:
    """The same scenes with trees and flowers of their own, as the film would draw what a prompt asks for."""
    return [replace(scene, seed=1000 + number) for number, scene in enumerate(scenes)]
