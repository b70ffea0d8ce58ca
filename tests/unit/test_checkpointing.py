"""Checkpointing changes memory and time, never a number, and computes nothing twice that needs no gradient."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from brushwork.models import checkpointing
from brushwork.models.attention import TransformerBlock
from brushwork.models.blocks import ResidualBlock
from brushwork.models.checkpointing import Checkpointed
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet

FIRST_TRAINED = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture
def unet() -> UNet:
    """The tiny network, frozen but for one matrix in the middle: as if the first adapter sat there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(TINY).requires_grad_(False)
    unet.get_parameter(FIRST_TRAINED).requires_grad_(True)
    return unet


def draw(unet: UNet, **replaced: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn(2, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([20, 700]),
        "context": torch.randn(2, 7, TINY.context_width, generator=generator),
        "pooled": torch.randn(2, TINY.pooled_width or 0, generator=generator),
        "time_ids": torch.full((2, 6), 64),
    }
    output: Tensor = unet(**(inputs | replaced))
    return output


def count_calls(unet: UNet, run: Callable[[], object], inner: dict[type[nn.Module], str]) -> Counter[str]:
    """How often one module inside each block finished computing."""
    calls: Counter[str] = Counter()
    hooks = []
    for path, block in unet.named_modules():
        if type(block) in inner:
            hooked = block.get_submodule(inner[type(block)])
            hooks.append(hooked.register_forward_hook(lambda *_, path=path: calls.update([path])))
    run()
    for hook in hooks:
        hook.remove()
    return calls


def saved_bytes(run: Callable[[], Tensor]) -> int:
    """What autograd keeps for the backward pass, weights counted as well."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    del output
    return sum(storages.values())


FIRST_STEP: dict[type[nn.Module], str] = {ResidualBlock: "norm1", TransformerBlock: "norm1"}
LAST_STEP: dict[type[nn.Module], str] = {ResidualBlock: "conv2"}


def test_gradients_are_the_same_bit_for_bit_with_checkpointing(unet: UNet) -> None:
    unet.requires_grad_(True)
    gradients = []
    for enabled in (False, True):
        unet.set_checkpointing(enabled)
        unet.zero_grad()
        output = draw(unet)
        output.square().sum().backward()
        gradients.append([output, *(weight.grad for weight in unet.parameters())])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


def test_only_blocks_above_the_first_adapter_are_computed_twice(unet: UNet) -> None:
    unet.set_checkpointing(True)
    calls = count_calls(unet, lambda: draw(unet).sum().backward(), FIRST_STEP)

    blocks = {path for path, block in unet.named_modules() if isinstance(block, Checkpointed)}
    above = {path for path in blocks if path.startswith(("up_blocks", "mid_block.resnets.1", "mid_block.attentions"))}
    assert calls == {path: 2 if path in above else 1 for path in blocks}


def test_blocks_that_need_no_gradient_are_not_even_prepared_for_it(
    unet: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Checkpointed] = []
    original = checkpointing.checkpoint

    def spy(compute: Callable[..., Tensor], *inputs: Tensor, **options: bool) -> object:
        prepared.append(compute.__self__)  # type: ignore[attr-defined]
        return original(compute, *inputs, **options)

    monkeypatch.setattr(checkpointing, "checkpoint", spy)
    unet.set_checkpointing(True)
    with torch.no_grad():
        draw(unet)
    assert prepared == []
    draw(unet)
    blocks = {block for block in unet.modules() if isinstance(block, Checkpointed)}
    assert set(prepared) == blocks - {*unet.down_blocks.modules(), unet.mid_block.resnets[0]}

    prepared.clear()
    draw(unet, context=torch.zeros(2, 7, TINY.context_width, requires_grad=True))
    assert blocks - set(prepared) == {*unet.down_blocks[0].resnets, unet.down_blocks[1].resnets[0]}


def test_the_last_convolution_of_a_residual_block_is_never_computed_twice(unet: UNet) -> None:
    unet.set_checkpointing(True)
    calls = count_calls(unet, lambda: draw(unet).sum().backward(), LAST_STEP)
    assert set(calls.values()) == {1}


def test_everything_is_computed_once_without_checkpointing_and_without_gradients(unet: UNet) -> None:
    def sample() -> None:
        with torch.no_grad():
            draw(unet)

    assert set(count_calls(unet, lambda: draw(unet).sum().backward(), FIRST_STEP).values()) == {1}
    unet.set_checkpointing(True)
    assert set(count_calls(unet, sample, FIRST_STEP).values()) == {1}
    unet.set_checkpointing(False)
    assert set(count_calls(unet, lambda: draw(unet).sum().backward(), FIRST_STEP).values()) == {1}


@pytest.mark.parametrize("enabled", [False, True])
def test_no_gradient_is_needed_below_the_first_adapter(unet: UNet, enabled: bool) -> None:
    unet.set_checkpointing(enabled)
    needs_gradient: dict[str, bool] = {}
    for path, block in unet.named_modules():
        if isinstance(block, Checkpointed):
            block.register_forward_hook(
                lambda module, inputs, output, path=path: needs_gradient.update({path: output.requires_grad})
            )
    draw(unet)
    below = {path for path in needs_gradient if path.startswith(("down_blocks", "mid_block.resnets.0"))}
    assert below
    assert needs_gradient == {path: path not in below for path in needs_gradient}


def test_a_trained_text_encoder_gets_its_gradient_through_checkpointed_blocks(unet: UNet) -> None:
    unet.requires_grad_(False)
    gradients = []
    for enabled in (False, True):
        unet.set_checkpointing(enabled)
        context = torch.randn(2, 7, TINY.context_width, generator=torch.Generator().manual_seed(2)).requires_grad_()
        draw(unet, context=context).square().sum().backward()
        gradients.append(context.grad)
    assert gradients[0] is not None
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_checkpointing_keeps_less_for_the_backward_pass(unet: UNet) -> None:
    unet.requires_grad_(False)
    for name, weight in unet.named_parameters():
        weight.requires_grad_(".attn" in name)
    latents = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    batch = {
        "latents": latents,
        "timesteps": torch.full((4,), 500),
        "context": torch.zeros(4, 7, TINY.context_width),
        "pooled": torch.zeros(4, TINY.pooled_width or 0),
        "time_ids": torch.full((4, 6), 64),
    }
    kept = []
    for enabled in (False, True):
        unet.set_checkpointing(enabled)
        kept.append(saved_bytes(lambda: draw(unet, **batch)))
    weights = sum(weight.nbytes for weight in unet.parameters())
    assert kept[1] < kept[0] / 2, f"{kept} bytes, weights {weights}"
