"""The drawn film: the same frames from the same seeds, and captions that say what was drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from brushwork.film.canvas import Canvas
from brushwork.film.frames import draw_folder, draw_frame, draw_scene
from brushwork.film.scene import WORDS_OF_PLACE, WORDS_OF_TIME, Scene, imagine

CALM = Scene("meadow", "noon", "stands", "smiling", "full body", None, mirrored=False, seed=1)


def test_a_seed_gives_the_same_frame_and_another_seed_another() -> None:
    first, caption = draw_frame(3, 96)
    again, caption_again = draw_frame(3, 96)
    other, _ = draw_frame(4, 96)

    assert (first.tobytes(), caption) == (again.tobytes(), caption_again)
    assert first.tobytes() != other.tobytes()


def test_whatever_the_caption_tells_changes_the_picture() -> None:
    calm = draw_scene(CALM, 96)
    for change in (
        {"place": "beach"},
        {"time": "night"},
        {"pose": "waves"},
        {"mood": "grumpy"},
        {"camera": "half body"},
        {"prop": "balloon"},
    ):
        changed = replace(CALM, **change)
        assert changed.caption() != CALM.caption()
        assert ImageChops.difference(draw_scene(changed, 96), calm).getbbox() is not None, change


def test_captions_name_lead_place_time_and_camera() -> None:
    for seed in range(50):
        scene = imagine(seed)
        words = scene.caption()
        for part in (
            "a red fox with a blue scarf",
            WORDS_OF_PLACE[scene.place],
            WORDS_OF_TIME[scene.time],
            scene.camera,
        ):
            assert part in words


def test_a_pose_that_the_camera_cuts_off_is_not_told() -> None:
    for scene in map(imagine, range(200)):
        if scene.camera == "close-up":
            assert scene.pose not in scene.caption().split()
        if scene.camera == "half body":
            assert scene.pose in ("stands", "waves")


def test_the_lead_is_seen_in_every_light_and_shot() -> None:
    for seed in range(30):
        pixels = np.asarray(draw_frame(seed, 96)[0], dtype=np.int16)
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
        fur = (red > green + 60) & (red > blue + 60)
        scarf = (blue > red + 60) & (blue > green + 20)
        assert fur.mean() > 0.03, seed
        assert scarf.mean() > 0.002, seed


def test_frames_of_any_shape_fill_their_picture() -> None:
    for size in ((160, 64), (64, 160), (90, 90)):
        image = draw_scene(CALM, size)
        assert image.size == size
        assert image.getpixel((0, 0)) != (0, 0, 0)
        assert image.getpixel((size[0] - 1, size[1] - 1)) != (0, 0, 0)


def test_a_canvas_at_a_place_turns_clockwise_and_mirrors() -> None:
    canvas = Canvas(100, 100)
    canvas.at(0.5, 0.5, 0.5, turn=90).ellipse(0.5, 0, 0.1, 0.1, (255, 0, 0))  # its right is the picture's lower side
    canvas.at(0.5, 0.5, 0.5, mirrored=True).ellipse(0.5, 0, 0.1, 0.1, (0, 255, 0))  # its right is the left side

    assert canvas.picture().getpixel((50, 75)) == (255, 0, 0)
    assert canvas.picture().getpixel((25, 50)) == (0, 255, 0)


def test_a_folder_of_frames_has_a_caption_beside_every_picture(tmp_path: Path) -> None:
    draw_folder(tmp_path / "film", 3, (64, 48), seed=5)

    names = sorted(path.name for path in (tmp_path / "film").iterdir())
    assert names == [f"{i:05d}.{kind}" for i in range(3) for kind in ("png", "txt")]
    image, caption = draw_frame(6, (64, 48))
    with Image.open(tmp_path / "film" / "00001.png") as written:
        assert written.tobytes() == image.tobytes()
    assert (tmp_path / "film" / "00001.txt").read_text(encoding="utf-8") == caption + "\n"
