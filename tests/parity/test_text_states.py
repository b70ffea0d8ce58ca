"""Text states are those that diffusers' pipelines give the UNet, and those that CLIP's equations give."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from brushwork.models.text import TextEncoders, build_text_encoder, canonical_name
from brushwork.models.vocabulary import PAD_OF_BIG_G, Vocabulary, packaged_vocabulary, write_vocabulary

CLIP_L = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
}
CLIP_G = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
}
NUM_MERGES = 2000
VOCABULARIES = {
    "text_encoder": packaged_vocabulary(num_merges=NUM_MERGES),
    "text_encoder_2": packaged_vocabulary(num_merges=NUM_MERGES, padding=PAD_OF_BIG_G),
}
PROMPTS = [
    "a photo of a cat",
    "",
    "A  Red FOX's scarf, 35mm; naïve café 東京 🦊 (masterpiece:1.2)\n\tsecond line",
    "a photo of a cat",
    "one more word " * 60,
]


def _config(shape: dict[str, Any], end_id: int) -> dict[str, Any]:
    return {**shape, "projection_dim": 40, "vocab_size": len(VOCABULARIES["text_encoder"]), "eos_token_id": end_id}


def _theirs(kind: type, config: dict[str, Any], seed: int) -> Any:
    torch.manual_seed(seed)
    module = kind(CLIPTextConfig(**config, bos_token_id=0, pad_token_id=1)).eval()
    for parameter in module.parameters():  # far from the initial weights, which leave norms and biases at 1 and 0
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module


def _ours(modules: dict[str, Any], **settings: int) -> TextEncoders:
    built = {
        name: build_text_encoder(
            module.config.to_dict(),
            {canonical_name(module, path): tensor for path, tensor in module.state_dict().items()},
            with_projection=isinstance(module, CLIPTextModelWithProjection),
            dtype=torch.float32,
            device="cpu",
        )
        for name, module in modules.items()
    }
    return TextEncoders(built, VOCABULARIES, **settings)


def _tokenizer(vocabulary: Vocabulary, folder: Path) -> Any:
    write_vocabulary(vocabulary, folder)
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("end_id", [2, VOCABULARIES["text_encoder"].end_id])
@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_sd15_states_match_diffusers(clip_skip: int, end_id: int, tmp_path: Path) -> None:
    encoder = _theirs(CLIPTextModel, _config(CLIP_L, end_id), seed=0)
    # diffusers 0.42 looks for the final norm where transformers 4 had it; lay the old path, but register no module.
    encoder.__dict__["text_model"] = encoder
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=encoder,
        tokenizer=_tokenizer(VOCABULARIES["text_encoder"], tmp_path),
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(
            PROMPTS, "cpu", 1, do_classifier_free_guidance=False, clip_skip=None if clip_skip == 1 else clip_skip - 1
        )
        ours = _ours({"text_encoder": encoder}, clip_skip=clip_skip).encode(PROMPTS)

    assert ours.pooled is None
    assert ours.context.shape == (len(PROMPTS), 77, 48)
    torch.testing.assert_close(ours.context, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("end_id", [2, VOCABULARIES["text_encoder"].end_id])
def test_sdxl_states_and_pooled_match_diffusers(end_id: int, tmp_path: Path) -> None:
    modules = {
        "text_encoder": _theirs(CLIPTextModel, _config(CLIP_L, end_id), seed=0),
        "text_encoder_2": _theirs(CLIPTextModelWithProjection, _config(CLIP_G, end_id), seed=1),
    }
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        **modules,
        tokenizer=_tokenizer(VOCABULARIES["text_encoder"], tmp_path / "tokenizer"),
        tokenizer_2=_tokenizer(VOCABULARIES["text_encoder_2"], tmp_path / "tokenizer_2"),
        unet=None,
        scheduler=None,
        add_watermarker=False,
    )

    with torch.no_grad():
        theirs, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
        ours = _ours(modules).encode(PROMPTS)

    assert ours.context.shape == (len(PROMPTS), 77, 48 + 64)
    torch.testing.assert_close(ours.context, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_states_are_those_of_clips_equations() -> None:
    """A new numbering of states in transformers would go unseen in a comparison with diffusers, which follows it."""
    modules = {
        "text_encoder": _theirs(CLIPTextModel, _config(CLIP_L, 2), seed=0),
        "text_encoder_2": _theirs(CLIPTextModelWithProjection, _config(CLIP_G, 2), seed=1),
    }
    ours = _ours(modules)
    ids = [VOCABULARIES["text_encoder"].start_id, *ours._tokenizers["text_encoder"].words("a red fox")]
    end = len(ids)
    ids.append(VOCABULARIES["text_encoder"].end_id)
    padded = {name: ids + [VOCABULARIES[name].pad_id] * (77 - len(ids)) for name in modules}

    states_l = _clip_states(modules["text_encoder"], torch.tensor(padded["text_encoder"]))
    states_g = _clip_states(modules["text_encoder_2"].text_model, torch.tensor(padded["text_encoder_2"]))
    last_g = modules["text_encoder_2"].text_model.final_layer_norm(states_g[-1])
    with torch.no_grad():
        found = ours.encode(["a red fox"])
        sd15 = _ours({"text_encoder": modules["text_encoder"]}).encode(["a red fox"])
        skipped = _ours({"text_encoder": modules["text_encoder"]}, clip_skip=2).encode(["a red fox"])

    norm = modules["text_encoder"].final_layer_norm
    torch.testing.assert_close(
        found.context[0], torch.cat([states_l[-2], states_g[-2]], dim=-1), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        found.pooled[0],
        last_g[end] @ modules["text_encoder_2"].text_projection.weight.T,
        rtol=1e-5,
        atol=1e-5,
    )
    torch.testing.assert_close(sd15.context[0], norm(states_l[-1]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(skipped.context[0], norm(states_l[-2]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def _clip_states(module: Any, ids: Tensor) -> list[Tensor]:
    """(77,) -> (77, C) before the first layer and after each: the transformer of arXiv:2103.00020, written out."""
    heads, activation = module.config.num_attention_heads, module.config.hidden_act
    x = module.embeddings.token_embedding.weight[ids] + module.embeddings.position_embedding.weight
    states = [x]
    future = torch.full((77, 77), -math.inf).triu(1)
    for layer in module.encoder.layers:
        normed, attention = _norm(x, layer.layer_norm1), layer.self_attn
        q, k, v = (
            _linear(normed, part).unflatten(-1, (heads, -1)).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + future, dim=-1)
        x = x + _linear((weights @ v).transpose(0, 1).flatten(1), attention.out_proj)
        hidden = _linear(_norm(x, layer.layer_norm2), layer.mlp.fc1)
        hidden = hidden * torch.sigmoid(1.702 * hidden) if activation == "quick_gelu" else F.gelu(hidden)
        x = x + _linear(hidden, layer.mlp.fc2)
        states.append(x)
    return states


def _linear(x: Tensor, linear: nn.Linear) -> Tensor:
    return x @ linear.weight.T + linear.bias


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
