"""Merging: the base in its own form, with exactly what the adapters add; nothing where one of them does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from brushwork.cli.app import main
from brushwork.errors import UserError
from brushwork.generation.adapters import Wanted
from brushwork.generation.merge import merge
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import inject
from brushwork.lora.merge import delta
from brushwork.lora.state import AdapterState, component_of
from brushwork.models.spec import TINY
from brushwork.models.weights import Base, open_base
from single_files import sdxl_file

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, Tensor]]:
    return {name: {key: value.half() for key, value in part.items()} for name, part in _bundled().parts.items()}


def _bundled() -> Base:
    return open_base("bundled")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, AdapterState]]:
    """Two adapters: of everything with convolutions and text encoders, and of attention alone."""
    base, folder = _bundled(), tmp_path_factory.mktemp("loras")
    text = base.load_text(dtype=torch.float32, device="cpu", clip_skip=1, max_tokens=75)
    made = []
    for number, targets in enumerate(("kohya_conv", "attention")):
        components = {"unet": base.load_unet(dtype=torch.float32, device="cpu")} | (
            text.modules if not number else {}
        )
        state = inject(components, targets=targets, rank=2, alpha=1.5, text_encoder=not number, seed=number).state()
        source = torch.Generator().manual_seed(number)
        for weights in state.values():
            weights.up.copy_(0.05 * torch.randn(weights.up.shape, generator=source))
        path = folder / f"{targets}.safetensors"
        write_adapter(path, state, spec=base.spec, dtype=torch.float32)
        made.append((path, state))
    return made


def single_file(folder: Path, tensors: dict[str, dict[str, Tensor]]) -> Path:
    file = folder / "base.safetensors"
    metadata = {"modelspec.title": "Base", "modelspec.hash_sha256": "0xdead", "format": "pt"}
    save_file(sdxl_file(*(tensors[name] for name in PARTS), TINY), file, metadata=metadata)
    return file


def expected(base: Base, changes: list[tuple[AdapterState, float]]) -> dict[str, dict[str, Tensor]]:
    """By our names: each weight plus its updates in float32, rounded once."""
    wanted = {}
    for name, part in base.parts.items():
        wanted[name] = {key: part[key] for key in part}
    for component in {component_of(layer) for state, _ in changes for layer in state}:
        for key, value in wanted[component].items():
            total = value.float()
            for state, strength in changes:
                weights = state.get(f"{component}.{key.removesuffix('.weight')}") if key.endswith(".weight") else None
                if weights is not None:
                    total = total + strength * delta(weights).reshape(total.shape)
            wanted[component][key] = total.to(value.dtype)
    return wanted


@pytest.mark.parametrize("form", ["single file", "folder"])
def test_each_weight_gets_its_updates_once_rounded_and_the_rest_stays(
    form: str, tmp_path: Path, tensors: dict[str, dict[str, Tensor]], adapters: list[tuple[Path, AdapterState]]
) -> None:
    source = str(single_file(tmp_path, tensors)) if form == "single file" else "bundled"
    out = tmp_path / ("merged.safetensors" if form == "single file" else "merged")
    loras = [Wanted(adapters[0][0], 0.7), Wanted(adapters[1][0], -1.5)]

    made = merge(source, loras, out)

    before, after = open_base(source), open_base(str(out))
    wanted = expected(before, [(adapters[0][1], 0.7), (adapters[1][1], -1.5)])
    changed = 0
    for name, part in after.parts.items():
        assert part.keys() == wanted[name].keys()
        for key in part:
            assert part[key].dtype == wanted[name][key].dtype
            torch.testing.assert_close(part[key], wanted[name][key], rtol=1e-3, atol=1e-6, msg=f"{name} {key}")
            changed += not torch.equal(part[key], before.parts[name][key])
    assert changed >= made.num_changed > 100  # q, k and v are one tensor in a single file
    assert after.describe()["unet_precision"] == before.describe()["unet_precision"]
    file = out if form == "single file" else out / "unet" / "diffusion_pytorch_model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert [each["strength"] for each in json.loads(metadata["brushwork.merged"])] == [0.7, -1.5]
    name = "base.safetensors" if form == "single file" else "bundled"
    assert metadata["modelspec.merged_from"] == f"{name}, kohya_conv.safetensors:0.7, attention.safetensors:-1.5"
    assert "modelspec.hash_sha256" not in metadata
    assert str(tmp_path) not in json.dumps(metadata)
    if form == "single file":
        assert load_file(out).keys() == load_file(source).keys()
        assert metadata["modelspec.title"] == "Base"


def test_a_folder_keeps_the_names_of_its_files(
    tmp_path: Path, tensors: dict[str, dict[str, Tensor]], adapters: list[tuple[Path, AdapterState]]
) -> None:
    import shutil

    folder = _bundled().folder
    assert folder is not None
    shutil.copytree(folder, tmp_path / "base")
    for name, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        old = tmp_path / "base" / name / f"{stem}.safetensors"
        old.rename(old.with_name(f"{stem}.fp16.safetensors"))

    merge(str(tmp_path / "base"), [Wanted(adapters[0][0])], tmp_path / "merged")

    def files(place: Path) -> list[str]:
        return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())

    assert files(tmp_path / "merged") == files(tmp_path / "base")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in files(tmp_path / "merged")
    open_base(str(tmp_path / "merged"))


def test_the_command_says_what_it_merged(
    tmp_path: Path, adapters: list[tuple[Path, AdapterState]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    with pytest.raises(SystemExit) as ended:
        main(["merge", "bundled", f"{adapters[0][0]}:0.5", str(adapters[1][0]), str(out)])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "kohya_conv.safetensors" in told
    assert "strength 0.5" in told
    assert f"{out}: " in told
    with pytest.raises(SystemExit) as ended:
        main(["merge", "bundled", str(adapters[1][0]), str(out)])
    assert ended.value.code == 1
    assert "is there already and is not replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "lora", "out", "problem"),
    [
        ("bundled", "fitting", "merged.safetensors", "is a folder, so what comes out is a folder too"),
        ("bundled", "nowhere.safetensors", "merged", "there is no LoRA"),
        ("bundled", "fitting", "deep/down/merged", "there is no folder"),
        ("bundled", "foreign", "merged", "is an adapter for SD 1.5; the base is the bundled model"),
        ("bundled", "huge", "merged", "becomes larger than its type can hold"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_leaves_nothing(
    source: str, lora: str, out: str, problem: str, tmp_path: Path, adapters: list[tuple[Path, AdapterState]],
    foreign: Callable[[], Path],
) -> None:  # fmt: skip
    path = {"fitting": adapters[1][0], "huge": adapters[1][0], "foreign": None}.get(lora, Path(lora)) or foreign()
    before = set(tmp_path.iterdir())

    with pytest.raises(UserError, match=problem):
        merge(source, [Wanted(path, 1e38 if lora == "huge" else 1.0)], tmp_path / out)

    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def write() -> Path:
        file = tmp_path_factory.mktemp("foreign") / "sd15.safetensors"
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        tensors = {f"{layer}.lora_down.weight": torch.ones(2, 320), f"{layer}.lora_up.weight": torch.ones(320, 2)}
        save_file(tensors, file)
        return file

    return write
