"""What a frame shows, in words: every word is true, in one of many phrasings, some things left out."""

import random

from brushwork.film.characters import BUILDS
from brushwork.film.scene import Camera, Expression, Outfit, Place, Pose, Prop, Scene, Style, Time, Weather

OUTFITS: dict[Outfit, tuple[str, ...]] = {
    "red raincoat": ("a red raincoat",),
    "yellow raincoat": ("a yellow raincoat",),
    "striped sweater": ("a striped sweater", "a sweater with navy stripes"),
    "blue dungarees": ("blue dungarees",),
    "green cape": ("a green cape",),
    "pink tutu": ("a pink tutu",),
}
PROPS: dict[Prop, tuple[str, ...]] = {
    "balloon": ("a yellow balloon",),
    "lantern": ("a lantern", "a glowing lantern"),
    "flower": ("a pink flower", "a flower"),
    "umbrella": ("a red umbrella", "an umbrella"),
    "book": ("an open book", "a book"),
    "ice cream": ("an ice cream", "an ice cream cone"),
    "apple": ("a red apple", "an apple"),
    "wand": ("a magic wand", "a magic wand with a star"),
}
PLACES: dict[Place, tuple[str, ...]] = {
    "meadow": ("on a meadow", "on a flowery meadow"),
    "forest": ("in a snowy forest", "among snowy fir trees"),
    "beach": ("on a beach", "on a sandy beach by the sea"),
    "town": ("in a little town", "on a street of a little town"),
    "mountains": ("in the mountains", "before snowy mountains"),
    "desert": ("in a desert", "in a desert with cacti"),
    "park": ("in an autumn park", "in a park in autumn"),
    "castle": ("in front of a castle", "before a castle with towers"),
    "room": ("in a cosy room", "at home in a cosy room"),
}
TIMES: dict[Time, tuple[str, ...]] = {
    "morning": ("in the morning", "in soft morning light"),
    "noon": ("at noon", "in bright daylight"),
    "sunset": ("at sunset", "in warm sunset light"),
    "night": ("at night",),
}
WEATHERS: dict[Weather, tuple[str, ...]] = {
    "rain": ("in the rain", "while it rains"),
    "snow": ("in falling snow", "while it snows"),
    "fog": ("in fog", "on a foggy day"),
}
DOES: dict[Pose, tuple[str, ...]] = {
    "stands": ("standing",),
    "waves": ("waving", "waving a hand"),
    "cheers": ("cheering", "cheering with both arms up"),
    "walks": ("walking",),
    "jumps": ("jumping", "jumping in the air"),
    "sits": ("sitting", "sitting down"),
    "sleeps": ("sleeping", "lying asleep"),
}
FACES: dict[Expression, tuple[str, ...]] = {
    "smiling": ("smiling", "with a smile"),
    "laughing": ("laughing", "laughing happily"),
    "winking": ("winking", "winking with one eye"),
    "surprised": ("surprised", "looking surprised"),
    "sad": ("sad", "crying"),
    "grumpy": ("grumpy", "looking grumpy"),
}
CAMERAS: dict[Camera, tuple[str, ...]] = {
    "portrait": ("portrait", "close-up portrait"),
    "half body": ("half body", "half body shot"),
    "full body": ("full body", "full body shot"),
    "wide": ("wide shot", "small in a wide shot"),
}
FRAMED: dict[Camera, str] = {
    "portrait": "a close-up portrait",
    "half body": "a half body shot",
    "full body": "a full body shot",
    "wide": "a wide shot",
}
ANGLES: dict[str, tuple[str, ...]] = {
    "low": ("from a low angle",),
    "high": ("from a high angle",),
    "tilted": ("tilted camera", "dutch angle"),
}
VIEWS: dict[str, tuple[str, ...]] = {
    "left": ("facing left",),
    "right": ("facing right",),
    "behind": ("seen from behind", "from behind"),
}
STYLES: dict[Style, tuple[str, ...]] = {
    "flat": ("flat colours", "flat illustration"),
    "ink": ("ink outlines", "cartoon with ink outlines"),
    "pastel": ("soft pastel", "pastel drawing on paper"),
}


def caption(scene: Scene, seed: int | None = None) -> str:
    """The frame in words.

    Args:
        seed: chooses the phrasing, the order and what is left out; None: everything, always in the same words.
    """
    draw = random.Random(f"film/caption/{seed}") if seed is not None else None
    said = facts(scene, draw)
    if draw is None:
        return ", ".join([" ".join(_leading(said)), *_trailing(said)])
    for name, share in (("style", 0.35), ("camera", 0.2), ("time", 0.15), ("face", 0.2), ("pose", 0.15)):
        if draw.random() < share:
            said.pop(name, None)
    for name in ("weather", "angle", "view", "place", "worn"):
        if draw.random() < 0.07:
            said.pop(name, None)
    trailing = _trailing(said)
    draw.shuffle(trailing)
    front = draw.random()
    if front < 0.2 and "camera" in said:  # "a full body shot of a brown bear ..."
        trailing.remove(said["camera"])
        return ", ".join([f"{FRAMED[scene.camera]} of {' '.join(_leading(said))}", *trailing])
    if front < 0.35 and "style" in said:
        trailing.remove(said["style"])
        return ", ".join([said["style"], " ".join(_leading(said)), *trailing])
    if front < 0.5 and "place" in said:  # "on a beach, a brown bear ..."
        place = " ".join(said.pop(name) for name in ("place", "time") if name in said)
        return ", ".join([place, " ".join(_leading(said)), *trailing])
    return ", ".join([" ".join(_leading(said)), *trailing])


def facts(scene: Scene, draw: random.Random | None = None) -> dict[str, str]:
    """What a viewer can see, each thing in one of its phrasings: the first one where nobody draws."""

    def say(words: tuple[str, ...]) -> str:
        return draw.choice(words) if draw is not None else words[0]

    s = scene
    said = {
        "who": say(BUILDS[s.character].words),
        "place": say(PLACES[s.place]),
        "time": say(TIMES[s.time] if s.weather == "clear" else TIMES[s.time][:1]),
    }
    worn = [say(OUTFITS[s.outfit])] if s.outfit else []
    if s.headwear:
        plural = s.headwear in ("round glasses", "headphones")
        worn.append(s.headwear if plural else _article(s.headwear))
    if s.scarf:
        worn.append(f"a {s.scarf} scarf")
    if draw is not None:
        draw.shuffle(worn)
    if worn:
        said["worn"] = f"wearing {' and '.join([', '.join(worn[:-1]), worn[-1]] if worn[:-1] else worn)}"
    if s.camera != "portrait":
        said["pose"] = say(DOES[s.pose])
    if s.prop:
        said["prop"] = (
            f"{'reading' if s.prop == 'book' and draw and draw.random() < 0.4 else 'holding'} {say(PROPS[s.prop])}"
        )
    if s.weather != "clear":
        said["weather"] = say(WEATHERS[s.weather])
    if s.expression and s.camera != "wide":
        said["face"] = say(FACES[s.expression])
    if s.view != "front":
        said["view"] = say(VIEWS[s.view])
    if s.angle != "level":
        said["angle"] = say(ANGLES[s.angle])
    said["camera"] = say(CAMERAS[s.camera])
    said["style"] = say(STYLES[s.style])
    return said


def _leading(said: dict[str, str]) -> list[str]:
    return [said[name] for name in ("who", "worn", "pose", "prop", "place", "time", "weather") if name in said]


def _trailing(said: dict[str, str]) -> list[str]:
    return [said[name] for name in ("face", "view", "angle", "camera", "style") if name in said]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
