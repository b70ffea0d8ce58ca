"""Captions become the states that steer the UNet: CLIP's tokenizers and text encoders, by transformers.

SD 1.5 has one encoder and reads its last state; SDXL joins the penultimate states of two and adds a pooled vector.

Shapes in this file:  B prompts   U different prompts   N chunks of a prompt   L = N * 77   C width   P pooled width
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from brushwork.errors import UserError
from brushwork.models.assembly import Renamed, assemble
from brushwork.models.vocabulary import END, Vocabulary

CHUNK_WORDS = 75
CHUNK_LENGTH = CHUNK_WORDS + 2
"""A chunk is a start token, up to 75 tokens of the caption, an end token, and padding: CLIP's 77 positions."""

REMEMBERED_PROMPTS = 65_536
"""Captions whose tokens a tokenizer keeps: about a kilobyte each."""

WRAPPER = "text_model."
OLD_END_ID = 2
"""In configurations older than transformers 4.31: the end of a text is where the highest number stands."""

CONFIG_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "projection_dim",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


@dataclass(frozen=True)
class TextStates:
    """What the UNet is told of a batch of prompts: context (B, L, C); SDXL also pooled (B, P)."""

    context: Tensor
    pooled: Tensor | None


def joined(states: Sequence[TextStates]) -> TextStates:
    """The states of several batches as one."""
    pooled = [each.pooled for each in states if each.pooled is not None]
    return TextStates(torch.cat([each.context for each in states]), torch.cat(pooled) if pooled else None)


class Tokenizer:
    """Captions become numbers, as the encoder was trained on them.

    Padding is laid on here and not by transformers, which would also take every "!" in a caption for the padding of
    SDXL's second encoder (huggingface/diffusers#4153).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._clip = CLIPTokenizer(vocab=vocabulary.ids, merges=list(vocabulary.merges), pad_token=END)
        # 0.14 ms for a short caption: with encoders that are asked in every step, once a run is enough.
        self._remembered = lru_cache(REMEMBERED_PROMPTS)(self._words)

    def words(self, prompt: str) -> list[int]:
        """The numbers of all tokens of a prompt, without start and end."""
        return list(self._remembered(prompt))

    def _words(self, prompt: str) -> tuple[int, ...]:
        ids = self._clip(prompt, add_special_tokens=False, truncation=False, padding=False).input_ids
        return tuple(ids)

    def chunks(self, prompt: str, num_chunks: int) -> Tensor:
        """A prompt -> (N, 77); what does not fit is left out."""
        words = self.words(prompt)
        return torch.tensor([self._chunk(words[i * CHUNK_WORDS : (i + 1) * CHUNK_WORDS]) for i in range(num_chunks)])

    def _chunk(self, words: list[int]) -> list[int]:
        known = self.vocabulary
        return [known.start_id, *words, known.end_id, *[known.pad_id] * (CHUNK_WORDS - len(words))]


class TextEncoders:
    """The text encoders of a base model with their tokenizers.

    A long prompt is cut into chunks of 75 tokens, each with its own start and end, and the states of the chunks are
    joined along the length: what ComfyUI and A1111 do when they draw, so a LoRA meets the same context there. (kohya
    leaves out the inner starts and ends: 227 states instead of 231.) The pooled vector is that of the first chunk.

    Args:
        modules: "text_encoder", for SDXL also "text_encoder_2", from `build_text_encoder`.
        vocabularies: by the same names.
        clip_skip: SD 1.5 only: which state is read, counted from the end. SDXL always reads the penultimate.
        max_tokens: how much of a prompt is read: 75, 150 or 225.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        vocabularies: Mapping[str, Vocabulary],
        *,
        clip_skip: int = 1,
        max_tokens: int = CHUNK_WORDS,
    ) -> None:
        self.modules: dict[str, nn.Module] = {name: modules[name] for name in sorted(modules)}
        self.num_chunks = max_tokens // CHUNK_WORDS
        self.clip_skip = clip_skip
        self._tokenizers = {name: Tokenizer(vocabularies[name]) for name in self.modules}
        for name, module in self.modules.items():
            _check(name, module, vocabularies[name])
        check_reading(
            num_layers=self._config("text_encoder").num_hidden_layers,
            is_sdxl=self.is_sdxl,
            clip_skip=clip_skip,
            max_tokens=max_tokens,
        )

    @property
    def is_sdxl(self) -> bool:
        return "text_encoder_2" in self.modules

    @property
    def width(self) -> int:
        """C: width of a state."""
        return sum(int(self._config(name).hidden_size) for name in self.modules)

    @property
    def length(self) -> int:
        """L: number of states of any prompt."""
        return self.num_chunks * CHUNK_LENGTH

    @property
    def pooled_width(self) -> int | None:
        """P: width of the pooled vector; None for SD 1.5."""
        return int(self._config("text_encoder_2").projection_dim) if self.is_sdxl else None

    @property
    def max_tokens(self) -> int:
        return self.num_chunks * CHUNK_WORDS

    @property
    def device(self) -> torch.device:
        return next(self.modules["text_encoder"].parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the modules."""
        for module in self.modules.values():
            module.to(device)
        return self

    def count_tokens(self, prompt: str) -> int:
        """How many tokens a prompt has, without start and end; more than `max_tokens` are not read."""
        return max(len(tokenizer.words(prompt)) for tokenizer in self._tokenizers.values())

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """B prompts -> context (B, L, C), pooled (B, P) or None; in the modules' type, and differentiable."""
        if not prompts:
            raise ValueError("no prompts to encode")
        different = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        rows = torch.tensor([different[prompt] for prompt in prompts], device=self.device)
        states = [self._states(name, list(different)) for name in self.modules]
        context = torch.cat([context for context, _ in states], dim=-1)  # (U, L, C)
        pooled = states[-1][1]  # (U, P)
        return TextStates(context[rows], None if pooled is None else pooled[rows])

    def _states(self, name: str, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        """U prompts -> (U, L, width of this encoder), (U, P) or None"""
        module, tokenizer = self.modules[name], self._tokenizers[name]
        ids = torch.cat([tokenizer.chunks(prompt, self.num_chunks) for prompt in prompts])  # (U * N, 77)
        output = module(ids.to(self.device), output_hidden_states=True)
        if self.is_sdxl:
            hidden = output.hidden_states[-2]
        elif self.clip_skip == 1:
            hidden = output.last_hidden_state
        else:
            hidden = _inner(module).final_layer_norm(output.hidden_states[-self.clip_skip])
        hidden = hidden.reshape(len(prompts), self.length, -1)
        if not isinstance(module, CLIPTextModelWithProjection):
            return hidden, None
        return hidden, output.text_embeds[:: self.num_chunks]

    def _config(self, name: str) -> Any:
        return self.modules[name].config


def check_reading(*, num_layers: int, is_sdxl: bool, clip_skip: int, max_tokens: int) -> None:
    """Refuse a way of reading prompts that these encoders do not have; known before anything is loaded.

    Args:
        num_layers: of the first encoder.
    """
    if max_tokens < CHUNK_WORDS or max_tokens % CHUNK_WORDS:
        raise UserError(
            f"model.max_tokens is {max_tokens}; prompts are read in chunks of {CHUNK_WORDS}.",
            fix=f"--set model.max_tokens={CHUNK_WORDS}, {2 * CHUNK_WORDS} or {3 * CHUNK_WORDS}",
        )
    if is_sdxl and clip_skip > 2:
        raise UserError(
            f"model.clip_skip is {clip_skip}; SDXL always reads the penultimate state.", fix="--set model.clip_skip=1"
        )
    if clip_skip > num_layers:
        raise UserError(
            f"model.clip_skip is {clip_skip}; the text encoder has {num_layers} layers.",
            fix="--set model.clip_skip=1",
        )


def build_text_encoder(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    *,
    with_projection: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    what: str = "text encoder",
) -> nn.Module:
    """A text encoder from a `config.json` and its weights by their canonical names (`text_model.` in front)."""
    empty = empty_text_encoder(config, with_projection=with_projection)
    own_names = {module_path(empty, name): name for name in state_dict if not name.endswith(".position_ids")}
    module = assemble(empty, Renamed(state_dict, own_names), dtype=dtype, device=device, what=what)
    embeddings = _inner(module).embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings, device=device)[None]
    return module


def empty_text_encoder(config: Mapping[str, Any], *, with_projection: bool) -> nn.Module:
    """A text encoder on the meta device: names and shapes, no memory."""
    settings = CLIPTextConfig(
        **{key: config[key] for key in CONFIG_KEYS if key in config}, attn_implementation="sdpa"
    )
    kind = CLIPTextModelWithProjection if with_projection else CLIPTextModel
    with torch.device("meta"):
        module: nn.Module = kind(settings)
    return module


def canonical_name(module: nn.Module, path: str) -> str:
    """The name in files of what stands at `path` in a text encoder: always with `text_model.` in front.

    transformers 5 dropped the wrapper from CLIPTextModel but not from CLIPTextModelWithProjection.
    """
    return path if _is_wrapped(module) else WRAPPER + path


def module_path(module: nn.Module, canonical: str) -> str:
    """Where in a text encoder the part with this canonical name stands; the reverse of `canonical_name`."""
    return canonical if _is_wrapped(module) else canonical.removeprefix(WRAPPER)


def _is_wrapped(module: nn.Module) -> bool:
    return "text_model" in module._modules


def _inner(module: nn.Module) -> Any:
    return module.text_model if _is_wrapped(module) else module


def _check(name: str, module: Any, vocabulary: Vocabulary) -> None:
    """Refuse an encoder whose numbers do not mean what its tokenizer means by them."""
    config = module.config
    highest = max(vocabulary.ids.values())
    if highest >= config.vocab_size:
        raise UserError(
            f"{name} knows {config.vocab_size} tokens; its tokenizer has numbers up to {highest}.",
            fix="take tokenizer and weights from the same model; added tokens are not supported",
        )
    if config.max_position_embeddings < CHUNK_LENGTH:
        raise UserError(f"{name} has {config.max_position_embeddings} positions; {CHUNK_LENGTH} are needed.")
    reads_end = isinstance(module, CLIPTextModelWithProjection)
    finds_end = config.eos_token_id == vocabulary.end_id or (
        config.eos_token_id == OLD_END_ID and vocabulary.end_id == highest
    )
    if reads_end and not finds_end:
        raise UserError(
            f"{name} takes number {config.eos_token_id} for the end; the tokenizer has {vocabulary.end_id}.",
            fix=f'set "eos_token_id": {vocabulary.end_id} in {name}/config.json',
        )
