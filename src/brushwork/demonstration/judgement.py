"""Whether a picture shows what its prompt asked for: the scorer's answers, and how many of them are yes."""

from collections.abc import Sequence

from PIL import Image

from brushwork.film.scene import Scene
from brushwork.film.scorer import Scorer, as_pictures, judge

QUESTIONS: dict[str, tuple[str, ...]] = {
    "character": ("character",),
    "place": ("place",),
    "camera": ("camera",),
    "clothes": ("outfit", "headwear"),
}
"""What is asked of a picture, and which attributes of the scene have to be right for a yes."""

Answers = dict[str, bool]
"""To each question."""


def answers(scorer: Scorer, scenes: Sequence[Scene], images: Sequence[Image.Image]) -> list[Answers]:
    """For each picture, what of its scene the scorer finds in it."""
    return [
        {question: all(seen[name] == getattr(scene, name) for name in names) for question, names in QUESTIONS.items()}
        for seen, scene in zip(judge(scorer, as_pictures(images)), scenes, strict=True)
    ]


def count(answered: Sequence[Answers]) -> dict[str, int]:
    """How many pictures have a yes to each question, and how many to all of them; `of` is how many there are."""
    counts = {question: sum(each[question] for each in answered) for question in QUESTIONS}
    return {**counts, "all": sum(all(each.values()) for each in answered), "of": len(answered)}
