"""Measures of one picture, against closed forms and against what is known to have been done to it."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from brushwork.film.frames import draw_frame
from brushwork.film.spoil import SPOILS, Spoil, spoil
from brushwork.vision.quality import Colours, Light, Quality, bars, edge_widths, lettering, measure, noise, repeats

FRAME = draw_frame(3, 256)[0]


def edge(profile: np.ndarray, *, side: int = 96) -> Light:
    """A picture whose rows are all the same: the profile, dark before it and bright after it."""
    row = np.concatenate([np.full(side // 2, profile[0]), profile, np.full(side // 2, profile[-1])])
    return np.tile(row.round().astype(np.uint8), (side, 1))


def grey(light: float, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("L", size, round(light * 255)).convert("RGB")


def test_a_step_is_one_pixel_wide() -> None:
    widths = edge_widths(edge(np.array([40.0, 200.0])))

    assert widths["across"] == 1.0
    assert widths["down"] is None  # nothing changes from row to row
    assert widths["falling"] == widths["rising"] == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("deviation", [1.0, 1.5, 2.0, 2.5])
def test_a_gaussian_edge_is_the_root_of_two_pi_deviations_wide(deviation: float) -> None:
    steps = np.exp(-((np.arange(-16, 17)) ** 2) / (2 * deviation**2))
    profile = 20 + 220 * np.cumsum(steps) / steps.sum()

    width = edge_widths(edge(profile))["across"]

    assert width == pytest.approx(np.sqrt(2 * np.pi) * deviation, rel=0.03)  # whole levels of light


@pytest.mark.parametrize("length", [2, 4, 6, 8])
def test_an_edge_moved_over_some_pixels_is_so_many_wide(length: int) -> None:
    profile = np.linspace(20, 236, length + 1)

    assert edge_widths(edge(profile))["across"] == pytest.approx(length, rel=0.06)


@pytest.mark.parametrize("style", ["flat", "ink", "pastel"])
def test_the_more_a_picture_is_blurred_the_wider_its_edges_and_the_lower_its_score(style: str) -> None:
    frame = draw_frame(5, 192, style=style)[0]
    measured = [measure(frame.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 3, 4)]

    widths = [quality.edge_width or 0.0 for quality in measured]
    scores = [quality.score() for quality in measured]
    assert widths == sorted(widths)
    assert widths[0] < 1.6
    assert widths[-1] > 4
    assert scores == sorted(scores, reverse=True)


def test_a_face_in_focus_before_a_soft_background_is_sharp() -> None:
    mask = Image.new("L", FRAME.size)
    mask.paste(255, (96, 96, 160, 160))
    soft = FRAME.filter(ImageFilter.GaussianBlur(6))

    assert (measure(Image.composite(FRAME, soft, mask)).edge_width or 9) < 2 < (measure(soft).edge_width or 0)


def test_movement_is_told_from_soft_focus_by_its_direction() -> None:
    moved, _ = spoil(FRAME, "motion blur", seed=4)
    unsharp, _ = spoil(FRAME, "defocus", seed=4)

    assert measure(moved).direction > 2
    assert measure(unsharp).direction < 1.5
    assert measure(FRAME).direction < 1.5


def test_a_large_frame_measures_like_a_small_one() -> None:
    small = draw_frame(8, 512)[0]
    large = small.resize((2048, 2048), Image.Resampling.BICUBIC)

    for field in ("brightness", "shadows", "highlights", "dark", "clipped", "contrast"):
        assert getattr(measure(large), field) == pytest.approx(getattr(measure(small), field), abs=0.02), field
    assert measure(large).edge_width == pytest.approx(measure(small).edge_width, rel=0.3)
    assert (measure(large).width, measure(large).height) == (2048, 2048)


def test_light_follows_from_its_definition() -> None:
    half = Image.new("RGB", (100, 100), (51, 51, 51))
    half.paste((204, 204, 204), (0, 0, 100, 50))
    half.paste((255, 0, 0), (0, 0, 100, 10))
    quality = measure(half)

    assert quality.clipped == pytest.approx(0.1)
    assert quality.dark == 0
    assert quality.shadows == pytest.approx(0.2)
    assert quality.highlights == pytest.approx(0.8)
    light = np.array([0.2] * 50 + [0.8] * 40 + [76 / 255] * 10)
    assert quality.brightness == pytest.approx(light.mean(), abs=1e-3)
    assert quality.contrast == pytest.approx(light.std(), abs=1e-3)


@pytest.mark.parametrize("deviation", [3, 10, 25])
def test_grain_is_measured_as_its_deviation(deviation: int) -> None:
    ground = np.linspace(80, 170, 256)[None, :].repeat(256, 0)
    grain = np.random.default_rng(0).normal(0, deviation, ground.shape)

    assert noise((ground + grain).round().astype(np.uint8)) == pytest.approx(deviation / 255, rel=0.05)
    assert noise(ground.round().astype(np.uint8)) < 0.002


def test_fine_drawing_is_no_grain() -> None:
    assert measure(FRAME).noise < 0.01


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def test_the_more_a_picture_is_compressed_the_more_its_blocks_show() -> None:
    values = [measure(compressed(FRAME, quality)).blockiness for quality in (95, 30, 15, 8, 4)]

    assert values == sorted(values)
    assert measure(FRAME).blockiness < 1.3 < 1.5 < values[-2]


def test_blocks_are_found_where_the_frame_was_cut_out_of_another() -> None:
    cut = compressed(FRAME, 6).crop((3, 5, 251, 253))

    assert measure(cut).blockiness > 1.5


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_enlarging_without_interpolation_shows_as_repeated_rows(factor: int) -> None:
    grain = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    large = grain.repeat(factor, 0).repeat(factor, 1)

    assert repeats(large) == pytest.approx(1 - 1 / factor, abs=0.02)


def pixels(picture: Image.Image) -> Colours:
    return np.array(picture)


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("widths", [(0, 23, 0, 17), (31, 0, 31, 0), (7, 9, 11, 13), (1, 1, 1, 1)])
def test_a_bar_of_so_many_pixels_is_found_as_so_many(widths: tuple[int, int, int, int], colour: int) -> None:
    left, top, right, bottom = widths
    framed = Image.new("RGB", (FRAME.width + left + right, FRAME.height + top + bottom), (colour,) * 3)
    framed.paste(FRAME, (left, top))

    assert bars(pixels(framed)) == widths
    assert bars(pixels(compressed(framed, 90)))[3] == pytest.approx(bottom, abs=3)


def test_even_sky_and_white_ground_are_no_bars() -> None:
    ground = Image.new("RGB", (200, 200), "white")
    ground.paste((20, 90, 160), (60, 50, 140, 190))  # 70 % of the height is not white at once
    sky = pixels(FRAME).copy()
    sky[:40] = (120, 180, 240)
    sky[30:40, :90] = 60

    assert bars(pixels(ground)) == (0, 0, 0, 0)
    assert bars(sky)[1] == 0
    assert bars(pixels(FRAME)) == (0, 0, 0, 0)
    assert bars(pixels(grey(0.0))) == (0, 0, 0, 0)


def test_a_wall_above_and_a_floor_below_are_no_bars() -> None:
    room = pixels(FRAME).copy()
    room[:40], room[-10:] = (30, 30, 34), (120, 90, 60)
    framed = room.copy()
    framed[-10:] = (34, 28, 30)

    assert bars(room) == (0, 0, 0, 0)
    assert bars(framed) == (0, 40, 0, 10)


def test_a_bar_on_one_side_alone_counts_for_nothing() -> None:
    quality = Quality(**{**measure(FRAME).record(), "bar_top": 40, "bar_bottom": 0})

    assert quality.bars == 0
    assert Quality(**{**measure(FRAME).record(), "bar_top": 40, "bar_bottom": 64}).bars == 40 / 256


@pytest.mark.parametrize("seed", range(6))
def test_subtitles_are_seen_and_nothing_else_is_taken_for_them(seed: int) -> None:
    frame = draw_frame(40 + seed, (320, 180))[0]
    lined, _ = spoil(frame, "subtitles", seed=seed)

    assert lettering(pixels(lined)) > 0.27
    assert lettering(pixels(frame)) < 0.2
    assert lettering(pixels(lined)[::-1]) < 0.2  # a sign in the upper half


def test_a_flat_frame_has_no_steps_even_where_its_light_changes_from_end_to_end() -> None:
    slope = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[:, None, None], (1, 256, 3))

    assert measure(Image.fromarray(slope)).step <= 1 / 255
    assert measure(Image.fromarray(slope)).edge_width is None
    assert measure(FRAME).step > 0.1


@pytest.mark.parametrize("kind", [kind for kind in SPOILS if kind != "occluded"])
def test_what_spoils_a_frame_lowers_its_score(kind: Spoil) -> None:
    before = measure(FRAME).score()

    for seed in range(3):
        assert measure(spoil(FRAME, kind, seed=seed)[0]).score() < 0.9 * before, (kind, seed)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 500), (7, 7), (33, 8), (3000, 2)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_pictures_of_any_size_and_mode_are_measured(size: tuple[int, int], mode: str) -> None:
    quality = measure(Image.new(mode, size))

    assert (quality.width, quality.height) == size
    assert Quality(**quality.record()).record() == quality.record()
    assert 0 <= quality.score() <= 1


def test_the_score_and_its_parts_stay_between_nothing_and_one() -> None:
    ways: list[Callable[[], Image.Image]] = [lambda: grey(0), lambda: grey(1), lambda: grey(0.5), lambda: FRAME]
    for way in ways:
        parts = measure(way()).parts()
        assert set(parts) == {"sharpness", "exposure", "cleanness"}
        assert all(0 <= part <= 1 for part in parts.values()), parts
    assert measure(FRAME).score() > 0.7
    assert measure(grey(0.5)).score() == 0
