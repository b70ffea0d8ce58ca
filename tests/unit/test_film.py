"""The drawn film: the same frames from the same seeds, whoever asks, and everything that is told is seen."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brushwork.film import frames
from brushwork.film.canvas import Brush, Canvas
from brushwork.film.frames import draw_array, draw_folder, draw_frame, draw_scene, draw_with_box
from brushwork.film.held_out import HELD_OUT, is_held_out
from brushwork.film.scene import (
    ATTRIBUTES,
    CHARACTERS,
    LEAD,
    Scene,
    cast_without_lead,
    classes,
    imagine,
    is_possible,
)
from brushwork.records import read_rows

CALM = Scene(character="bear", seed=1)
ALL = tuple(imagine(seed, characters=CHARACTERS) for seed in range(400))


def test_a_seed_gives_the_same_frame_and_another_seed_another() -> None:
    first, caption = draw_frame(3, 96)
    again, caption_again = draw_frame(3, 96)
    other, _ = draw_frame(4, 96)

    assert (first.tobytes(), caption) == (again.tobytes(), caption_again)
    assert first.tobytes() != other.tobytes()


def test_another_process_draws_the_same_bytes() -> None:
    program = (
        "import hashlib; from brushwork.film.frames import draw_scene; from brushwork.film.scene import *\n"
        "drawn = (draw_scene(imagine(s, characters=CHARACTERS), 64).tobytes() for s in (9, 2, 5))\n"
        "print(hashlib.sha256(b''.join(drawn)).hexdigest())"
    )
    drawn = (draw_scene(imagine(seed, characters=CHARACTERS), 64).tobytes() for seed in (9, 2, 5))
    here = hashlib.sha256(b"".join(drawn)).hexdigest()

    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert there.stdout.strip() == here


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_every_value_of_every_attribute_is_seen(name: str) -> None:
    start = replace(CALM, camera="half body") if name in ("expression", "view") else CALM
    pictures = {}
    for value in ATTRIBUTES[name]:
        scene = replace(start, **{name: value})
        if value == "behind" or value == "sleeps":
            scene = replace(scene, expression=None)
        pictures[value] = draw_array(scene, 96).astype(np.int16)

    for value, picture in pictures.items():
        for other, another in pictures.items():
            if value != other:
                differs = np.abs(picture - another).max(axis=2) > 24
                assert differs.sum() > 18, (value, other)


def test_imagined_scenes_are_possible_and_have_every_value_of_every_attribute() -> None:
    assert all(is_possible(scene) for scene in ALL)
    for name, values in ATTRIBUTES.items():
        assert {getattr(scene, name) for scene in ALL} == set(values)


def test_what_is_fixed_stays_and_what_cannot_be_is_told() -> None:
    scenes = [imagine(seed, place="beach", outfit="red raincoat", camera="portrait") for seed in range(20)]

    assert all(
        (s.place, s.outfit, s.camera, s.character) == ("beach", "red raincoat", "portrait", LEAD) for s in scenes
    )
    with pytest.raises(ValueError, match="jumps"):
        imagine(0, camera="portrait", pose="jumps")


def test_classes_are_positions_in_the_list_of_attributes() -> None:
    scene = imagine(5, characters=CHARACTERS)

    assert {name: ATTRIBUTES[name][number] for name, number in classes(scene).items()} == {
        name: getattr(scene, name) for name in ATTRIBUTES
    }


def test_the_base_model_never_sees_the_lead() -> None:
    cast = cast_without_lead()

    assert LEAD not in cast
    assert {*cast, LEAD} == set(CHARACTERS)
    assert all(imagine(seed, characters=cast).character != LEAD for seed in range(200))


def test_about_one_scene_in_ten_is_held_out_and_its_parts_are_seen_elsewhere() -> None:
    trained = [imagine(seed, characters=CHARACTERS, accept=lambda s: not is_held_out(s)) for seed in range(1500)]

    assert 0.06 < sum(map(is_held_out, ALL)) / len(ALL) < 0.16
    assert not any(map(is_held_out, trained))
    for character, never in HELD_OUT.items():
        for name, value in never.items():
            assert not any(s.character == character and getattr(s, name) == value for s in trained)
            assert any(s.character != character and getattr(s, name) == value for s in trained)
        assert any(s.character == character for s in trained)


def test_the_lead_is_seen_in_every_light_shot_and_style() -> None:
    for seed in range(40):
        scene = imagine(seed, accept=lambda s: s.weather == "clear" and s.pose != "sleeps" and s.outfit is None)
        pixels = draw_array(scene, 96).astype(np.int16)
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
        fur = (red > green + 36) & (red > blue + 36)
        scarf = (blue > red + 36) & (blue > green + 12)
        assert fur.mean() > 0.015, scene
        assert scarf.mean() > 0.002, scene


def test_the_box_fits_whom_the_frame_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [
        replace(CALM, pose="cheers"),
        replace(CALM, character="fox", camera="wide", mirrored=True),
        replace(CALM, character="rabbit", prop="flower", headwear="round glasses"),
    ]
    shown = [draw_with_box(replace(scene, prop=None), 128) for scene in scenes]
    with_prop = [draw_with_box(scene, 128)[1] for scene in scenes]
    monkeypatch.setattr(frames, "draw_character", lambda canvas, scene: None)

    for scene, (image, box), box_with_prop in zip(scenes, shown, with_prop, strict=True):
        empty = draw_array(scene, 128).astype(np.int16)
        differs = np.abs(np.asarray(image, dtype=np.int16) - empty).max(axis=2) > 8
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(seen, box))[:3].max() <= 2, (box, seen)
        assert 0 <= seen[3] - box[3] <= 4  # the shadow
        assert abs(box_with_prop[2] - box[2]) < 9, "the hand is further out, but what it holds is not in the box"


def test_the_box_of_somebody_in_the_air_ends_above_their_shadow() -> None:
    on_the_ground, in_the_air = (draw_with_box(replace(CALM, pose=pose), 128)[1] for pose in ("stands", "jumps"))

    assert in_the_air[3] < on_the_ground[3] - 8


def test_a_nearer_camera_shows_more_of_somebody() -> None:
    shares = []
    for camera in ("wide", "full body", "half body", "portrait"):
        _, (left, top, right, bottom) = draw_with_box(replace(CALM, camera=camera), 128)
        shares.append((right - left) * (bottom - top) / 128**2)

    assert shares == sorted(shares)
    assert shares[0] < 0.25
    assert shares[-1] > 0.5


def test_frames_of_any_shape_fill_their_picture() -> None:
    for size in ((160, 64), (64, 160), (90, 90)):
        for angle in ("level", "tilted", "low", "high"):
            pixels = draw_array(replace(CALM, angle=angle), size)
            assert pixels.shape == (size[1], size[0], 3)
            assert (pixels.max(axis=2) > 0).all()


def test_a_canvas_at_a_place_turns_clockwise_and_mirrors() -> None:
    canvas = Canvas(100, 100)
    canvas.at(0.5, 0.5, 0.5, turn=90).ellipse(0.5, 0, 0.1, 0.1, (255, 0, 0))  # its right is the picture's lower side
    canvas.at(0.5, 0.5, 0.5, mirrored=True).ellipse(0.5, 0, 0.1, 0.1, (0, 255, 0))  # its right is the left side

    assert canvas.picture().getpixel((50, 75)) == (255, 0, 0)
    assert canvas.picture().getpixel((25, 50)) == (0, 255, 0)


def test_a_brush_with_ink_draws_a_line_around_shapes_that_are_not_tiny() -> None:
    canvas = Canvas(100, 100, brush=Brush(line=0.02, ink=(9, 9, 9)))
    canvas.polygon([(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)], (255, 0, 0))
    canvas.ellipse(0.5, 0.5, 0.015, 0.015, (0, 0, 255))
    picture = canvas.picture()

    assert picture.getpixel((20, 50)) == (9, 9, 9)
    assert picture.getpixel((50, 50)) == (0, 0, 255)
    assert picture.getpixel((40, 50)) == (255, 0, 0)


def test_a_folder_of_frames_has_captions_and_a_truth_from_which_they_are_drawn_again(tmp_path: Path) -> None:
    draw_folder(tmp_path / "film", 3, (64, 48), seed=5)

    names = sorted(path.name for path in (tmp_path / "film").iterdir())
    assert names == [*(f"{i:05d}.{kind}" for i in range(3) for kind in ("png", "txt")), "truth.jsonl"]
    for index, row in enumerate(read_rows(tmp_path / "film" / "truth.jsonl")):
        assert row["file"] == f"{index:05d}.png"
        scene = Scene(**{key: value for key, value in row.items() if key in Scene.__dataclass_fields__})
        image, caption = draw_frame(5 + index, (64, 48))
        assert draw_scene(scene, (row["width"], row["height"])).tobytes() == image.tobytes()
        with Image.open(tmp_path / "film" / row["file"]) as written:
            assert written.tobytes() == image.tobytes()
        assert row["caption"] == caption
        assert (tmp_path / "film" / f"{index:05d}.txt").read_text(encoding="utf-8") == caption + "\n"
