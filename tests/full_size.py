"""SD 1.5 and SDXL at full size with random numbers: their files, their networks, adapters for them, and runs on them.

The keys of the files are those that sd-mecha lists (MIT); `make test-full` installs it.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from brushwork.lora.inject import inject
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState
from brushwork.models.spec import SD15, SDXL, Family, UNetSpec
from brushwork.models.unet import UNet

SPECS: dict[Family, UNetSpec] = {"sd15": SD15, "sdxl": SDXL}
LISTS = {"sd15": "sd1-ldm.yaml", "sdxl": "sdxl-sgm.yaml"}
MARKS = ("v_pred", "ztsnr", "edm_vpred.", "model_ema.")
"""Keys in the lists that say something of the model, and the running mean; the plain files have none of them."""


def listed_keys(family: Family) -> dict[str, tuple[list[int], torch.dtype]]:
    """Every key of the published file, with its shape and type."""
    spec = find_spec("sd_mecha")
    assert spec is not None, "pip install --no-deps sd-mecha"
    assert spec.origin is not None
    path = next(Path(spec.origin).parent.rglob(LISTS[family]))
    keys = {}
    for part in yaml.safe_load(path.read_text())["components"].values():
        for key, about in part.items():
            if not key.startswith(MARKS):
                is_integer = about["dtype"].startswith("int")
                keys[key] = (about["shape"], torch.int64 if is_integer else torch.float16)
    return keys


def write_checkpoint(path: Path, family: Family) -> Path:
    """Write the file tensor by tensor; each is a slice of one pool of random numbers, at its own place.

    Their size keeps what flows through the networks about even, so that they can learn and draw.
    """
    pool = torch.randn(2**26, generator=torch.Generator().manual_seed(0)).half()
    keys = listed_keys(family)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key, (shape, dtype) in keys.items():
        end = position + math.prod(shape) * dtype.itemsize
        name = "I64" if dtype == torch.int64 else "F16"
        header[key] = {"dtype": name, "shape": shape, "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for number, (key, (shape, dtype)) in enumerate(keys.items()):
            size = math.prod(shape)
            start = number * 997 % (len(pool) - size)
            drawn = pool[start : start + size]
            if len(shape) > 1:
                drawn = drawn * (0.7 / math.prod(shape[1:]) ** 0.5)
            else:
                drawn = drawn * 0.1 + float(key.endswith("weight"))  # the scale of a norm is near 1
            file.write((torch.arange(size) if dtype == torch.int64 else drawn).numpy().tobytes())
    return path


def make_weights(network: nn.Module) -> dict[str, Tensor]:
    """Random weights that keep the size of what flows through the network about even."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, meta in network.state_dict().items():
        weight = torch.empty(meta.shape)
        if meta.ndim > 1:
            weight.normal_(std=meta[0].numel() ** -0.5, generator=generator)
        else:
            is_norm_scale = "norm" in name and name.endswith("weight")
            weight.normal_(mean=float(is_norm_scale), std=0.1, generator=generator)
        weights[name] = weight
    return weights


def empty_components(family: Family, *, of_diffusers: bool = False) -> dict[str, nn.Module]:
    """The networks of a family at full size, without memory."""
    large = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    small = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    spec = SPECS[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(spec.to_config()) if of_diffusers else UNet(spec)
        parts: dict[str, nn.Module] = {"unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(**small))}
        if family == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**large))
    return parts


def adapter_for(family: Family, targets: str, *, alpha: float = 1.0, text_encoder: bool = True) -> AdapterState:
    """Every module that the targets have at full size, with random numbers that fp16 holds exactly."""
    draw = torch.Generator().manual_seed(0)
    adapter = inject(empty_components(family), targets=targets, rank=2, alpha=alpha, text_encoder=text_encoder)
    return {
        name: LoRAWeights(
            down=(torch.randn(layer.down.shape, generator=draw) * 0.05).half().float(),
            up=(torch.randn(layer.up.shape, generator=draw) * 0.05).half().float(),
            alpha=layer.alpha,
        )
        for name, layer in adapter.layers.items()
    }


PEAK = """
import resource, sys
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux: getrusage would give the peak of the process that started this one.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
"""
"""For a process of its own, whose memory is to be known: `peak()`, in bytes."""

COMMAND = """
import atexit
atexit.register(lambda: Path(sys.argv[1]).write_text(str(peak())))
from brushwork.cli.app import main
main(sys.argv[2:])
"""


def run_brushwork(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run a command in a process of its own, which has to succeed; -> the most memory that it held, in bytes."""
    measured = folder / "peak-memory"
    done = subprocess.run(
        [sys.executable, "-c", PEAK + COMMAND, str(measured), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return int(measured.read_text())


def draw_with_sd_cli(sd_cli: str, base: Path, picture: Path, *, prompt: str = "a corgi", **options: str) -> str:
    """Draw one small picture in stable-diffusion.cpp, in one step; -> everything that it tells."""
    told = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = subprocess.run(
        [sd_cli, "-m", str(base), "-p", prompt, *told, "-v", "-W", "64", "-H", "64", "--steps", "1",
         "--cfg-scale", "1", "-o", str(picture)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout + done.stderr
