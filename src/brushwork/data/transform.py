"""Where a picture lies in the training frame, and the tensor that comes of it.

A `Placement` is computed from sizes alone, so that a run is planned, and its cache looked up, without opening a
picture. `buckets.py` chooses the target, `place` does the rest.

Shapes in this file:  H, W height and width of the target
"""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Size(NamedTuple):
    """Width and height in pixels, in Pillow's order."""

    width: int
    height: int


class Corner(NamedTuple):
    """The upper left corner of a crop, in pixels."""

    left: int
    top: int


class Placement(NamedTuple):
    """From picture to tensor: mirrored if so, scaled to `resized`, then `target` is cut out of it at `crop`."""

    original: Size
    resized: Size
    crop: Corner
    target: Size
    flipped: bool = False
    """Whether left and right change places first."""

    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """SDXL's conditioning: original height, width; top, left of the crop; target height, width."""
        return (
            self.original.height,
            self.original.width,
            self.crop.top,
            self.crop.left,
            self.target.height,
            self.target.width,
        )

    @property
    def cut_share(self) -> float:
        """How much of the picture lies outside the frame, from 0 to 1."""
        return 1 - self.target.width * self.target.height / (self.resized.width * self.resized.height)

    @property
    def enlargement(self) -> float:
        """By how much the picture was scaled: above 1 it has fewer pixels than the frame asks for."""
        return max(self.resized.width / self.original.width, self.resized.height / self.original.height)


def place(original: Size, target: Size) -> Placement:
    """The smallest picture of the original's shape that covers the target; the target is its centre.

    Sizes and corners are rounded as diffusers' SDXL training script does it, so the conditioning is the one that
    other people's adapters are trained with.
    """
    width, height = original
    if width * target.height < height * target.width:  # narrower than the target: the width decides
        resized = Size(target.width, height * target.width // width)
    else:
        resized = Size(width * target.height // height, target.height)
    left = round((resized.width - target.width) / 2)
    top = round((resized.height - target.height) / 2)
    return Placement(original, resized, Corner(left, top), target)


def mirrored(placement: Placement) -> Placement:
    """The same part of the picture, left and right exchanged."""
    left = placement.resized.width - placement.target.width - placement.crop.left
    return placement._replace(crop=Corner(left, placement.crop.top), flipped=not placement.flipped)


def spread(placement: Placement, count: int) -> tuple[Placement, ...]:
    """At most `count` positions of the frame, evenly from one end of the picture to the other; that nearest to the
    centre is the first. Where nothing is cut off there is one."""
    right = placement.resized.width - placement.target.width
    bottom = placement.resized.height - placement.target.height
    shares = [number / (count - 1) for number in range(count)] if count > 1 else [0.5]
    corners = [Corner(round(share * right), round(share * bottom)) for share in sorted(shares, key=_from_centre)]
    return tuple(placement._replace(crop=corner) for corner in dict.fromkeys(corners))


def _from_centre(share: float) -> float:
    return abs(share - 0.5)


def render(image: Image.Image, placement: Placement) -> Tensor:
    """An RGB picture of size `placement.original` -> (3, H, W) in [-1, 1], float32

    Lanczos, whose filter widens with the reduction, so fine patterns do not turn into moire. Only the part that is
    kept is computed: a strip of 10,000 x 10 pixels would otherwise be scaled to a million pixels in width.
    """
    if image.size != tuple(placement.original):
        raise ValueError(f"the placement is for {tuple(placement.original)}, the picture is {image.size}")
    if placement.flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    across = placement.original.width / placement.resized.width
    down = placement.original.height / placement.resized.height
    box = (
        placement.crop.left * across,
        placement.crop.top * down,
        min((placement.crop.left + placement.target.width) * across, placement.original.width),
        min((placement.crop.top + placement.target.height) * down, placement.original.height),
    )
    cut = image.resize(placement.target, Image.Resampling.LANCZOS, box=box)
    pixels = torch.from_numpy(np.array(cut))  # (H, W, 3)
    return pixels.permute(2, 0, 1).float().div(127.5).sub(1.0).contiguous()
