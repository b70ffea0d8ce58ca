"""Frames that go over from one shot into the next are told by the frames around them; what only moves is not."""

import numpy as np
import pytest
from PIL import Image

from brushwork.config.schema import CurationConfig
from brushwork.curation.rules import dissolves
from brushwork.film.shots import draw_film_frame, shoot
from brushwork.vision.dissolves import SIDE, find_mixtures, in_sequences, mixtures, small_copy
from brushwork.vision.measures import Measured


def shot(seed: int, count: int, *, drift: float = 0.0) -> np.ndarray:
    """So many frames, a window that moves over a wall of soft colours, at 16 x 16: (count, P)"""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 48, 3), dtype=np.uint8)
    wall = Image.fromarray(colours).resize((48 * 16, 8 * 16), Image.Resampling.BICUBIC)
    frames = []
    for index in range(count):
        left = drift * index * wall.height
        frame = wall.transform(
            (64, 64), Image.Transform.EXTENT, (left, 0, left + wall.height, wall.height), Image.Resampling.BILINEAR
        )
        frames.append(np.asarray(frame.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel() / 255)
    return np.array(frames)


@pytest.mark.parametrize("length", [1, 3, 6, 12])
def test_every_frame_of_a_dissolve_is_found_and_no_other(length: int) -> None:
    one, two = shot(1, 20 + length, drift=0.002), shot(2, 20 + length, drift=0.002)
    weights = np.arange(length, 0, -1) / (length + 1)
    between = one[20:] * weights[:, None] + two[:length] * (1 - weights[:, None])

    found = find_mixtures(np.concatenate([one[:20], between, two[length:]]))

    of_dissolve = {place for place, each in enumerate(found) if each and each.explained > 0.85}
    seen = {20 + place for place, weight in enumerate(weights) if 0.15 < weight < 0.85}
    assert seen <= of_dissolve <= set(range(20, 20 + length))


def test_the_weight_and_both_frames_are_those_of_the_closed_form() -> None:
    one, two = shot(4, 2), shot(5, 2)
    frames = np.concatenate([one, 0.3 * one[:1] + 0.7 * two[:1], two])

    [mixed] = [each for each in find_mixtures(frames) if each and each.explained > 0.5]

    assert mixed.weight == pytest.approx(0.3, abs=1e-6)
    assert mixed.explained == pytest.approx(1.0, abs=1e-6)
    assert mixed.before < 2 < mixed.after


def test_light_that_changes_and_a_fade_to_black_are_no_dissolves() -> None:
    scene = shot(5, 1)
    lit = np.concatenate([scene * light for light in np.linspace(0.3, 1, 12)])
    fade = np.concatenate([*[scene * light for light in np.linspace(1, 0, 6)], np.zeros_like(scene)])

    for frames in (lit, fade):
        assert [each for each in find_mixtures(frames) if each and each.explained > 0.85] == []


def test_a_pan_and_a_cut_are_no_dissolves() -> None:
    for drift in (0.005, 0.05, 0.2):
        frames = np.concatenate([shot(6, 15, drift=drift), shot(7, 15, drift=drift)])
        assert [each for each in find_mixtures(frames) if each and each.explained > 0.85] == []


def test_a_folder_without_an_order_in_time_has_none() -> None:
    frames = np.concatenate([shot(seed, 1) for seed in range(100, 160)])
    assert [each for each in find_mixtures(frames) if each and each.explained > 0.85] == []
    assert find_mixtures(frames[:1]) == [None]
    assert find_mixtures(frames[:0]) == []


def test_frames_are_ordered_by_their_numbers_folder_by_folder() -> None:
    names = ["b/frame_10.png", "b/frame_9.png", "a/2.png", "a/10.png", "x.png"]
    assert in_sequences(names) == [["b/frame_9.png", "b/frame_10.png"], ["a/2.png", "a/10.png"], ["x.png"]]


def test_the_dissolves_of_the_drawn_film_are_refused_with_both_shots_in_the_sentence() -> None:
    film = list(shoot(285, 60))
    drawn = {f"frame_{frame.number:06d}.png": draw_film_frame(frame, 48) for frame in film}
    measured = {name: Measured(name, small=small_copy(picture)) for name, (picture, _) in drawn.items()}
    mixed = {
        name for name, (_, truth) in drawn.items() if [each["kind"] for each in truth["spoiled"]] == ["dissolve"]
    }
    clean = {name for name, (_, truth) in drawn.items() if not truth["spoiled"]}
    assert mixed

    found = dissolves(measured, CurationConfig())

    assert mixed <= set(found)
    assert not clean & set(found)
    some = sorted(mixed)[0]
    assert found[some].code == "dissolve"
    assert "over one another" in found[some].why
    assert "curation.max_dissolve 85%" in found[some].why
    assert dissolves(measured, CurationConfig(max_dissolve=1.0)) == {}


def test_what_cannot_be_read_is_no_part_of_a_sequence() -> None:
    small = small_copy(Image.new("RGB", (40, 30), "red"))
    assert mixtures({"a.png": small, "b.png": small}) == {}
    assert dissolves({"a.png": Measured("", problem="the file is empty")}, CurationConfig()) == {}
