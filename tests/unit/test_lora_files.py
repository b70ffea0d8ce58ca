"""Adapter files: what is written is read again, in every layout, and what is no LoRA is named for what it is."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from brushwork.errors import UserError
from brushwork.lora.files import AdapterFile, convert_adapter, read_adapter, write_adapter
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.merge import delta
from brushwork.lora.names import unet_layers
from brushwork.lora.state import AdapterState
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.tensor_file import read_tensors

SMALL = replace(SD15, channels=(32, 64, 64, 64), context_width=24)
LAYOUTS = ("kohya", "diffusers", "peft")
ATTENTION = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1"
CROSS = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2"
TEXT = "text_encoder.text_model.encoder.layers.0"


def some_state(spec: UNetSpec, *, rank: int = 2, alpha: float = 1.0, text: bool = True) -> AdapterState:
    """A few layers of every kind, with full shapes."""
    names = [
        f"{ATTENTION}.to_q",
        f"{ATTENTION}.to_out.0",
        f"{CROSS}.to_k",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "unet.down_blocks.1.attentions.0.proj_in",
        "unet.down_blocks.1.resnets.0.conv1",
        "unet.down_blocks.1.resnets.0.time_emb_proj",
        "unet.up_blocks.0.upsamplers.0.conv",
    ]
    draw = torch.Generator().manual_seed(0)
    state = {name: weights(unet_layers(spec)[name], rank, alpha, draw) for name in names}
    if text:
        width = 768
        state[f"{TEXT}.self_attn.q_proj"] = weights((width, width), rank, alpha, draw)
        state[f"{TEXT}.mlp.fc1"] = weights((4 * width, width), rank, alpha, draw)
        if spec.family == "sdxl":
            name = "text_encoder_2.text_model.encoder.layers.31.self_attn.out_proj"
            state[name] = weights((1280, 1280), rank, alpha, draw)
    return dict(sorted(state.items()))


def weights(shape: tuple[int, ...] | torch.Size, rank: int, alpha: float, draw: torch.Generator) -> LoRAWeights:
    outputs, *inputs = shape
    down = torch.randn(rank, *inputs, generator=draw) * 0.1
    return LoRAWeights(down, torch.randn(outputs, rank, *[1] * (len(inputs) - 1), generator=draw) * 0.1, alpha)


def uneven(state: AdapterState) -> AdapterState:
    """Another rank and alpha in every third layer."""
    draw = torch.Generator().manual_seed(1)
    return {
        name: weights((one.up.shape[0], *one.down.shape[1:]), 3 + index, 0.5 * index + 1, draw) if index % 3 else one
        for index, (name, one) in enumerate(state.items())
    }


def assert_same_update(
    found: AdapterState, expected: AdapterState, *, rtol: float = 1e-5, atol: float = 1e-7
) -> None:
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(delta(found[name]), delta(expected[name]), rtol=rtol, atol=atol)


def assert_equal(found: AdapterState, expected: AdapterState) -> None:
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert torch.equal(found[name].down, one.down)
        assert torch.equal(found[name].up, one.up)
        assert found[name].alpha == one.alpha


def kohya_tensors(tmp_path: Path, spec: UNetSpec = SDXL) -> dict[str, Tensor]:
    write_adapter(tmp_path / "plain.safetensors", some_state(spec), spec=spec)
    return load_file(tmp_path / "plain.safetensors")


def read_back(path: Path, tensors: dict[str, Tensor], spec: UNetSpec | None = None) -> AdapterFile:
    save_file(tensors, path)
    return read_adapter(path, spec=spec)


@pytest.mark.parametrize("spec", [SD15, SDXL, TINY], ids=["sd15", "sdxl", "tiny"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_saving_loading_and_saving_again_gives_the_same_bytes(
    tmp_path: Path, spec: UNetSpec, layout: str, dtype: torch.dtype
) -> None:
    first, second, third = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors"))
    state = uneven(some_state(spec, text=spec is not TINY))
    told = {"ss_output_name": 'a "name"\nof two lines, \u00e9\u4e2d', "b": "2", "a": "1"}

    write_adapter(first, state, spec=spec, layout=layout, metadata=told, dtype=dtype)
    write_adapter(second, dict(reversed(state.items())), spec=spec, layout=layout, metadata=told, dtype=dtype)
    convert_adapter(first, third, layout=layout)

    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


@pytest.mark.parametrize("spec", [SD15, SDXL], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_an_adapter_is_read_as_it_was_written(tmp_path: Path, spec: UNetSpec, layout: str) -> None:
    state = uneven(some_state(spec))
    write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=layout, dtype=torch.float32)

    file = read_adapter(tmp_path / "a.safetensors")

    assert_equal(file.state, state)
    assert (file.spec, file.family, file.layout, file.dtype) == (spec, spec.family, layout, torch.float32)


@pytest.mark.parametrize("spec", [SMALL, TINY], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("start", LAYOUTS)
@pytest.mark.parametrize("end", LAYOUTS)
def test_converting_between_layouts_keeps_the_update_and_the_metadata(
    tmp_path: Path, spec: UNetSpec, start: str, end: str
) -> None:
    state = uneven(some_state(spec, text=False))
    told = {"ss_output_name": "corgi", "ss_network_dim": "Dynamic", "modelspec.title": "corgi"}
    write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=start, metadata=told, dtype=torch.float32)

    convert_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", layout=end, spec=spec)
    file = read_adapter(tmp_path / "b.safetensors", spec=spec)

    assert file.layout == end
    assert_same_update(file.state, state)
    assert told.items() <= file.metadata.items()
    assert ("lora_adapter_metadata" in file.metadata) == (end != "kohya")
    assert ("sshs_model_hash" in file.metadata) == (end == "kohya")


def test_the_diffusers_layout_needs_no_alpha_and_says_so(tmp_path: Path) -> None:
    state = some_state(SDXL, rank=4, alpha=32)
    write_adapter(tmp_path / "a.safetensors", state, spec=SDXL, layout="diffusers", dtype=torch.float32)

    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    fields = json.loads(metadata["lora_adapter_metadata"])

    down, up = (tensors[f"{ATTENTION}.to_q.lora.{part}.weight"] for part in ("down", "up"))
    torch.testing.assert_close(up @ down, delta(state[f"{ATTENTION}.to_q"]))
    assert f"{TEXT}.self_attn.q_proj.lora_linear_layer.up.weight" in tensors
    assert metadata["format"] == "pt"
    for component in ("unet", "text_encoder", "text_encoder_2"):
        assert (fields[f"{component}.r"], fields[f"{component}.lora_alpha"]) == (4, 4)
        assert fields[f"{component}.rank_pattern"] == fields[f"{component}.alpha_pattern"] == {}


def test_a_missing_alpha_is_the_rank_and_so_is_zero(tmp_path: Path) -> None:
    tensors = kohya_tensors(tmp_path)
    first, second = sorted(key for key in tensors if key.endswith(".alpha"))[:2]
    del tensors[first]
    tensors[second] = torch.tensor(0.0)

    state = read_back(tmp_path / "a.safetensors", tensors).state

    assert sorted(weights.alpha for weights in state.values()) == [1.0] * (len(state) - 2) + [2.0] * 2


def test_an_alpha_that_fp16_cannot_hold_is_kept_exactly(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a.safetensors", some_state(SD15, alpha=4097.0), spec=SD15, dtype=torch.float16)
    file = read_adapter(tmp_path / "a.safetensors")
    assert {one.alpha for one in file.state.values()} == {4097.0}
    assert file.dtype == torch.float16


def test_old_keys_of_diffusers_are_read(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    one = weights((640, 640), 2, 2.0, draw)
    text = weights((768, 768), 2, 2.0, draw)
    tensors = {}
    for letter in ("q", "k", "v", "out"):
        tensors[f"{ATTENTION}.processor.to_{letter}_lora.down.weight"] = one.down.clone()
        tensors[f"{ATTENTION}.processor.to_{letter}_lora.up.weight"] = one.up.clone()
        tensors[f"{TEXT}.self_attn.to_{letter}_lora.down.weight"] = text.down.clone()
        tensors[f"{TEXT}.self_attn.to_{letter}_lora.up.weight"] = text.up.clone()

    file = read_back(tmp_path / "a.safetensors", tensors)

    assert file.layout == "old diffusers"
    expected = {f"{ATTENTION}.{name}": one for name in ("to_q", "to_k", "to_v", "to_out.0")}
    expected |= {f"{TEXT}.self_attn.{name}_proj": text for name in ("q", "k", "v", "out")}
    assert_equal(file.state, dict(sorted(expected.items())))


def test_a_unet_alone_without_prefixes_is_read(tmp_path: Path) -> None:
    one = weights((640, 640), 2, 2.0, torch.Generator().manual_seed(0))
    path = ATTENTION.removeprefix("unet.")
    tensors = {f"{path}.to_q.lora_A.weight": one.down, f"{path}.to_q.lora_B.weight": one.up}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({"r": 2, "lora_alpha": 6, "alpha_pattern": {}})}
    save_file(tensors, tmp_path / "a.safetensors", metadata)

    file = read_adapter(tmp_path / "a.safetensors")

    assert list(file.state) == [f"{ATTENTION}.to_q"]
    assert file.state[f"{ATTENTION}.to_q"].alpha == 6


def test_mixed_files_are_read(tmp_path: Path) -> None:
    """diffusers' converter renames q, k, v and out, and leaves the others under PEFT's names."""
    state = some_state(SDXL, alpha=2.0, text=False)
    tensors = {}
    for name, one in state.items():
        endings = ("lora.down", "lora.up") if ".attn" in name else ("lora_A", "lora_B")
        tensors |= {f"{name}.{endings[0]}.weight": one.down, f"{name}.{endings[1]}.weight": one.up}

    file = read_back(tmp_path / "a.safetensors", tensors)

    assert file.layout == "mixed"
    assert_equal(file.state, state)


def test_kohya_suffixes_on_the_block_names_of_diffusers_are_read_for_sdxl(tmp_path: Path) -> None:
    state = some_state(SDXL, alpha=1.0, text=False)
    tensors = {}
    for name, one in state.items():
        flat = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
        tensors |= {f"{flat}.lora_down.weight": one.down, f"{flat}.lora_up.weight": one.up}
        tensors[f"{flat}.alpha"] = torch.tensor(1.0)

    file = read_back(tmp_path / "a.safetensors", tensors)

    assert (file.family, file.layout) == ("sdxl", "kohya")
    assert_equal(file.state, state)


def test_files_under_the_names_of_single_file_models_are_read(tmp_path: Path) -> None:
    one = weights((640, 640), 2, 2.0, torch.Generator().manual_seed(0))
    module = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    tensors = {f"{module}.lora_A.weight": one.down, f"{module}.lora_B.weight": one.up}
    assert_equal(read_back(tmp_path / "a.safetensors", tensors).state, {f"{ATTENTION}.to_q": one})


def test_the_alpha_of_pefts_own_files_is_read_from_the_config_beside_them(tmp_path: Path) -> None:
    one = weights((640, 640), 4, 4.0, torch.Generator().manual_seed(0))
    module = f"base_model.model.{ATTENTION.removeprefix('unet.')}.to_q"
    tensors = {f"{module}.lora_A.weight": one.down, f"{module}.lora_B.weight": one.up}
    config = {"r": 4, "lora_alpha": 8, "alpha_pattern": {}, "use_rslora": False}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_back(tmp_path / "a.safetensors", tensors).state[f"{ATTENTION}.to_q"].alpha == 8

    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    assert read_adapter(tmp_path / "a.safetensors").state[f"{ATTENTION}.to_q"].alpha == 16


def test_a_folder_as_diffusers_writes_it_is_read(tmp_path: Path) -> None:
    state = some_state(SD15)
    write_adapter(tmp_path / "pytorch_lora_weights.safetensors", state, spec=SD15, layout="peft", dtype=torch.float32)
    assert_equal(read_adapter(tmp_path).state, state)


def test_a_file_with_nothing_but_a_text_encoder_tells_its_family_by_its_metadata(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    state = {f"{TEXT}.mlp.fc1": weights((3072, 768), 2, 1.0, draw)}
    for spec in (SD15, SDXL):
        for layout in LAYOUTS:
            write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=layout)
            assert read_adapter(tmp_path / "a.safetensors").family == spec.family, layout


FOREIGN = {
    "LoHa": {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 4)},
    "LoKr": {"lora_unet_mid_block_attentions_0_proj_in.lokr_w1": (4, 4)},
    "DoRA": {"lora_unet_mid_block_attentions_0_proj_in.dora_scale": (1280, 1)},
    "a DoRA": {"unet.mid_block.attentions.0.proj_in.lora_magnitude_vector": (1280,)},
    "Tucker": {"lora_unet_mid_block_resnets_0_conv1.lora_mid.weight": (2, 2, 3, 3)},
    "OFT": {"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": (4, 4)},
    "whole differences": {"lora_unet_mid_block_attentions_0_proj_in.diff": (4, 4)},
    "trained biases": {"unet.mid_block.attentions.0.proj_in.lora_B.bias": (1280,)},
    "textual inversion": {"bundle_emb.word.string_to_param.*": (1, 768)},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_kinds_of_adapter_are_named_for_what_they_are(tmp_path: Path, kind: str) -> None:
    tensors = kohya_tensors(tmp_path, SD15)
    tensors |= {key: torch.zeros(shape) for key, shape in FOREIGN[kind].items()}
    with pytest.raises(UserError, match=kind) as caught:
        read_back(tmp_path / "a.safetensors", tensors)
    assert "a.safetensors" in caught.value.problem
    assert caught.value.fix


def pair(module: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f"{module}.lora_down.weight": torch.zeros(2, inputs), f"{module}.lora_up.weight": torch.zeros(outputs, 2)}


OTHER_MODELS = {
    "Stable Diffusion 2": pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 1024, 320),
    "Stable Diffusion 2 ": pair("lora_te_text_model_encoder_layers_22_self_attn_q_proj", 1024, 1024),
    "refiner": pair("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 1280, 768),
    "Flux": pair("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
    "Stable Diffusion 3": pair("lora_unet_joint_blocks_0_context_block_attn_qkv", 1536, 4608),
    "transformer, not a UNet": pair("transformer.blocks.0.attn.to_q", 3072, 3072),
}


@pytest.mark.parametrize("model", OTHER_MODELS)
def test_adapters_of_other_models_are_named_for_what_they_are(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match=f"made for .*{model.strip()}"):
        read_back(tmp_path / "a.safetensors", OTHER_MODELS[model])


@pytest.mark.parametrize(
    ("written", "read", "words"),
    [
        (SDXL, SD15, "is an adapter for SDXL; the base is SD 1.5"),
        (SD15, SDXL, "is an adapter for SD 1.5; the base is SDXL"),
        (SD15, TINY, "is an adapter for SD 1.5; the base is the bundled model"),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_adapter_of_another_family_is_refused_by_name(
    tmp_path: Path, written: UNetSpec, read: UNetSpec, words: str, layout: str
) -> None:
    write_adapter(tmp_path / "a.safetensors", some_state(written), spec=written, layout=layout)
    with pytest.raises(UserError, match=words):
        read_adapter(tmp_path / "a.safetensors", spec=read)


def test_keys_that_would_stay_unused_are_refused_by_name(tmp_path: Path) -> None:
    tensors = kohya_tensors(tmp_path)
    near = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_qq"
    with pytest.raises(UserError, match=rf"1 of the 12 modules .*{near}.*nearest: .*attn1_to_q\)"):
        read_back(tmp_path / "a.safetensors", {**tensors, **pair(near, 640, 640)})
    with pytest.raises(UserError, match="something_else, which is no part of a LoRA"):
        read_back(tmp_path / "a.safetensors", {**tensors, "something_else": torch.zeros(1)})
    with pytest.raises(UserError, match=r"to_q.* has no up weight"):
        read_back(tmp_path / "a.safetensors", {key: tensors[key] for key in tensors if "to_q.lora_up" not in key})
    with pytest.raises(UserError, match=r"mid_block.*has no down weight"):
        read_back(tmp_path / "a.safetensors", {**tensors, "lora_unet_mid_block_attentions_0.alpha": torch.ones(())})
    flat = "lora_unet_" + ATTENTION.removeprefix("unet.").replace(".", "_") + "_to_q"
    with pytest.raises(UserError, match="under two names"):
        read_back(tmp_path / "a.safetensors", {**tensors, **pair(flat, 640, 640)})


def test_shapes_that_are_no_low_rank_pair_are_refused(tmp_path: Path) -> None:
    tensors = kohya_tensors(tmp_path)
    key = next(key for key in tensors if key.endswith("attn1_to_q.lora_up.weight"))
    for shape in ((640, 3), (640,), (640, 2, 1), (320, 2)):
        with pytest.raises(UserError, match="attn1_to_q"):
            read_back(tmp_path / "a.safetensors", {**tensors, key: torch.zeros(shape)})
    alpha = key.replace("lora_up.weight", "alpha")
    with pytest.raises(UserError, match="not one number"):
        read_back(tmp_path / "a.safetensors", {**tensors, alpha: torch.ones(2)})


@pytest.mark.parametrize("length", [0, 4, 100, 20_000, -1])
def test_truncated_files_are_refused(tmp_path: Path, length: int) -> None:
    kohya_tensors(tmp_path)
    whole = (tmp_path / "plain.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:length])
    with pytest.raises(UserError, match=r"a\.safetensors is not a whole safetensors file"):
        read_adapter(tmp_path / "a.safetensors")


def test_what_is_no_adapter_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(hashlib.sha256(b"x").digest() * 100)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_adapter(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no file"):
        read_adapter(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match="pickle"):
        read_adapter(tmp_path / "a.pt")
    with pytest.raises(UserError, match="it holds no tensor"):
        read_back(tmp_path / "a.safetensors", {})
    with pytest.raises(UserError, match="it is a whole model"):
        read_back(tmp_path / "a.safetensors", {"model.diffusion_model.out.2.weight": torch.zeros(4)})
    with pytest.raises(UserError, match="none of its 1 tensors"):
        read_back(tmp_path / "a.safetensors", {"layer.weight": torch.zeros(4)})
    save_file(kohya_tensors(tmp_path), tmp_path / "a.safetensors", {"lora_adapter_metadata": "{"})
    with pytest.raises(UserError, match="not JSON"):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_with_their_key(tmp_path: Path, bad: float) -> None:
    tensors = kohya_tensors(tmp_path)
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key][3, 1] = bad
    with pytest.raises(UserError, match=key):
        read_back(tmp_path / "a.safetensors", tensors)


def test_numbers_that_fp16_cannot_hold_are_not_written(tmp_path: Path) -> None:
    state = some_state(SD15)
    name = next(iter(state))
    large = LoRAWeights(state[name].down * 1e7, state[name].up, 1.0)
    (tmp_path / "a.safetensors").write_text("what was here before")

    with pytest.raises(UserError, match="fp16 cannot hold"):
        write_adapter(tmp_path / "a.safetensors", {**state, name: large}, spec=SD15, dtype=torch.float16)

    assert (tmp_path / "a.safetensors").read_text() == "what was here before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_safetensors_package_lays_the_tensors_out_in_the_same_way(tmp_path: Path) -> None:
    tensors = kohya_tensors(tmp_path)
    ours, theirs = (tmp_path / "plain.safetensors").read_bytes(), save(tensors)
    start, their_start = (8 + int.from_bytes(data[:8], "little") for data in (ours, theirs))
    assert ours[start:] == theirs[their_start:]


def test_the_hashes_are_those_that_the_web_uis_compute(tmp_path: Path) -> None:
    write_adapter(
        tmp_path / "a.safetensors",
        some_state(SDXL, rank=64),
        spec=SDXL,
        metadata={"ss_output_name": 'quoted "\u00e9\u4e2d" \\ \n\t\x1f\x7f /', "modelspec.title": "corgi"},
    )
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")

    # The file of which kohya computes the hashes: by the safetensors package, with the training's metadata alone.
    data = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")

    assert len(data) > 0x110000
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]
    # The package orders the metadata anew in every run; its length, and so where the part begins, is the same.
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
