"""The name of a cache entry: a digest of everything that its contents follow from.

A changed picture, crop, background or encoder has another name, so old latents can never be trained on by mistake.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from PIL import ImageColor

SCHEMA = 1
"""Raised when the way from a file to its entry changes (decoding, scaling, what is kept): older entries go unused."""


def latent_key(digest: str, placement: Sequence[Any], background: str, encoder: str) -> str:
    """The entry of one picture in one frame.

    Args:
        digest: SHA-256 of the picture file's bytes, or of them and the part that is used.
        placement: original size, size after scaling, corner of the crop, target size, whether left and right change
            places (`data.transform.Placement`).
        encoder: fingerprint of the VAE, with the precision that it computes in.
    """
    colour = ImageColor.getrgb(background)[:3]  # `white` and `#ffffff` are one background
    return _digest("latents", digest, *_frame(placement), colour, encoder)


def mask_key(digest: str, placement: Sequence[Any], *, own: bool) -> str:
    """The entry of one mask in one frame.

    Args:
        digest: SHA-256 of the bytes of the file that holds it, or of them and the part that is used.
        own: whether it is the transparency of that file, and not its red.
    """
    return _digest("mask", digest, *_frame(placement), own)


def _frame(placement: Sequence[Any]) -> list[Any]:
    """Size and place; and a word where the picture is mirrored, so that entries from before there were such fit."""
    pairs, flipped = placement[:4], placement[4:]
    return [[list(pair) for pair in pairs], *(["mirrored"] if any(flipped) else [])]


def text_key(caption: str, encoder: str) -> str:
    """The entry of one caption.

    Args:
        caption: the text as it is encoded, prefix and suffix included.
        encoder: fingerprint of the text encoders, with clip_skip, max_tokens and the precision that they compute in.
    """
    return _digest("text", caption, encoder)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps([SCHEMA, *facts]).encode()).hexdigest()
