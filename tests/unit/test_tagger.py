"""Taggers in the layout of the WD14 repositories: a tiny network of three weights in a real ONNX file."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brushwork.captioning.profile import Profile, Template
from brushwork.captioning.run import caption
from brushwork.captioning.tagger import KAOMOJI, Tagger, is_tagger, read_tags
from brushwork.config.schema import CaptioningConfig
from brushwork.errors import UserError
from brushwork.models.hub import choose_files

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE = 8
TAGS = [
    ("general", 9, (0, 0, 0), 2.0),
    ("explicit", 9, (0, 0, 0), -2.0),
    ("red_theme", 0, (0, 0, 9), -4.0),
    ("blue_sky", 0, (9, 0, 0), -4.0),
    ("^_^", 0, (0, 0, 6), -4.0),
    ("someone_(film)", 4, (0, 0, 6), -4.0),
]
"""Name, category, weights of blue, green and red from 0 to 1, and what is added: then the sigmoid."""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(tags: Sequence[tuple[str, int, tuple[int, int, int], float]] = TAGS, *, listed: int = 99) -> Path:
        folder = tmp_path / "tagger"
        folder.mkdir()
        with (folder / "selected_tags.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["tag_id", "name", "category", "count"])
            table.writerows([number, name, kind, 10] for number, (name, kind, *_) in enumerate(tags[:listed]))
        write_network(folder / "model.onnx", tags)
        return folder

    return write


def write_network(path: Path, tags: Sequence[tuple[str, int, tuple[int, int, int], float]]) -> None:
    """The mean colour, times weights, through a sigmoid: (batch, S, S, 3) -> (batch, T)"""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.array([weight for *_, weight, _ in tags], dtype=np.float32).T / 255
    added = np.array([bias for *_, bias in tags], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["input_1:0"], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["first"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["colour"]),
            helper.make_node("MatMul", ["colour", "weights"], ["product"]),
            helper.make_node("Add", ["product", "added"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["predictions_sigmoid"]),
        ],
        "tagger",
        [helper.make_tensor_value_info("input_1:0", kind, ["batch_size", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("predictions_sigmoid", kind, ["batch_size", len(tags)])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(added, "added")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))


def test_a_folder_is_captioned_with_the_tags_that_are_likely_enough(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(photos / "red.png")
    Image.new("RGB", (8, 8), (0, 0, 255)).save(photos / "blue.png")

    done = caption(
        photos,
        profile=Profile(trigger="luca", template=Template(prefix="luca", rendering=())),
        model=str(written()),
        check=False,
    )

    # sigmoid(2) = 0.88 lets the name of a character and a face through, whose underscores are a mouth and a space.
    assert done.written == {
        "red.png": "luca, someone (film), red theme, ^_^",
        "blue.png": "luca, blue sky",
    }
    assert (photos / "red.txt").read_text() == "luca, someone (film), red theme, ^_^\n"


def test_a_picture_without_a_likely_tag_is_told_as_that_and_not_as_an_empty_answer(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8), (50, 0, 90)).save(photos / "dark.png")
    Image.new("RGB", (8, 8), (0, 0, 255)).save(photos / "blue.png")

    profile = Profile(trigger="luca", template=Template(prefix="luca", rendering=()))
    done = caption(photos, profile=profile, model=str(written()), check=False)

    assert list(done.written) == ["blue.png"]
    assert done.failed == {
        "dark.png": "no tag is as likely as 0.35 (captioning.tag_threshold) asks; "
        "the likeliest is 'blue sky' with 0.31"
    }
    assert not (photos / "dark.txt").exists()


def test_what_the_network_is_shown_is_white_around_the_picture_in_blue_green_red(
    written: Callable[..., Path],
) -> None:
    tagger = Tagger("some", written(), CaptioningConfig(), on_card=False)
    shown = tagger.prepare(Image.new("RGB", (8, 4), (10, 20, 30)))
    assert shown.shape == (SIDE, SIDE, 3)
    assert shown.dtype == np.float32
    assert (shown[2:6] == [30, 20, 10]).all()
    assert (shown[:2] == 255).all()
    assert (shown[6:] == 255).all()


def test_thresholds_are_told_apart_and_a_rating_stands_only_where_it_is_asked_for(
    written: Callable[..., Path],
) -> None:
    folder = written()
    likely = np.array([0.9, 0.1, 0.4, 0.34, 0.5, 0.7], dtype=np.float32)

    def chosen(**settings: float) -> list[str]:
        return Tagger("some", folder, CaptioningConfig(**settings), on_card=False).chosen(likely)

    assert chosen() == ["^_^", "red theme"]
    assert chosen(character_tag_threshold=0.7, tag_threshold=0.5) == ["someone (film)", "^_^"]
    assert chosen(rating_tag=True)[-1] == "rating general"


def test_faces_of_letters_keep_their_underscores(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("tag_id,name,category,count\n1,>_<,0,1\n2,long_hair,0,1\n3,||_||,0,1\n")
    assert [tag.words for tag in read_tags(tmp_path / "tags.csv")] == [">_<", "long hair", "||_||"]
    assert len(KAOMOJI) == 19


def test_files_that_do_not_belong_together_or_are_damaged_are_refused(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    folder = written(listed=5)
    with pytest.raises(UserError, match=r"lists 5 tags, model\.onnx answers with 6 numbers"):
        Tagger("some", folder, CaptioningConfig(), on_card=False)
    (folder / "selected_tags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no list of tags"):
        Tagger("some", folder, CaptioningConfig(), on_card=False)
    (folder / "selected_tags.csv").write_text("tag_id,name,category,count\n1,a,0,1\n")
    (folder / "model.onnx").write_bytes(b"no network")
    assert is_tagger(folder)
    with pytest.raises(UserError, match=r"model\.onnx cannot be read"):
        Tagger("some", folder, CaptioningConfig(), on_card=False)


def test_of_a_repository_with_a_tagger_only_its_two_files_are_fetched() -> None:
    files = [
        "README.md",
        "config.json",
        "model.safetensors",
        "model.onnx",
        "selected_tags.csv",
        "sw_jax_cv_config.json",
    ]
    assert choose_files(files, None, "transformers", variant=None, where="x") == ["model.onnx", "selected_tags.csv"]
