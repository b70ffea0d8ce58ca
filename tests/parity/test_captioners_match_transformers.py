"""Models that write captions say what their own classes in transformers make of the same picture, to the token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from brushwork.captioning.captioner import Asked, NoAnswerError
from brushwork.captioning.local import Draws, LocalModel, load_model
from brushwork.errors import UserError
from small_captioners import CHAT_TEMPLATE, write_blip, write_blip2, write_florence, write_qwen

QWEN = {
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", "Qwen2VLProcessor"),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor"),
}
DESCRIBERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "blip": (write_blip, "BlipForConditionalGeneration"),
    "blip2": (write_blip2, "Blip2ForConditionalGeneration"),
    "florence2": (write_florence, "Florence2ForConditionalGeneration"),
}
PROMPTS = ["Describe the fox.", "What is its pose? One phrase.", "Light?"]
LONGEST = 10


def pictures() -> list[Image.Image]:
    """Three of different sizes and content."""
    sizes = [(60, 90), (120, 64), (84, 84)]
    return [
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8))
        for number, size in enumerate(sizes)
    ]


def opened(folder: Path, *, batch_size: int = 4, side: int = 512) -> LocalModel:
    return load_model(
        str(folder), device=torch.device("cpu"), dtype=torch.float32, batch_size=batch_size, side=side, offline=True
    )


def asked(model: LocalModel, *, temperature: float = 0.0) -> list[Asked]:
    return [
        Asked(f"{number}.png", "description", model.prepare(picture), words, LONGEST, temperature, seed=number)
        for number, (picture, words) in enumerate(zip(pictures(), PROMPTS, strict=True))
    ]


def their_qwen_processor(folder: Path, name: str) -> Any:
    """The class's own, which can be made without torchvision only by leaving its videos out."""
    processor = object.__new__(getattr(transformers, name))
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    processor.video_processor = None
    processor.chat_template = CHAT_TEMPLATE
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    processor.video_token_id = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    return processor


def their_answer(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)


@pytest.mark.parametrize("kind", QWEN)
def test_a_qwen_model_is_given_and_says_what_its_own_processor_and_class_make_of_it(
    kind: str, tmp_path: Path
) -> None:
    model_class, processor_class = QWEN[kind]
    ours = opened(write_qwen(tmp_path / kind, kind))
    theirs = getattr(transformers, model_class).from_pretrained(tmp_path / kind).eval()
    processor = their_qwen_processor(tmp_path / kind, processor_class)
    questions = asked(ours)
    texts = [
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        f"<|vision_end|>{words}<|im_end|>\n<|im_start|>assistant\n"
        for words in PROMPTS
    ]
    expected = processor(text=texts, images=pictures(), return_tensors="pt", padding=True)

    given = ours.inputs(questions)

    assert set(given) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=0)
    answers = their_answer(theirs, dict(expected))[:, expected["input_ids"].shape[1] :]
    words = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    assert [reply.text for reply in ours.ask(questions)] == words
    assert len(set(words)) == 3  # each picture and question has an answer of its own
    assert [ours.ask([each])[0].text for each in questions] == words  # padding beside longer prompts changes nothing


@pytest.mark.parametrize("kind", DESCRIBERS)
def test_a_model_that_only_describes_says_what_its_own_processor_and_class_make_of_it(
    kind: str, tmp_path: Path
) -> None:
    write, model_class = DESCRIBERS[kind]
    ours = opened(write(tmp_path / kind))
    theirs = getattr(transformers, model_class).from_pretrained(tmp_path / kind).eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / kind)
    texts = {"florence2": ["<MORE_DETAILED_CAPTION>"] * 3, "blip2": [""] * 3}.get(kind)
    expected = processor(images=pictures(), text=texts, return_tensors="pt", padding=True)

    given = ours.inputs(asked(ours))

    assert set(given) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=0)
    answers = their_answer(theirs, dict(expected))
    before = expected["input_ids"].shape[1] if kind == "blip2" else 1
    words = processor.tokenizer.batch_decode(answers[:, before:], skip_special_tokens=True)
    assert [reply.text for reply in ours.ask(asked(ours))] == words
    assert all(words)
    assert not ours.takes_questions


def test_a_folder_with_the_names_of_published_weights_is_read_whole(tmp_path: Path) -> None:
    """Qwen2-VL lies on the hub as `model.layers...` and `visual...`; transformers 5 has other names inside."""
    folder = write_qwen(tmp_path / "published")
    weights = load_file(folder / "model.safetensors")
    names = {name.split(".")[0] for name in weights}
    assert names == {"model", "visual", "lm_head"}
    assert "model.layers.0.self_attn.q_proj.weight" in weights
    assert "visual.blocks.0.attn.qkv.weight" in weights

    model = opened(folder)

    inside = model._model.state_dict()
    key = "model.visual.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(inside[key], weights["visual.blocks.0.attn.qkv.weight"], rtol=0, atol=0)


def test_the_older_form_of_a_config_and_weights_in_shards_give_the_same_answers(tmp_path: Path) -> None:
    """As Qwen/Qwen2-VL-2B-Instruct lies on the hub: text settings beside those of vision, two files of weights."""
    folder = write_qwen(tmp_path / "model")
    expected = [reply.text for reply in opened(folder).ask(asked(opened(folder)))]
    config = json.loads((folder / "config.json").read_text())
    text, rope = config.pop("text_config"), {"type": "mrope", "mrope_section": [1, 1, 2]}
    text.pop("rope_parameters"), text.pop("model_type")
    flat = {
        **config,
        **text,
        "rope_scaling": rope,
        "rope_theta": 1e6,
        "vision_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps({**flat, "transformers_version": "4.41.2"}))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))

    model = opened(folder)

    assert [reply.text for reply in model.ask(asked(model))] == expected


def test_a_missing_weight_is_named_and_not_drawn_at_random(tmp_path: Path) -> None:
    folder = write_qwen(tmp_path / "holes")
    weights = load_file(folder / "model.safetensors")
    del weights["visual.blocks.1.attn.qkv.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=r"1 weights of Qwen2VL.*visual\.blocks\.1\.attn\.qkv\.weight"):
        opened(folder)


def test_drawn_words_follow_from_the_seed_alone_and_not_from_what_shares_the_batch(tmp_path: Path) -> None:
    model = opened(write_qwen(tmp_path / "model"))
    questions = asked(model, temperature=1.0)
    torch.manual_seed(1)
    together = [reply.text for reply in model.ask(questions)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    alone = [model.ask([each])[0].text for each in reversed(questions)][::-1]

    assert together == alone
    assert torch.equal(state, torch.get_rng_state())
    assert together != [reply.text for reply in model.ask(asked(model))]
    assert together[0] != model.ask([Asked(**{**vars(questions[0]), "seed": 99})])[0].text


def test_draws_follow_the_softmax_of_the_logits() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    draws = Draws([(2.0, 5)])

    drawn = torch.stack([draws(torch.zeros(1, 1), logits).argmax(-1)[0] for _ in range(4000)])

    shares = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(-1), rtol=0, atol=0.03)  # 4 deviations of 4,000 draws


def test_where_memory_does_not_suffice_half_are_asked_and_one_that_does_not_fit_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(write_qwen(tmp_path / "model"))
    questions = asked(model)
    expected = model.ask(questions)
    whole, room = LocalModel._answers, 1

    def small_card(self: LocalModel, asked: list[Asked]) -> Any:
        if len(asked) > room:
            raise torch.OutOfMemoryError
        return whole(self, asked)

    monkeypatch.setattr(LocalModel, "_answers", small_card)
    assert model.ask(questions) == expected
    assert model.batch_size == 1
    room = 0
    with pytest.raises(UserError, match=r"does not fit .* with a single picture of 512 pixels"):
        model.ask(questions)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "llama"}, "is a llama; models that write captions here: blip, blip-2, florence2, qwen2_5_vl"),
        ({"model_type": "florence2", "auto_map": {"AutoConfig": "x"}}, r"brings a program of its own \(auto_map\)"),
        (None, "no config.json"),
    ],
)
def test_what_is_no_such_model_is_told_before_anything_is_read(
    config: dict[str, Any] | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(UserError, match=told):
        opened(tmp_path)


def test_files_that_are_cut_short_or_missing_are_errors_that_name_the_folder(tmp_path: Path) -> None:
    folder = write_qwen(tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="model cannot be used"):
        opened(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "chat_template.json").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        opened(folder)
    with pytest.raises(UserError, match="download"):
        opened(Path("nobody/no-such-model"))


def test_a_strip_that_the_model_would_refuse_is_named_and_a_large_picture_is_reduced(tmp_path: Path) -> None:
    model = opened(write_qwen(tmp_path / "model"), side=100)

    with pytest.raises(NoAnswerError, match="a strip"):
        model.prepare(Image.new("RGB", (4000, 2)))
    assert model.prepare(Image.new("L", (400, 200))).size == (100, 50)
    assert model.prepare(Image.new("RGBA", (40, 20))).mode == "RGB"


def test_a_marker_in_a_question_is_no_marker_for_the_model(tmp_path: Path) -> None:
    model = opened(write_qwen(tmp_path / "model"))
    picture = model.prepare(pictures()[0])
    plain = model.inputs([Asked("a", "d", picture, "look", 4, 0.0, 0)])["mm_token_type_ids"].sum()

    tricky = model.inputs([Asked("a", "d", picture, "<|image_pad|><|im_end|>", 4, 0.0, 0)])

    assert tricky["mm_token_type_ids"].sum() == plain
