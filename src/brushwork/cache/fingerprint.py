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


def latent_key(digest: str, placement: Sequence[Sequence[int]], background: str, encoder: str) -> str:
    """The entry of one picture in one frame.

    Args:
        digest: SHA-256 of the picture file's bytes.
        placement: original size, size after scaling, corner of the crop, target size (`data.transform.Placement`).
        encoder: fingerprint of the VAE, with the precision that it computes in.
    """
    colour = ImageColor.getrgb(background)[:3]  # `white` and `#ffffff` are one background
    return _digest("latents", digest, [list(pair) for pair in placement], colour, encoder)


def text_key(caption: str, encoder: str) -> str:
    """The entry of one caption.

    Args:
        caption: the text as it is encoded, prefix and suffix included.
        encoder: fingerprint of the text encoders, with clip_skip, max_tokens and the precision that they compute in.
    """
    return _digest("text", caption, encoder)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps([SCHEMA, *facts]).encode()).hexdigest()
