"""The whole UNet gives the numbers of diffusers' UNet2DConditionModel, forwards and backwards, for both families."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.models.unet import UNet

# The topologies of the two families, a tenth as wide.
SMALL_SD15 = replace(SD15, channels=(32, 64, 96, 96), heads=(4, 4, 4, 4), context_width=48, norm_groups=16)
SMALL_SDXL = replace(
    SDXL,
    channels=(32, 64, 96),
    attention_depth=(0, 2, 3),
    mid_depth=3,
    heads=(2, 4, 6),
    context_width=48,
    pooled_width=24,
    time_id_width=16,
    norm_groups=16,
)
SPECS = pytest.mark.parametrize("spec", [SMALL_SD15, SMALL_SDXL, TINY], ids=["sd15", "sdxl", "tiny"])

# Heights and widths in latents: square, wide, odd (13 -> 7 -> 4 -> 2), odd only further down, smaller than 2^levels.
SIZES = pytest.mark.parametrize("size", [(16, 16), (8, 24), (13, 19), (12, 10), (3, 5)], ids=str)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def make_pair(spec: UNetSpec) -> tuple[UNet, UNet2DConditionModel]:
    """Ours and theirs with the same random weights; norms too, which a fresh network leaves at one and zero."""
    theirs = UNet2DConditionModel.from_config(spec.to_config()).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in theirs.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=generator))
            module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
    ours = UNet(spec).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def make_inputs(spec: UNetSpec, size: tuple[int, int], batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn(batch, 4, *size, generator=generator),
        "timesteps": torch.tensor([999, 1, 501])[:batch],
        "context": torch.randn(batch, 7, spec.context_width, generator=generator),
    }
    if spec.pooled_width is not None:
        inputs["pooled"] = torch.randn(batch, spec.pooled_width, generator=generator)
        inputs["time_ids"] = torch.tensor([[1025, 768, 0, 13, 512, 384], [64] * 6, [2047, 1, 2, 3, 4, 5]])[:batch]
    return inputs


def call_theirs(theirs: UNet2DConditionModel, inputs: dict[str, Tensor]) -> Tensor:
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if "pooled" in inputs else None
    output: Tensor = theirs(
        inputs["latents"], inputs["timesteps"], inputs["context"], added_cond_kwargs=added, return_dict=False
    )[0]
    return output


def require_gradients(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }


def gradients(output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
    weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
    leaves = [tensor for tensor in inputs.values() if tensor.requires_grad]
    return list(torch.autograd.grad((output * weighting).sum(), leaves))


@SPECS
@SIZES
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_and_input_gradients_match_diffusers(spec: UNetSpec, size: tuple[int, int], batch: int) -> None:
    ours, theirs = make_pair(spec)
    inputs = make_inputs(spec, size, batch)
    mine, reference = require_gradients(inputs), require_gradients(inputs)

    output, expected = ours(**mine), call_theirs(theirs, reference)

    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for ours_gradient, expected_gradient in zip(gradients(output, mine), gradients(expected, reference), strict=True):
        torch.testing.assert_close(ours_gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@SPECS
def test_weight_gradients_match_diffusers(spec: UNetSpec) -> None:
    ours, theirs = make_pair(spec)
    inputs = make_inputs(spec, (13, 19), batch=2)
    ours.requires_grad_(True)
    theirs.requires_grad_(True)

    ours(**inputs).square().sum().backward()
    call_theirs(theirs, inputs).square().sum().backward()

    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


@SPECS
def test_bfloat16_matches_diffusers_in_bfloat16_and_float32(spec: UNetSpec) -> None:
    """Rounding to 2^-9 at every step takes either program up to 0.053 of the largest value away from float32.

    From each other they part by at most 0.013, in gradients only, whose sums autograd adds up in another order. (Both
    measured over 12 draws of the weights.)
    """
    ours, theirs = make_pair(spec)
    inputs = make_inputs(spec, (13, 19), batch=3)
    leaves = require_gradients(inputs)
    output = ours(**leaves)
    exact = [output, *gradients(output, leaves)]

    rounded = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    mine, reference = require_gradients(rounded), require_gradients(rounded)
    output = ours.to(torch.bfloat16)(**mine)
    expected = call_theirs(theirs.to(torch.bfloat16), reference)

    assert output.dtype == torch.bfloat16
    actual, wanted = [output, *gradients(output, mine)], [expected, *gradients(expected, reference)]
    for ours_rounded, theirs_rounded, truth in zip(actual, wanted, exact, strict=True):
        scale = truth.abs().max().item()
        torch.testing.assert_close(ours_rounded, theirs_rounded, rtol=0, atol=0.02 * scale)
        torch.testing.assert_close(ours_rounded.float(), truth, rtol=0, atol=0.08 * scale)


@SPECS
def test_fractional_timesteps_match_diffusers(spec: UNetSpec) -> None:
    ours, theirs = make_pair(spec)
    inputs = make_inputs(spec, (8, 8), batch=2) | {"timesteps": torch.tensor([0.25, 731.6])}
    torch.testing.assert_close(ours(**inputs), call_theirs(theirs, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "count"), [(SD15, 859_520_964), (SDXL, 2_567_463_684)], ids=["sd15", "sdxl"])
def test_published_networks_have_the_names_shapes_and_size_of_diffusers(spec: UNetSpec, count: int) -> None:
    with torch.device("meta"):
        ours, theirs = UNet(spec), UNet2DConditionModel.from_config(spec.to_config())
    shapes = {name: tuple(weight.shape) for name, weight in ours.state_dict().items()}
    assert shapes == {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
    assert sum(weight.numel() for weight in ours.parameters()) == count


@SPECS
def test_channels_last_changes_nothing_but_the_layout(spec: UNetSpec) -> None:
    ours, _ = make_pair(spec)
    inputs = make_inputs(spec, (13, 19), batch=2)
    expected = ours(**inputs)
    inputs["latents"] = inputs["latents"].contiguous(memory_format=torch.channels_last)
    output = ours.to(memory_format=torch.channels_last)(**inputs)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
