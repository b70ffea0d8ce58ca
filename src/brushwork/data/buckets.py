"""Which frame a picture is trained in: a list of sizes of about one area, and the choice among them by shape.

Pictures of one size share a batch. A picture keeps nearly its own shape, so little is cut off, and pixels in all
frames are about as many, so a step costs about the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from brushwork.config.schema import BucketsConfig
from brushwork.data.transform import Placement, Size, place
from brushwork.errors import UserError

USUAL_STEP = 64
"""Sides are multiples of this."""

SDXL_RESOLUTION = 1024

_SDXL_HEIGHTS = {
    512: (1856, 1920, 1984, 2048),
    576: (1664, 1728, 1792),
    640: (1536, 1600),
    704: (1408, 1472),
    768: (1280, 1344),
    832: (1152, 1216),
    896: (1088, 1152),
    960: (1024, 1088),
}
SDXL_SIZES = tuple(
    sorted(
        {Size(1024, 1024), Size(1344, 704)}
        | {Size(short, long) for short, longs in _SDXL_HEIGHTS.items() for long in longs}
        | {Size(long, short) for short, longs in _SDXL_HEIGHTS.items() for long in longs}
    )
)
"""The 40 sizes that SDXL itself was trained in (arXiv:2307.01952, appendix I); 704 x 1344 has no upright twin."""


@dataclass(frozen=True)
class Buckets:
    """The sizes of a run, and the rule that gives each picture one of them."""

    sizes: tuple[Size, ...]
    """Sorted. With `no_upscale` they are not a list but follow from each picture."""
    step: int
    area: int
    no_upscale: bool = False

    def choose(self, original: Size) -> Size:
        """The size that a picture of size `original` is trained in."""
        if self.no_upscale:
            return size_without_upscaling(original, area=self.area, step=self.step)
        aspect = original.width / original.height
        return min(self.sizes, key=lambda size: (abs(size.width / size.height - aspect), size != original))

    def place(self, original: Size) -> Placement:
        """Where the picture lies in its frame."""
        return place(original, self.choose(original))


def make_buckets(config: BucketsConfig, *, resolution: int, family: str) -> Buckets:
    """The sizes that the settings ask for; one square where buckets are off.

    Raises:
        UserError: the limits leave no size.
    """
    area = resolution * resolution
    if not config.enabled:
        return Buckets((Size(resolution, resolution),), step=resolution, area=area)
    if is_sdxl_list(config, resolution=resolution, family=family):
        return Buckets(_sdxl_sizes(config), step=USUAL_STEP, area=area)
    step = config.step or min(USUAL_STEP, max(8, resolution // 8 // 8 * 8))
    if step > resolution:
        raise UserError(
            f"buckets.step = {step} is more than data.resolution = {resolution}: no frame has room.",
            fix=f"--set buckets.step={min(USUAL_STEP, resolution // 2)}",
        )
    if config.no_upscale:
        return Buckets((), step=step, area=area, no_upscale=True)
    low, high = _limits(config, resolution, step)
    return Buckets(grid(area, min_side=low, max_side=high, step=step), step=step, area=area)


def is_sdxl_list(config: BucketsConfig, *, resolution: int, family: str) -> bool:
    """Whether SDXL's own sizes are taken; `auto` leaves them for the grid as soon as anything of the grid is set."""
    if config.sizes == "sdxl":
        if config.step is not None or config.no_upscale:
            raise UserError(
                "buckets.sizes = sdxl is a fixed list, and buckets.step or buckets.no_upscale asks for others.",
                fix="--set buckets.sizes=grid",
            )
        if resolution != SDXL_RESOLUTION:
            raise UserError(
                f"buckets.sizes = sdxl is for 1024 x 1024 pixels, and data.resolution is {resolution}.",
                fix="--set buckets.sizes=grid, or --set data.resolution=1024",
            )
        return True
    plain = (config.min_side, config.max_side, config.step, config.no_upscale) == (None, None, None, False)
    return config.sizes == "auto" and plain and family == "sdxl" and resolution == SDXL_RESOLUTION


def grid(area: int, *, min_side: int, max_side: int, step: int) -> tuple[Size, ...]:
    """Every width from `min_side` to `max_side` by `step` with the largest height that keeps the area, and the same
    turned; and the square. These are kohya's sizes."""
    square = math.isqrt(area) // step * step
    sizes = {Size(square, square)}
    for width in range(min_side, max_side + 1, step):
        height = min(max_side, area // width // step * step)
        if height >= min_side:
            sizes |= {Size(width, height), Size(height, width)}
    return tuple(sorted(sizes))


def size_without_upscaling(original: Size, *, area: int, step: int) -> Size:
    """kohya's rule for pictures that must not be enlarged: those beyond the area are shrunk to it, along the side
    that keeps their shape better; then each side goes down to a multiple of `step`.

    A side shorter than one step cannot be kept: it becomes one step, and the picture is enlarged after all.
    """
    width, height = original
    if width * height > area:
        aspect = width / height
        wanted = math.sqrt(area * aspect)
        by_width = _down(wanted, step)
        by_height = _down(area / wanted, step)
        error_by_width = _aspect_error(by_width, _down(by_width / aspect, step), aspect)
        error_by_height = _aspect_error(_down(by_height * aspect, step), by_height, aspect)
        if error_by_width < error_by_height:
            width, height = by_width, int(by_width / aspect + 0.5)
        else:
            width, height = int(by_height * aspect + 0.5), by_height
    return Size(max(step, width - width % step), max(step, height - height % step))


def _down(length: float, step: int) -> int:
    whole = int(length + 0.5)
    return whole - whole % step


def _aspect_error(width: int, height: int, aspect: float) -> float:
    return abs(width / height - aspect) if width and height else math.inf


def _limits(config: BucketsConfig, resolution: int, step: int) -> tuple[int, int]:
    """The shortest and the longest side, rounded outwards to the step."""
    low = resolution // 2 if config.min_side is None else config.min_side
    high = 2 * resolution if config.max_side is None else config.max_side
    if low > resolution or high < resolution:
        key, value, word = ("min_side", low, "more") if low > resolution else ("max_side", high, "less")
        raise UserError(
            f"buckets.{key} = {value} is {word} than data.resolution = {resolution}: with these limits no frame has "
            f"the area of {resolution} x {resolution} pixels, so no picture has a place.",
            fix=f"--set buckets.{key}=off, or a data.resolution of {value}",
        )
    return max(step, low - low % step), -(-high // step) * step


def _sdxl_sizes(config: BucketsConfig) -> tuple[Size, ...]:
    """SDXL's sizes within the limits."""
    low, high = config.min_side or 0, config.max_side or math.inf
    sizes = tuple(size for size in SDXL_SIZES if min(size) >= low and max(size) <= high)
    if not sizes:
        raise UserError(
            f"no size of SDXL has sides from {low} to {high:g} (buckets.min_side, buckets.max_side).",
            fix="--set buckets.min_side=off --set buckets.max_side=off",
        )
    return sizes


def sizes_in_words(buckets: Buckets, chosen: Sequence[Size]) -> str:
    """`5 of 33 sizes, 256 to 1024 pixels by 64`"""
    used = len(set(chosen))
    if buckets.no_upscale:
        return f"{used} sizes by steps of {buckets.step}, nothing enlarged"
    if len(buckets.sizes) == 1:
        return f"{buckets.sizes[0].width} x {buckets.sizes[0].height}, the centre of each picture"
    sides = [side for size in buckets.sizes for side in size]
    return f"{used} of {len(buckets.sizes)} sizes with sides from {min(sides)} to {max(sides)}"
