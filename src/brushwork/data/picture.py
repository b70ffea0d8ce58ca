"""A picture file becomes upright 8-bit sRGB, or a reason why it cannot."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from brushwork.data.source import Source
from brushwork.errors import UserError

READABLE = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
"""Endings that are taken for pictures, in lower case. Of an animation the first frame is used."""

UNREADABLE = frozenset({".heic", ".heif", ".jxl", ".psd", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng"})
"""Pictures that Pillow does not open: listed in the quarantine, so that nobody wonders where they went."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I"}) | {
    f"I;16{order}" for order in ("", "L", "B", "N")
}


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


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright picture, in Pillow's order."""


def open_rgb(source: Source | bytes, *, background: str, max_pixels: int, crop: Box | None = None) -> Image.Image:
    """Decode the whole picture: turned as its EXIF says, 8-bit sRGB, transparent parts laid on `background`.

    Args:
        source: the file, or the bytes of one.
        crop: the part that is wanted.

    Raises:
        BadPictureError: empty, truncated, not a picture, more than `max_pixels`, or of a mode without a known white.
    """
    colour = parse_colour(background)
    return _flatten(_upright(source, max_pixels, crop), colour)


def cropped_png(data: bytes, crop: Box, *, max_pixels: int) -> bytes:
    """A part of a picture as a file of its own: upright, 8-bit sRGB, its transparency kept, no pixel changed."""
    image = _upright(data, max_pixels, crop)
    written = io.BytesIO()
    image.convert("RGBA" if image.has_transparency_data else "RGB").save(written, format="PNG")
    return written.getvalue()


def _upright(source: Source | bytes, max_pixels: int, crop: Box | None) -> Image.Image:
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise BadPictureError(error.strerror or str(error)) from error
    if not data:
        raise BadPictureError("the file is empty")
    image = _decode(data, max_pixels)
    if image.mode not in _MODES:
        raise BadPictureError(f"pixels of the kind {image.mode!r}: what is white in them is not known")
    image = _to_srgb(_to_8_bit(image))
    return image if crop is None else image.crop(crop)


def has_alpha(data: bytes) -> bool:
    """Whether a picture file says of its pixels how much they cover; only its header is read."""
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            return image.has_transparency_data
    except OSError:
        return False


def open_alpha(data: bytes, *, max_pixels: int) -> Image.Image:
    """How much each pixel of a picture covers, upright, in one channel of 8 bits."""
    return _to_8_bit(_decode(data, max_pixels)).convert("RGBA").getchannel("A")


def _decode(data: bytes, max_pixels: int) -> Image.Image:
    """Everything that depends on what is in the file; what comes out is a picture in memory, upright."""
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return ImageOps.exif_transpose(image)
    except (BadPictureError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadPictureError(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise BadPictureError(_not_a_picture(data)) from error
    except Exception as error:  # what decoders raise on a damaged file is of a dozen types, RuntimeError among them
        raise BadPictureError(f"damaged or cut short ({' '.join(str(error).split())})") from error


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
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise BadPictureError("32-bit pixels: what is white in them is not known")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image) -> Image.Image:
    """Follow the colour profile in the file: phones write Display P3 and printers CMYK, which would train pale or
    garish colours. A profile that cannot be followed is left aside, as viewers do.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        opaque = image if image.mode in {"RGB", "CMYK", "L"} else image.convert("L" if image.mode == "LA" else "RGB")
        converted = ImageCms.profileToProfile(opaque, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    assert converted is not None  # only a conversion in place gives nothing
    converted.info.pop("transparency", None)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _flatten(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, image).convert("RGB")
