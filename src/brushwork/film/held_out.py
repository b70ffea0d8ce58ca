"""Which combinations the bundled model never sees, so that it can be asked for them: about one scene in ten."""

from brushwork.film.scene import Character, Scene

HELD_OUT: dict[Character, dict[str, str]] = {
    "fox": {"place": "castle"},
    "bear": {"place": "desert"},
    "rabbit": {"outfit": "blue dungarees", "headwear": "golden crown"},
    "cat": {"place": "forest"},
    "penguin": {"outfit": "red raincoat", "headwear": "straw hat"},
    "frog": {"place": "room"},
    "owl": {"outfit": "striped sweater", "headwear": "red cap"},
    "robot": {"place": "beach"},
    "girl": {"outfit": "green cape", "headwear": "wizard hat"},
}
"""Of each character, where it never is or what it never wears. Everything else about such a scene may be combined
elsewhere: the model knows bears, and it knows deserts."""


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that is kept from training."""
    return any(getattr(scene, name) == value for name, value in HELD_OUT[scene.character].items())
