"""Frames that are there twice, or nearly: which stays, and what is said of the others."""

from pathlib import Path

import torch
from PIL import Image

from brushwork.config.schema import CurationConfig
from brushwork.curation.copies import find_exact, find_near, judged_together
from brushwork.film.frames import draw_frame
from brushwork.film.shots import draw_film
from brushwork.records import read_rows
from brushwork.vision.measures import measure_files


def test_files_with_the_same_bytes_or_the_same_pixels_are_exact_duplicates(tmp_path: Path) -> None:
    frame, other = draw_frame(1, 64)[0], draw_frame(2, 64)[0]
    files = {name: tmp_path / name for name in ("a.png", "b.png", "c.webp", "d.png", "broken.png", "broken2.png")}
    for name in ("a.png", "b.png"):
        frame.save(files[name])
    frame.save(files["c.webp"], lossless=True)
    other.save(files["d.png"])
    files["broken.png"].write_bytes(b"")
    files["broken2.png"].write_bytes(b"")

    found = find_exact(measure_files(files))

    assert {name: (reason.code, reason.why) for name, reason in found.items()} == {
        "b.png": ("exact_duplicate", "the same file as a.png"),
        "c.webp": ("exact_duplicate", "the same pixels as a.png"),
    }


def test_of_each_group_of_a_film_the_best_frame_is_left_and_none_of_the_left_are_twins(tmp_path: Path) -> None:
    draw_film(tmp_path, 48, 64, seed=12, spoiled=0.0)
    rows = {row["file"]: row for row in read_rows(tmp_path / "truth.jsonl")}
    measured = measure_files({name: tmp_path / name for name in rows})
    worth = {name: found.quality.score() if found.quality else 0.0 for name, found in measured.items()}

    twins = find_near(list(rows), measured, worth, CurationConfig())

    left = [name for name in rows if name not in twins.reasons]
    numbers = [rows[name]["twin"] for name in left]
    assert len(numbers) == len(set(numbers))
    assert {rows[name]["shot"] for name in left} == {row["shot"] for row in rows.values()}
    for name, reason in twins.reasons.items():
        best = next(other for other in left if f" {other}," in reason.why)
        assert twins.groups[name] == twins.groups[best]
        assert worth[best] >= worth[name]
        assert rows[name]["shot"] == rows[best]["shot"]
    assert sorted(set(twins.groups.values())) == list(range(len(set(twins.groups.values()))))


def test_vectors_count_where_the_setting_says_so(tmp_path: Path) -> None:
    files = {}
    for number in (1, 2, 3):
        files[f"{number}.png"] = tmp_path / f"{number}.png"
        draw_frame(number, 64)[0].save(files[f"{number}.png"])
    measured, worth = measure_files(files), {"1.png": 0.2, "2.png": 0.9, "3.png": 0.5}
    vectors = torch.tensor([[1.0, 0.0], [0.995, 0.0999], [0.0, 1.0]])

    assert find_near(list(files), measured, worth, CurationConfig(), vectors=vectors).reasons == {}
    found = find_near(list(files), measured, worth, CurationConfig(near_similarity=0.99), vectors=vectors)
    assert {name: reason.why for name, reason in found.reasons.items()} == {
        "1.png": "shows nearly the same as 2.png, which is better (0.90 against 0.20)"
    }
    assert found.groups == {"1.png": 0, "2.png": 0}


def test_no_frames_have_no_twins() -> None:
    assert find_near([], {}, {}, CurationConfig()).reasons == {}


def test_a_distance_of_nothing_keeps_all_but_the_same(tmp_path: Path) -> None:
    frame = draw_frame(1, 64)[0]
    files = {name: tmp_path / name for name in ("a.png", "b.png", "c.png")}
    frame.save(files["a.png"])
    frame.resize((128, 128), Image.Resampling.NEAREST).save(files["b.png"])
    draw_frame(1, 64, moment=0.5)[0].save(files["c.png"])
    measured = measure_files(files)

    found = find_near(list(files), measured, dict.fromkeys(files, 1.0), CurationConfig(near_distance=0))

    assert set(found.reasons) == {"b.png"}
    assert found.reasons["b.png"].why == "shows nearly the same as a.png, which is as good (1.00)"


def test_frames_that_show_nearly_the_same_are_judged_together(tmp_path: Path) -> None:
    files = {}
    for number, seed in enumerate((1, 1, 2)):
        files[f"{number}.png"] = tmp_path / f"{number}.png"
        draw_frame(seed, 64 + number)[0].save(files[f"{number}.png"])
    measured = measure_files(files)

    found = judged_together(torch.tensor([0.9, 0.2, 0.7]), list(files), measured, CurationConfig())

    # The log odds of 9 to 1 and of 1 to 4 have the mean of 1.5 to 1.
    torch.testing.assert_close(found, torch.tensor([0.6, 0.6, 0.7]), rtol=1e-5, atol=1e-6)
