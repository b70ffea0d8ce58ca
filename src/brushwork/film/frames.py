"""Frames of the drawn film, with captions that are exactly true: pictures to try everything on.

The same seed gives the same frame on every machine; nothing is loaded, and a frame takes some hundredths of a second.
"""

import random
from pathlib import Path

from PIL import Image

from brushwork.atomic import write_text, written_beside
from brushwork.film.canvas import Canvas
from brushwork.film.fox import draw_fox
from brushwork.film.places import LIGHTS, draw_place, draw_sky
from brushwork.film.scene import Camera, Scene, imagine

SHOTS: dict[Camera, tuple[float, float]] = {
    "close-up": (1.36, 1.4),
    "half body": (0.98, 1.1),
    "full body": (0.74, 0.94),
}
"""Size of the lead, and how far down its feet stand."""

SHINE_OF_LEAD = 0.4
"""So that red is red and blue is blue at night, too."""


def draw_frame(seed: int, size: int | tuple[int, int] = 128) -> tuple[Image.Image, str]:
    """The frame of a seed and its caption; `size` is the side of a square, or width and height."""
    scene = imagine(seed)
    return draw_scene(scene, size), scene.caption()


def draw_scene(scene: Scene, size: int | tuple[int, int] = 128) -> Image.Image:
    """Draw what a scene says."""
    width, height = (size, size) if isinstance(size, int) else size
    draw = random.Random(f"film/{scene.seed}/place")
    canvas = Canvas(width, height, light=LIGHTS[scene.time].tint)
    draw_sky(canvas, scene.time, draw)
    draw_place(canvas, scene.place, draw)
    scale, feet = SHOTS[scene.camera]
    x = 0.5 + draw.uniform(-0.06, 0.06)
    draw_fox(
        canvas.at(x, feet, scale, mirrored=scene.mirrored, shine=SHINE_OF_LEAD), scene.pose, scene.mood, scene.prop
    )
    return canvas.picture()


def draw_folder(folder: Path, count: int, size: int | tuple[int, int] = 128, *, seed: int = 0) -> None:
    """Write `count` frames as 00000.png with its caption beside it as 00000.txt, and so on."""
    for index in range(count):
        image, caption = draw_frame(seed + index, size)
        with written_beside(folder / f"{index:05d}.png") as partial:
            image.save(partial, format="PNG")
        write_text(folder / f"{index:05d}.txt", caption + "\n")
