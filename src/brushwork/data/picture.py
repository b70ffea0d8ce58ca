"""A picture file becomes upright 8-bit RGB, or a reason why it cannot."""

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from brushwork.errors import UserError

READABLE = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
"""Endings that are taken for pictures, in lower case. Of an animation the first frame is used."""

UNREADABLE = frozenset({".heic", ".heif", ".jxl", ".psd", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng"})
"""Pictures that Pillow does not open: listed in the quarantine, so that nobody wonders where they went."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


class BadPictureError(Exception):
    """A picture that cannot be used; the text says why."""


def parse_colour(name: str) -> tuple[int, int, int]:
    """`white` or `#ffffff` -> (255, 255, 255)"""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UserError(
            f"data.background: {name!r} is not a colour.", fix="--set data.background=white, or '#rrggbb'"
        ) from error


def open_rgb(source: Path | bytes, *, background: str, max_pixels: int) -> Image.Image:
    """Decode the whole picture: turned as its EXIF says, 8-bit RGB, transparent parts laid on `background`.

    Args:
        source: the file, or the bytes of one.

    Raises:
        BadPictureError: empty, truncated, not a picture, more than `max_pixels`, or of a mode without a known white.
    """
    colour = parse_colour(background)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise BadPictureError(error.strerror or str(error)) from error
    if not data:
        raise BadPictureError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return _flatten(_to_8_bit(ImageOps.exif_transpose(image)), colour)
    except Image.DecompressionBombError as error:
        raise BadPictureError(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise BadPictureError(_not_a_picture(data)) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        ArithmeticError,
        struct.error,
    ) as error:
        # What Pillow's decoders raise on a damaged file is not one type.
        raise BadPictureError(str(error) or type(error).__name__) from error


@cache
def _formats() -> tuple[str, ...]:
    """Named one by one, because Pillow would also open formats that run a program (EPS starts Ghostscript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Before anything is decoded: the size stands in the file's header."""
    width, height = size
    if width * height > max_pixels:
        raise BadPictureError(f"too many pixels: {width} x {height} is more than data.max_pixels = {max_pixels}")


def _not_a_picture(data: bytes) -> str:
    start = data[:512]
    if b"\0" not in start and start.isascii():
        return "not a picture: the file holds text"
    return "not a picture that Pillow knows"


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey pictures of 16 bits are scaled; Pillow alone would clip everything above 255 to white."""
    if image.mode == "F":
        raise BadPictureError("floating-point pixels: what is white in them is not known")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise BadPictureError("32-bit pixels: what is white in them is not known")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _flatten(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, image).convert("RGB")
