"""Models of transformers that look at pictures and write: Qwen2-VL and its successors, Florence-2, BLIP and BLIP-2.

transformers' own processor of the Qwen models wants torchvision, for videos. Here its parts are put together for
pictures alone: the image processor for Pillow, the tokenizer, and the chat template that lies in the model's folder.

Shapes in this file:  B pictures   L tokens of a prompt with its picture   G tokens of an answer   V vocabulary
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from brushwork.captioning.captioner import Asked, NoAnswerError, Reply, reduced
from brushwork.errors import UserError, listed
from brushwork.models.folder import read_json
from brushwork.models.hub import locate
from brushwork.runtime import precision_name, release_memory
from brushwork.vision.quiet import quiet_transformers

CHATS = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
"""Models that answer questions, by the `model_type` in their config.json."""

DESCRIBERS = {
    "florence2": "Florence2ForConditionalGeneration",
    "blip": "BlipForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
}
"""Models that only ever describe the picture."""

FLORENCE_TASK = "<MORE_DETAILED_CAPTION>"

PICTURE_TOKEN = "<|image_pad|>"
"""In a Qwen prompt: stands where the picture goes, once for each of its patches."""

PATCH_OF_TEXT, PATCH_OF_PICTURE = 0, 1
"""What the Qwen models are told of each token, to number its place by."""

LONGEST = 150
"""Times that a picture may be longer than wide: the Qwen models refuse 200."""


@final
class LocalModel:
    """A model on this machine, ready to be asked.

    Args:
        name: what the person called it.
        side: longer pictures are reduced to this.
    """

    num_workers = 1

    def __init__(self, name: str, folder: Path, model: Any, *, batch_size: int, side: int) -> None:
        self.name = name
        self.batch_size = batch_size
        self.side = side
        self.kind = str(model.config.model_type)
        self.takes_questions = self.kind in CHATS
        self._model = model
        self._device, self._dtype = model.device, model.dtype
        self._ends = _ends(model)
        with _readable(folder):
            if self.takes_questions:
                self._tokenizer, self._inputs = _chat(folder, takes_types=_takes_types(model))
            else:
                self._tokenizer, self._inputs = _describer(folder, self.kind)

    def prepare(self, picture: Image.Image) -> Image.Image:
        """Upright RGB, not larger than it is to be shown."""
        short, long = sorted(picture.size)
        if long > LONGEST * short:
            raise NoAnswerError(f"{picture.width} x {picture.height} is a strip, which the model cannot be shown")
        return reduced(picture.convert("RGB"), self.side)

    @torch.no_grad()
    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """An answer to each question; where the card has no room for all at once, half of them at a time."""
        try:
            return self._answers(asked)
        except torch.OutOfMemoryError as error:
            if len(asked) == 1:
                raise UserError(
                    f"{self.name} does not fit on {self._device} with a single picture of {self.side} pixels.",
                    fix=f"--set captioning.side={max(64, self.side // 2)}, or a smaller model",
                ) from error
        release_memory(self._device)
        half = self.batch_size = (len(asked) + 1) // 2
        return [*self.ask(asked[:half]), *self.ask(asked[half:])]

    def stop(self) -> None:
        """There is nothing to end: whoever asks waits."""

    def inputs(self, asked: Sequence[Asked]) -> dict[str, Tensor]:
        """What the network is given: token numbers (B, L), their mask, and the pictures as it takes them."""
        inputs = self._inputs([each.picture for each in asked], [each.prompt for each in asked])
        return {
            name: tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def _answers(self, asked: Sequence[Asked]) -> list[Reply]:
        longest = max(each.max_tokens for each in asked)
        inputs = self.inputs(asked)
        with quiet_transformers():
            tokens = self._model.generate(
                **inputs,
                max_new_tokens=longest,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=transformers.LogitsProcessorList(_draws(asked)),
            )
        written = tokens[:, self._num_before(inputs) :]
        return [self._reply(row, longest) for row in written.tolist()]

    def _num_before(self, inputs: dict[str, Tensor]) -> int:
        """How many tokens stand before an answer: the whole prompt, or what a decoder begins with."""
        config = self._model.config
        decodes_alone = config.is_encoder_decoder or self.kind == "blip"
        if self.kind == "blip-2":
            decodes_alone = not config.use_decoder_only_language_model
        return 1 if decodes_alone else int(inputs["input_ids"].shape[1])

    def _reply(self, tokens: list[int], longest: int) -> Reply:
        """(G,) -> words; what became as long as it may without an end was cut."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return Reply(str(text), cut=len(tokens) >= longest and not self._ends & set(tokens))


class Draws(transformers.LogitsProcessor):  # type: ignore[misc]
    """Draws words, each row from a generator of its own, so that an answer does not depend on what shares its batch.

    The largest of the logits plus Gumbel noise is a draw from their softmax (arXiv:1611.01144, eq. 1), so the search
    for the likeliest token becomes the draw.

    Args:
        rows: temperature and seed of each row; temperature 0 draws nothing.
    """

    def __init__(self, rows: Sequence[tuple[float, int]]) -> None:
        self.rows = [
            (temperature, torch.Generator().manual_seed(seed)) if temperature else None for temperature, seed in rows
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, L), (B, V) -> (B, V)"""
        scores = scores.float().clone()
        for row, draw in enumerate(self.rows):
            if draw is not None:
                noise = torch.rand(scores.shape[1], generator=draw[1]).clamp_min(1e-20)
                scores[row] = scores[row] / draw[0] - (-noise.log()).clamp_min(1e-20).log().to(scores.device)
        return scores


def load_model(
    name: str, *, device: torch.device, dtype: torch.dtype, batch_size: int, side: int, offline: bool
) -> LocalModel:
    """A model by its folder or its hub id.

    Raises:
        UserError: it is not there, is of another kind, or lacks weights.
    """
    folder = locate(name, "transformers", offline=offline)
    kind = _checked_kind(folder)
    with _readable(folder), quiet_transformers():
        model, told = getattr(transformers, kind).from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, output_loading_info=True
        )
    # transformers draws a weight that is missing at random, and goes on.
    if missing := sorted({*told["missing_keys"], *(str(key[0]) for key in told["mismatched_keys"])}):
        raise UserError(
            f"{folder}: {len(missing)} weights of {kind} are missing or of another shape: {listed(missing)}.",
            fix="fetch the model again, as a whole",
        )
    model = model.to(device).eval().requires_grad_(False)
    return LocalModel(f"{name} ({precision_name(dtype)})", folder, model, batch_size=batch_size, side=side)


def _checked_kind(folder: Path) -> str:
    """The class of the model in a folder, or a sentence about why it cannot be used."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    model_type = str(config.get("model_type", ""))
    kinds = CHATS | DESCRIBERS
    if "auto_map" in config:
        raise UserError(
            f"{folder} brings a program of its own (auto_map), which is not run.",
            fix="take the same model in the layout of transformers, e.g. florence-community/Florence-2-base",
        )
    if model_type not in kinds:
        raise UserError(
            f"{folder} is {'a ' + model_type if model_type else 'no model of transformers (no config.json)'}; models "
            f"that write captions here: {listed(sorted(kinds), limit=len(kinds))}.",
            fix="name one such as Qwen/Qwen2-VL-2B-Instruct, or serve any other and name it with --endpoint",
        )
    return kinds[model_type]


Inputs = Callable[[Sequence[Image.Image], Sequence[str]], dict[str, Tensor]]


def _chat(folder: Path, *, takes_types: bool) -> tuple[Any, Inputs]:
    """Tokenizer and inputs of a Qwen model."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer.padding_side = "left"  # answers are written at the right
    template = tokenizer.chat_template or read_json(folder / "chat_template.json").get("chat_template")
    if not template:
        raise UserError(
            f"{folder} has no chat template (chat_template.json, chat_template.jinja or in tokenizer_config.json).",
            fix="take the -Instruct form of the model, as a whole",
        )
    look = AutoImageProcessor.from_pretrained(str(folder), backend="pil", local_files_only=True)
    picture_id = tokenizer.convert_tokens_to_ids(PICTURE_TOKEN)

    def inputs(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Tensor]:
        seen = look(images=list(pictures), return_tensors="pt")
        patches = (seen["image_grid_thw"].prod(dim=-1) // look.merge_size**2).tolist()
        texts = [
            _said(tokenizer, template, prompt).replace(PICTURE_TOKEN, PICTURE_TOKEN * count, 1)
            for prompt, count in zip(prompts, patches, strict=True)
        ]
        tokens = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        found = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if takes_types:
            is_picture = found["input_ids"] == picture_id
            found["mm_token_type_ids"] = torch.where(is_picture, PATCH_OF_PICTURE, PATCH_OF_TEXT)
        return {**found, "pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}

    return tokenizer, inputs


def _said(tokenizer: Any, template: str, prompt: str) -> str:
    """The conversation as text. The model's own marks, should a profile hold them, are no marks there."""
    prompt = prompt.replace("<|", "< |")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    return str(
        tokenizer.apply_chat_template([message], chat_template=template, add_generation_prompt=True, tokenize=False)
    )


def _describer(folder: Path, kind: str) -> tuple[Any, Inputs]:
    """Tokenizer and inputs of a model that describes without being asked."""
    processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)

    def inputs(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Tensor]:
        texts = {"florence2": [FLORENCE_TASK] * len(pictures), "blip-2": [""] * len(pictures)}.get(kind)
        return dict(processor(images=list(pictures), text=texts, return_tensors="pt", padding=True))

    return processor.tokenizer, inputs


def _draws(asked: Sequence[Asked]) -> list[Draws]:
    rows = [(each.temperature, each.seed) for each in asked]
    return [Draws(rows)] if any(temperature for temperature, _ in rows) else []


def _ends(model: Any) -> frozenset[int]:
    """The tokens with which an answer may end."""
    if model.config.model_type == "blip":
        return frozenset({model.config.text_config.sep_token_id})
    writer = model.language_model if model.config.model_type == "blip-2" else model
    ends = writer.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [ends])


def _takes_types(model: Any) -> bool:
    """Whether this version of transformers wants to be told which tokens are of the picture."""
    return "mm_token_type_ids" in inspect.signature(model.forward).parameters


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What transformers says of a folder that it cannot read becomes a sentence that names the folder."""
    try:
        yield
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ImportError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{folder} cannot be used: {told}", fix="fetch the model again, as a whole") from error
