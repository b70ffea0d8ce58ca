"""Checkpoints of SD 1.5 and SDXL with every key, shape and type of the published files, and random numbers.

The keys are those that sd-mecha lists (MIT); `make test-full` installs it. The files take 2.1 and 6.9 GB of disk.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from torch import Tensor

from brushwork.models import configs
from brushwork.models.spec import SD15, SDXL
from brushwork.models.text import canonical_name, empty_text_encoder
from brushwork.models.weights import Base, open_base

pytestmark = pytest.mark.full

LISTS = {"sd15": "sd1-ldm.yaml", "sdxl": "sdxl-sgm.yaml"}
MARKS = ("v_pred", "ztsnr", "edm_vpred.")
"""Keys in the lists that say something of the model; plain SD 1.5 and SDXL have none of them."""


def listed_keys(family: str) -> dict[str, tuple[list[int], torch.dtype]]:
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


def write_checkpoint(path: Path, family: str) -> Path:
    """Write the file tensor by tensor; each is a slice of one pool of random numbers, at its own place."""
    pool = torch.randn(2**26, generator=torch.Generator().manual_seed(0)).mul(0.02).half()
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
        for number, (shape, dtype) in enumerate(keys.values()):
            size = math.prod(shape)
            start = number * 997 % (len(pool) - size)
            tensor = torch.arange(size) if dtype == torch.int64 else pool[start : start + size]
            file.write(tensor.numpy().tobytes())
    return path


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp(request.param)
    return open_base(str(write_checkpoint(folder / f"{request.param}.safetensors", request.param)))


def assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor.to(ours[name].dtype)), name


def test_every_tensor_of_a_full_file_is_loaded_as_diffusers_converts_it(base: Base) -> None:
    expected = SD15 if base.family == "sd15" else SDXL
    with safe_open(base.parts["unet"].file.paths[0], framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key: tensor for key, tensor in state.items() if not key.endswith("position_ids")}

    assert base.spec == expected
    unet = base.load_unet(dtype=torch.float16, device="cpu").state_dict()
    assert_equal(unet, convert_ldm_unet_checkpoint(dict(state), base.spec.to_config()))
    del unet
    vae = base.load_vae(dtype=torch.float32, device="cpu").module.state_dict()
    assert_equal(vae, convert_ldm_vae_checkpoint(dict(state), configs.VAE[base.family]))
    del vae
    for name, module in base.load_text(dtype=torch.float16, device="cpu").modules.items():
        ours = {canonical_name(module, path): tensor for path, tensor in module.state_dict().items()}
        if name == "text_encoder":
            theirs = convert_ldm_clip_checkpoint(dict(state))
        else:
            empty = empty_text_encoder(configs.CLIP_BIG_G, with_projection=True)
            theirs = convert_open_clip_checkpoint(empty, dict(state), prefix="conditioner.embedders.1.model.")
        assert_equal(ours, theirs)


PEAK = """
import json, resource, sys, torch
from pathlib import Path
from brushwork.models.weights import open_base

def peak():
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux: getrusage would give the peak of the process that started this one.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

base = open_base(sys.argv[1])
before = peak()
networks = [
    base.load_unet(dtype=torch.bfloat16, device="cpu"),
    base.load_vae(dtype=torch.bfloat16, device="cpu").module,
    *base.load_text(dtype=torch.bfloat16, device="cpu").modules.values(),
]
size = sum(tensor.nbytes for network in networks for tensor in network.parameters())
print(json.dumps({"size": size, "peak": peak() - before}))
"""


def test_loading_takes_little_more_memory_than_what_is_loaded(base: Base) -> None:
    run = subprocess.run([sys.executable, "-c", PEAK, base.source], capture_output=True, text=True, check=True)
    measured = json.loads(run.stdout.splitlines()[-1])

    print(f"{base.family}: {measured['size'] / 1e9:.2f} GB loaded, peak {measured['peak'] / 1e9:.2f} GB")
    # Measured: less than 0.1 GB more, for both. Whole tensors cast one after another took 1.3 GB more for SDXL.
    assert measured["peak"] < measured["size"] + 300e6
