"""What is asked of anything that describes pictures: a model on this machine, or servers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from brushwork.config.schema import DataConfig
from brushwork.data.layout import Layout
from brushwork.data.picture import open_rgb
from brushwork.data.reviews import refuse_foreign_crop


@dataclass(frozen=True)
class Asked:
    """One question about one picture."""

    name: str
    """The picture's, below the root of its set."""
    part: str
    """Of the caption, that the answer is for."""
    picture: Any
    """As the captioner prepared it."""
    prompt: str
    max_tokens: int
    temperature: float
    """0 takes the likeliest words."""
    seed: int
    """What draws of words follow from."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    text: str
    cut: bool = False
    """Whether it broke off because it became too long."""
    refused: bool = False
    """Whether it is marked as a refusal."""
    silent: str | None = None
    """Why it has no words, where asking once more would bring none either."""


class NoAnswerError(Exception):
    """A picture that nothing came back for; the text says why.

    Args:
        of_server: whether it is the server's fault rather than the picture's: many in a row end the run.
    """

    def __init__(self, reason: str, *, of_server: bool = False) -> None:
        super().__init__(reason)
        self.of_server = of_server


class Captioner(Protocol):
    """Whoever describes pictures."""

    name: str
    """As it stands in the records."""
    takes_questions: bool
    """Whether it can be asked anything; else it only ever describes the picture."""
    batch_size: int
    """Pictures that are best asked about together."""
    num_workers: int
    """Threads that may ask at once."""

    def prepare(self, picture: Image.Image) -> Any:
        """A picture as it is asked about."""

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """An answer to each question."""

    def stop(self) -> None:
        """Nobody wants further answers."""


def opened(layout: Layout, name: str, data: DataConfig) -> Image.Image:
    """A picture of a set as it is trained on: upright RGB, and the part of it that a review chose.

    Raises:
        BadPictureError: it cannot be decoded.
        UserError: the review's crop is of another picture.
    """
    picture = layout.pictures[name]
    whole = open_rgb(picture.path, background=data.background, max_pixels=data.max_pixels)
    if picture.crop is None:
        return whole
    refuse_foreign_crop(layout.root, name, picture.crop, *whole.size)
    return whole.crop(picture.crop)


def reduced(picture: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side has at most so many pixels; a smaller one stays as it is."""
    if max(picture.size) <= side:
        return picture
    width, height = (max(1, round(length * side / max(picture.size))) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
