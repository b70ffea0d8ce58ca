"""Frames of the drawn film, with captions that are exactly true: pictures to try everything on.

The same seed gives the same frame on every machine; nothing is loaded, and a frame takes some hundredths of a second.

Shapes in this file:  H, W the picture's height and width
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from brushwork.atomic import write_text, written_beside
from brushwork.film.bodies import draw_character
from brushwork.film.canvas import Canvas
from brushwork.film.captions import caption
from brushwork.film.places import draw_place
from brushwork.film.scene import LEAD, Angle, Camera, Character, Scene, imagine
from brushwork.film.sky import draw_falling, draw_fog, draw_sky, light_of
from brushwork.film.styles import BRUSHES, finish
from brushwork.records import write_rows

SHOTS: dict[Camera, tuple[float, float]] = {
    "portrait": (1.3, 1.32),
    "half body": (0.98, 1.12),
    "full body": (0.72, 0.94),
    "wide": (0.44, 0.9),
}
"""Size of who is shown, and how far down the feet stand."""

HORIZONS: dict[Angle, float] = {"level": 0.0, "tilted": 0.0, "low": 0.16, "high": -0.3}
"""How far the horizon moves down."""

SHINE = 0.4
"""How much of the characters' colour does not depend on the light: red is red and blue is blue at night, too."""

Size = int | tuple[int, int]


def draw_scene(scene: Scene, size: Size = 128) -> Image.Image:
    """Draw what a scene says; `size` is the side of a square, or width and height."""
    return draw_with_box(scene, size)[0]


def draw_array(scene: Scene, size: Size = 128) -> npt.NDArray[np.uint8]:
    """The same as numbers: -> (H, W, 3)."""
    return np.asarray(draw_scene(scene, size))


def draw_with_box(scene: Scene, size: Size = 128) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """The picture, and the box around the character in it: left, top, right, bottom in pixels."""
    width, height = (size, size) if isinstance(size, int) else size
    draw = random.Random(f"film/{scene.seed}/place")
    drift_x, drift_y, zoom = (draw.uniform(-1, 1) for _ in range(3))
    x, turn = 0.5 + draw.uniform(-0.05, 0.05), draw.choice((-1, 1)) * draw.uniform(9, 13)
    sheet = Canvas(width, height, light=light_of(scene.time, scene.weather), brush=BRUSHES[scene.style])
    camera = sheet.at(0.02 * drift_x * scene.moment, 0.01 * drift_y * scene.moment)
    if scene.angle == "tilted":
        camera = camera.at(0.5, 0.55, 1.0, turn=turn).at(-0.5, -0.55)
    land = camera.at(0, HORIZONS[scene.angle])
    draw_sky(land if scene.angle == "low" else camera, scene.time, scene.weather, draw)
    draw_place(land, scene.place, scene.time, draw)
    if scene.weather == "fog":
        draw_fog(land, scene.time)
    scale, feet = SHOTS[scene.camera]
    if scene.camera == "wide" and scene.angle == "low":
        feet += 0.04
    scale *= 1 + 0.02 * zoom * scene.moment
    who = camera.at(x, feet, scale, mirrored=scene.mirrored, shine=SHINE).traced()
    draw_character(who, scene)
    draw_falling(camera, scene.weather, draw, scene.moment)
    return finish(sheet, scene.style), who.box()


def truth_of(scene: Scene, box: tuple[int, int, int, int], size: Size, *, words: str) -> dict[str, Any]:
    """Everything that is known of a frame, as a JSON object."""
    width, height = (size, size) if isinstance(size, int) else size
    return {"caption": words, **scene.truth(), "box": list(box), "width": width, "height": height}


def draw_frame(
    seed: int, size: Size = 128, *, characters: Sequence[Character] = (LEAD,), **fixed: Any
) -> tuple[Image.Image, str]:
    """The frame of a seed and its caption: of the lead, unless other characters are named."""
    scene = imagine(seed, characters=characters, **fixed)
    return draw_scene(scene, size), caption(scene)


def draw_folder(
    folder: Path,
    count: int,
    size: Size = 128,
    *,
    seed: int = 0,
    characters: Sequence[Character] = (LEAD,),
    **fixed: Any,
) -> None:
    """Write `count` frames as 00000.png with its caption beside it as 00000.txt, and their truth to truth.jsonl."""
    rows = []
    for index in range(count):
        scene = imagine(seed + index, characters=characters, **fixed)
        image, box = draw_with_box(scene, size)
        name, words = f"{index:05d}", caption(scene)
        with written_beside(folder / f"{name}.png") as partial:
            image.save(partial, format="PNG")
        write_text(folder / f"{name}.txt", words + "\n")
        rows.append({"file": f"{name}.png", **truth_of(scene, box, size, words=words)})
    write_rows(folder / "truth.jsonl", rows)
