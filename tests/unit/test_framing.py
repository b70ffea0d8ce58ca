"""How much of the subject a frame shows, from boxes: held against shares that are computed by hand."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from brushwork.config.schema import CurationConfig, DataConfig
from brushwork.curation.framing import framing, hidden_share, shot_of_body, shot_of_face
from brushwork.curation.kinds import kinds_of, shot_of
from brushwork.data.layout import PictureFile
from brushwork.distributed import Group
from brushwork.vision.detections import Detected, detect_files
from brushwork.vision.detector import Box, Seen, load_detector
from tiny_detectors import write_detector

PERSON = frozenset({"person"})


def person(left: float, top: float, right: float, bottom: float) -> Seen:
    return Seen("person", 0.9, Box(left, top, right, bottom))


def thing(left: float, top: float, right: float, bottom: float) -> Seen:
    return Seen("bench", 0.9, Box(left, top, right, bottom))


def test_feet_that_are_seen_make_a_full_body_and_the_form_of_the_box_tells_the_rest() -> None:
    assert shot_of_body(Box(40, 10, 60, 90), 100) == "full body"
    assert shot_of_body(Box(30, 20, 70, 100), 100) == "half body"  # twice as tall as wide
    assert shot_of_body(Box(10, 20, 90, 100), 100) == "portrait"  # as tall as wide


def test_a_face_tells_the_shot_by_its_share_of_the_height() -> None:
    assert [shot_of_face(Box(0, 0, 9, share), 100) for share in (8, 12, 24, 26, 60)] == [
        "full body", "half body", "half body", "portrait", "portrait",
    ]  # fmt: skip


def test_the_largest_subject_counts_with_its_share_of_the_picture() -> None:
    found = framing(Detected(200, 100, (person(0, 0, 10, 10), person(60, 20, 100, 95), thing(0, 0, 99, 99))), PERSON)
    assert found is not None
    assert found.share == pytest.approx(40 * 75 / (200 * 100))
    assert (found.shot, found.is_cut) == ("full body", False)
    assert framing(Detected(200, 100, (thing(0, 0, 50, 50),)), PERSON) is None


def test_what_stands_lower_hides_each_pixel_once_and_what_stands_behind_or_is_held_hides_none() -> None:
    subject = Box(40, 20, 60, 80)  # 20 x 60
    before = [thing(30, 60, 50, 95), thing(45, 70, 70, 90)]
    # 10 x 20 of the first, 15 x 10 of the second, less the 5 x 10 that both cover.
    assert hidden_share(subject, before) == pytest.approx((200 + 150 - 50) / 1200)
    assert hidden_share(subject, [thing(30, 10, 70, 70), thing(45, 40, 55, 60)]) == 0
    assert hidden_share(subject, [thing(70, 60, 90, 95)]) == 0


def test_an_occluded_and_a_cut_subject_is_refused_in_words_with_the_setting() -> None:
    curation = CurationConfig()
    found = framing(Detected(100, 100, (person(0, 20, 30, 80), thing(0, 40, 40, 99))), PERSON)
    assert found is not None
    first, second = found.against(curation)
    assert (first.code, second.code) == ("occluded", "cut_off")
    assert "take 67% of its box (curation.max_hidden 30%)" in first.why
    assert found.against(CurationConfig(max_hidden=0.7, keep_cut=True)) == []
    whole = framing(Detected(100, 100, (person(0, 20, 100, 100),)), PERSON)  # a portrait fills the picture
    assert whole is not None
    assert whole.against(curation) == []


def test_words_mean_shots() -> None:
    words = ["a portrait", "a close-up", "upper body", "a full body shot", "smiling"]
    assert [shot_of(each) for each in words] == ["portrait", "portrait", "half body", "full body", None]


def test_captions_and_names_tell_the_kind_before_a_detector_and_that_before_an_encoder() -> None:
    class Reads:
        has_text = True

        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            assert texts == ["smiling", "asleep"]
            return torch.eye(2)

    files = {
        "a.png": PictureFile(Path("a.png"), 1, "", caption="mia, a full body shot, on a hill"),
        "half_body/b.png": PictureFile(Path("b.png"), 1, ""),
        "c.png": PictureFile(Path("c.png"), 1, ""),
        "d.png": PictureFile(Path("d.png"), 1, ""),
        "e.png": PictureFile(Path("e.png"), 1, ""),
    }
    framed = framing(Detected(100, 100, (person(10, 20, 90, 100),)), PERSON)
    assert framed is not None
    found = kinds_of(
        ["a portrait", "half body", "a full body shot", "smiling", "asleep"],
        files,
        list(files),
        framings={"c.png": framed, "a.png": framed},
        encoder=Reads(),  # type: ignore[arg-type]
        vectors=torch.eye(2)[[0, 0, 0, 0, 1]],
    )
    assert found == {
        "a.png": "a full body shot",
        "half_body/b.png": "half body",
        "c.png": "a portrait",
        "d.png": "smiling",
        "e.png": "asleep",
    }


@pytest.mark.parametrize("kind", ["yolos", "detr"])
def test_files_are_looked_at_once_and_kept_by_their_content(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_detector(tmp_path / kind, {0: "person", 1: "bench"}, kind=kind)
    detector = load_detector(str(folder), device=torch.device("cpu"), subject="person")
    Image.new("RGB", (80, 40)).save(tmp_path / "one.png")

    def look() -> dict[str, Detected]:
        return detect_files(
            detector,
            {"one.png": tmp_path / "one.png"},
            {"one.png": "0123"},
            cache_folder=tmp_path / "cache",
            data=DataConfig(),
            group=Group(),
            on_progress=lambda done, total: None,
        )

    first = look()
    box = max(first["one.png"].things, key=lambda seen: seen.score).box
    assert box == pytest.approx((20, 5, 60, 15), abs=0.6)  # the middle at a half and a quarter, as it was built
    found = framing(first["one.png"], detector.subjects)
    assert found is not None
    assert found.share == pytest.approx(0.125, abs=0.01)
    monkeypatch.setattr(type(detector), "detect", None)
    again = look()
    assert [seen.label for seen in again["one.png"].things] == [seen.label for seen in first["one.png"].things]
