"""Our adapter files in diffusers and PEFT: every module is applied, and the network's output is ours."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from brushwork.lora.diffusers_layout import adapter_metadata
from brushwork.lora.files import read_adapter, write_adapter
from brushwork.lora.inject import apply, inject
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState
from brushwork.models.spec import UNetSpec
from brushwork.models.unet import UNet

XL = UNetSpec(
    channels=(32, 64),
    attention_depth=(0, 1),
    mid_depth=1,
    heads=(1, 2),
    layers_per_block=1,
    context_width=24,
    linear_projection=True,
    pooled_width=8,
    time_id_width=8,
    sample_size=8,
)
SMALL = replace(XL, attention_depth=(1, 0), linear_projection=False, pooled_width=None, time_id_width=None)
SPECS = {"sd15": SMALL, "sdxl": XL}
PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
LAYOUTS = ("kohya", "diffusers", "peft")


def ours(spec: UNetSpec) -> UNet:
    torch.manual_seed(0)
    return UNet(spec).eval().requires_grad_(False)


def theirs(spec: UNetSpec) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(**{key: value for key, value in spec.to_config().items() if key[0] != "_"})
    unet.load_state_dict(ours(spec).state_dict())
    return unet.eval().requires_grad_(False)


def inputs(spec: UNetSpec) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    latents, context = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 5, 24, generator=draw)
    pooled, time_ids = torch.randn(2, 8, generator=draw), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    return latents, torch.tensor([10, 700]), context, pooled, time_ids


def our_answer(unet: UNet) -> Tensor:
    latents, timesteps, context, pooled, time_ids = inputs(unet.spec)
    return unet(latents, timesteps, context, *((pooled, time_ids) if unet.spec.family == "sdxl" else ()))


def their_answer(unet: UNet2DConditionModel, spec: UNetSpec) -> Tensor:
    latents, timesteps, context, pooled, time_ids = inputs(spec)
    added = {"text_embeds": pooled, "time_ids": time_ids} if spec.family == "sdxl" else None
    return unet(latents, timesteps, context, added_cond_kwargs=added).sample


def trained(components: dict[str, nn.Module], targets: str, **shape: object) -> AdapterState:
    """An adapter none of whose weights is zero; it is left in place, untrained."""
    draw = torch.Generator().manual_seed(2)
    state = inject(components, targets=targets, text_encoder=True, **shape).state()
    return {
        name: LoRAWeights(
            torch.randn(one.down.shape, generator=draw) * 0.3,
            torch.randn(one.up.shape, generator=draw) * 0.3,
            one.alpha,
        )
        for name, one in state.items()
    }


def uneven(state: AdapterState) -> AdapterState:
    """Three ranks and three alphas."""
    return {
        name: LoRAWeights(one.down[: 2 + index % 3], one.up[:, : 2 + index % 3], one.alpha * (1 + index % 3))
        for index, (name, one) in enumerate(state.items())
    }


def load_in_diffusers(folder: Path, components: dict[str, nn.Module], family: str) -> int:
    """Load FOLDER/a.safetensors as a pipeline of diffusers does; the number of layers that carry the adapter."""
    pipeline = PIPELINES[family]
    tensors, alphas, metadata = pipeline.lora_state_dict(
        str(folder), weight_name="a.safetensors", unet_config=components["unet"].config, return_lora_metadata=True
    )
    pipeline.load_lora_into_unet(tensors, network_alphas=alphas, unet=components["unet"], metadata=metadata)
    for name in components.keys() - {"unet"}:
        pipeline.load_lora_into_text_encoder(
            tensors, network_alphas=alphas, text_encoder=components[name], prefix=name, metadata=metadata
        )
    return sum(isinstance(module, BaseTunerLayer) for part in components.values() for module in part.modules())


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("targets", ["all", "kohya_conv"])  # between them, every layer
def test_the_unet_of_diffusers_gives_our_output_with_our_file(
    tmp_path: Path, family: str, layout: str, targets: str
) -> None:
    spec = SPECS[family]
    state = trained({"unet": ours(spec)}, targets, rank=4, alpha=3, conv_rank=2)
    write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=layout, dtype=torch.float32)
    expected, reference = ours(spec), theirs(spec)
    untouched = their_answer(reference, spec)
    apply({"unet": expected}, state)

    assert load_in_diffusers(tmp_path, {"unet": reference}, family) == len(state)

    found = their_answer(reference, spec)
    torch.testing.assert_close(found, our_answer(expected), rtol=1e-4, atol=1e-4)
    assert (found - untouched).abs().max() > 0.1


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_ranks_and_alphas_of_each_module_reach_diffusers(tmp_path: Path, family: str, layout: str) -> None:
    """Not in kohya's layout: of attention layers whose alphas differ, diffusers 0.42 takes the most common alpha."""
    spec = SPECS[family]
    state = uneven(trained({"unet": ours(spec)}, "kohya_conv", rank=4, alpha=1))
    write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=layout, dtype=torch.float32)
    expected, reference = ours(spec), theirs(spec)
    apply({"unet": expected}, state)

    assert load_in_diffusers(tmp_path, {"unet": reference}, family) == len(state)

    torch.testing.assert_close(their_answer(reference, spec), our_answer(expected), rtol=1e-4, atol=1e-4)


def small_text_encoder(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=10, projection_dim=8, eos_token_id=49, bos_token_id=48, pad_token_id=0,
    )  # fmt: skip
    return kind(config).eval().requires_grad_(False)


def components(family: str, unet: nn.Module) -> dict[str, nn.Module]:
    parts = {"unet": unet, "text_encoder": small_text_encoder(CLIPTextModel)}
    if family == "sdxl":
        parts["text_encoder_2"] = small_text_encoder(CLIPTextModelWithProjection)
    return parts


def read_words(encoder: nn.Module) -> Tensor:
    return encoder(input_ids=torch.tensor([[48, 3, 4, 5, 49, 0]]), output_hidden_states=True).hidden_states[-1]


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_text_encoders_of_transformers_give_our_output_with_our_file(
    tmp_path: Path, family: str, layout: str
) -> None:
    spec = SPECS[family]
    state = trained(components(family, ours(spec)), "kohya", rank=4, alpha=3)
    write_adapter(tmp_path / "a.safetensors", state, spec=spec, layout=layout, dtype=torch.float32)
    expected, reference = components(family, ours(spec)), components(family, theirs(spec))
    untouched = {name: read_words(part) for name, part in reference.items() if name != "unet"}
    apply(expected, state)

    assert load_in_diffusers(tmp_path, reference, family) == len(state)

    for name, before in untouched.items():
        found = read_words(reference[name])
        torch.testing.assert_close(found, read_words(expected[name]), rtol=1e-4, atol=1e-5)
        assert (found - before).abs().max() > 0.05
    torch.testing.assert_close(
        their_answer(reference["unet"], spec), our_answer(expected["unet"]), rtol=1e-4, atol=1e-4
    )


@pytest.fixture(params=["save_lora_weights", "without metadata"])
def written_by_diffusers(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, UNet2DConditionModel]:
    """A LoRA of PEFT in the UNet of diffusers, and the file that the training scripts of diffusers write of it."""
    reference = theirs(XL)
    alpha = 6 if request.param == "save_lora_weights" else 4
    config = LoraConfig(
        r=4,
        lora_alpha=alpha,
        init_lora_weights="gaussian",
        target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"],
    )
    inject_adapter_in_model(config, reference)
    torch.manual_seed(3)
    for name, parameter in reference.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    if request.param == "save_lora_weights":
        StableDiffusionXLPipeline.save_lora_weights(
            tmp_path, get_peft_model_state_dict(reference), unet_lora_adapter_metadata=config.to_dict()
        )
    else:
        tensors = {f"unet.{key}": value for key, value in get_peft_model_state_dict(reference).items()}
        save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors", {"format": "pt"})
    return tmp_path, reference


def test_files_that_diffusers_writes_are_read_in_full(
    written_by_diffusers: tuple[Path, UNet2DConditionModel],
) -> None:
    folder, reference = written_by_diffusers
    unet = ours(XL)

    file = read_adapter(folder, spec=XL)
    applied = apply({"unet": unet}, file.state)

    assert applied.num_modules == sum(isinstance(module, BaseTunerLayer) for module in reference.modules())
    torch.testing.assert_close(our_answer(unet), their_answer(reference, XL), rtol=1e-4, atol=1e-4)


def test_the_adapter_metadata_is_a_whole_config_of_peft() -> None:
    state = uneven(trained(components("sdxl", ours(XL)), "kohya", rank=4))
    fields = json.loads(adapter_metadata(state))

    for component in ("unet", "text_encoder", "text_encoder_2"):
        own = {
            key.removeprefix(f"{component}."): value
            for key, value in fields.items()
            if key.startswith(f"{component}.")
        }
        config = LoraConfig(**own)
        # What PEFT has added since is filled in by PEFT; nothing of ours is unknown to it or changed by it.
        written = config.to_dict()
        written["target_modules"] = sorted(written["target_modules"])
        assert {key: written[key] for key in own} == own
        assert not config.use_dora
