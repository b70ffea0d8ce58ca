"""A picture tells how it was made, and no picture is lost to a second run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brushwork.errors import UserError
from brushwork.generation.pictures import a1111_text, already_drawn, read_record, record_of, save_picture
from brushwork.generation.prompts import Request

REQUEST = Request("a corgi, 犬 <3", 64, 96, 7, "blurry", 30, 6.5, "euler_ancestral")
EXTRA = {"base": "sdxl.safetensors", "loras": [{"file": "corgi.safetensors", "strength": 0.8}]}


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 64, 3), dtype=np.uint8))


def test_a_picture_lies_beside_its_prompt_and_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    record = save_picture(picture(), REQUEST, path, EXTRA)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["00000.json", "00000.png", "00000.txt"]
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == "a corgi, 犬 <3\n"
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == record
    assert read_record(path) == record
    assert Request.from_json(record) == REQUEST
    assert record["loras"] == EXTRA["loras"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(picture()))


def test_the_png_carries_what_a1111_reads(tmp_path: Path) -> None:
    save_picture(picture(), REQUEST, tmp_path / "a.png", EXTRA)
    with Image.open(tmp_path / "a.png") as image:
        lines = image.text["parameters"].split("\n")
    assert lines[0] == "a corgi, 犬 <3 <lora:corgi:0.8>"
    assert lines[1] == "Negative prompt: blurry"
    assert lines[2].startswith(
        "Steps: 30, Sampler: Euler a, CFG scale: 6.5, Seed: 7, Size: 64x96, Model: sdxl, Version:"
    )


def test_a1111_is_told_the_whole_name_of_a_base_from_the_hub() -> None:
    record = record_of(REQUEST, {"base": "stabilityai/stable-diffusion-xl-base-1.0"})
    assert "Model: stable-diffusion-xl-base-1.0," in a1111_text(record)


def test_a_picture_of_the_same_parameters_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    assert not already_drawn(path, record_of(REQUEST, EXTRA))
    save_picture(picture(), REQUEST, path, EXTRA)
    assert already_drawn(path, record_of(REQUEST, EXTRA))
    assert already_drawn(path, {**record_of(REQUEST, EXTRA), "brushwork": "another version"})


def test_a_picture_of_other_parameters_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    save_picture(picture(), REQUEST, path, EXTRA)
    other = {**record_of(REQUEST, EXTRA), "seed": 8}
    with pytest.raises(UserError, match=r"00000\.png is there already, and was made otherwise: its seed is 7, now 8"):
        already_drawn(path, other)
    path.unlink()
    with pytest.raises(UserError, match=r"00000\.json is there already"):
        already_drawn(path, other)


def test_a_picture_of_the_users_own_is_never_replaced(tmp_path: Path) -> None:
    picture().save(tmp_path / "00000.png")
    with pytest.raises(UserError, match=r"00000\.json is missing"):
        already_drawn(tmp_path / "00000.png", record_of(REQUEST))
    (tmp_path / "00001.txt").write_text("my own caption\n")
    with pytest.raises(UserError, match="with another prompt"):
        already_drawn(tmp_path / "00001.png", record_of(REQUEST))


def test_what_a_kill_left_is_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    save_picture(picture(), REQUEST, path, EXTRA)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not already_drawn(path, record_of(REQUEST, EXTRA))
    path.unlink()
    assert not already_drawn(path, record_of(REQUEST, EXTRA))


def test_a_picture_from_elsewhere_says_so(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(UserError, match="was not drawn by Brushwork"):
        read_record(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_record(tmp_path / "b.png")
