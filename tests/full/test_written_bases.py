"""Bases of full size that full fine-tuning and merging wrote, in the programs that draw with them: diffusers, and
stable-diffusion.cpp, which `SD_CLI` names."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file
from test_bases_full_size import write_checkpoint
from test_lora_loaders import SD_CLI_MISSING, adapter_for
from torch import Tensor

from brushwork.lora.files import write_adapter
from brushwork.lora.merge import delta
from brushwork.models import configs
from brushwork.models.rewrite import WEIGHTS, write_base
from brushwork.models.spec import SD15
from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary
from brushwork.models.weights import Base, open_base

pytestmark = pytest.mark.full

KINDS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
    "safety_checker": (None, None),
    "feature_extractor": (None, None),
}


@pytest.fixture(scope="module")
def sd_cli() -> str:
    program = os.environ.get("SD_CLI") or shutil.which("sd-cli")
    if program is None or not Path(program).is_file():
        pytest.fail(SD_CLI_MISSING)
    return program


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sd15") / "sd15.safetensors", "sd15")


@pytest.fixture(scope="module")
def folder(single_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base as diffusers lays it out."""
    out, base = tmp_path_factory.mktemp("sd15-folder"), open_base(str(single_file))
    parts = {"unet": (WEIGHTS, SD15.to_config()), "vae": (WEIGHTS, configs.VAE["sd15"])}
    parts["text_encoder"] = ("model", {"model_type": "clip_text_model", **configs.CLIP_L})
    for name, (stem, config) in parts.items():
        (out / name).mkdir()
        (out / name / "config.json").write_text(json.dumps({"_class_name": KINDS[name][1], **config}))
        save_file(dict(base.parts[name]), out / name / f"{stem}.safetensors", metadata={"format": "pt"})
    write_vocabulary(packaged_vocabulary(), out / "tokenizer")
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(configs.SCHEDULER["sd15"]))
    (out / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **KINDS}))
    return out


def learned(base: Base) -> dict[str, Tensor]:
    """A UNet of which every number is another than the base's."""
    return {name: base.parts["unet"][name].float() * 0.5 + 0.001 for name in base.parts["unet"]}


def assert_draws(sd_cli: str, base: Path, picture: Path) -> None:
    done = subprocess.run(
        [sd_cli, "-m", str(base), "-p", "a corgi", "-v", "-W", "64", "-H", "64", "--steps", "1", "--cfg-scale", "1",
         "-o", str(picture)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-2000:]
    assert re.search(r"Version: SD 1", told), told[-2000:]
    assert not re.search(r"unknown tensor|not in model file", told), told[-2000:]
    assert picture.stat().st_size > 1000


def assert_same(ours: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(ours[name].half(), tensor.half()), name


def test_a_trained_single_file_is_read_by_diffusers_and_stable_diffusion_cpp(
    single_file: Path, tmp_path: Path, sd_cli: str
) -> None:
    base = open_base(str(single_file))
    wanted = learned(base)
    write_base(base, wanted, tmp_path / "corgi.safetensors", dtype=torch.float16, told={"ss_steps": "1"})

    state = {
        key: value for key, value in load_file(tmp_path / "corgi.safetensors").items() if "diffusion_model" in key
    }
    assert_same(convert_ldm_unet_checkpoint(state, config=SD15.to_config()), wanted)
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


@pytest.mark.parametrize("form", ["single file", "folder"])
def test_a_merged_base_is_read_by_diffusers_and_stable_diffusion_cpp(
    form: str, single_file: Path, folder: Path, tmp_path: Path, sd_cli: str
) -> None:
    source = single_file if form == "single file" else folder
    out = tmp_path / ("merged.safetensors" if form == "single file" else "merged")
    state = adapter_for("sd15", "kohya_conv")
    write_adapter(tmp_path / "corgi.safetensors", state, spec=SD15)

    script = "import sys; from brushwork.cli.app import main; main(sys.argv[1:])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(
        [sys.executable, "-c", script, "merge", str(source), f"{tmp_path / 'corgi.safetensors'}:0.5", str(out)],
        check=True,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    assert peak == before or peak < 1.5 * 2**20  # KiB: the file alone has 2.1 GB
    old, new = open_base(str(source)), open_base(str(out))
    for component in ("unet", "text_encoder"):
        for name, tensor in new.parts[component].items():
            wanted = old.parts[component][name]
            if (weights := state.get(f"{component}.{name.removesuffix('.weight')}")) and name.endswith(".weight"):
                wanted = (wanted.float() + 0.5 * delta(weights).reshape(wanted.shape)).half()
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-6, msg=name)
    if form == "folder":
        pipeline = StableDiffusionPipeline.from_pretrained(out, torch_dtype=torch.float16)
        assert_same(pipeline.unet.state_dict(), dict(new.parts["unet"]))
        del pipeline
    assert_draws(sd_cli, out, tmp_path / "out.png")
