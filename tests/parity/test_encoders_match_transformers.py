"""What an encoder gives for a picture or a text is what transformers' own classes give, number by number."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Model,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipImageProcessorPil,
    SiglipModel,
)

from brushwork.vision.encoder import load_encoder
from small_encoders import gradient, write_encoder

CPU = torch.device("cpu")
PICTURES = [gradient(50, 40), gradient(33, 71, turn=30), gradient(32, 32, turn=200)]
KINDS = {
    "clip": (CLIPModel, CLIPImageProcessorPil),
    "clip_vision": (CLIPVisionModelWithProjection, CLIPImageProcessorPil),
    "clip_vision_bare": (CLIPVisionModel, CLIPImageProcessorPil),
    "siglip": (SiglipModel, SiglipImageProcessorPil),
    "siglip2": (Siglip2Model, Siglip2ImageProcessorPil),
    "dinov2": (Dinov2Model, BitImageProcessorPil),
}


def state(output: object) -> Tensor:
    embeds = getattr(output, "image_embeds", None)
    return output.pooler_output if embeds is None else embeds  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_has_the_vector_that_transformers_gives_it(kind: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, kind)
    model_class, processor_class = KINDS[kind]
    model = model_class.from_pretrained(folder).eval()
    inputs = processor_class.from_pretrained(folder)(PICTURES, return_tensors="pt")
    with torch.no_grad():
        theirs = state(
            model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
        )

    encoder = load_encoder(str(folder), device=CPU, dtype=torch.float32)
    ours = encoder.embed_pictures(PICTURES, batch_size=2)

    torch.testing.assert_close(ours, F.normalize(theirs, dim=-1), rtol=1e-4, atol=1e-6)
    for number, picture in enumerate(PICTURES):
        for name, tensor in encoder.prepare(picture).items():
            torch.testing.assert_close(tensor, inputs[name][number], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_beside_the_vector_stands_what_the_layer_before_the_last_gives_for_the_whole_picture(
    kind: str, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path, kind)
    encoder = load_encoder(str(folder), device=CPU, dtype=torch.float32)
    model_class, processor_class = KINDS[kind]
    model = model_class.from_pretrained(folder).eval()
    inputs = processor_class.from_pretrained(folder)(PICTURES, return_tensors="pt")
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        states = tower(**inputs, output_hidden_states=True).hidden_states
    theirs = states[-2][:, 0]
    if kind.startswith("siglip"):  # no token of its own for the whole: the mean of the places that are pictures
        counted = inputs.get("pixel_attention_mask", torch.ones(len(PICTURES), states[-2].shape[1])).bool()
        theirs = torch.stack([state[rows].mean(dim=0) for state, rows in zip(states[-2], counted, strict=True)])

    ours = encoder.embed_prepared([encoder.prepare(each) for each in PICTURES], layer=True)

    vectors = encoder.embed_pictures(PICTURES)
    assert ours.shape[1] == vectors.shape[1] + encoder.layer_width
    torch.testing.assert_close(ours[:, : -encoder.layer_width], vectors, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours[:, -encoder.layer_width :], F.normalize(theirs, dim=-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_a_text_has_the_vector_that_transformers_gives_it(kind: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, kind)
    model = KINDS[kind][0].from_pretrained(folder).eval()
    texts = ["a fox", "a bear in a red coat on the beach at night " * 12, ""]
    length = 77 if kind == "clip" else 16
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    tokens = {"input_ids": tokens["input_ids"]} | (
        {"attention_mask": tokens["attention_mask"]} if kind == "clip" else {}
    )
    with torch.no_grad():
        theirs = model.get_text_features(**tokens).pooler_output

    ours = load_encoder(str(folder), device=CPU, dtype=torch.float32).embed_texts(texts)

    torch.testing.assert_close(ours, F.normalize(theirs, dim=-1), rtol=1e-4, atol=1e-6)


def test_clips_way_of_a_picture_is_scaling_the_short_side_cutting_the_middle_and_normalising(tmp_path: Path) -> None:
    encoder = load_encoder(str(write_encoder(tmp_path, "clip")), device=CPU, dtype=torch.float32)
    picture = gradient(70, 40)

    small = picture.resize((56, 32), Image.Resampling.BICUBIC).crop((12, 0, 44, 32))
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = (np.asarray(small, dtype=np.float64) / 255 - mean) / deviation

    ours = encoder.prepare(picture)["pixel_values"]

    torch.testing.assert_close(ours.double(), torch.from_numpy(expected).permute(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_a_strip_is_seen_by_its_middle_as_transformers_sees_it(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "clip")
    strip = gradient(4, 4000)

    ours = load_encoder(str(folder), device=CPU, dtype=torch.float32).prepare(strip)["pixel_values"]
    theirs = CLIPImageProcessorPil.from_pretrained(folder)([strip], return_tensors="pt")["pixel_values"][0]

    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)  # a part of a level: the rest is where the cut falls
