"""Who plays in the film: each character's name in words, colours and build."""

from dataclasses import dataclass
from typing import Literal

from brushwork.film.canvas import Colour
from brushwork.film.scene import Character

DARK: Colour = (70, 38, 36)


@dataclass(frozen=True)
class Build:
    """What the body of a character looks like; its head is drawn in heads.py.

    Args:
        words: how captions may name it; every one is true.
        belly: None: of one colour.
        width: of the body; 1 is the fox's.
        line: brows, mouth and closed eyes.
    """

    words: tuple[str, ...]
    body: Colour
    limbs: Colour
    belly: Colour | None
    feet: Colour
    hands: Colour
    width: float = 1.0
    line: Colour = DARK
    arms: Literal["arms", "wings"] = "arms"


BUILDS: dict[Character, Build] = {
    "fox": Build(("a red fox with a blue scarf",), (226, 88, 44), (196, 66, 36), (255, 240, 220), DARK, DARK),
    "bear": Build(
        ("a brown bear", "a chubby brown bear"),
        (150, 98, 62),
        (132, 84, 52),
        (222, 186, 142),
        (104, 64, 44),
        (104, 64, 44),
        1.2,
        (62, 36, 30),
    ),
    "rabbit": Build(
        ("a white rabbit", "a white rabbit with long ears"),
        (248, 244, 246),
        (228, 220, 228),
        (255, 214, 220),
        (240, 170, 184),
        (248, 244, 246),
        0.95,
        (96, 60, 70),
    ),
    "cat": Build(
        ("a black cat", "a black cat with yellow eyes"),
        (66, 62, 82),
        (52, 48, 66),
        (112, 106, 130),
        (240, 236, 240),
        (240, 236, 240),
        0.92,
        (28, 24, 36),
    ),
    "penguin": Build(
        ("a blue penguin", "a round blue penguin"),
        (44, 84, 156),
        (36, 70, 134),
        (250, 250, 252),
        (250, 160, 50),
        (36, 70, 134),
        1.22,
        (30, 40, 70),
        "wings",
    ),
    "frog": Build(
        ("a green frog", "a bright green frog"),
        (40, 160, 88),
        (32, 134, 74),
        (234, 246, 196),
        (26, 112, 62),
        (40, 160, 88),
        1.05,
        (20, 62, 40),
    ),
    "owl": Build(
        ("a purple owl", "a fluffy purple owl"),
        (138, 100, 184),
        (112, 78, 158),
        (226, 206, 240),
        (246, 180, 60),
        (112, 78, 158),
        1.2,
        (64, 40, 88),
        "wings",
    ),
    "robot": Build(
        ("a silver robot", "a silver robot with an antenna"),
        (188, 198, 210),
        (134, 146, 162),
        None,
        (94, 104, 122),
        (94, 104, 122),
        1.05,
        (120, 240, 250),
    ),
    "girl": Build(
        ("a girl with pink hair", "a little girl with pink hair"),
        (72, 176, 178),
        (255, 216, 190),
        None,
        (120, 74, 90),
        (255, 216, 190),
        0.86,
        (110, 56, 60),
    ),
}
