"""Buckets: which sizes there are, which one a picture falls into, and what the report says of it."""

import json
import math
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from brushwork.config.schema import BucketsConfig
from brushwork.data.bucket_report import Framed, report_buckets
from brushwork.data.buckets import SDXL_SIZES, Buckets, grid, make_buckets, size_without_upscaling
from brushwork.data.transform import Size, place
from brushwork.errors import UserError
from brushwork.training.bucket_check import check_buckets, with_frame


def on(resolution: int = 512, family: str = "sd15", **changes: object) -> Buckets:
    config = BucketsConfig.model_validate({"enabled": True, **changes})
    return make_buckets(config, resolution=resolution, family=family)


@pytest.mark.parametrize(
    ("resolution", "low", "high", "step", "count"),
    [
        (512, 256, 1024, 64, 17),
        (1024, 256, 1024, 64, 25),
        (1024, 256, 2048, 64, 41),
        (1024, 512, 2048, 64, 33),
        (1024, 256, 2048, 32, 81),
    ],
)
def test_the_grid_has_as_many_sizes_as_kohyas(resolution: int, low: int, high: int, step: int, count: int) -> None:
    sizes = grid(resolution**2, min_side=low, max_side=high, step=step)

    assert len(set(sizes)) == len(sizes) == count
    assert list(sizes) == sorted(sizes)
    for width, height in sizes:
        assert low <= width <= high
        assert low <= height <= high
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert (height, width) in sizes


def test_the_defaults_give_kohyas_grids_from_half_to_twice_the_resolution() -> None:
    assert on(512).sizes == grid(512**2, min_side=256, max_side=1024, step=64)
    assert on(1024).sizes == grid(1024**2, min_side=512, max_side=2048, step=64)
    assert on(128).sizes == grid(128**2, min_side=64, max_side=256, step=16)
    assert on(512, min_side=104, max_side=1000).sizes == grid(512**2, min_side=64, max_side=1024, step=64)


def test_sdxl_has_its_own_sizes_unless_the_grid_is_asked_for() -> None:
    assert on(1024, "sdxl").sizes == SDXL_SIZES
    assert on(1024, "sdxl", step=32).sizes == grid(1024**2, min_side=512, max_side=2048, step=32)
    assert on(1024, "sdxl", sizes="grid").sizes == grid(1024**2, min_side=512, max_side=2048, step=64)
    assert on(768, "sdxl").sizes == grid(768**2, min_side=384, max_side=1536, step=64)
    assert on(1024, "sd15", sizes="sdxl").sizes == SDXL_SIZES
    limited = on(1024, "sdxl", sizes="sdxl", max_side=1216).sizes
    assert {max(size) for size in limited} == {1024, 1088, 1152, 1216}


def test_sdxls_sizes_are_the_forty_of_its_paper() -> None:
    assert len(set(SDXL_SIZES)) == 40
    assert {(1024, 1024), (1152, 896), (896, 1152), (1216, 832), (1344, 768), (1536, 640), (2048, 512)} <= set(
        SDXL_SIZES
    )
    assert all(side % 64 == 0 for size in SDXL_SIZES for side in size)
    assert all(0.88 < width * height / 1024**2 < 1.01 for width, height in SDXL_SIZES)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_picture_falls_into_the_size_nearest_to_its_shape_and_the_size_lies_inside_it(w: int, h: int) -> None:
    buckets = on(512)
    placement = buckets.place(Size(w, h))

    errors = {size: abs(size.width / size.height - w / h) for size in buckets.sizes}
    assert errors[placement.target] == min(errors.values())
    assert 0 <= placement.crop.left <= placement.resized.width - placement.target.width
    assert 0 <= placement.crop.top <= placement.resized.height - placement.target.height
    assert 0 <= placement.cut_share < 1


def test_without_buckets_every_picture_is_its_centre_square() -> None:
    square = make_buckets(BucketsConfig(), resolution=512, family="sd15")

    assert square.place(Size(1000, 700)) == place(Size(1000, 700), Size(512, 512))


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ((300, 200), (256, 192)),  # small: down to whole steps
        ((512, 512), (512, 512)),
        ((640, 400), (640, 384)),  # 256,000 pixels are fewer than 512 x 512
        ((2000, 2000), (512, 512)),
        # 627.1 x 418.0: by width 576 x 384 (1.5), by height 576 x 384 (1.5): equal, so by height
        ((3000, 2000), (576, 384)),
        # 886.8 x 295.6: by width 832 x 256 (3.25), by height 768 x 256 (3): 3 is the picture's own
        ((3000, 1000), (768, 256)),
        # 682.6 x 384.0: by width 640 x 320 (2), by height 640 x 384 (1.67): the second is nearer to 1.78
        ((1920, 1080), (640, 384)),
        ((20, 4000), (64, 4000 // 64 * 64)),  # thinner than a step: nothing is thrown away
    ],
)
def test_without_upscaling_the_size_follows_from_the_picture(
    original: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert size_without_upscaling(Size(*original), area=512**2, step=64) == expected


@given(st.integers(64, 6000), st.integers(64, 6000))
def test_without_upscaling_nothing_is_enlarged(width: int, height: int) -> None:
    buckets = on(512, no_upscale=True)
    placement = buckets.place(Size(width, height))

    assert all(side % 64 == 0 for side in placement.target)
    if min(placement.target) > 64:  # a strip's short side cannot be less than a step
        assert placement.enlargement <= 1
        assert placement.target.width * placement.target.height <= 512**2 * 1.25


@pytest.mark.parametrize(
    ("resolution", "changes", "message"),
    [
        (512, {"min_side": 768}, r"buckets\.min_side = 768 is more than data\.resolution = 512: .* no picture has a"),
        (1024, {"max_side": 512}, r"buckets\.max_side = 512 is less than data\.resolution = 1024"),
        (128, {"step": 256}, r"buckets\.step = 256 is more than data\.resolution = 128"),
        (1024, {"sizes": "sdxl", "no_upscale": True}, r"buckets\.sizes = sdxl is a fixed list"),
        (768, {"sizes": "sdxl"}, r"is for 1024 x 1024 pixels, and data\.resolution is 768"),
        (1024, {"sizes": "sdxl", "min_side": 1088}, r"no size of SDXL has sides from 1088"),
    ],
)
def test_limits_that_leave_no_size_are_refused(resolution: int, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        on(resolution, **changes)
    assert "--set" in str(told.value.fix)


def test_the_report_counts_batches_and_names_what_loses_most() -> None:
    buckets = on(512)
    pictures = [
        Framed(name, buckets.place(Size(*size)), repeats)
        for name, size, repeats in [
            ("square.png", (512, 512), 3),
            ("photo.png", (1024, 1024), 2),
            ("strip.png", (5000, 500), 1),
            ("tiny.png", (128, 128), 1),
        ]
    ]

    report = report_buckets(pictures, batch_size=4)

    assert [(row.size, row.num_pictures, row.seen, row.num_batches, row.short_batch) for row in report.rows] == [
        ((512, 512), 3, 6, 2, 2),
        ((1024, 256), 1, 1, 1, 1),
    ]
    assert [each.name for each in report.most_cut] == ["strip.png"]
    assert report.most_cut[0].placement.cut_share == pytest.approx(1 - 1024 / 2560, abs=1e-3)
    assert [(each.name, each.placement.enlargement) for each in report.most_enlarged] == [("tiny.png", 4.0)]
    assert "60 %  strip.png (5000x500 in 1024x256)" in str(report)
    assert "4.0x  tiny.png (128x128 in 512x512)" in str(report)
    assert math.isclose(report.record()["mean_cut"], 0.6 / 4, abs_tol=1e-3)


def test_the_sheet_darkens_exactly_what_is_cut_off() -> None:
    image = Image.new("RGB", (400, 200), (200, 200, 200))

    drawn = np.asarray(with_frame(image, place(Size(400, 200), Size(64, 64))))

    bright = (drawn == 200).all(axis=2)
    line = (drawn == (255, 48, 48)).all(axis=2)
    inside = bright | line
    assert inside[:, 100:300].all()
    assert not inside[:, :100].any()
    assert not inside[:, 300:].any()


def test_buckets_are_checked_and_drawn_without_training(tmp_path: Path) -> None:
    for number, size in enumerate([(96, 64), (64, 96), (64, 64)]):
        Image.new("RGB", size, "orange").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("orange")
    before = sorted(tmp_path.iterdir())
    asked = ["buckets.enabled=true", "data.resolution=64", "buckets.step=16"]
    sheet = tmp_path.parent / f"{tmp_path.name}-sheet.png"

    checked = check_buckets(tmp_path, overrides=asked, sheet=sheet, console=Console(file=StringIO()))

    assert [(row.size, row.num_pictures) for row in checked.report.rows] == [
        ((48, 80), 1),
        ((64, 64), 1),
        ((80, 48), 1),
    ]
    assert "all 3 pictures" in str(checked)
    assert Image.open(sheet).width > 300
    assert sorted(tmp_path.iterdir()) == before
    assert json.dumps(checked.record())
    with pytest.raises(UserError, match="is there already and is not replaced"):
        check_buckets(tmp_path, overrides=asked, sheet=sheet, console=Console(file=StringIO()))
