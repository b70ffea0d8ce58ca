"""Spoiling frames as a real film does, and saying what was done.

Whole numbers all through, so that a spoiled frame, too, is the same on every machine; JPEG's own rounding is the
one exception.

Shapes in this file:  H, W the picture's height and width
"""

import io
import random
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from brushwork.film.canvas import OVERSAMPLING
from brushwork.film.lettering import draw_line
from brushwork.film.styles import noise

Spoil = Literal[
    "motion blur",
    "defocus",
    "black",
    "dark",
    "over-bright",
    "flat",
    "occluded",
    "low resolution",
    "compression",
    "noise",
    "letterbox",
    "subtitles",
]
SPOILS: tuple[Spoil, ...] = get_args(Spoil)
"""In an order that does not change."""

Box = tuple[int, int, int, int]
Truth = dict[str, Any]
Whole = npt.NDArray[np.int32]  # (H, W, 3)

SUBTITLES = (
    "WHERE ARE YOU GOING?",
    "I THINK IT WILL RAIN.",
    "LOOK, OVER THERE!",
    "WE SHOULD GO HOME.",
    "NO ONE KNOWS.",
    "IT WAS HERE ALL ALONG!",
)


def spoil(image: Image.Image, kind: Spoil, *, seed: int, box: Box | None = None) -> tuple[Image.Image, Truth]:
    """The spoiled picture, and what was done: `{"kind": ..., and by how much}`.

    Args:
        seed: chooses how much, which way and where.
        box: where the character is: left, top, right, bottom; for what is to be hidden.
    """
    draw = random.Random(f"film/spoil/{kind}/{seed}")
    if kind == "occluded":
        spoiled, truth = _occlude(image, draw, box or (0, 0, *image.size))
    else:
        spoiled, truth = _WAYS[kind](image, draw)
    return spoiled, {"kind": kind, **truth}


def dissolve(image: Image.Image, other: Image.Image, share: int) -> Image.Image:
    """One shot going over into the next: `share` of 256 is the other picture."""
    return _picture((_pixels(image) * (256 - share) + _pixels(other) * share) // 256)


def _pixels(image: Image.Image) -> Whole:
    return np.asarray(image, dtype=np.int32)


def _picture(pixels: Whole) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _motion_blur(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    """The mean of the picture moved along a line."""
    dx, dy = draw.choice([(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (-1, 2), (-1, 1), (-2, 1)])
    length = max(3, min(image.size) * draw.randint(7, 12) // 128)
    pixels = _pixels(image)
    reach = length + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = pixels.shape[:2]
    total = np.zeros_like(pixels)
    for step in range(length):
        x, y = (reach + (step - length // 2) * d // 2 for d in (dx, dy))
        total += padded[y : y + height, x : x + width]
    return _picture(total // length), {"length": length, "direction": [dx, dy]}


def _defocus(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    radius = max(1, min(image.size) * draw.randint(2, 3) // 128)
    for _ in range(2):
        image = image.filter(ImageFilter.BoxBlur(radius))
    return image, {"radius": radius}


def _black(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    share = draw.choice((0, 0, 6, 12))  # of 256: how much of the picture is left
    return _picture(_pixels(image) * share // 256), {"light": share}


def _dark(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    share = draw.randint(26, 52)
    return _picture(_pixels(image) * share // 256), {"light": share}


def _over_bright(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    gain, lift = draw.randint(400, 640), draw.randint(50, 110)
    return _picture(_pixels(image) * gain // 256 + lift), {"gain": gain, "lift": lift}


def _flat(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    """A frame of nearly one colour: a fade, a title without its letters."""
    colour = np.array([draw.randint(0, 255) for _ in range(3)], dtype=np.int32)
    slope = draw.randint(0, 24)
    pixels = np.broadcast_to(colour, (image.height, image.width, 3)).copy()
    pixels += (np.arange(image.height, dtype=np.int32) * slope // image.height)[:, None, None]
    return _picture(pixels), {"colour": colour.tolist()}


def _occlude(image: Image.Image, draw: random.Random, box: Box) -> tuple[Image.Image, Truth]:
    """Something dark and near passes before the character."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    mask = Image.new("L", (image.width * OVERSAMPLING, image.height * OVERSAMPLING))
    pen = ImageDraw.Draw(mask)
    share = draw.randint(50, 80)
    if draw.random() < 0.5:  # somebody walks through, from the left or the right
        edge = left + width * share // 100 if draw.random() < 0.5 else right - width * share // 100
        ends = (left - width, edge) if edge - left < width and draw.random() < 0.5 else (edge, right + width)
        if ends[1] - ends[0] < width * share // 100:
            ends = (left - width, edge)
        shape = [ends[0], top - height // 3, ends[1], bottom + height // 2]
    else:  # a hand, a branch, a head before the camera
        middle = left + width * draw.randint(35, 65) // 100
        half = max(1, width * share // 100)
        shape = [middle - half, bottom - height * share // 100, middle + half, bottom + height]
    pen.ellipse([value * OVERSAMPLING for value in shape], fill=255)
    mask = mask.reduce(OVERSAMPLING).filter(ImageFilter.BoxBlur(max(1, min(image.size) // 64)))
    near = Image.new("RGB", image.size, draw.choice([(34, 30, 40), (52, 40, 34), (28, 44, 38), (60, 58, 66)]))
    hidden = np.asarray(mask)[top:bottom, left:right] > 127
    covered = round(float(hidden.mean()), 3) if hidden.size else 0.0
    return Image.composite(near, image, mask), {"covered": covered}


def _low_resolution(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    factor = max(3, min(image.size) * draw.randint(4, 6) // 128)
    small = image.resize((max(1, image.width // factor), max(1, image.height // factor)), Image.Resampling.BOX)
    way = draw.choice((Image.Resampling.NEAREST, Image.Resampling.BILINEAR))
    return small.resize(image.size, way), {"factor": factor}


def _compression(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    quality = draw.randint(4, 9)
    packed = io.BytesIO()
    image.save(packed, format="JPEG", quality=quality)
    with Image.open(packed) as opened:
        return opened.convert("RGB"), {"quality": quality}


def _noise(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    strength = draw.randint(50, 90)
    grain = noise(image.width, image.height, offset=draw.randint(0, 1 << 20)) - 128  # (H, W)
    return _picture(_pixels(image) + grain[..., None] * strength // 128), {"strength": strength}


def _letterbox(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    """Black bars above and below, or at the sides."""
    upright = draw.random() < 0.25
    bar = max(2, (image.width if upright else image.height) * draw.randint(9, 15) // 100)
    pixels = np.array(image)
    if upright:
        pixels[:, :bar] = pixels[:, image.width - bar :] = 0
    else:
        pixels[:bar] = pixels[image.height - bar :] = 0
    return Image.fromarray(pixels), {"bar": bar, "side": "left and right" if upright else "top and bottom"}


def _subtitles(image: Image.Image, draw: random.Random) -> tuple[Image.Image, Truth]:
    line = draw.choice(SUBTITLES)
    return draw_line(image, line, draw.choice([(255, 255, 255), (255, 240, 110)])), {"text": line}


_WAYS: dict[Spoil, Callable[[Image.Image, random.Random], tuple[Image.Image, Truth]]] = {
    "motion blur": _motion_blur,
    "defocus": _defocus,
    "black": _black,
    "dark": _dark,
    "over-bright": _over_bright,
    "flat": _flat,
    "low resolution": _low_resolution,
    "compression": _compression,
    "noise": _noise,
    "letterbox": _letterbox,
    "subtitles": _subtitles,
}
