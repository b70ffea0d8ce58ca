"""Bases of full size that full fine-tuning and merging wrote, in the programs that draw with them: diffusers, and
stable-diffusion.cpp, which `SD_CLI` names. The SDXL case takes 14 GB of disk and 10 of memory."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from brushwork.lora.files import write_adapter
from brushwork.lora.merge import delta
from brushwork.lora.state import AdapterState
from brushwork.models import configs
from brushwork.models.rewrite import WEIGHTS, write_base
from brushwork.models.spec import Family
from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary
from brushwork.models.weights import Base, open_base
from full_size import SPECS, adapter_for, draw_with_sd_cli, run_brushwork

pytestmark = pytest.mark.full

PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
KINDS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
TOLD = {"sd15": "Version: SD 1", "sdxl": "Version: SDXL"}


def write_settings(out: Path, family: Family) -> Path:
    """Everything of a diffusers folder but the weights."""
    parts: dict[str, dict[str, Any]] = {"unet": SPECS[family].to_config(), "vae": configs.VAE[family]}
    for name, config in configs.TEXT_ENCODERS[family].items():
        parts[name] = {"model_type": "clip_text_model", **config}
        write_vocabulary(packaged_vocabulary(), out / name.replace("text_encoder", "tokenizer"))
    for name, config in parts.items():
        (out / name).mkdir(parents=True)
        (out / name / "config.json").write_text(json.dumps({"_class_name": KINDS[name][1], **config}))
    scheduler = configs.SCHEDULER[family]
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    kinds = {name: KINDS[name] for name in parts} | {"scheduler": ("diffusers", scheduler["_class_name"])}
    kinds |= {
        name.replace("text_encoder", "tokenizer"): ("transformers", "CLIPTokenizer")
        for name in configs.TEXT_ENCODERS[family]
    }
    none = dict.fromkeys(["safety_checker", "feature_extractor"], (None, None)) if family == "sd15" else {}
    (out / "model_index.json").write_text(json.dumps({"_class_name": PIPELINES[family].__name__, **kinds, **none}))
    return out


@pytest.fixture(scope="module")
def folder(single_file: Callable[[Family], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SD 1.5 as diffusers lays it out."""
    out, base = write_settings(tmp_path_factory.mktemp("sd15-folder"), "sd15"), open_base(str(single_file("sd15")))
    for name in base.parts:
        stem = "model" if name == "text_encoder" else WEIGHTS
        save_file(dict(base.parts[name]), out / name / f"{stem}.safetensors", metadata={"format": "pt"})
    return out


def learned(base: Base) -> dict[str, Tensor]:
    """A UNet of which every number is another than the base's."""
    return {name: base.parts["unet"][name].float() * 0.5 + 0.001 for name in base.parts["unet"]}


def assert_draws(sd_cli: str, base: Path, picture: Path, *, family: Family = "sd15") -> None:
    told = draw_with_sd_cli(sd_cli, base, picture)
    assert TOLD[family] in told, told[-2000:]
    assert not re.search(r"unknown tensor|not in model file", told), told[-2000:]
    assert picture.stat().st_size > 1000


def assert_same(ours: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(ours[name].half(), tensor.half()), name


def unet_in_diffusers(file: Path, settings: Path) -> dict[str, Tensor]:
    """The UNet as diffusers reads it from a single file."""
    unet = UNet2DConditionModel.from_single_file(
        str(file), config=str(settings), subfolder="unet", torch_dtype=torch.float16, local_files_only=True
    )
    state: dict[str, Tensor] = unet.state_dict()
    return state


def test_a_trained_single_file_is_read_by_diffusers_and_stable_diffusion_cpp(
    single_file: Callable[[Family], Path], tmp_path: Path, sd_cli: str
) -> None:
    base = open_base(str(single_file("sd15")))
    wanted = learned(base)
    write_base(base, wanted, tmp_path / "corgi.safetensors", dtype=torch.float16, told={"ss_steps": "1"})

    settings = write_settings(tmp_path / "settings", "sd15")
    assert_same(unet_in_diffusers(tmp_path / "corgi.safetensors", settings), wanted)
    assert_draws(sd_cli, tmp_path / "corgi.safetensors", tmp_path / "out.png")


def test_a_trained_folder_is_read_by_diffusers_and_stable_diffusion_cpp(
    folder: Path, tmp_path: Path, sd_cli: str
) -> None:
    base = open_base(str(folder))
    wanted = learned(base)
    write_base(base, wanted, tmp_path / "corgi", dtype=torch.float16, told={"ss_steps": "1"})

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "corgi", torch_dtype=torch.float16)
    assert_same(pipeline.unet.state_dict(), wanted)
    del pipeline, wanted
    assert_draws(sd_cli, tmp_path / "corgi", tmp_path / "out.png")


@pytest.mark.parametrize(
    ("family", "form"), [("sd15", "single file"), ("sd15", "folder"), ("sdxl", "single file")], ids=str
)
def test_a_merged_base_is_read_by_diffusers_and_stable_diffusion_cpp(
    family: Family,
    form: str,
    single_file: Callable[[Family], Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sd_cli: str,
) -> None:
    source = single_file(family) if form == "single file" else request.getfixturevalue("folder")
    out = tmp_path / ("merged.safetensors" if form == "single file" else "merged")
    state = adapter_for(family, "kohya_conv")
    write_adapter(tmp_path / "corgi.safetensors", state, spec=SPECS[family])

    peak = run_brushwork("merge", str(source), f"{tmp_path / 'corgi.safetensors'}:0.5", str(out), folder=tmp_path)

    # Measured for SDXL, whose file has 6.9 GB: 1.08 GB, half of it the program itself.
    assert peak < 1.5e9
    old, new = open_base(str(source)), open_base(str(out))
    for component in ("unet", *configs.TEXT_ENCODERS[family]):
        assert_merged(component, old, new, state)
    if form == "folder":
        pipeline = StableDiffusionPipeline.from_pretrained(out, torch_dtype=torch.float16)
        theirs = pipeline.unet.state_dict()
        del pipeline
    else:
        theirs = unet_in_diffusers(out, write_settings(tmp_path / "settings", family))
    assert_same(theirs, new.parts["unet"])
    del theirs
    assert_draws(sd_cli, out, tmp_path / "out.png", family=family)


def assert_merged(component: str, old: Base, new: Base, state: AdapterState) -> None:
    """Each tensor is the old one, with half of what the adapter adds to it."""
    updates = {name for name in state if name.startswith(f"{component}.")}
    for name in new.parts[component]:
        tensor, wanted = new.parts[component][name], old.parts[component][name]
        path = f"{component}.{name.removesuffix('.weight')}"
        if path in updates and name.endswith(".weight"):
            updates.remove(path)
            wanted = (wanted.float() + 0.5 * delta(state[path]).reshape(wanted.shape)).half()
        torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-6, msg=name)
    assert not updates
