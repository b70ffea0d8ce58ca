"""Our adapter files of SD 1.5 and SDXL, every module at full shape, in the programs that people load them with.

diffusers with PEFT (development dependencies), refiners and the key lists of sd-mecha (`make test-full` installs
them), and stable-diffusion.cpp (the program named by SD_CLI, else `sd-cli` on the path). Networks whose numbers do
not matter get no memory: they are built on the meta device. The SDXL cases take minutes, 11 GB of memory, 7 of disk.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from brushwork.lora.files import read_adapter, write_adapter
from brushwork.lora.inject import apply
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.merge import delta
from brushwork.lora.state import canonical_name
from brushwork.models.spec import Family, UNetSpec
from full_size import SPECS, adapter_for, draw_with_sd_cli, empty_components, make_weights

pytestmark = pytest.mark.full

PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def load_in_diffusers(folder: Path, components: dict[str, nn.Module], family: Family) -> dict[str, BaseTunerLayer]:
    """Load FOLDER/corgi.safetensors as a pipeline of diffusers does; every layer of PEFT by its canonical name."""
    pipeline = PIPELINES[family]
    tensors, alphas, metadata = pipeline.lora_state_dict(
        str(folder), weight_name="corgi.safetensors", unet_config=components["unet"].config, return_lora_metadata=True
    )
    told = {"network_alphas": alphas, "metadata": metadata, "low_cpu_mem_usage": True}
    pipeline.load_lora_into_unet(tensors, unet=components["unet"], **told)
    for name in components.keys() - {"unet"}:
        pipeline.load_lora_into_text_encoder(tensors, text_encoder=components[name], prefix=name, **told)
    return {
        canonical_name(name, path): module
        for name, part in components.items()
        for path, module in part.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


@pytest.mark.parametrize(
    ("family", "targets", "layout", "count"),
    [
        ("sd15", "kohya", "kohya", 264),
        ("sd15", "kohya", "diffusers", 264),
        ("sd15", "kohya", "peft", 264),
        ("sd15", "kohya_conv", "kohya", 350),
        ("sdxl", "kohya", "kohya", 986),
        ("sdxl", "kohya", "peft", 986),
        ("sdxl", "kohya_conv", "kohya", 1052),
    ],
)
def test_diffusers_applies_every_module_with_its_strength(
    tmp_path: Path, family: Family, targets: str, layout: str, count: int
) -> None:
    state = adapter_for(family, targets, alpha=0.5)
    write_adapter(tmp_path / "corgi.safetensors", state, spec=SPECS[family], layout=layout)
    components = {
        name: part.to_empty(device="cpu") for name, part in empty_components(family, of_diffusers=True).items()
    }

    layers = load_in_diffusers(tmp_path, components, family)

    assert layers.keys() == state.keys()
    assert len(layers) == count
    for name, layer in layers.items():
        (adapter,) = layer.scaling
        down, up = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
        found = delta(LoRAWeights(down, up, alpha=layer.scaling[adapter] * len(down)))
        torch.testing.assert_close(found, delta(state[name]), rtol=2e-3, atol=1e-6)  # fp16 in the file


@pytest.mark.parametrize("family", SPECS)
def test_the_full_size_unet_of_diffusers_gives_our_output_with_our_file(tmp_path: Path, family: Family) -> None:
    spec = SPECS[family]
    ours, theirs = (empty_components(family, of_diffusers=of_diffusers)["unet"] for of_diffusers in (False, True))
    weights = make_weights(theirs)
    for network in (ours, theirs):
        network.load_state_dict(weights, strict=True, assign=True)
        network.eval().requires_grad_(False)
    state = adapter_for(family, "kohya", alpha=8.0, text_encoder=False)
    write_adapter(tmp_path / "corgi.safetensors", state, spec=spec)
    inputs = make_inputs(spec)

    untouched = their_output(theirs, inputs)
    assert len(load_in_diffusers(tmp_path, {"unet": theirs}, family)) == len(state)
    expected = their_output(theirs, inputs)
    apply({"unet": ours}, read_adapter(tmp_path / "corgi.safetensors", spec=spec).state)
    found = ours(
        inputs["latents"], inputs["timesteps"], inputs["context"], inputs.get("pooled"), inputs.get("time_ids")
    )

    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)
    assert (expected - untouched).abs().max() > 0.01 * size


def make_inputs(spec: UNetSpec) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn(1, 4, 16, 8, generator=draw),
        "timesteps": torch.tensor([601]),
        "context": torch.randn(1, 77, spec.context_width, generator=draw),
    }
    if spec.pooled_width is not None:
        inputs["pooled"] = torch.randn(1, spec.pooled_width, generator=draw)
        inputs["time_ids"] = torch.tensor([[1024, 1536, 0, 16, 768, 1152]])
    return inputs


def their_output(unet: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if "pooled" in inputs else None
    with torch.no_grad():
        return unet(inputs["latents"], inputs["timesteps"], inputs["context"], added_cond_kwargs=added).sample


@pytest.mark.parametrize(
    ("family", "targets", "layout", "attached"),
    [
        ("sd15", "kohya", "kohya", 264),
        ("sd15", "kohya", "diffusers", 264),
        ("sd15", "kohya", "peft", 264),
        ("sd15", "kohya_conv", "kohya", 350),
        # refiners leaves out the last layer of CLIP-L, six modules, since SDXL reads the one before it.
        ("sdxl", "kohya", "kohya", 986 - 6),
        ("sdxl", "kohya", "diffusers", 986 - 6),
    ],
)
def test_refiners_attaches_every_module(
    tmp_path: Path, family: Family, targets: str, layout: str, attached: int
) -> None:
    from refiners.foundationals.latent_diffusion import StableDiffusion_1, StableDiffusion_XL
    from refiners.foundationals.latent_diffusion.lora import SDLoraManager
    from refiners.foundationals.latent_diffusion.solvers import DDIM

    state = adapter_for(family, targets, alpha=2.0)
    write_adapter(tmp_path / "corgi.safetensors", state, spec=SPECS[family], layout=layout)
    solver = DDIM(num_inference_steps=30)
    with torch.device("meta"):
        model = (StableDiffusion_1 if family == "sd15" else StableDiffusion_XL)(solver=solver, device="meta")
    manager = SDLoraManager(model)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        manager.add_loras("corgi", load_file(tmp_path / "corgi.safetensors"))

    assert len(manager.loras) == attached
    failed = [str(warning.message) for warning in told if "failed to attach" in str(warning.message)]
    assert failed == ([] if family == "sd15" else ["failed to attach 6/264 loras to the text encoder"])


@pytest.mark.parametrize("family", SPECS)
def test_stable_diffusion_cpp_applies_every_tensor(
    tmp_path: Path, sd_cli: str, family: Family, single_file: Callable[[Family], Path]
) -> None:
    cases = [("kohya", "kohya", True), ("kohya_conv", "kohya", True)]
    if family == "sd15":  # of these layouts it knows the names of the UNet alone
        cases += [("kohya_conv", "diffusers", False), ("kohya_conv", "peft", False)]
    for targets, layout, text_encoder in cases:
        state = adapter_for(family, targets, text_encoder=text_encoder)
        write_adapter(tmp_path / "corgi.safetensors", state, spec=SPECS[family], layout=layout)
        tensors = len(load_file(tmp_path / "corgi.safetensors"))

        prompt = "a corgi<lora:corgi:1>"
        told = draw_with_sd_cli(
            sd_cli, single_file(family), tmp_path / "out.png", prompt=prompt, lora_model_dir=str(tmp_path)
        )

        applied = re.search(r"\((\d+) / (\d+)\) LoRA tensors have been applied", told)
        assert applied, told[-2000:]
        assert (int(applied[1]), int(applied[2])) == (tensors, tensors), (targets, layout)
        assert "unused lora tensor" not in told
