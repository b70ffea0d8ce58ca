"""Captions of the drawn film: every word is true, whatever the phrasing."""

import re

from brushwork.film.captions import (
    ANGLES,
    CAMERAS,
    DOES,
    FACES,
    FRAMED,
    OUTFITS,
    PLACES,
    PROPS,
    STYLES,
    TIMES,
    VIEWS,
    WEATHERS,
    caption,
)
from brushwork.film.characters import BUILDS
from brushwork.film.scene import ATTRIBUTES, CHARACTERS, Scene, imagine

PHRASES: dict[str, tuple[str, str]] = {
    phrase: (name, value)
    for name, table in {
        "character": {who: build.words for who, build in BUILDS.items()},
        "outfit": OUTFITS,
        "prop": PROPS,
        "place": PLACES,
        "time": TIMES,
        "weather": WEATHERS,
        "pose": DOES,
        "expression": FACES,
        "camera": {camera: (*words, FRAMED[camera]) for camera, words in CAMERAS.items()},
        "angle": ANGLES,
        "view": VIEWS,
        "style": STYLES,
        "headwear": {
            hat: (f"a {hat}" if hat not in ("round glasses", "headphones") else hat,)
            for hat in ATTRIBUTES["headwear"]
            if hat
        },
        "scarf": {colour: (f"a {colour} scarf",) for colour in ATTRIBUTES["scarf"] if colour},
    }.items()
    for value, phrases in table.items()
    for phrase in phrases
}
GLUE = {"wearing", "holding", "reading", "and", "of", ""}


def told(words: str) -> dict[str, str]:
    """What a reader who knows the phrases takes from a caption: the longest phrase first."""
    found = {}
    for phrase in sorted(PHRASES, key=len, reverse=True):
        words, count = re.subn(rf"(?<!\w){re.escape(phrase)}(?!\w)", "", words)
        if count:
            name, value = PHRASES[phrase]
            assert name not in found, phrase
            found[name] = value
    assert set(re.split(r"[ ,]+", words)) <= GLUE, words
    return found


def test_every_word_of_every_phrasing_is_true() -> None:
    for seed in range(600):
        scene = imagine(seed, characters=CHARACTERS)
        for phrasing in (None, seed, seed + 1):
            for name, value in told(caption(scene, phrasing)).items():
                assert getattr(scene, name) == value, (scene, caption(scene, phrasing))


def test_the_full_caption_tells_all_that_the_camera_sees() -> None:
    for seed in range(200):
        scene = imagine(seed, characters=CHARACTERS)
        unseen = {"weather": "clear", "angle": "level", "view": "front"}
        expected = {
            name: getattr(scene, name)
            for name in ATTRIBUTES
            if getattr(scene, name) is not None and getattr(scene, name) != unseen.get(name)
        }
        if scene.camera == "portrait":
            del expected["pose"]  # out of the picture
        if scene.camera == "wide":
            expected.pop("expression", None)  # too small to read
        assert told(caption(scene)) == expected


def test_phrasings_differ_and_always_name_who_is_seen() -> None:
    scene = Scene(character="owl", headwear="red cap", prop="lantern", place="park")
    phrasings = [caption(scene, seed) for seed in range(100)]

    assert len(set(phrasings)) > 60
    assert all(told(words)["character"] == "owl" for words in phrasings)
    assert any("style" not in told(words) for words in phrasings)
    assert any(not words.startswith("a ") for words in phrasings)
    assert caption(scene, 7) == caption(scene, 7)


def test_a_caption_is_one_short_line() -> None:
    for seed in range(300):
        words = caption(imagine(seed, characters=CHARACTERS), seed)
        assert words == words.strip()
        assert "  " not in words
        assert ", ," not in words
        assert len(words.split()) <= 48
