"""Masks: which parts of a picture count. White counts, black does not, grey counts in part.

They lie in a folder of their own under the pictures' names (`data.masks = "DIR"`, as kohya has it), beside the
pictures as `NAME.mask.png` or `NAME-masklabel.png` (`"beside"`), or are the pictures' transparency (`"alpha"`).

Shapes in this file:  H, W height and width of the target   h, w those of its latents, an eighth
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brushwork.config.schema import DataConfig
from brushwork.data.layout import counted
from brushwork.data.mask_files import ALPHA, BESIDE, MASK_ENDINGS
from brushwork.data.picture import READABLE, BadPictureError, has_alpha, open_alpha, open_rgb
from brushwork.data.source import Source
from brushwork.data.transform import Placement
from brushwork.errors import UserError, listed

if TYPE_CHECKING:
    from brushwork.data.folder import Dataset, Sample

_LATENT = 8
"""Pixels to a side of a latent."""
_SHAPE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Mask:
    """Where the mask of a picture comes from."""

    path: Path | None
    """A picture file, whose red counts; None where it is the picture's own transparency."""
    digest: str
    """SHA-256 of the file that holds it."""
    part: tuple[float, float, float, float] | None = None
    """The part that belongs to a picture of which a part is used: left, top, right, bottom as shares of the whole."""

    @property
    def content(self) -> str:
        """A digest of what counts: the file's, and another one for each part of it."""
        if self.part is None:
            return self.digest
        return hashlib.sha256(f"{self.digest} {self.part}".encode()).hexdigest()


def give_masks(dataset: Dataset, data: DataConfig) -> Dataset:
    """The samples with their masks, each looked at: that it is there, is a picture, and has the picture's shape.

    Raises:
        UserError: more than `data.max_missing_masks` of the pictures have none, or a mask has another shape.
    """
    if data.masks is None:
        return dataset
    if data.masks not in (ALPHA, BESIDE) and not Path(data.masks).expanduser().is_dir():
        raise UserError(
            f"data.masks: there is no folder {data.masks}.", fix="name the folder of the masks, or alpha, or beside"
        )
    samples = [replace(sample, mask=_mask_of(sample, data)) for sample in dataset.samples]
    missing = [sample.name for sample in samples if sample.mask is None]
    if len(missing) > data.max_missing_masks * len(samples):
        what = {ALPHA: "no transparency", BESIDE: "no mask beside them"}.get(data.masks, f"no mask in {data.masks}")
        raise UserError(
            f"{dataset.root}: {len(missing)} of {len(samples)} pictures have {what}: {listed(missing)}. The largest "
            f"share is {data.max_missing_masks:g} (data.max_missing_masks).",
            fix="add them (all white where everything counts), or --set data.max_missing_masks=1 lets these pictures "
            "count as a whole",
        )
    notes = dataset.notes
    if missing:
        notes = (*notes, counted("pictures without a mask, which count as a whole", missing))
    return replace(dataset, samples=tuple(samples), notes=notes)


def render_mask(mask: Mask, picture: bytes, placement: Placement, *, max_pixels: int) -> Tensor:
    """How much each latent counts (1, h, w), from 0 to 1: the mean of the mask over its pixels.

    Args:
        picture: the bytes of the picture's own file.
    """
    image = _opened(mask, picture, max_pixels).convert("F")
    if placement.flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top, right, bottom = _part(mask, image.size, flipped=placement.flipped)
    across = (right - left) / placement.resized.width
    down = (bottom - top) / placement.resized.height
    box = (
        left + placement.crop.left * across,
        top + placement.crop.top * down,
        min(left + (placement.crop.left + placement.target.width) * across, right),
        min(top + (placement.crop.top + placement.target.height) * down, bottom),
    )
    size = (placement.target.width // _LATENT, placement.target.height // _LATENT)
    values = np.array(image.resize(size, Image.Resampling.BOX, box=box), dtype=np.float32)
    return torch.from_numpy(values).div(255.0).clamp(0.0, 1.0)[None]


def _part(mask: Mask, size: tuple[int, int], *, flipped: bool) -> tuple[float, float, float, float]:
    """The part of the mask that belongs to the picture, in its own pixels; left and right exchanged, if they are."""
    left, top, right, bottom = mask.part or (0.0, 0.0, 1.0, 1.0)
    if flipped:
        left, right = 1 - right, 1 - left
    width, height = size
    return left * width, top * height, right * width, bottom * height


def _opened(mask: Mask, picture: bytes, max_pixels: int) -> Image.Image:
    """The mask as one channel of 8 bits."""
    if mask.path is None:
        return open_alpha(picture, max_pixels=max_pixels)
    data = mask.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != mask.digest:
        raise UserError(f"{mask.path}: the file changed after it was read.", fix="run the same command again")
    return open_rgb(data, background="black", max_pixels=max_pixels).getchannel("R")


def _mask_of(sample: Sample, data: DataConfig) -> Mask | None:
    if data.masks == ALPHA:
        picture = sample.path.read_bytes()
        if not has_alpha(picture):
            return None
        _refuse_black(open_alpha(picture, max_pixels=data.max_pixels), sample.path, "transparent")
        return Mask(None, sample.digest, _share(sample))
    if not isinstance(sample.path, Path):
        raise UserError(
            f"data.masks = {data.masks}: {sample.path} is no file of its own, so no mask lies beside it.",
            fix="--set data.masks=alpha takes the pictures' transparency; or unpack them into a folder",
        )
    path = next((each for each in _places(sample.path, sample.name, data) if each.is_file()), None)
    if path is None:
        return None
    content = path.read_bytes()
    try:
        red = open_rgb(content, background="black", max_pixels=data.max_pixels).getchannel("R")
    except BadPictureError as error:
        raise UserError(f"{path}: this mask cannot be used: {error}.", fix="write it anew, or remove it") from error
    width, height = red.size
    whole = (sample.width, sample.height) if sample.crop is None else sample.crop.whole
    if abs(width * whole[1] / (height * whole[0]) - 1) > _SHAPE_TOLERANCE:
        raise UserError(
            f"{path}: the mask is {width} x {height} and the picture {whole[0]} x {whole[1]}, which is "
            "another shape. A mask of the same shape may have any size.",
            fix="make the mask of the picture as it is, turned and uncut",
        )
    _refuse_black(red, path, "black")
    return Mask(path, hashlib.sha256(content).hexdigest(), _share(sample))


def _share(sample: Sample) -> tuple[float, float, float, float] | None:
    """Which part of its file a picture is."""
    if sample.crop is None:
        return None
    (left, top, right, bottom), (width, height) = sample.crop
    return left / width, top / height, right / width, bottom / height


def _refuse_black(mask: Image.Image, path: Source, what: str) -> None:
    if mask.getextrema()[1] == 0:
        raise UserError(
            f"{path} is {what} all over, so nothing of the picture would count.",
            fix="take the picture out, or mark in white what counts",
        )


def _places(picture: Path, name: str, data: DataConfig) -> Iterator[Path]:
    """Where a picture's mask may lie, the first that is there counting."""
    endings = sorted(READABLE, key=lambda ending: (ending != ".png", ending))
    if data.masks == BESIDE:
        for mark in MASK_ENDINGS:
            yield from (picture.with_name(f"{picture.stem}{mark}{ending}") for ending in endings)
        return
    folder = Path(str(data.masks)).expanduser()
    below = Path(name)
    for place in dict.fromkeys([folder / below.parent, folder]):
        for stem in (below.stem, *(below.stem + mark for mark in MASK_ENDINGS)):
            yield from (place / f"{stem}{ending}" for ending in endings)
