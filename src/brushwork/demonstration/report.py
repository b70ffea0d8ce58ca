"""The demo's report: one HTML file with everything in it, that opens anywhere and needs no server."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from brushwork import __version__, pages
from brushwork.demonstration.judgement import QUESTIONS, Answers
from brushwork.demonstration.scenes import TRIGGER

QUALITY = 92
"""Of the embedded pictures: not to be told from the PNG in the folder, at a fifth of its size."""


@dataclass(frozen=True)
class Shown:
    """A prompt with its pictures by strength, and the scorer's answers to each."""

    prompt: str
    pictures: Mapping[float, Image.Image]
    answers: Mapping[float, Answers]


@dataclass(frozen=True)
class Story:
    """All that the report tells.

    Args:
        learned: caption and picture of each frame.
        figures: what was counted.
    """

    learned: Sequence[tuple[str, Image.Image]]
    asked: Sequence[Shown]
    others: Sequence[Shown]
    figures: Mapping[str, Any]
    curve: Image.Image
    num_steps: int


def render(story: Story) -> str:
    """The report as HTML; the same story is the same text."""
    return pages.render(
        "demonstration/report.html",
        {
            "story": story,
            "figures": story.figures,
            "trigger": TRIGGER,
            "questions": list(QUESTIONS),
            "summary": summary(story),
            "version": __version__,
        },
        filters={"embedded": embedded, "strength": strength_name},
    )


def summary(story: Story) -> str:
    """What is to be seen, in a sentence or two that claim no more than was counted."""
    before, after = story.figures["asked"]["0"], story.figures["asked"]["1"]
    total = after["of"]
    return (
        f"The fox is found in {before['character']} of {total} pictures before, in {after['character']} of {total} "
        f"after. With the LoRA, {after['place']} of {total} show the place that was asked for, {after['camera']} "
        f"the camera and {after['clothes']} the clothes."
    )


def strength_name(strength: float) -> str:
    """How a strength is headed: 0 is the base, 1 the LoRA as it was trained."""
    return {0.0: "0, before", 1.0: "1, after"}.get(strength, f"{strength:g}")


def embedded(image: Image.Image) -> Markup:
    """A picture as the address of itself."""
    data = io.BytesIO()
    image.save(data, format="WEBP", quality=QUALITY, method=4)
    return Markup("data:image/webp;base64,") + base64.b64encode(data.getvalue()).decode()
