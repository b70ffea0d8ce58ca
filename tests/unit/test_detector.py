"""Faces are found by a detector of transformers, and cut out as squares."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from brushwork.config.schema import EvaluationConfig
from brushwork.errors import UserError
from brushwork.evaluation.seeing import open_eyes, shown_file
from brushwork.vision.detector import Box, Detector, cut_out, load_detector
from tiny_detectors import write_detector

CPU = torch.device("cpu")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A tiny YOLOS in the layout that it is published in; `class_of` is the class that it sees everywhere."""

    def write(labels: dict[int, str], *, class_of: int = 0) -> Path:
        return write_detector(tmp_path / "detector", labels, class_of=class_of)

    return write


def test_the_largest_face_is_found_where_the_detector_sees_it(written: Callable[..., Path]) -> None:
    detector = load_detector(str(written({0: "face", 1: "hand"})), device=CPU)
    box = detector.largest_face(Image.new("RGB", (80, 40)))
    assert box is not None
    assert box == pytest.approx((20, 5, 60, 15), abs=0.1)


def test_what_is_no_face_is_passed_by(written: Callable[..., Path]) -> None:
    detector = load_detector(str(written({0: "hand", 1: "Human face"}, class_of=0)), device=CPU)
    assert detector.face(Image.new("RGB", (80, 40))) is None


def test_a_detector_without_faces_is_refused_by_what_it_knows(written: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="finds car, cat, and no faces"):
        load_detector(str(written({0: "cat", 1: "car"})), device=CPU)


def test_a_folder_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no detector in the layout of transformers"):
        load_detector(str(tmp_path), device=CPU)


def test_a_face_is_cut_out_as_a_square_with_a_margin_inside_the_picture() -> None:
    picture = Image.new("RGB", (100, 100))
    assert cut_out(picture, Box(40, 40, 60, 60)).size == (30, 30)
    assert cut_out(picture, Box(0, 40, 20, 60)).size == (25, 30)


def test_identity_is_measured_on_faces_where_there_are_any(written: Callable[..., Path], tmp_path: Path) -> None:
    detector = load_detector(str(written({0: "face"})), device=CPU)
    eyes = open_eyes(EvaluationConfig(), base="bundled", device=CPU, offline=True, console=Console(quiet=True))
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "one.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "two.png")
    shown = [shown_file(tmp_path / name) for name in ("one.png", "two.png")]
    whole = eyes.see("pictures", shown)
    assert whole.subject is whole.content

    class Once:
        """Finds a face in the first picture only."""

        def face(self, picture: Image.Image) -> Image.Image | None:
            return detector.face(picture) if picture.getpixel((0, 0)) != (255, 0, 0) else None

    eyes.detector = Once()  # type: ignore[assignment]
    faces = eyes.see("pictures", shown).subject
    assert faces is not None
    assert faces.isnan().all(dim=1).tolist() == [False, True]
    assert whole.content is not None
    assert not torch.allclose(faces[0], whole.content[0])
    assert isinstance(detector, Detector)
