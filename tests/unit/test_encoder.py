"""Encoders: what a folder must hold, what is said where it does not, and what the vectors are known by."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brushwork.errors import UserError
from brushwork.film.frames import draw_frame
from brushwork.film.scene import cast_without_lead
from brushwork.vision.encoder import Encoder, load_encoder
from small_encoders import gradient, write_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("encoders")
    return {kind: write_encoder(base / kind, kind) for kind in ("clip", "dinov2")}


@pytest.fixture
def clip(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that may be broken."""
    for file in folders["clip"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> Encoder:
    return load_encoder(str(folder), device=CPU, dtype=dtype)


def refusal(folder: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    assert caught.value.fix
    return str(caught.value)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_bundled_encoder_finds_a_picture_of_the_film_by_its_words() -> None:
    encoder = load("bundled")
    pictures, captions = zip(*(draw_frame(seed, characters=cast_without_lead()) for seed in range(6)), strict=True)

    alike = encoder.embed_pictures(pictures) @ encoder.embed_texts(captions).T

    assert alike.argmax(dim=1).tolist() == list(range(6))


def test_weights_that_are_not_there_are_told(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    assert "has no weights (model.safetensors)" in refusal(clip)


def test_weights_that_are_cut_off_are_told(clip: Path) -> None:
    file = clip / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "is cut off" in refusal(clip)


def test_a_weight_that_is_missing_is_not_drawn_at_random(clip: Path) -> None:
    weights = load_file(clip / "model.safetensors")
    del weights["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})

    said = refusal(clip)

    assert "1 weights of the CLIPModel" in said
    assert "vision_model.encoder.layers.1.mlp.fc1.weight (missing)" in said


def test_a_config_of_another_size_is_told(clip: Path) -> None:
    change(clip / "config.json", projection_dim=20)
    assert "visual_projection.weight (of another shape)" in refusal(clip)


def test_a_clip_of_texts_alone_is_told(clip: Path) -> None:
    change(clip / "config.json", model_type="clip_text_model")
    assert "is a clip_text_model: it reads texts and sees no pictures" in refusal(clip)


def test_what_is_no_image_encoder_is_told_with_those_that_are_known(clip: Path) -> None:
    change(clip / "config.json", model_type="bert")
    said = refusal(clip)
    assert "is a bert; image encoders that are known: clip, clip_vision_model, dinov2" in said


def test_a_base_model_is_no_encoder(clip: Path) -> None:
    (clip / "model_index.json").write_text("{}")
    assert "is a base model" in refusal(clip)


def test_a_file_is_no_encoder(clip: Path) -> None:
    assert "is a file: an image encoder is a folder" in refusal(clip / "model.safetensors")


def test_a_folder_without_the_way_of_its_pictures_is_told(clip: Path) -> None:
    (clip / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in refusal(clip)


def test_a_way_of_pictures_that_nobody_knows_is_told(clip: Path) -> None:
    change(clip / "preprocessor_config.json", image_processor_type="MagicImageProcessor")
    assert "MagicImageProcessor, cannot be followed" in refusal(clip)


def test_a_config_that_is_no_json_is_told(clip: Path) -> None:
    (clip / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(clip)


def test_a_name_that_is_nothing_is_told() -> None:
    assert "there is no file or folder bundeld" in refusal("bundeld")
    assert "did you mean bundled?" in refusal("bundeld")


def test_dinov2_reads_no_texts(folders: dict[str, Path]) -> None:
    encoder = load(folders["dinov2"])
    assert not encoder.has_text
    with pytest.raises(UserError, match="sees pictures and reads no texts"):
        encoder.embed_texts(["a fox"])


def test_a_clip_without_its_vocabulary_sees_and_does_not_read(clip: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (clip / name).unlink(missing_ok=True)
    encoder = load(clip)

    assert encoder.embed_pictures([gradient(40, 40)]).shape == (1, 24)
    with pytest.raises(UserError, match="holds no vocabulary"):
        encoder.embed_texts(["a fox"])


def test_weights_in_shards_are_the_same_encoder(clip: Path) -> None:
    before = load(clip)
    weights = load_file(clip / "model.safetensors")
    names = sorted(weights)
    parts = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, clip / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (clip / "model.safetensors.index.json").write_text(json.dumps(index))
    (clip / "model.safetensors").unlink()

    after = load(clip)

    picture = [gradient(50, 40)]
    torch.testing.assert_close(after.embed_pictures(picture), before.embed_pictures(picture), rtol=1e-5, atol=1e-6)
    assert after.fingerprint == before.fingerprint


def test_the_fingerprint_follows_weights_way_and_precision_and_not_the_folder(clip: Path, tmp_path: Path) -> None:
    first = load(clip).fingerprint
    elsewhere = write_encoder(tmp_path / "elsewhere", "clip")
    assert load(elsewhere).fingerprint == first
    assert load(clip, torch.bfloat16).fingerprint != first

    change(clip / "preprocessor_config.json", resample=2)
    by_way = load(clip).fingerprint
    assert by_way != first

    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"][0, 0] += 1
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})
    assert load(clip).fingerprint not in (first, by_way)


def test_half_precision_gives_nearly_the_same_vectors(folders: dict[str, Path]) -> None:
    pictures = [gradient(50, 40), gradient(40, 60, turn=90)]
    full = load(folders["clip"]).embed_pictures(pictures)
    half = load(folders["clip"], torch.bfloat16).embed_pictures(pictures)

    assert half.dtype == torch.float32
    assert ((full * half).sum(dim=1) > 0.999).all()


def test_numbers_that_are_not_finite_are_refused(clip: Path) -> None:
    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = torch.nan
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match="not finite in fp32"):
        load(clip).embed_pictures([gradient(40, 40)])
