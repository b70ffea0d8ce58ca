"""Base models in every form in which they are published, and what is not one."""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import single_files
from brushwork.errors import UserError
from brushwork.models import checkpoint_file
from brushwork.models.bundled import AUTOENCODER
from brushwork.models.checkpoint_file import SafetensorsFile, open_tensors
from brushwork.models.spec import TINY
from brushwork.models.text import canonical_name
from brushwork.models.unet import UNet
from brushwork.models.weights import Base, open_base
from random_base import SMALL_SD15, write_random_base

Tensors = dict[str, Tensor]

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
FP32: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


@dataclass(frozen=True)
class Reference:
    """The tiny base as a folder, and its tensors read by safetensors' own reader."""

    folder: Path
    tensors: dict[str, Tensors]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_random_base(folder, autoencoder=AUTOENCODER)
    return Reference(folder, {part: load_file(folder / part / name) for part, name in FILES.items()})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(reference: Reference, tmp_path: Path) -> Path:
    """A copy of the bundled model that may be changed."""
    return Path(shutil.copytree(reference.folder, tmp_path / "base"))


@pytest.fixture
def sdxl(reference: Reference) -> Tensors:
    """The bundled model with the keys of a published SDXL checkpoint."""
    parts = reference.tensors
    return single_files.sdxl_file(parts["unet"], parts["vae"], parts["text_encoder"], parts["text_encoder_2"], TINY)


@pytest.fixture
def sd15(reference: Reference) -> Tensors:
    torch.manual_seed(0)
    unet = {name: torch.randn_like(tensor) for name, tensor in UNet(SMALL_SD15).state_dict().items()}
    return single_files.sd15_file(unet, reference.tensors["vae"], reference.tensors["text_encoder"], SMALL_SD15)


def save(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return str(path)


def loaded(base: Base, dtype: torch.dtype = torch.float32) -> dict[str, Tensors]:
    """Every tensor of every network, by its name in the diffusers layout."""
    text = base.load_text(dtype=dtype, device="cpu").modules
    parts = {
        name: {canonical_name(module, path): tensor for path, tensor in module.state_dict().items()}
        for name, module in text.items()
    }
    parts["unet"] = base.load_unet(dtype=dtype, device="cpu").state_dict()
    parts["vae"] = base.load_vae(dtype=dtype, device="cpu").module.state_dict()
    return parts


def assert_same(found: dict[str, Tensors], expected: dict[str, Tensors]) -> None:
    for part, tensors in expected.items():
        assert found[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[part][name], tensor.to(found[part][name].dtype)), f"{part} {name}"


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        open_it()
    return str(caught.value)


# Folders


def test_a_folder_gives_every_tensor_of_its_files(reference: Reference) -> None:
    base = open_base(str(reference.folder))

    assert (base.family, base.layout, base.spec) == ("sdxl", "folder", TINY)
    assert_same(loaded(base), reference.tensors)


def test_networks_come_frozen_and_in_the_type_asked_for(reference: Reference) -> None:
    unet = open_base(str(reference.folder)).load_unet(dtype=torch.bfloat16, device="cpu")

    assert not unet.training
    assert {(parameter.dtype, parameter.requires_grad) for parameter in unet.parameters()} == {
        (torch.bfloat16, False)
    }


def test_shards_give_the_same_tensors_as_one_file(reference: Reference, folder: Path) -> None:
    for part, name in FILES.items():
        stem, names = name.removesuffix(".safetensors"), sorted(reference.tensors[part])
        (folder / part / name).unlink()
        place = {}
        for number in range(3):
            shard = f"{stem}-{number + 1:05d}-of-00003.safetensors"
            save({name: reference.tensors[part][name] for name in names[number::3]}, folder / part / shard)
            place |= dict.fromkeys(names[number::3], shard)
        (folder / part / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))

    assert_same(loaded(open_base(str(folder))), reference.tensors)


def test_a_shard_that_is_missing_or_lacks_something_is_told(folder: Path) -> None:
    path = folder / "vae" / FILES["vae"]
    index = path.with_name(f"{path.name}.index.json")
    shard = path.rename(path.with_name("part-00001-of-00002.safetensors"))
    index.write_text(json.dumps({"weight_map": {"quant_conv.weight": "part-00002-of-00002.safetensors"}}))
    missing = refusal(lambda: open_base(str(folder)))
    index.write_text(json.dumps({"weight_map": {"quant_conv.weight": shard.name, "other.weight": shard.name}}))
    lacking = refusal(lambda: open_base(str(folder)))

    assert "there is no file" in missing
    assert "names 1 tensors that no shard holds, such as 'other.weight'" in lacking


def variants(folder: Path, reference: Reference, names: list[str]) -> None:
    """Replace each part's file by one for each variant, whose numbers say which it is."""
    for part, file in FILES.items():
        (folder / part / file).unlink()
        for factor, variant in enumerate(names):
            path = folder / part / file.replace(".safetensors", f"{variant and '.'}{variant}.safetensors")
            save({name: tensor * (factor + 1) for name, tensor in reference.tensors[part].items()}, path)


@pytest.mark.parametrize(
    ("names", "asked", "taken"),
    [
        (["fp16"], None, 1),
        (["", "fp16"], None, 1),
        (["", "fp16"], "fp16", 2),
        (["non_ema", "fp16"], None, 2),
        (["non_ema"], None, 1),
    ],
)
def test_the_plain_weights_are_taken_unless_only_a_variant_is_there_or_one_is_asked_for(
    reference: Reference, folder: Path, names: list[str], asked: str | None, taken: int
) -> None:
    variants(folder, reference, names)

    found = loaded(open_base(str(folder), variant=asked))

    doubled = {
        part: {k: tensor * taken for k, tensor in tensors.items()} for part, tensors in reference.tensors.items()
    }
    assert_same(found, doubled)


def test_a_variant_that_is_not_there_is_refused_with_those_that_are(reference: Reference, folder: Path) -> None:
    variants(folder, reference, ["", "fp16"])

    said = refusal(lambda: open_base(str(folder), variant="bf16"))

    assert "has no variant 'bf16'; there: fp16, plain" in said


def test_a_text_encoder_saved_by_any_version_of_transformers_is_read(reference: Reference, folder: Path) -> None:
    for part in ("text_encoder", "text_encoder_2"):
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in reference.tensors[part].items()}
        tensors["embeddings.position_ids"] = torch.arange(77)[None]
        save(tensors, folder / part / FILES[part])

    assert_same(loaded(open_base(str(folder))), reference.tensors)


def test_a_vae_with_the_attention_names_of_old_diffusers_is_read(reference: Reference, folder: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in reference.tensors["vae"].items():
        for new_word, old_word in old.items():
            name = name.replace(f".{new_word}.", f".{old_word}.")
        tensors[name] = tensor
    save(tensors, folder / "vae" / FILES["vae"])
    base = open_base(str(folder))

    assert_same(loaded(base), reference.tensors)
    assert base.fingerprint("vae") == open_base(str(reference.folder)).fingerprint("vae")


def test_pickles_of_tensors_are_read_where_there_is_nothing_better(reference: Reference, folder: Path) -> None:
    for part, file in FILES.items():
        (folder / part / file).unlink()
        name = "pytorch_model.bin" if "text" in part else "diffusion_pytorch_model.bin"
        torch.save(reference.tensors[part], folder / part / name)

    assert_same(loaded(open_base(str(folder))), reference.tensors)


def test_what_the_network_predicts_is_read_from_the_scheduler(folder: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    plain = open_base(str(folder))
    edit_json(config, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    changed = open_base(str(folder))
    config.unlink()
    silent = open_base(str(folder))

    assert (plain.prediction, plain.zero_terminal_snr) == ("epsilon", False)
    assert (changed.prediction, changed.zero_terminal_snr) == ("v", True)
    assert (silent.prediction, silent.prediction_told_by) == ("epsilon", "nothing says otherwise")


def test_settings_go_before_what_the_base_says_of_itself(folder: Path) -> None:
    edit_json(
        folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )

    base = open_base(str(folder), prediction="epsilon", zero_terminal_snr="off")

    assert (base.prediction, base.zero_terminal_snr, base.prediction_told_by) == ("epsilon", False, "the settings")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "another noise schedule"),
        ({"_class_name": "EDMEulerScheduler"}, "another noise schedule"),
        ({"beta_schedule": "linear"}, "beta_schedule = 'linear'"),
        ({"beta_end": 0.02}, "beta_end = 0.02"),
        ({"prediction_type": "sample"}, "prediction_type = 'sample'"),
    ],
)
def test_a_base_made_for_another_noise_schedule_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", **changes)

    assert words in refusal(lambda: open_base(str(folder)))


def test_tensors_that_are_missing_or_too_many_or_of_another_shape_are_named(
    reference: Reference, folder: Path
) -> None:
    tensors = dict(reference.tensors["unet"])
    path = folder / "unet" / FILES["unet"]
    less = {name: tensor for name, tensor in tensors.items() if name != "mid_block.resnets.0.conv1.bias"}

    save(less, path)
    missing = refusal(lambda: open_base(str(folder)))
    save(tensors | {"conv_middle.weight": torch.ones(1)}, path)
    unexpected = refusal(lambda: open_base(str(folder)))
    save(tensors | {"conv_in.bias": torch.ones(65)}, path)
    misshapen = refusal(lambda: open_base(str(folder)))

    assert "tensors are missing: mid_block.resnets.0.conv1.bias" in missing
    assert "tensors are not known to this network: conv_middle.weight" in unexpected
    assert "tensors have another shape: conv_in.bias" in misshapen
    assert all(str(path) in said for said in (missing, unexpected, misshapen))


def test_a_folder_that_is_no_base_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')

    assert "no folder `unet`: it is FluxPipeline" in refusal(lambda: open_base(str(tmp_path / "flux")))


def test_a_config_of_another_model_is_refused_with_its_path(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", in_channels=9)

    said = refusal(lambda: open_base(str(folder)))

    assert "unet/config.json: this model is an inpainting model" in said


# Single files


@pytest.mark.parametrize("dtype", ["fp16", "fp32", "mixed"])
def test_a_single_sdxl_file_gives_the_tensors_of_the_folder(
    reference: Reference, sdxl: Tensors, tmp_path: Path, dtype: str
) -> None:
    for number, (name, tensor) in enumerate(sdxl.items()):
        if tensor.is_floating_point() and (dtype == "fp32" or (dtype == "mixed" and number % 2)):
            sdxl[name] = tensor.float()
    base = open_base(save(sdxl, tmp_path / "model.safetensors"))

    assert (base.family, base.layout, base.spec) == ("sdxl", "single file", TINY)
    assert base.parts["unet"].precision() == {"mixed": "fp16 and fp32"}.get(dtype, dtype)
    assert_same(loaded(base), reference.tensors)


def test_a_single_file_and_a_folder_of_the_same_model_are_known_as_the_same(
    reference: Reference, sdxl: Tensors, tmp_path: Path
) -> None:
    single, folder = open_base(save(sdxl, tmp_path / "model.safetensors")), open_base(str(reference.folder))
    prompts = ["a fox in the snow, drawn with ink!", ""]

    states = [base.load_text(dtype=torch.float32, device="cpu").encode(prompts) for base in (single, folder)]

    assert torch.equal(states[0].context, states[1].context)
    for group in ("unet", "vae", "text"):
        assert single.fingerprint(group) == folder.fingerprint(group)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_a_single_sd15_file_is_read(reference: Reference, sd15: Tensors, tmp_path: Path, prefix: str) -> None:
    clip = "cond_stage_model.transformer."
    sd15 = {name.replace(f"{clip}text_model.", clip + prefix): tensor for name, tensor in sd15.items()}
    base = open_base(save(sd15, tmp_path / "model.safetensors"))

    found = loaded(base)

    assert (base.family, base.spec, base.spec.native_resolution) == ("sd15", SMALL_SD15, 512)
    assert_same(found, {part: reference.tensors[part] for part in ("vae", "text_encoder")})
    assert_same({"unet": single_files.unet_in_ldm(found["unet"], SMALL_SD15)}, {"unet": unet_keys(sd15)})


def unet_keys(state: Tensors) -> Tensors:
    return {name: tensor for name, tensor in state.items() if name.startswith("model.diffusion_model.")}


def test_a_single_file_needs_no_network(sdxl: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    path = save(sdxl, tmp_path / "model.safetensors")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    loaded(open_base(path))


@pytest.mark.parametrize(
    ("keys", "metadata", "expected"),
    [
        ([], {}, ("epsilon", False)),
        (["v_pred"], {}, ("v", False)),
        (["v_pred", "ztsnr"], {}, ("v", True)),
        ([], {"modelspec.prediction_type": "v"}, ("v", False)),
        ([], {"modelspec.predict_key": "v"}, ("v", False)),
        (["v_pred", "ztsnr"], {"modelspec.prediction_type": "epsilon"}, ("v", True)),
        ([], {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
    ],
)
def test_a_single_file_says_what_it_predicts(
    sdxl: Tensors, tmp_path: Path, keys: list[str], metadata: dict[str, str], expected: tuple[str, bool]
) -> None:
    marks = {key: torch.zeros(0) for key in keys}

    base = open_base(save(sdxl | marks, tmp_path / "model.safetensors", metadata))

    assert (base.prediction, base.zero_terminal_snr) == expected


def test_a_pickled_checkpoint_gives_the_same_tensors(reference: Reference, sdxl: Tensors, tmp_path: Path) -> None:
    torch.save({"state_dict": sdxl, "global_step": 7, "callbacks": {}}, tmp_path / "model.ckpt")
    torch.save(sdxl, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    for name in ("model.ckpt", "old.pt"):
        assert_same(loaded(open_base(str(tmp_path / name))), reference.tensors)


class Callback:
    """What training frameworks leave in their checkpoints."""


def test_a_pickle_that_would_run_code_is_refused(sdxl: Tensors, tmp_path: Path) -> None:
    torch.save({"state_dict": sdxl, "callbacks": Callback()}, tmp_path / "model.ckpt")

    said = refusal(lambda: open_base(str(tmp_path / "model.ckpt")))

    assert "wants to run code" in said
    assert "test_bases.Callback" in said
    assert "the .safetensors form" in said


def replaced(state: Tensors, key: str, *shape: int) -> Tensors:
    return state | {key: torch.zeros(shape)}


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
OTHER_KINDS = {
    "a LoRA": {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": torch.zeros(4, 8)},
    "a LoRA ": {"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": torch.zeros(4, 8)},
    "a LoRA  ": {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": torch.zeros(4, 8)},
    "a Stable Diffusion 2 model": {"cond_stage_model.model.ln_final.weight": torch.zeros(4), CONV_IN: torch.zeros(1)},
    "the SDXL refiner": {"conditioner.embedders.0.model.ln_final.weight": torch.zeros(4), CONV_IN: torch.zeros(1)},
    "a Stable Diffusion 3 model": {"model.diffusion_model.joint_blocks.0.x_block.weight": torch.zeros(4)},
    "a Flux model": {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4)},
    "a ControlNet": {"control_model.input_blocks.0.0.weight": torch.zeros(4)},
    "a VAE alone": {"first_stage_model.encoder.conv_in.weight": torch.zeros(4)},
    "a UNet alone": {"down_blocks.0.resnets.0.conv1.weight": torch.zeros(4)},
    "a text encoder alone": {"text_model.final_layer_norm.bias": torch.zeros(4)},
    "a textual inversion embedding": {"clip_g": torch.zeros(4), "clip_l": torch.zeros(4)},
    "a quantised model": {f"{CONV_IN}.absmax": torch.zeros(4)},
    "a CosXL model": {"edm_vpred.sigma_max": torch.zeros(()), CONV_IN: torch.zeros(4)},
    "no Stable Diffusion checkpoint": {"blocks.0.weight": torch.zeros(4)},
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_is_no_base_is_called_by_its_name(tmp_path: Path, kind: str) -> None:
    path = save(OTHER_KINDS[kind], tmp_path / "file.safetensors")

    said = refusal(lambda: open_base(path))

    assert f"{path} is {kind.strip()}" in said
    assert "fix:" in said


def test_networks_with_other_inputs_are_called_by_their_name(sdxl: Tensors, sd15: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"

    inpainting = refusal(lambda: open_base(save(replaced(sdxl, CONV_IN, 64, 9, 3, 3), path)))
    editing = refusal(lambda: open_base(save(replaced(sd15, CONV_IN, 32, 8, 3, 3), path)))

    assert f"{path}: this model is an inpainting model" in inpainting
    assert f"{path}: this model is an InstructPix2Pix" in editing


def test_a_checkpoint_that_lacks_or_adds_something_is_refused_by_key(sdxl: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias"
    name = "text_model.encoder.layers.0.self_attn.k_proj.bias"

    missing = refusal(lambda: open_base(save({k: v for k, v in sdxl.items() if k != key}, path)))
    inside = refusal(lambda: open_base(save(sdxl | {"first_stage_model.extra.weight": torch.ones(1)}, path)))
    outside = refusal(lambda: open_base(save(sdxl | {"something.else": torch.ones(1)}, path)))
    text_less = {k: v for k, v in sdxl.items() if not k.startswith("conditioner.embedders.1")}
    without_text = refusal(lambda: open_base(save(text_less, path)))
    doubled = {"conditioner.embedders.0.transformer.final_layer_norm.bias": torch.ones(96)}
    twice = refusal(lambda: open_base(save(sdxl | doubled, path)))

    assert f"text_encoder_2 of {path}: 3 of" in missing
    assert name in missing
    assert "not known to this network: extra.weight" in inside
    assert "1 keys that no checkpoint of this kind has, such as 'something.else'" in outside
    assert "has no text_encoder_2 (no keys conditioner.embedders.1.model....)" in without_text
    assert "1 tensors twice" in twice


# Damaged files


@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-4, 0.3, 0.999])
def test_a_file_cut_short_is_refused_wherever_it_was_cut(sdxl: Tensors, tmp_path: Path, share: float) -> None:
    path = Path(save(sdxl, tmp_path / "file.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    said = refusal(lambda: open_base(str(path)))

    assert str(path) in said
    assert "cut off" in said or share < 1e-4
    assert "download the file again" in said


def test_a_file_with_bytes_after_its_end_is_refused(sdxl: Tensors, tmp_path: Path) -> None:
    path = Path(save(sdxl, tmp_path / "file.safetensors"))
    path.write_bytes(path.read_bytes() + b"12")

    assert "2 bytes follow the last tensor" in refusal(lambda: open_base(str(path)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html>log in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 6938078334\n", "Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"Entry not found", "is not a file of weights"),
        (b"PK\x03\x04 and nothing else", "a pickle under the name"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all}", "cut off"),
    ],
)
def test_what_is_no_file_of_weights_is_told_by_its_content(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    said = refusal(lambda: open_base(str(path)))

    assert words in said
    assert str(path) in said


def test_tensors_are_those_of_safetensors_own_reader_in_every_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dtypes = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.int64,
        torch.bool,
    ]
    tensors = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in dtypes}
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    file = SafetensorsFile(Path(save(tensors, tmp_path / "file.safetensors", {"format": "pt", "title": "ink"})))

    for name, expected in load_file(file.paths[0]).items():
        found = file.read(name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.reshape(-1).view(torch.uint8).tolist() == expected.reshape(-1).view(torch.uint8).tolist()
    assert file.metadata == {"format": "pt", "title": "ink"}


def test_large_tensors_are_cast_as_a_whole_cast_would(tmp_path: Path) -> None:
    torch.manual_seed(0)
    large = torch.randn(3, 2_500_001)  # several pieces, the last one short
    file = open_tensors(Path(save({"large": large}, tmp_path / "file.safetensors")))

    assert torch.equal(file.read("large", dtype=torch.bfloat16), large.bfloat16())
    assert torch.equal(file.read("large", dtype=torch.bfloat16, third=1), large[1:2].bfloat16())


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = Path(save({"a": torch.ones(8), "b": torch.ones(8)}, tmp_path / "file.safetensors"))
    file = open_tensors(path)
    path.write_bytes(path.read_bytes()[:-4])

    assert "in the middle of tensor 'b'" in refusal(lambda: file.read("b"))


# The VAE


def test_a_folder_that_holds_no_vae_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()

    with pytest.raises(UserError, match=r"photos is no VAE: there is no config\.json"):
        open_base(str(folder), vae=str(tmp_path / "photos"))


def test_a_separate_vae_is_taken_from_a_file_or_a_folder(reference: Reference, sdxl: Tensors, tmp_path: Path) -> None:
    base = save(
        {name: tensor for name, tensor in sdxl.items() if "first_stage" not in name}, tmp_path / "b.safetensors"
    )
    mended = {name: tensor * 2 for name, tensor in reference.tensors["vae"].items()}
    shutil.copytree(reference.folder / "vae", tmp_path / "vae")
    save(mended, tmp_path / "vae" / FILES["vae"])
    places = [
        str(tmp_path / "vae"),
        save(mended, tmp_path / "diffusers.safetensors"),
        save(single_files.vae_in_ldm(mended, ""), tmp_path / "ldm.safetensors"),
        save(single_files.vae_in_ldm(mended), tmp_path / "prefixed.safetensors"),
        save(sdxl | single_files.vae_in_ldm(mended), tmp_path / "whole.safetensors"),
    ]

    assert "--vae" in refusal(lambda: open_base(base))
    for place in places:
        opened = open_base(str(reference.folder), vae=place)
        assert opened.vae_source == place
        assert_same({"vae": opened.load_vae(**FP32).module.state_dict()}, {"vae": mended})


def test_the_bundled_vae_is_named_like_the_bundled_base(reference: Reference, sdxl: Tensors, tmp_path: Path) -> None:
    base = save(
        {name: tensor for name, tensor in sdxl.items() if "first_stage" not in name}, tmp_path / "b.safetensors"
    )
    own = open_base("bundled").load_vae(**FP32).module.state_dict()

    opened = open_base(str(reference.folder), vae="bundled")

    assert opened.vae_source == "bundled"
    assert_same({"vae": opened.load_vae(**FP32).module.state_dict()}, {"vae": own})
    assert "bundled scales its latents by 0.2156" in refusal(lambda: open_base(base, vae="bundled"))


def test_a_checkpoint_without_vae_works_with_a_separate_one(
    reference: Reference, sdxl: Tensors, tmp_path: Path
) -> None:
    edit = {name: tensor for name, tensor in sdxl.items() if "first_stage" not in name}
    config = shutil.copytree(reference.folder / "vae", tmp_path / "vae")
    edit_json(Path(config) / "config.json", scaling_factor=0.13025)

    base = open_base(save(edit, tmp_path / "model.safetensors"), vae=str(config))

    assert_same(loaded(base), reference.tensors)


def test_a_vae_of_another_family_is_refused(reference: Reference, tmp_path: Path) -> None:
    vae = Path(shutil.copytree(reference.folder / "vae", tmp_path / "vae"))
    edit_json(vae / "config.json", scaling_factor=0.18215)

    said = refusal(lambda: open_base(str(reference.folder), vae=str(vae)))

    assert "scales its latents by 0.18215" in said


def test_a_lora_given_as_vae_is_refused(reference: Reference, tmp_path: Path) -> None:
    path = save(OTHER_KINDS["a LoRA"], tmp_path / "lora.safetensors")

    assert "is a LoRA" in refusal(lambda: open_base(str(reference.folder), vae=path))


def test_fp16_is_refused_for_the_plain_vae_of_sdxl_and_taken_for_the_mended_one(
    reference: Reference, sd15: Tensors, folder: Path, tmp_path: Path
) -> None:
    tensors = reference.tensors["vae"]
    plain = open_base(str(folder))
    by_name = open_base(str(folder), vae=save(tensors, tmp_path / "sdxl_vae-FP16-fix.safetensors"))
    edit_json(folder / "vae" / "config.json", force_upcast=False)
    by_config = open_base(str(folder))
    old = open_base(save(sd15, tmp_path / "sd15.safetensors"))

    half = [base.vae_dtype(torch.float16) for base in (plain, by_name, by_config, old)]

    assert half == [torch.float32, torch.float16, torch.float16, torch.float16]
    assert plain.vae_dtype(torch.bfloat16) == torch.bfloat16
    assert plain.load_vae(dtype=torch.float16, device="cpu").dtype == torch.float32


# What is known without reading, and by which content


def test_a_description_needs_no_weights(sdxl: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(sdxl, tmp_path / "model.safetensors")
    monkeypatch.setattr(checkpoint_file.SafetensorsFile, "read", None)

    about = open_base(path).describe()

    assert about["unet_parameters"] == sum(parameter.numel() for parameter in UNet(TINY).parameters())
    assert (about["family"], about["layout"], about["unet_precision"]) == ("sdxl", "single file", "fp16")


def test_each_tensor_is_read_once_when_a_network_is_loaded(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, original = [], SafetensorsFile.read
    monkeypatch.setattr(
        SafetensorsFile, "read", lambda file, key, **how: read.append(key) or original(file, key, **how)
    )
    base = open_base(str(reference.folder))

    assert "conv_in.weight" in base.parts["unet"]  # asking is not reading
    base.load_unet(**FP32)
    base.load_vae(**FP32)

    assert sorted(read) == sorted([*reference.tensors["unet"], *reference.tensors["vae"]])


def test_a_fingerprint_follows_the_numbers_and_nothing_else(reference: Reference, folder: Path) -> None:
    path = folder / "vae" / FILES["vae"]
    before = open_base(str(folder)).fingerprint("vae")
    tensors = load_file(path)
    save(dict(reversed(tensors.items())), path, {"title": "another"})
    reordered = open_base(str(folder)).fingerprint("vae")
    tensors["decoder.conv_out.bias"][1] += 2**-10
    save(tensors, path)
    changed = open_base(str(folder)).fingerprint("vae")

    assert before == reordered == open_base(str(reference.folder)).fingerprint("vae")
    assert before != changed


def test_a_fingerprint_of_text_encoders_follows_the_vocabulary(folder: Path) -> None:
    before = open_base(str(folder)).fingerprint("text")
    merges = (folder / "tokenizer" / "merges.txt").read_text().splitlines()
    merges[5], merges[6] = merges[6], merges[5]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(merges))

    assert open_base(str(folder)).fingerprint("text") != before


def test_a_fingerprint_is_remembered_until_the_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_base(str(folder)).fingerprint("unet")
    with monkeypatch.context() as patched:
        patched.setattr(SafetensorsFile, "read", None)
        assert open_base(str(folder)).fingerprint("unet") == first

    path = folder / "unet" / FILES["unet"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the size stays the same
    path.write_bytes(content)

    assert open_base(str(folder)).fingerprint("unet") != first


def test_a_fingerprint_needs_no_cache_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_base(str(folder)).fingerprint("vae")
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "occupied"))

    assert open_base(str(folder)).fingerprint("vae") == first


def test_a_path_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sdxl_base.safetensors").touch()

    assert "did you mean" in refusal(lambda: open_base(str(tmp_path / "sdxl_bse.safetensors")))
    assert "did you mean bundled?" in refusal(lambda: open_base("bundeld"))


def test_the_bundled_model_is_opened_by_its_name() -> None:
    base = open_base("bundled")

    assert (base.layout, base.spec) == ("bundled", TINY)
    assert replace(base, source="other").parts is base.parts
