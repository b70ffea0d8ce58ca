"""Vocabulary, chunks of long prompts, and what text encoders refuse."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.models.configs import TEXT_ENCODERS
from brushwork.models.text import (
    TextEncoders,
    Tokenizer,
    build_text_encoder,
    canonical_name,
    empty_text_encoder,
    module_path,
)
from brushwork.models.vocabulary import (
    END,
    PAD_OF_BIG_G,
    START,
    packaged_vocabulary,
    read_vocabulary,
    write_vocabulary,
)

SMALL = packaged_vocabulary(num_merges=2000)
SMALL_G = packaged_vocabulary(num_merges=2000, padding=PAD_OF_BIG_G)
VOCABULARIES = {"text_encoder": SMALL, "text_encoder_2": SMALL_G}
CONFIG = {
    "vocab_size": len(SMALL),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 24,
    "bos_token_id": SMALL.start_id,
    "eos_token_id": SMALL.end_id,
    "pad_token_id": 0,
}


def weights(*, with_projection: bool, **changes: Any) -> dict[str, Tensor]:
    empty = empty_text_encoder({**CONFIG, **changes}, with_projection=with_projection)
    generator = torch.Generator().manual_seed(5)
    return {
        canonical_name(empty, path): 0.1 * torch.randn(tensor.shape, generator=generator)
        for path, tensor in empty.state_dict().items()
    }


def build(*, with_projection: bool = False, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
    return build_text_encoder(
        {**CONFIG, **changes},
        weights(with_projection=with_projection, **changes),
        with_projection=with_projection,
        dtype=dtype,
        device="cpu",
    )


def sdxl(**settings: int) -> TextEncoders:
    return TextEncoders(
        {"text_encoder": build(), "text_encoder_2": build(with_projection=True)}, VOCABULARIES, **settings
    )


# From CLIP's own tokenizer (github.com/openai/CLIP, clip/simple_tokenizer.py), without start and end.
CLIPS_OWN = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "! !! !!!": [256, 748, 995],
    "it's 35mm, f/1.8; DON'T": [585, 568, 274, 276, 2848, 267, 325, 270, 272, 269, 279, 282, 847, 713],
    "naïve café": [1097, 35689, 563, 15304],
    "東京タワー 🦊🦊": [48338, 21078, 105, 34941, 2429, 107, 30391, 6040, 232, 6040, 488],
    "(masterpiece:1.2), <lora:x:1>": [263, 12066, 281, 272, 269, 273, 2361, 283, 2179, 320, 281, 343, 281, 272, 285],
    "  tabs\tand\nlines  ": [29163, 537, 3418],
    "1girl, blue_eyes, 4k": [272, 1611, 267, 1746, 318, 3095, 267, 275, 330],
    "": [],
}


@pytest.mark.parametrize("padding", [END, PAD_OF_BIG_G])
def test_the_packaged_vocabulary_gives_clips_own_numbers(padding: str) -> None:
    tokenizer = Tokenizer(packaged_vocabulary(padding=padding))

    assert {prompt: tokenizer.words(prompt) for prompt in CLIPS_OWN} == CLIPS_OWN


def test_start_end_and_padding_stand_where_the_encoders_were_trained_with_them() -> None:
    first, second = Tokenizer(packaged_vocabulary()), Tokenizer(packaged_vocabulary(padding=PAD_OF_BIG_G))

    assert len(packaged_vocabulary()) == 49408
    assert first.chunks("a cat", 1).tolist() == [[49406, 320, 2368, 49407, *[49407] * 73]]
    assert second.chunks("a cat", 1).tolist() == [[49406, 320, 2368, 49407, *[0] * 73]]
    assert second.chunks("a cat", 2)[1].tolist() == [49406, 49407, *[0] * 75]


def test_a_vocabulary_survives_being_written_and_read(tmp_path: Path) -> None:
    write_vocabulary(SMALL_G, tmp_path / "tokenizer")

    assert read_vocabulary(tmp_path / "tokenizer") == SMALL_G


def test_a_folder_with_only_tokenizer_json_is_read(tmp_path: Path) -> None:
    special = [{"content": START, "id": SMALL.start_id}, {"content": END, "id": SMALL.end_id}]
    for merges in (list(map(list, SMALL.merges)), list(map(" ".join, SMALL.merges))):
        whole = {"model": {"vocab": SMALL.ids, "merges": merges}, "added_tokens": special}
        (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
        assert read_vocabulary(tmp_path) == SMALL
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "!"}')

    assert read_vocabulary(tmp_path) == SMALL_G


def test_a_folder_without_tokens_or_with_added_ones_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither vocab\.json with merges\.txt nor tokenizer\.json"):
        read_vocabulary(tmp_path)
    write_vocabulary(SMALL, tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<my-dog>": 49408}')
    with pytest.raises(UserError, match="<my-dog>"):
        read_vocabulary(tmp_path)


def test_states_of_a_long_prompt_are_those_of_its_chunks_joined() -> None:
    words = [f"{letter}{digit}" for letter in "abcdefgh" for digit in range(10)]
    chunks = [" ".join(words[start : start + 37]) for start in (0, 37, 74)]
    long, short = sdxl(max_tokens=225), sdxl()
    sizes = [short.count_tokens(chunk) for chunk in chunks[:2]]
    assert sizes == [74, 74]  # two tokens a word, 75 to a chunk: fill up with one more
    prompt = f"{chunks[0]} x {chunks[1]} y {chunks[2]}"

    found = long.encode([prompt])
    parts = short.encode([chunks[0] + " x", chunks[1] + " y", chunks[2]])

    assert found.context.shape == (1, long.length, long.width) == (1, 231, 64)
    torch.testing.assert_close(found.context[0], parts.context.flatten(0, 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.pooled, parts.pooled[:1], rtol=1e-5, atol=1e-6)


def test_every_prompt_of_a_call_has_the_same_length_and_its_own_states() -> None:
    encoders = sdxl(max_tokens=150)
    prompts = ["a cat", "", "fox " * 100, "a cat", ""]

    together = encoders.encode(prompts)

    assert together.context.shape == (5, 154, 64)
    assert together.pooled is not None
    assert together.pooled.shape == (5, encoders.pooled_width) == (5, 24)
    for row, prompt in enumerate(prompts):
        alone = encoders.encode([prompt])
        torch.testing.assert_close(together.context[row], alone.context[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.pooled[row], alone.pooled[0], rtol=1e-5, atol=1e-6)


def test_counting_tells_what_is_left_out() -> None:
    encoders = sdxl()

    assert encoders.count_tokens("") == 0
    assert encoders.count_tokens("a " * 80) == 80
    cut, whole = encoders.encode(["a " * 80]), encoders.encode(["a " * 75])
    assert torch.equal(cut.context, whole.context)


def test_a_prompt_given_twice_counts_twice_in_the_gradient() -> None:
    def gradient(prompts: list[str]) -> Tensor:
        encoders = sdxl()
        weight = encoders.modules["text_encoder_2"].get_parameter("text_model.encoder.layers.0.mlp.fc1.weight")
        weight.requires_grad_(True)
        states = encoders.encode(prompts)
        assert states.pooled is not None
        (states.context.square().sum() + states.pooled.sum()).backward()
        assert weight.grad is not None
        return weight.grad

    torch.testing.assert_close(
        gradient(["a fox", "a cat", "a fox"]),
        2 * gradient(["a fox"]) + gradient(["a cat"]),
        rtol=1e-4,
        atol=1e-5,
    )


class Beside(nn.Module):
    """A linear layer with another one beside it, as an adapter wraps it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.beside = nn.Linear(base.in_features, base.out_features, bias=False)
        nn.init.zeros_(self.beside.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.beside(x)


def test_wrapped_linear_layers_change_nothing_at_first_and_all_get_a_gradient() -> None:
    encoders = TextEncoders({"text_encoder": build()}, VOCABULARIES, clip_skip=1)
    before = encoders.encode(["a fox"]).context
    wrapped = []
    for layer in encoders.modules["text_encoder"].encoder.layers:
        for owner, name in ((layer.self_attn, "q_proj"), (layer.self_attn, "out_proj"), (layer.mlp, "fc1")):
            wrapped.append(Beside(getattr(owner, name)))
            setattr(owner, name, wrapped[-1])

    after = encoders.encode(["a fox"]).context
    after.square().sum().backward()

    assert torch.equal(after, before)
    assert all(layer.beside.weight.grad.abs().max() > 0 for layer in wrapped)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_keep_the_type_of_the_modules(dtype: torch.dtype) -> None:
    encoders = TextEncoders({"text_encoder": build(dtype=dtype)}, VOCABULARIES)

    assert encoders.encode(["a fox"]).context.dtype == dtype


def test_names_in_files_have_the_wrapper_whatever_the_module_calls_its_parts() -> None:
    canonical = "text_model.encoder.layers.2.self_attn.q_proj"
    for with_projection in (False, True):
        module = build(with_projection=with_projection)
        path = module_path(module, canonical)
        assert isinstance(module.get_submodule(path), nn.Linear)
        assert canonical_name(module, path) == canonical
    assert module_path(module, "text_projection.weight") == "text_projection.weight"


def test_weights_are_taken_strictly_and_position_ids_left_out() -> None:
    given = weights(with_projection=True)
    given["text_model.embeddings.position_ids"] = torch.zeros(1, 77)  # older files carry them, some in half precision

    def from_weights(tensors: Mapping[str, Tensor]) -> nn.Module:
        return build_text_encoder(
            CONFIG, tensors, with_projection=True, dtype=torch.float32, device="cpu", what="text of x.safetensors"
        )

    module = from_weights(given)
    assert module.get_buffer("text_model.embeddings.position_ids").tolist() == [list(range(77))]
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())
    assert not module.training

    projection = given.pop("text_projection.weight")
    with pytest.raises(UserError, match=r"text of x\.safetensors: 1 tensors are missing: text_projection\.weight"):
        from_weights(given)
    with pytest.raises(UserError, match=r"logit_scale"):
        from_weights({**given, "text_projection.weight": projection, "logit_scale": torch.zeros(())})
    with pytest.raises(UserError, match=r"text_projection\.weight has the shape \[24, 31\]; \[24, 32\] was expected"):
        from_weights({**given, "text_projection.weight": projection[:, :31]})


def test_encoders_that_do_not_fit_their_tokenizer_are_refused() -> None:
    with pytest.raises(UserError, match="numbers up to 49407"):
        TextEncoders({"text_encoder": build()}, {"text_encoder": packaged_vocabulary()})
    lost = {"text_encoder": build(), "text_encoder_2": build(with_projection=True, eos_token_id=77)}
    with pytest.raises(UserError, match="takes number 77 for the end"):
        TextEncoders(lost, VOCABULARIES)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UserError, match=r"max_tokens is 100"):
        sdxl(max_tokens=100)
    with pytest.raises(UserError, match=r"clip_skip is 3; SDXL"):
        sdxl(clip_skip=3)
    with pytest.raises(UserError, match=r"clip_skip is 4; the text encoder has 3 layers"):
        TextEncoders({"text_encoder": build()}, VOCABULARIES, clip_skip=4)
    with pytest.raises(ValueError, match="no prompts"):
        sdxl().encode([])


def test_a_long_prompt_is_cut_without_a_word_from_transformers(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sdxl().encode(["fox " * 300, "<|endoftext|> fox"])

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_known_configurations_have_the_widths_of_sd15_and_sdxl() -> None:
    shapes = {
        (family, name): {
            canonical_name(module, path): tuple(tensor.shape) for path, tensor in module.state_dict().items()
        }
        for family, parts in TEXT_ENCODERS.items()
        for name, config in parts.items()
        for module in [empty_text_encoder(config, with_projection=name == "text_encoder_2")]
    }
    last = "text_model.encoder.layers.{}.mlp.fc1.weight"

    assert len(shapes["sd15", "text_encoder"]) == 196
    assert shapes["sd15", "text_encoder"] == shapes["sdxl", "text_encoder"]
    assert shapes["sdxl", "text_encoder"][last.format(11)] == (3072, 768)
    assert len(shapes["sdxl", "text_encoder_2"]) == 517
    assert shapes["sdxl", "text_encoder_2"][last.format(31)] == (5120, 1280)
    assert shapes["sdxl", "text_encoder_2"]["text_projection.weight"] == (1280, 1280)
