"""Spoiled frames and shots of the drawn film: what was done is what is told."""

from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brushwork.film.frames import draw_scene, draw_with_box
from brushwork.film.scene import LEAD, Scene, imagine
from brushwork.film.shots import draw_film, draw_film_frame, shoot
from brushwork.film.spoil import SPOILS, Spoil, dissolve, spoil
from brushwork.records import read_rows

FRAME, BOX = draw_with_box(Scene(seed=2), 96)


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


@pytest.mark.parametrize("kind", SPOILS)
def test_spoiling_changes_a_copy_and_the_same_seed_does_the_same(kind: Spoil) -> None:
    before = FRAME.tobytes()
    spoiled, truth = spoil(FRAME, kind, seed=4, box=BOX)
    again, truth_again = spoil(FRAME, kind, seed=4, box=BOX)

    assert FRAME.tobytes() == before
    assert (spoiled.size, spoiled.mode) == (FRAME.size, "RGB")
    assert np.abs(pixels_of(spoiled) - pixels_of(FRAME)).max() > 30
    assert (spoiled.tobytes(), truth) == (again.tobytes(), truth_again)
    assert truth["kind"] == kind
    assert len({str(spoil(FRAME, kind, seed=seed, box=BOX)[1]) for seed in range(12)}) > 1


@pytest.mark.parametrize("kind", ["motion blur", "defocus", "low resolution"])
def test_blur_leaves_an_even_picture_as_it_is_and_takes_edges_from_another(kind: Spoil) -> None:
    even = Image.new("RGB", (64, 48), (90, 120, 33))
    assert spoil(even, kind, seed=1)[0].tobytes() == even.tobytes()

    def sharpness(image: Image.Image) -> float:
        pixels = pixels_of(image)
        return float(np.square(np.diff(pixels, axis=0)).mean() + np.square(np.diff(pixels, axis=1)).mean())

    for seed in range(8):
        assert sharpness(spoil(FRAME, kind, seed=seed)[0]) < 0.75 * sharpness(FRAME)


def test_what_covers_somebody_covers_as_much_of_them_as_is_told() -> None:
    left, top, right, bottom = BOX
    for seed in range(30):
        spoiled, truth = spoil(FRAME, "occluded", seed=seed, box=BOX)
        changed = np.abs(pixels_of(spoiled) - pixels_of(FRAME)).max(axis=2)[top:bottom, left:right] > 6
        assert truth["covered"] > 0.25
        assert abs(changed.mean() - truth["covered"]) < 0.12


def test_bars_are_black_and_leave_the_middle_alone() -> None:
    spoiled, truth = spoil(FRAME, "letterbox", seed=0)
    bar = truth["bar"]
    pixels, before = pixels_of(spoiled), pixels_of(FRAME)
    if truth["side"] == "left and right":
        pixels, before = pixels.swapaxes(0, 1), before.swapaxes(0, 1)

    assert not pixels[:bar].any()
    assert not pixels[-bar:].any()
    np.testing.assert_array_equal(pixels[bar:-bar], before[bar:-bar])


def test_subtitles_are_bright_letters_in_the_lowest_fifth() -> None:
    spoiled, _ = spoil(FRAME, "subtitles", seed=3)
    changed = np.abs(pixels_of(spoiled) - pixels_of(FRAME)).max(axis=2) > 0

    assert changed.any()
    assert not changed[: FRAME.height * 4 // 5].any()


def test_a_dissolve_goes_from_one_picture_to_the_other() -> None:
    other = draw_scene(Scene(place="beach", seed=9), 96)

    assert dissolve(FRAME, other, 0).tobytes() == FRAME.tobytes()
    assert dissolve(FRAME, other, 256).tobytes() == other.tobytes()


def test_a_film_is_made_of_shots_whose_frames_are_nearly_alike() -> None:
    frames = list(shoot(3, 120, spoiled=0.0))
    shots = [list(shot) for _, shot in groupby(frames, key=lambda frame: frame.shot)]

    assert [frame.number for frame in frames] == list(range(120))
    assert all(len({frame.scene.seed for frame in shot}) == 1 for shot in shots)
    drawn = [[pixels_of(draw_film_frame(frame, 48)[0]) for frame in shot[:3]] for shot in shots[:6] if len(shot) > 2]
    for shot, after in pairwise(drawn):
        assert 0 < np.abs(shot[0] - shot[1]).mean() < 6
        assert np.abs(shot[0] - after[0]).mean() > 20


def test_good_frames_show_the_unspoiled_lead() -> None:
    frames = list(shoot(5, 1500, lead=0.6, spoiled=0.3))

    for frame in frames:
        assert frame.is_good == (frame.scene.character == LEAD and not frame.spoils and frame.dissolves_into is None)
    spoiled = sum(bool(frame.spoils) or frame.dissolves_into is not None for frame in frames) / len(frames)
    assert 0.2 < spoiled < 0.4
    assert {kind for frame in frames for kind in frame.spoils} == set(SPOILS)
    assert 0.4 < sum(frame.scene.character == LEAD for frame in frames) / len(frames) < 0.8
    assert frames == list(shoot(5, 1500, lead=0.6, spoiled=0.3))
    for cut in range(3, 200, 7):
        assert frames[:cut] == list(shoot(5, cut, lead=0.6, spoiled=0.3))


def test_a_film_on_disk_tells_the_truth_of_every_frame(tmp_path: Path) -> None:
    draw_film(tmp_path / "raw", 12, 48, seed=8, spoiled=1.0)

    rows = read_rows(tmp_path / "raw" / "truth.jsonl")
    frames = list(shoot(8, 12, spoiled=1.0))
    assert [row["file"] for row in rows] == [f"frame_{number:06d}.png" for number in range(12)]
    assert sorted(path.name for path in (tmp_path / "raw").glob("*.png")) == [row["file"] for row in rows]
    for row, frame in zip(rows, frames, strict=True):
        assert [done["kind"] for done in row["spoiled"] if done["kind"] != "dissolve"] == list(frame.spoils)
        assert (row["good"], row["shot"], row["character"]) == (frame.is_good, frame.shot, frame.scene.character)


def test_a_moment_later_something_has_moved_but_the_caption_stays() -> None:
    scene = imagine(4)
    later = Scene(**{**scene.truth(), "moment": 0.4})

    assert draw_scene(scene, 64).tobytes() != draw_scene(later, 64).tobytes()
