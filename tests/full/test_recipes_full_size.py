"""Every recipe takes a step or two on SD 1.5 or SDXL at full size, on a CPU, in bf16, at its own size of pictures.

What differs from the recipe: a step where pictures have 1024 px and two where they are smaller, without warm-up, so
that what moves is seen in fp16; one batch a step, since an accumulation of 8 is eight times that; the device and its
precision. The inner half of a module moves from the second step on, because the outer one is zero in the first.
`sdxl-full-finetune` takes 36 GB, as its header says: here its numbers are counted without memory, and its settings
train the whole of SD 1.5, which has a third of the weights.
"""

import gzip
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from brushwork.config.comments import expectation
from brushwork.config.load import read_recipe, recipe_names, resolve
from brushwork.config.schema import Settings
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.film.frames import draw_folder
from brushwork.lora.inject import untrained
from brushwork.lora.names import canonical
from brushwork.models.spec import SDXL, Family
from brushwork.models.unet import UNet
from brushwork.models.weights import open_base
from brushwork.training.learner import make_learner
from brushwork.training.step import Objective
from full_size import SPECS, run_brushwork

pytestmark = pytest.mark.full

ORACLE = json.loads(gzip.decompress((Path(__file__).parents[1] / "oracles" / "kohya_modules.json.gz").read_bytes()))
OVERRIDES = (
    "train.accumulation=1",
    "train.precision=bf16",
    "train.device=cpu",
    "schedule.warmup_steps=0",
    "save.every_epochs=off",
)
ATTENTION = re.compile(r"lora_unet_.*_attn[12]_to_(q|k|v|out_0)")
UNREACHED: dict[Family, str] = {"sd15": "", "sdxl": "lora_te1_text_model_encoder_layers_11_"}
"""SDXL reads the states before the last layer of its first text encoder, so nothing can teach that layer."""


@dataclass(frozen=True)
class Case:
    """What is expected of a recipe."""

    family: Family
    modules: int
    steps: int
    gigabytes: float
    """What the whole process may take: a seventh more than was measured."""


CASES = {
    "sd15-character": Case("sd15", 264, 2, 6.1),  # measured: 5.38
    "sdxl-1024-r16": Case("sdxl", 560, 1, 8.4),  # measured: 7.27
    "sdxl-16gb": Case("sdxl", 986, 1, 16.4),  # measured: 14.30; 456 million weights learn, in float32
    "sdxl-512-tiny-vram": Case("sdxl", 560, 2, 7.6),  # measured: 6.60
    "sdxl-768": Case("sdxl", 560, 2, 7.9),  # measured: 6.85
    "sdxl-low-memory": Case("sdxl", 560, 2, 8.0),  # measured: 6.95
    "sdxl-standard": Case("sdxl", 560, 1, 10.6),  # measured: 9.25; the text encoders stay
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """The batch of 4 of SD 1.5, and of 1 of SDXL; none is square, so that something is cut off or a bucket found."""
    folders: dict[Family, Path] = {family: tmp_path_factory.mktemp("film") / family for family in SPECS}
    draw_folder(folders["sd15"], count=4, size=(640, 512), seed=5)
    draw_folder(folders["sdxl"], count=1, size=(1152, 896), seed=5)
    return folders


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One cache for all recipes: several read the same latents and captions."""
    return {"BRUSHWORK_CACHE": str(tmp_path_factory.mktemp("cache"))}


def trained(
    recipe: str, base: Path, data: Path, folder: Path, environment: dict[str, str], *overrides: str
) -> tuple[list[float], float]:
    """Train with a recipe; -> the loss of each step, and the most memory in GB."""
    settings = [word for each in (*OVERRIDES, *overrides) for word in ("--set", each)]
    peak = run_brushwork(
        "train", str(data), "--recipe", recipe, "--base", str(base), "--name", "corgi",
        "--out", str(folder / "run"), *settings, folder=folder, environment=environment,
    )  # fmt: skip
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [f"{row['seconds']:.0f} s" for row in rows if "loss" in row]
    print(f"{recipe}: {peak / 1e9:.2f} GB, steps of {', '.join(seconds)}")
    return [row["loss"] for row in rows if "loss" in row], peak / 1e9


@pytest.mark.parametrize("recipe", CASES)
def test_a_recipe_trains_every_module_at_full_size(
    recipe: str,
    pictures: dict[Family, Path],
    environment: dict[str, str],
    single_file: Callable[[Family], Path],
    tmp_path: Path,
) -> None:
    case, settings = CASES[recipe], resolve(recipe=recipe).settings

    losses, gigabytes = trained(
        recipe,
        single_file(case.family),
        pictures[case.family],
        tmp_path,
        environment,
        f"train.max_steps={case.steps}",
    )

    assert len(losses) == case.steps
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    tensors = load_file(tmp_path / "run" / "corgi.safetensors")
    modules = expected_modules(case.family, settings)
    assert {name.partition(".")[0] for name in tensors} == modules.keys()
    assert len(modules) == case.modules
    for name, (inside, outside) in modules.items():
        assert_shaped(name, inside, outside, tensors, settings)
        assert_learned(name, inside, outside, tensors, case, settings)
    assert (tmp_path / "run" / "corgi-ema.safetensors").is_file() is (settings.train.ema_decay is not None)
    assert gigabytes < case.gigabytes


def expected_modules(family: Family, settings: Settings) -> dict[str, tuple[list[int], int]]:
    """kohya's name of each module that learns -> inputs (and kernel) of its down, outputs of its up."""
    lora, found = settings.lora, {}
    for name, (inside, outside, only_conv) in ORACLE[family].items():
        wanted = not only_conv if lora.targets == "kohya" else ATTENTION.fullmatch(name)
        if wanted and (lora.text_encoder or name.startswith("lora_unet")):
            found[name] = (inside, outside)
    return found


def assert_shaped(name: str, inside: list[int], outside: int, tensors: dict[str, Tensor], settings: Settings) -> None:
    """The module has kohya's shapes and the recipe's rank and alpha."""
    lora = settings.lora
    down, up, alpha = (tensors[f"{name}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
    assert list(down.shape) == [lora.rank, *inside], name
    assert list(up.shape) == [outside, lora.rank, *[1] * (len(inside) - 1)], name
    assert alpha.item() == (lora.alpha or lora.rank), name
    assert torch.isfinite(torch.cat([down.flatten(), up.flatten()])).all(), name


def assert_learned(
    name: str, inside: list[int], outside: int, tensors: dict[str, Tensor], case: Case, settings: Settings
) -> None:
    """Both halves are no longer what they began as, where anything can reach them; the inner from step 2 on."""
    unreached = UNREACHED[case.family]
    reached = not (unreached and name.startswith(unreached))
    assert bool(tensors[f"{name}.lora_up.weight"].any()) is reached, name
    if case.steps == 1:
        return
    path = canonical(name, SPECS[case.family])
    assert path is not None
    began = untrained([outside, *inside], rank=settings.lora.rank, alpha=1.0, seed=settings.train.seed, name=path)
    moved = not torch.equal(tensors[f"{name}.lora_down.weight"], began.down.half())
    assert moved is reached, name


def test_full_fine_tuning_moves_every_tensor_of_sd15(
    pictures: dict[Family, Path], environment: dict[str, str], single_file: Callable[[Family], Path], tmp_path: Path
) -> None:
    # At the recipe's rate of 1e-5 fp16 would round away what two steps do to the scale of a norm, which is near 1.
    overrides = ("train.max_steps=2", "data.resolution=512", "optimizer.learning_rate=1e-3")
    base = open_base(str(single_file("sd15")))

    losses, gigabytes = trained(
        "sdxl-full-finetune", single_file("sd15"), pictures["sd15"], tmp_path, environment, *overrides
    )

    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    written = open_base(str(tmp_path / "run" / "corgi.safetensors"))
    old, new = base.parts["unet"], written.parts["unet"]
    assert old.shapes() == new.shapes()
    assert [name for name in old if torch.equal(old[name], new[name])] == []
    assert base.fingerprint("vae") == written.fingerprint("vae")
    assert base.fingerprint("text") == written.fingerprint("text")
    assert gigabytes < 14.6  # measured: 12.74; 14 bytes for each of 860 million weights make 12 GB, and the program


def test_full_fine_tuning_of_sdxl_takes_the_memory_that_its_recipe_counts() -> None:
    settings = resolve(recipe="sdxl-full-finetune", overrides=["train.precision=bf16"]).settings
    with torch.device("meta"):  # shapes and types, and no memory
        unet = UNet(SDXL).to(torch.bfloat16)
    base = open_base("bundled")  # asked only where a file is written
    objective = Objective(schedule=NoiseSchedule.scaled_linear(), prediction="epsilon", scaling_factor=0.13025)
    learner = make_learner(
        unet, None, base, settings, objective=objective, dtype=torch.bfloat16, device=torch.device("meta")
    ).learner

    predict_and_learn(unet)
    learner.gradients.collect()
    predict_and_learn(unet)  # the second batch of a step, whose gradients are added to those of the first

    held = [*learner.parameters.values(), *learner.copies.values()]
    gradients = [tensor.grad for tensor in held]
    assert all(gradient is not None for gradient in gradients)
    moments = 2 * sum(tensor.numel() for tensor in learner.parameters.values())  # a byte for each of two
    size = sum(tensor.nbytes for tensor in (*held, *gradients)) + moments
    assert f"{size / 1e9:.0f} GB" in expectation(read_recipe("sdxl-full-finetune").header).memory


def predict_and_learn(unet: UNet) -> None:
    """One picture of 1024 px through the network and back."""
    with torch.device("meta"):
        latents, context = torch.empty(1, 4, 128, 128), torch.empty(1, 77, 2048)
        pooled, time_ids = torch.empty(1, 1280), torch.empty(1, 6)
        timesteps = torch.empty(1, dtype=torch.int64)
    short = [tensor.to(torch.bfloat16) for tensor in (latents, context, pooled)]
    unet(short[0], timesteps, *short[1:], time_ids).float().square().mean().backward()


def test_every_recipe_is_tried() -> None:
    """`tiny` is for the bundled model, whose full size every test run has: `tests/e2e/test_recipe_runs.py`."""
    assert set(recipe_names()) == {*CASES, "sdxl-full-finetune", "tiny"}
