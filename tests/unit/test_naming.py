"""Names of weights: ours and those of the single files."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from brushwork.models.naming import (
    clip_origins,
    module_to_diffusers,
    module_to_ldm,
    open_clip_origins,
    unet_origins,
    vae_origins,
)
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from single_files import unet_paths

SINGLE_LAYER = replace(
    TINY,
    channels=(64, 64, 128, 128, 128),
    attention_depth=(1, 0, 0, 3, 1),
    heads=(1, 1, 2, 2, 2),
    mid_depth=1,
    layers_per_block=1,
)
SPECS = {"sd15": SD15, "sdxl": SDXL, "tiny": TINY, "single layer": SINGLE_LAYER}

# How many pairs (our name, name in the file) there are, and the beginning of the SHA-256 of their sorted list, from
# the lists of ostris/ai-toolkit, toolkit/keymaps/stable_diffusion_{sd1,sdxl}.json (MIT, (c) 2024 Ostris, LLC).
PUBLISHED = {
    "sd15 unet": (686, "21c10c171ca31416"),
    "sdxl unet": (1680, "e590641044d01d4d"),
    "vae": (248, "53e32bb24c5f7e60"),
    "clip": (196, "6da2ac942d84f2f1"),
    "open clip": (516, "ced078e106069c7e"),
}

LDM_RESNET = ("norm1", "conv1", "norm2", "conv2")


def summary(pairs: Mapping[str, str]) -> tuple[int, str]:
    lines = sorted(f"{ours} {theirs}" for ours, theirs in pairs.items())
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def both(name: str) -> list[str]:
    return [f"{name}.weight", f"{name}.bias"]


def ldm_vae_keys() -> list[str]:
    """The keys of the VAE of both families, spelled out independently of the code under test."""
    names = ["quant_conv", "post_quant_conv"]
    for side, widths, blocks, path in (
        ("encoder", (128, 128, 256, 512, 512), 2, "down"),
        ("decoder", (512, 512, 512, 256, 128), 3, "up"),
    ):
        names += [f"{side}.{layer}" for layer in ("conv_in", "conv_out", "norm_out")]
        names += [f"{side}.mid.block_{number}.{layer}" for number in (1, 2) for layer in LDM_RESNET]
        names += [f"{side}.mid.attn_1.{layer}" for layer in ("norm", "q", "k", "v", "proj_out")]
        for step in range(4):
            level = step if side == "encoder" else 3 - step
            for block in range(blocks):
                names += [f"{side}.{path}.{level}.block.{block}.{layer}" for layer in LDM_RESNET]
            if widths[step] != widths[step + 1]:
                names.append(f"{side}.{path}.{level}.block.0.nin_shortcut")
            if step < 3:
                names.append(f"{side}.{path}.{level}.{path}sample.conv")
    return [key for name in names for key in both(name)]


def open_clip_keys() -> list[str]:
    keys = ["positional_embedding", "token_embedding.weight", *both("ln_final")]
    for number in range(32):
        layer = f"transformer.resblocks.{number}"
        keys += [f"{layer}.attn.in_proj_weight", f"{layer}.attn.in_proj_bias", *both(f"{layer}.attn.out_proj")]
        keys += [key for name in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for key in both(f"{layer}.{name}")]
    return keys


def clip_keys() -> list[str]:
    inside = ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
    inside += [f"self_attn.{letter}_proj" for letter in ("q", "k", "v", "out")]
    layers = [f"text_model.encoder.layers.{number}.{name}" for number in range(12) for name in inside]
    ends = [f"text_model.embeddings.{name}_embedding.weight" for name in ("token", "position")]
    return ends + [key for name in [*layers, "text_model.final_layer_norm"] for key in both(name)]


def unet_modules(spec: UNetSpec) -> dict[str, str]:
    """Every layer that owns parameters: diffusers path -> single-file path."""
    return {path: module_to_ldm(path, spec) for path in {name.rpartition(".")[0] for name in unet_paths(spec)}}


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_unet_names_are_those_of_the_published_files(family: str) -> None:
    assert summary(unet_paths(SPECS[family])) == PUBLISHED[f"{family} unet"]


def test_vae_and_text_encoder_names_are_those_of_the_published_files() -> None:
    origins = {
        "vae": vae_origins(ldm_vae_keys()),
        "clip": clip_origins(clip_keys()),
        "open clip": open_clip_origins(open_clip_keys()),
    }

    found = {part: summary({name: origin.key for name, origin in names.items()}) for part, names in origins.items()}

    assert found == {part: PUBLISHED[part] for part in origins}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_name_turned_to_the_other_scheme_and_back_is_the_same(spec: UNetSpec) -> None:
    names = unet_paths(spec) | unet_modules(spec)

    assert {module_to_diffusers(ldm, layers_per_block=spec.layers_per_block): ldm for ldm in names.values()} == names
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_names_of_a_single_file_are_read_without_knowing_the_spec(spec: UNetSpec) -> None:
    paths = unet_paths(spec)

    origins = unet_origins(paths.values())

    assert {name: origin.key for name, origin in origins.items()} == paths


def test_sdxl_attention_stands_where_kohya_files_have_it() -> None:
    depths: dict[str, int] = {}
    for path in unet_modules(SDXL).values():
        if found := re.match(r"(\w+_blocks?(?:\.\d+)?\.1)\.transformer_blocks\.(\d+)\.attn1\.to_q$", path):
            depths[found[1]] = max(depths.get(found[1], 0), int(found[2]) + 1)

    shallow, deep = (
        ("input_blocks.4.1", "input_blocks.5.1"),
        ("input_blocks.7.1", "input_blocks.8.1", "middle_block.1"),
    )
    expected = dict.fromkeys(shallow, 2) | dict.fromkeys(deep, 10)
    expected |= {f"output_blocks.{number}.1": 10 if number < 3 else 2 for number in range(6)}
    assert depths == expected


@pytest.mark.parametrize(
    ("spec", "ours", "theirs"),
    [
        (SDXL, "down_blocks.1.attentions.0", "input_blocks.4.1"),
        (SDXL, "down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        (SDXL, "up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        (SDXL, "up_blocks.2.resnets.1.time_emb_proj", "output_blocks.7.0.emb_layers.1"),
        (SDXL, "mid_block.resnets.1.conv2.bias", "middle_block.2.out_layers.3.bias"),
        (SDXL, "add_embedding.linear_2", "label_emb.0.2"),
        (SD15, "up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        (SD15, "up_blocks.1.resnets.0.conv_shortcut", "output_blocks.3.0.skip_connection"),
        (SD15, "conv_norm_out.weight", "out.0.weight"),
        (SD15, "mid_block.resnets.0", "middle_block.0"),
    ],
)
def test_a_module_has_its_published_place(spec: UNetSpec, ours: str, theirs: str) -> None:
    assert module_to_ldm(ours, spec) == theirs
    assert module_to_diffusers(theirs, layers_per_block=spec.layers_per_block) == ours


@pytest.mark.parametrize(
    "path", ["", "text_model.encoder", "mid_block.attentions.1", "down_blocks.0.resnets.0.conv3"]
)
def test_a_path_that_no_unet_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no part of a UNet"):
        module_to_ldm(path, SDXL)


@pytest.mark.parametrize(
    "path", ["", "input_blocks.0.1.op", "input_blocks.3.0.in_layers.0", "output_blocks.1.2.conv"]
)
def test_a_single_file_path_that_no_unet_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no part of a UNet"):
        module_to_diffusers(path, layers_per_block=2)


def test_a_text_encoder_has_one_name_whichever_version_of_transformers_saved_it() -> None:
    keys = clip_keys()
    unwrapped = [key.removeprefix("text_model.") for key in keys]

    assert clip_origins(unwrapped).keys() == clip_origins(keys).keys()
    assert all(name == f"text_model.{origin.key}" for name, origin in clip_origins(unwrapped).items())
