"""The lean path gives the plain network's numbers, gradients of every adapter weight included, and keeps less."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from brushwork.lean.network import POLICIES, LeanUNet, Recompute
from brushwork.lora.inject import Adapter, apply, inject
from brushwork.lora.layers import Dropout
from brushwork.memory.meter import metered
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.models.unet import UNet

SMALL = replace(
    TINY,
    channels=(16, 32, 32),
    heads=(2, 2, 4),
    attention_depth=(0, 1, 2),
    mid_depth=1,
    norm_groups=8,
    context_width=24,
)
WITH_CONVOLUTIONS = replace(SMALL, linear_projection=False, pooled_width=None, time_id_width=None)
"""SD 1.5's form: transformers are entered and left by 1 x 1 convolutions, and no sizes are told."""

DROPOUT = Dropout(inner=0.1, rank=0.2, module=0.1)
KEY = 7


def network(spec: UNetSpec, dtype: torch.dtype = torch.float64) -> UNet:
    """Random weights, norms and biases too."""
    torch.manual_seed(0)
    unet = UNet(spec)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return unet.to(dtype)


def adapted(unet: UNet, targets: Any, *, rank: int = 4, dropout: Dropout = Dropout()) -> Adapter:
    """An adapter that has learned something."""
    adapter = inject({"unet": unet}, targets=targets, rank=rank, alpha=3.0, dropout=dropout)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    return adapter


def given(spec: UNetSpec, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Two pictures of an odd size."""
    torch.manual_seed(2)
    more: list[Tensor] = []
    if spec.pooled_width is not None:
        more = [torch.randn(2, spec.pooled_width, dtype=dtype), torch.tensor([[128.0, 96, 0, 8, 128, 128]] * 2)]
    latents = torch.randn(2, 4, 13, 10, dtype=dtype)
    return latents, torch.tensor([3, 700]), torch.randn(2, 9, spec.context_width, dtype=dtype), *more


def answer(call: Callable[..., Tensor], inputs: tuple[Tensor, ...], learning: list[Tensor]) -> list[Tensor]:
    """The network's output, then the gradient of everything that learns; zeros where nothing reached it."""
    for tensor in learning:
        tensor.grad = None
    output = call(*inputs)
    torch.manual_seed(3)
    (output * torch.randn_like(output)).sum().backward()
    return [output.detach(), *(torch.zeros_like(t) if t.grad is None else t.grad.clone() for t in learning)]


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, in the norm of the whole tensor."""
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


@pytest.mark.parametrize("dropout", [Dropout(), DROPOUT], ids=["", "dropout"])
@pytest.mark.parametrize(
    "targets", ["attention", "attention_out", "all", "kohya", "kohya_conv", ["conv_in", "conv_out"]]
)
@pytest.mark.parametrize("spec", [SMALL, WITH_CONVOLUTIONS], ids=["sdxl", "sd15"])
def test_output_and_every_gradient_are_those_of_the_plain_network(
    spec: UNetSpec, targets: Any, dropout: Dropout
) -> None:
    unet = network(spec)
    adapter = adapted(unet, targets, dropout=dropout)
    adapter.set_dropout_key(KEY if dropout.inner else None)
    plain = answer(unet, given(spec), adapter.parameters())

    for policy in POLICIES:
        lean = answer(LeanUNet(unet, policy), given(spec), adapter.parameters())

        for found, wanted in zip(lean, plain, strict=True):
            # Adapters and their gradients are float32, all else float64 here.
            assert distance(found, wanted) < 1e-6, policy


@pytest.mark.parametrize("spec", [SMALL, WITH_CONVOLUTIONS], ids=["sdxl", "sd15"])
def test_what_is_computed_twice_changes_no_bit(spec: UNetSpec) -> None:
    unet = network(spec, torch.float32)
    adapter = adapted(unet, "kohya_conv", dropout=DROPOUT)
    adapter.set_dropout_key(KEY)
    once, *twice = (
        answer(LeanUNet(unet, policy), given(spec, torch.float32), adapter.parameters()) for policy in POLICIES
    )

    for found in twice:
        assert all(torch.equal(tensor, wanted) for tensor, wanted in zip(found, once, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_in_float32_they_are_within_one_part_in_a_hundred_thousand(policy: Recompute) -> None:
    unet = network(SMALL, torch.float32)
    adapter = adapted(unet, "kohya")
    plain = answer(unet, given(SMALL, torch.float32), adapter.parameters())

    lean = answer(LeanUNet(unet, policy), given(SMALL, torch.float32), adapter.parameters())

    assert max(distance(found, wanted) for found, wanted in zip(lean, plain, strict=True)) < 1e-5


@pytest.mark.parametrize("policy", POLICIES)
def test_in_bf16_they_are_as_near_to_float32_as_the_plain_networks(policy: Recompute) -> None:
    exact, rounded = network(SMALL, torch.float32), network(SMALL, torch.float32).bfloat16()
    exact.load_state_dict({name: tensor.float() for name, tensor in rounded.state_dict().items()})
    inputs = given(SMALL, torch.bfloat16)
    wide = tuple(t.float() if t.is_floating_point() else t for t in inputs)
    truth = answer(exact, wide, (first := adapted(exact, "kohya").parameters()))
    learning = adapted(rounded, "kohya").parameters()
    assert len(first) == len(learning)
    plain = answer(rounded, inputs, learning)

    lean = answer(LeanUNet(rounded, policy), inputs, learning)

    def error(found: list[Tensor]) -> float:
        joined = [torch.cat([tensor.float().flatten() for tensor in tensors]) for tensors in (found[1:], truth[1:])]
        return distance(*joined)

    assert error(lean) < 1.1 * error(plain)


@pytest.mark.parametrize("policy", POLICIES)
def test_adapters_of_other_ranks_on_one_layer_and_a_text_that_learns(policy: Recompute) -> None:
    unet = network(SMALL)
    first, second = adapted(unet, "attention_out"), adapted(unet, "kohya", rank=2)
    second.set_strength(0.7)
    for parameter in first.parameters():
        parameter.requires_grad_(True)
    inputs = given(SMALL)
    text = inputs[2].requires_grad_(True)
    learning = [*first.parameters(), *second.parameters(), text]
    plain = answer(unet, inputs, learning)

    lean = answer(LeanUNet(unet, policy), inputs, learning)

    assert float(plain[-1].norm()) > 0
    for found, wanted in zip(lean, plain, strict=True):
        assert distance(found, wanted) < 1e-6


def test_a_finished_adapter_beside_the_one_that_learns_stays_as_it_is() -> None:
    unet = network(SMALL)
    finished = apply({"unet": unet}, adapted(network(SMALL), "attention").state(), strength=0.5)
    adapter = adapted(unet, "kohya")
    plain = answer(unet, given(SMALL), adapter.parameters())

    lean = answer(LeanUNet(unet, "ff"), given(SMALL), adapter.parameters())

    assert all(parameter.grad is None for parameter in finished.parameters())
    for found, wanted in zip(lean, plain, strict=True):
        assert distance(found, wanted) < 1e-6


def test_the_plain_network_keeps_its_weights_and_goes_on_working() -> None:
    unet = network(SMALL)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    plain = unet(*given(SMALL))

    lean = LeanUNet(unet)

    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert torch.equal(unet(*given(SMALL)), plain)
    block = unet.down_blocks[1].attentions[0].transformer_blocks[0]
    with torch.no_grad():
        block.attn1.to_k.weight.mul_(1.5)  # as merging an adapter does: both see it
    torch.testing.assert_close(lean(*given(SMALL)), unet(*given(SMALL)), rtol=1e-9, atol=1e-9)


def test_each_block_may_have_its_own_policy() -> None:
    unet = network(SMALL)
    adapter = adapted(unet, "attention_out")
    plain = answer(unet, given(SMALL), adapter.parameters())
    asked = []

    def choose(path: str) -> Recompute:
        asked.append(path)
        return POLICIES[len(asked) % len(POLICIES)]

    lean = answer(LeanUNet(unet, choose), given(SMALL), adapter.parameters())

    assert "mid_block.resnets.0" in asked
    assert "up_blocks.0.attentions.2.transformer_blocks.1" in asked
    for found, wanted in zip(lean, plain, strict=True):
        assert distance(found, wanted) < 1e-6


def test_without_gradients_nothing_is_kept() -> None:
    unet = network(SMALL)
    adapted(unet, "attention_out")
    with torch.no_grad():
        torch.testing.assert_close(LeanUNet(unet)(*given(SMALL)), unet(*given(SMALL)), rtol=1e-9, atol=1e-9)


def step_on_meta(spec: UNetSpec, policy: Recompute, resolution: int) -> tuple[float, float]:
    """GiB of activations at most, and TFLOP, of a step of rank 16 on attention in bf16."""
    with torch.device("meta"):
        unet = UNet(spec).bfloat16()
        inject({"unet": unet}, targets="attention_out", rank=16)
        lean = LeanUNet(unet, policy)
        side = resolution // 8
        inputs = [torch.empty(1, 4, side, side), torch.empty(1), torch.empty(1, 77, spec.context_width)]
        if spec.pooled_width is not None:
            inputs += [torch.empty(1, spec.pooled_width), torch.empty(1, 6)]
        latents, timesteps, *text = inputs
        with metered(list(unet.parameters()) + lean.weights) as reading:
            lean(latents.bfloat16(), timesteps, *(tensor.bfloat16() for tensor in text)).float().sum().backward()
    return reading.peak / 2**30, reading.flops / 1e12


def test_a_step_of_sdxl_computes_what_is_needed_and_keeps_two_thirds_of_what_autograd_does() -> None:
    peak, operations = step_on_meta(SDXL, "keep", 1024)

    assert peak < 3.7  # the plain network: 5.28
    assert operations == pytest.approx(0.055 + 11.894 + 2.631, rel=0.005)  # forward, input gradients, LoRA: no more


@pytest.mark.full
@pytest.mark.parametrize(("policy", "most"), [("ff", 2.15), ("qkv+ff", 1.4), ("block", 0.5)])
def test_a_step_of_sdxl_fits_where_it_is_computed_twice(policy: Recompute, most: float) -> None:
    assert step_on_meta(SDXL, policy, 1024)[0] < most


@pytest.mark.full
def test_a_step_of_sd15_computes_what_is_needed() -> None:
    peak, operations = step_on_meta(SD15, "keep", 512)

    assert peak < 0.55  # the plain network: 0.78
    assert operations == pytest.approx(0.003 + 1.356 + 0.429, rel=0.005)
