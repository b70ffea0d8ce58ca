"""Single files are read as diffusers' own conversion reads them: the same names, the same numbers."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

import single_files
from brushwork.models import configs
from brushwork.models.bundled import AUTOENCODER, TEXT_ENCODER_2
from brushwork.models.naming import CUTS, Origin, open_clip_origins, unet_origins, vae_origins
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.models.text import canonical_name, empty_text_encoder
from brushwork.models.unet import UNet
from brushwork.models.vae import empty_autoencoder
from brushwork.models.weights import open_base
from random_base import write_random_base

Tensors = dict[str, Tensor]

UNET, VAE, OPEN_CLIP = "model.diffusion_model.", "first_stage_model.", "conditioner.embedders.1.model."


def meta_state(module: torch.nn.Module) -> Tensors:
    return {name: tensor.to("meta") for name, tensor in module.state_dict().items()}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def keys_after(prefix: str, state: Iterable[str]) -> list[str]:
    return [key[len(prefix) :] for key in state if key.startswith(prefix)]


def cut_out(origins: Mapping[str, Origin], prefix: str, state: Tensors) -> Tensors:
    return {name: CUTS[origin.cut](state[prefix + origin.key]) for name, origin in origins.items()}


@pytest.mark.parametrize("spec", [SD15, SDXL, TINY], ids=["sd15", "sdxl", "tiny"])
def test_unet_names_and_shapes_are_those_of_diffusers_at_full_size(spec: UNetSpec) -> None:
    with torch.device("meta"):
        state = single_files.unet_in_ldm(UNet(spec).state_dict(), spec)

    theirs = convert_ldm_unet_checkpoint(dict(state), spec.to_config())

    ours = cut_out(unet_origins(keys_after(UNET, state)), UNET, state)
    assert shapes(ours) == shapes(theirs)
    assert {name: id(tensor) for name, tensor in ours.items()} == {
        name: id(tensor) for name, tensor in theirs.items()
    }


@pytest.mark.parametrize("config", [configs.VAE["sdxl"], AUTOENCODER], ids=["sdxl", "tiny"])
def test_vae_names_and_numbers_are_those_of_diffusers(config: configs.Config) -> None:
    torch.manual_seed(0)
    is_tiny = config is AUTOENCODER
    module = {
        name: torch.randn(t.shape) if is_tiny else t for name, t in meta_state(empty_autoencoder(config)).items()
    }
    state = single_files.vae_in_ldm(module)

    theirs = convert_ldm_vae_checkpoint(dict(state), config)

    ours = cut_out(vae_origins(keys_after(VAE, state)), VAE, state)
    assert shapes(ours) == shapes(theirs) == shapes(module)
    assert not is_tiny or all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("config", [configs.CLIP_BIG_G, TEXT_ENCODER_2], ids=["bigG", "tiny"])
def test_open_clip_names_and_numbers_are_those_of_diffusers(config: configs.Config) -> None:
    torch.manual_seed(0)
    # diffusers cuts q, k and v at the width of the projection: right for bigG alone, where both are 1280.
    config = {**config, "projection_dim": config["hidden_size"]}
    is_tiny = config["hidden_size"] < 1280
    empty = empty_text_encoder(config, with_projection=True)
    named = {canonical_name(empty, path): tensor for path, tensor in meta_state(empty).items()}
    module = {name: torch.randn(t.shape) if is_tiny else t for name, t in named.items()}
    state = single_files.open_clip(module)

    theirs = convert_open_clip_checkpoint(empty, dict(state), prefix=OPEN_CLIP)

    ours = cut_out(open_clip_origins(keys_after(OPEN_CLIP, state)), OPEN_CLIP, state)
    assert shapes(ours) == shapes(theirs) == shapes(module)
    assert not is_tiny or all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_whole_file_is_loaded_as_diffusers_converts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    write_random_base(tmp_path / "tiny", autoencoder=AUTOENCODER)
    parts = {path.parent.name: load_file(path) for path in (tmp_path / "tiny").glob("*/*.safetensors")}
    state = single_files.sdxl_file(parts["unet"], parts["vae"], parts["text_encoder"], parts["text_encoder_2"], TINY)
    save_file(state, tmp_path / "model.safetensors")

    base = open_base(str(tmp_path / "model.safetensors"))
    unet = base.load_unet(dtype=torch.float16, device="cpu").state_dict()
    vae = base.load_vae(dtype=torch.float32, device="cpu").module.state_dict()
    clip = base.load_text(dtype=torch.float16, device="cpu").modules["text_encoder"]
    text = {canonical_name(clip, path): tensor for path, tensor in clip.state_dict().items()}

    theirs_text = convert_ldm_clip_checkpoint(dict(state))
    theirs_text.pop("text_model.embeddings.position_ids")
    for ours, theirs in (
        (unet, convert_ldm_unet_checkpoint(dict(state), TINY.to_config())),
        (vae, convert_ldm_vae_checkpoint(dict(state), AUTOENCODER)),
        (text, theirs_text),
    ):
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor.to(ours[name].dtype)), name
