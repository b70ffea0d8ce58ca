"""Taggers in the layout of SmilingWolf's WD14 repositories: `model.onnx` beside `selected_tags.csv`.

They say which of some ten thousand tags a picture shows, each with how likely it is. The `tags` extra, ONNX Runtime,
is imported here alone.

Shapes in this file:  B pictures   S side of the network's input   T tags
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from PIL import Image

from brushwork.captioning.captioner import Asked, Reply
from brushwork.config.schema import CaptioningConfig
from brushwork.errors import UserError

MODEL, TAGS = "model.onnx", "selected_tags.csv"

GENERAL, CHARACTER, RATING = 0, 4, 9
"""`category` in selected_tags.csv, as Danbooru numbers them."""

KAOMOJI = frozenset(
    [
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@"),
        *("^_^", "o_o", "u_u", "x_x", "|_|", "||_||"),
    ]
)
"""Faces out of letters: tags whose underscore is a mouth and no space."""

Numbers = npt.NDArray[np.float32]


class Tag(NamedTuple):
    """One of the tags that a network knows."""

    words: str
    category: int


def is_tagger(folder: Path) -> bool:
    """Whether a folder holds such a tagger."""
    return (folder / TAGS).is_file() and (folder / MODEL).is_file()


def read_tags(path: Path) -> list[Tag]:
    """`tag_id,name,category,count`, one for each of the network's outputs: T tags in that order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [Tag(_words(row["name"]), int(row["category"])) for row in rows]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is no list of tags: {error!r}; columns name and category were expected.",
            fix=f"fetch {TAGS} again from where the model was published",
        ) from error


def _words(name: str) -> str:
    return name if name in KAOMOJI else name.replace("_", " ")


@final
class Tagger:
    """A tagger, ready to be asked. It takes no questions: what it answers is the description.

    Args:
        name: what the person called it.
        settings: the thresholds, and whether ratings are told.
    """

    takes_questions = False
    num_workers = 1

    def __init__(self, name: str, folder: Path, settings: CaptioningConfig, *, on_card: bool) -> None:
        self.name = name
        self.settings = settings
        self.tags = read_tags(folder / TAGS)
        self._session = _open(folder / MODEL, on_card=on_card)
        self._input = self._session.get_inputs()[0]
        self.side, self.batch_size = _sizes(self._input.shape, folder, settings.batch_size)
        self._check(folder)

    def prepare(self, picture: Image.Image) -> Numbers:
        """As these networks were trained: white around it to a square, BGR, numbers from 0 to 255: -> (S, S, 3)"""
        picture = picture.convert("RGB")
        longer = max(picture.size)
        square = Image.new("RGB", (longer, longer), "white")
        square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
        square = square.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(square, dtype=np.float32)[:, :, ::-1])

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """The tags of each picture, the likeliest first, characters before all others."""
        likely = []
        for start in range(0, len(asked), self.batch_size):
            some = np.stack([each.picture for each in asked[start : start + self.batch_size]])
            likely += list(self._session.run(None, {self._input.name: some})[0])
        return [self._told(row) for row in likely]

    def _told(self, likely: Numbers) -> Reply:
        """(T,) -> the tags of a picture, or why it has none: the same network would say the same again"""
        if tags := self.chosen(likely):
            return Reply(", ".join(tags))
        limit = f"{self.settings.tag_threshold:g} (captioning.tag_threshold)"
        general = zip(self.tags, likely, strict=True)
        best = max(((float(value), tag.words) for tag, value in general if tag.category == GENERAL), default=None)
        near = "" if best is None else f"; the likeliest is {best[1]!r} with {best[0]:.2f}"
        return Reply("", silent=f"no tag is as likely as {limit} asks{near}")

    def chosen(self, likely: Numbers) -> list[str]:
        """(T,) how likely each tag is -> those that are likely enough"""
        limits = {GENERAL: self.settings.tag_threshold, CHARACTER: self.settings.character_tag_threshold}
        first = (CHARACTER, GENERAL)
        found = [
            (first.index(tag.category), -float(value), tag.words)
            for tag, value in zip(self.tags, likely, strict=True)
            if tag.category in limits and value >= limits[tag.category]
        ]
        words = [tag for _, _, tag in sorted(found)]
        ratings = [
            (float(value), tag.words) for tag, value in zip(self.tags, likely, strict=True) if tag.category == RATING
        ]
        return [*words, f"rating {max(ratings)[1]}"] if self.settings.rating_tag and ratings else words

    def stop(self) -> None:
        """There is nothing to end: whoever asks waits."""

    def _check(self, folder: Path) -> None:
        """The list of tags belongs to the network."""
        blank = np.zeros((1, self.side, self.side, 3), dtype=np.float32)
        found = self._session.run(None, {self._input.name: blank})[0].shape
        if found != (1, len(self.tags)):
            raise UserError(
                f"{folder}: {TAGS} lists {len(self.tags)} tags, {MODEL} answers with {found[-1]} numbers.",
                fix="fetch both files again, from one repository",
            )


def _open(model: Path, *, on_card: bool) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "taggers need ONNX Runtime, which is not installed.", fix="pip install 'brushwork[tags]'"
        ) from error
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] * on_card + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(model), providers=[each for each in wanted if each in there])
    except Exception as error:  # what the runtime raises on a damaged file is of a dozen types of its own
        raise UserError(
            f"{model} cannot be read: {str(error).partition(chr(10))[0]}", fix="fetch the model again, as a whole"
        ) from error


def _sizes(shape: Sequence[object], folder: Path, batch_size: int) -> tuple[int, int]:
    """The side of the pictures that the network takes, and how many at once."""
    if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        raise UserError(
            f"{folder / MODEL} takes {list(shape)}; pictures (batch, side, side, 3) were expected.",
            fix="take a tagger in the layout of SmilingWolf's, such as SmilingWolf/wd-vit-tagger-v3",
        )
    return shape[1], min(shape[0], batch_size) if isinstance(shape[0], int) else batch_size
