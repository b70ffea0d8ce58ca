"""Masks and the ways in which a picture is shown: what is read, what counts, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from brushwork.cache.fingerprint import latent_key, mask_key
from brushwork.config.schema import DataConfig, LossConfig
from brushwork.data.folder import Dataset, read_dataset
from brushwork.data.masks import give_masks, render_mask
from brushwork.data.transform import Size, mirrored, place, render, spread
from brushwork.diffusion.weighting import masked
from brushwork.errors import UserError
from brushwork.training.feed import drawn_views


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scribble(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def read(place: Path, **data: object) -> Dataset:
    config = DataConfig.model_validate({"max_missing_captions": 1.0, **data})
    return give_masks(read_dataset(place, data=config), config)


def rendered(dataset: Dataset, size: tuple[int, int], number: int = 0, *, flip: bool = False) -> torch.Tensor:
    sample = dataset.samples[number]
    assert sample.mask is not None
    placement = place(Size(sample.width, sample.height), Size(*size))
    placement = mirrored(placement) if flip else placement
    return render_mask(sample.mask, Path(str(sample.path)).read_bytes(), placement, max_pixels=10**6)


def test_a_latent_counts_as_much_as_the_mean_of_its_part_of_the_mask(tmp_path: Path) -> None:
    mask = scribble(64, 48)
    write(tmp_path / "set" / "sub" / "0.png", scribble(64, 48, 1))
    write(tmp_path / "masks" / "sub" / "0.png", mask)

    dataset = read(tmp_path / "set", masks=str(tmp_path / "masks"))

    red = torch.from_numpy(mask[None, None, :, :, 0].astype(np.float32)) / 255
    area = F.interpolate(red, size=(6, 8), mode="area")[0]  # what kohya's trainer does
    torch.testing.assert_close(rendered(dataset, (64, 48)), area, rtol=1e-5, atol=1e-6)
    flipped = rendered(dataset, (64, 48), flip=True)
    torch.testing.assert_close(flipped, area.flip(-1), rtol=1e-5, atol=1e-6)
    middle = F.interpolate(red[..., 8:56], size=(6, 6), mode="area")[0]
    torch.testing.assert_close(rendered(dataset, (48, 48)), middle, rtol=1e-5, atol=1e-6)


def test_a_mask_of_another_size_is_scaled_and_one_of_another_shape_is_refused(tmp_path: Path) -> None:
    half = np.zeros((96, 128, 3), np.uint8)
    half[:, 64:] = 255
    write(tmp_path / "set" / "0.png", scribble(64, 48))
    write(tmp_path / "masks" / "0.jpg", half)

    mask = rendered(read(tmp_path / "set", masks=str(tmp_path / "masks")), (64, 48))

    torch.testing.assert_close(mask[0], torch.tensor([[0.0] * 4 + [1.0] * 4] * 6), rtol=0, atol=0.02)
    (tmp_path / "masks" / "0.jpg").unlink()
    write(tmp_path / "masks" / "0.png", half[:, :96])
    with pytest.raises(
        UserError, match=r"0\.png: the mask is 96 x 96 and the picture 64 x 48, which is another shape"
    ):
        read(tmp_path / "set", masks=str(tmp_path / "masks"))


def test_masks_beside_pictures_are_no_pictures_and_are_used_where_asked(tmp_path: Path) -> None:
    white = np.full((16, 16, 3), 255, np.uint8)
    for number, mark in enumerate([".mask", "-masklabel"]):
        write(tmp_path / f"{number}.png", scribble(16, 16, number))
        write(tmp_path / f"{number}{mark}.png", white)
    write(tmp_path / "a.mask.png", scribble(16, 16, 9))  # nothing lies beside it: a picture with an odd name

    plain = read(tmp_path)
    assert [sample.name for sample in plain.samples] == ["0.png", "1.png", "a.mask.png"]
    assert [sample.mask for sample in plain.samples] == [None] * 3
    assert any("masks by their names" in note and "0.mask.png" in note for note in plain.notes)

    beside = read(tmp_path, masks="beside", max_missing_masks=0.5)
    assert [sample.mask is not None for sample in beside.samples] == [True, True, False]
    assert any(note.startswith("pictures without a mask, which count as a whole: 1") for note in beside.notes)
    with pytest.raises(UserError, match=r"1 of 3 pictures have no mask beside them: a\.mask\.png"):
        read(tmp_path, masks="beside")


def test_a_folder_of_masks_inside_the_set_is_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path / "0.png", scribble(16, 16))
    write(tmp_path / "masks" / "0.png", np.full((16, 16, 3), 255, np.uint8))

    dataset = read(tmp_path, masks=str(tmp_path / "masks"))

    assert [sample.name for sample in dataset.samples] == ["0.png"]


def test_transparency_counts_and_opaque_pictures_are_told(tmp_path: Path) -> None:
    pixels = np.dstack([scribble(16, 16), np.zeros((16, 16), np.uint8)])
    pixels[:8, :, 3] = 255
    write(tmp_path / "0.png", pixels)
    write(tmp_path / "1.png", scribble(16, 16))

    with pytest.raises(UserError, match=r"1 of 2 pictures have no transparency: 1\.png"):
        read(tmp_path, masks="alpha")
    dataset = read(tmp_path, masks="alpha", max_missing_masks=1.0)

    torch.testing.assert_close(rendered(dataset, (16, 16)), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), rtol=0, atol=0)
    assert dataset.samples[1].mask is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"0\.png is black all over"), (b"not a picture", r"0\.png: this mask cannot be used: not a picture")],
)
def test_masks_that_cannot_be_meant_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    write(tmp_path / "set" / "0.png", scribble(16, 16))
    write(tmp_path / "masks" / "0.png", np.zeros((16, 16, 3), np.uint8))
    if content is not None:
        (tmp_path / "masks" / "0.png").write_bytes(content)

    with pytest.raises(UserError, match=message):
        read(tmp_path / "set", masks=str(tmp_path / "masks"))
    with pytest.raises(UserError, match=r"data\.masks: there is no folder .*absent"):
        read(tmp_path / "set", masks=str(tmp_path / "absent"))


def test_the_masked_loss_is_kohyas_unless_it_is_normalised() -> None:
    errors = torch.rand(3, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(3, 1, 6, 5, generator=torch.Generator().manual_seed(1))

    kohya = masked(errors, masks, loss=LossConfig()).flatten(1).mean(dim=1)
    torch.testing.assert_close(kohya, (errors * masks).mean([1, 2, 3]))

    whole = masked(errors, masks, loss=LossConfig(normalise_masks=True)).flatten(1).mean(dim=1)
    torch.testing.assert_close(whole, (errors * masks).sum([1, 2, 3]) / (4 * masks.sum([1, 2, 3])))

    some = masked(errors, masks, loss=LossConfig(unmasked_weight=0.25))
    torch.testing.assert_close(some, errors * (0.25 + 0.75 * masks))


def test_a_mirrored_picture_is_the_mirror_image_and_its_corner_is_the_true_one() -> None:
    image = Image.fromarray(scribble(101, 60))
    placement = place(Size(101, 60), Size(48, 48))
    flipped = mirrored(placement)

    expected = render(image, placement).flip(-1)
    torch.testing.assert_close(render(image, flipped), expected, rtol=0, atol=1.01 / 127.5)
    assert placement.time_ids() == (60, 101, 0, 16, 48, 48)  # 80 x 48, of which 32 columns go
    assert flipped.time_ids() == (60, 101, 0, 16, 48, 48)
    left = placement._replace(crop=placement.crop._replace(left=5))
    assert mirrored(left).time_ids() == (60, 101, 0, 27, 48, 48)
    assert mirrored(mirrored(left)) == left
    assert latent_key("d", flipped, "white", "v") != latent_key("d", placement, "white", "v")
    assert mask_key("d", flipped, own=True) != mask_key("d", placement, own=True)


def test_parts_lie_evenly_from_one_end_to_the_other_with_the_middle_first() -> None:
    placement = place(Size(200, 100), Size(48, 48))  # 96 x 48

    assert [part.crop.left for part in spread(placement, 5)] == [24, 12, 36, 0, 48]
    assert {part.crop.top for part in spread(placement, 5)} == {0}
    assert spread(place(Size(48, 48), Size(48, 48)), 5) == (place(Size(48, 48), Size(48, 48)),)


def test_each_way_of_showing_comes_equally_often_and_follows_from_seed_and_step() -> None:
    drawn = [drawn_views([4, 1, 2], seed=3, step=step, microbatch=0) for step in range(2000)]

    for place_in_batch, count in enumerate([4, 1, 2]):
        shares = np.bincount([views[place_in_batch] for views in drawn], minlength=count) / len(drawn)
        np.testing.assert_allclose(shares, 1 / count, atol=0.05)
    assert drawn_views([4, 1, 2], seed=3, step=7, microbatch=0) == drawn[7]
    assert [drawn_views([4, 1, 2], seed=4, step=step, microbatch=0) for step in range(2000)] != drawn
