"""The tiny base in the package, and the random one of the tests: real SDXL folders, the same on every machine."""

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from brushwork.film.frames import draw_frame
from brushwork.models.bundled import bundled_folder
from brushwork.models.spec import TINY
from brushwork.models.weights import open_base
from random_base import write_random_base


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with random weights."""
    written = tmp_path_factory.mktemp("random")
    write_random_base(written)
    return written


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["bundled", "random"])
def folder(request: pytest.FixtureRequest, random: Path) -> Path:
    return bundled_folder() if request.param == "bundled" else random


def test_it_has_the_files_of_an_sdxl_folder_and_is_small(folder: Path) -> None:
    tokenizer = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    assert sorted(digests(folder)) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"text_encoder/{name}" for name in ("config.json", "model.safetensors")),
        *(f"text_encoder_2/{name}" for name in ("config.json", "model.safetensors")),
        *(f"tokenizer/{name}" for name in tokenizer),
        *(f"tokenizer_2/{name}" for name in tokenizer),
        *(f"unet/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
        *(f"vae/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
    ]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


def test_the_same_random_weights_come_out_each_time(random: Path, tmp_path: Path) -> None:
    write_random_base(tmp_path)

    assert digests(tmp_path) == digests(random)


def test_diffusers_loads_it_and_reads_the_same_states_from_a_caption(folder: Path) -> None:
    theirs = StableDiffusionXLPipeline.from_pretrained(folder).to(torch.float32)
    base = open_base(str(folder))
    encoders = base.load_text(dtype=torch.float32, device="cpu")
    _, caption = draw_frame(0)
    assert base.spec == TINY
    assert encoders.width == TINY.context_width
    assert encoders.pooled_width == TINY.pooled_width
    assert encoders.count_tokens(caption) < 75

    with torch.no_grad():
        context, _, pooled, _ = theirs.encode_prompt(caption, device="cpu", do_classifier_free_guidance=False)
        ours = encoders.encode([caption])

    torch.testing.assert_close(ours.context, context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_what_flows_through_it_is_of_a_sane_size(folder: Path) -> None:
    base = open_base(str(folder))
    picture = torch.tensor(list(draw_frame(0)[0].tobytes())).view(1, 128, 128, 3).permute(0, 3, 1, 2) / 127.5 - 1
    vae = base.load_vae(dtype=torch.float32, device="cpu")
    unet = base.load_unet(dtype=torch.float32, device="cpu")

    mean, deviation = vae.encode(picture)
    latents = mean * vae.scaling_factor
    states = base.load_text(dtype=torch.float32, device="cpu").encode(["a fox"])
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
    output = unet(latents, torch.tensor([500]), states.context, states.pooled, sizes)

    assert 0.3 < latents.std() < 3
    assert deviation.max() < 0.3
    assert 0.3 < states.context.std() < 3
    assert 0.1 < output.std() < 3
