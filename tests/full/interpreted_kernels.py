"""The Triton kernels of the lean path against PyTorch's own, whole tensors, forward and gradient.

Without a card Triton's interpreter computes them: `test_fused_kernels.py` starts this file with it. On a card they
are compiled: `python -m pytest tests/full/interpreted_kernels.py -m full`.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from brushwork.lean.fused import Fused, shape_of_groups
from brushwork.lean.network import LeanUNet
from brushwork.lean.pointwise import PLAIN
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet

pytestmark = pytest.mark.full
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FUSED = Fused()
WIDTHS = (320, 640, 960, 1280, 1920, 2560)
"""Of norms in SD 1.5 and SDXL: those of the levels, and those of a level with what comes from across."""
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def near(found: Tensor, truth: Tensor, plain: Tensor) -> None:
    """As near to float32 as PyTorch's in the same type; in float32 within what sums in another order give."""
    assert found.dtype == plain.dtype
    if plain.dtype == torch.float32:
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=2e-5)
        return
    ours, theirs = ((each.float() - truth).norm() / truth.norm() for each in (found, plain))
    cut_off = plain.dtype == torch.bfloat16 and DEVICE.type == "cpu"  # the interpreter does not round to bf16
    assert ours <= theirs * (2.2 if cut_off else 1.01)
    torch.testing.assert_close(found.float(), truth, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize(("dtype", "silu"), [(torch.float32, True), (torch.bfloat16, True), (torch.float32, False)])
def test_group_norm_with_and_without_silu(channels: int, dtype: torch.dtype, silu: bool) -> None:
    norm_and_gradient(channels, (15, 13), dtype, silu=silu)


@pytest.mark.parametrize("side", [(25, 32), (7, 101), (16, 16), (1, 1)])
def test_group_norm_of_sides_that_fill_parts_and_that_do_not(side: tuple[int, int]) -> None:
    norm_and_gradient(640, side, torch.float16, silu=True)


def norm_and_gradient(channels: int, side: tuple[int, int], dtype: torch.dtype, *, silu: bool) -> None:
    """All that a step asks of a norm: the result, the same again with and without its statistics, the gradient."""
    torch.manual_seed(channels)
    norm = nn.GroupNorm(32, channels, device=DEVICE).requires_grad_(False)
    norm.weight.normal_(1, 0.3)
    norm.bias.normal_()
    rounded = nn.GroupNorm(32, channels, device=DEVICE).to(dtype).requires_grad_(False)
    rounded.load_state_dict(norm.state_dict())
    norm.load_state_dict(rounded.state_dict())
    x, d = (torch.randn(1, channels, *side, device=DEVICE).to(dtype) for _ in range(2))
    x += 3
    truth, statistics = PLAIN.normed(x.float(), norm, silu=silu)
    d_truth = PLAIN.again(x.float(), statistics, norm, silu=silu).gradient(d.float())
    plain, _ = PLAIN.normed(x, rounded, silu=silu)
    d_plain = PLAIN.again(x, statistics, rounded, silu=silu).gradient(d)

    found, given = FUSED.normed(x, rounded, silu=silu)
    kept, made = (FUSED.again(x, known, rounded, silu=silu) for known in (given, None))

    near(found, truth, plain)
    for one, other in zip(given, statistics, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(kept.value(), found)
    assert torch.equal(made.value(), found)
    found = kept.gradient(d)
    near(found, d_truth, d_plain)
    assert torch.equal(made.gradient(d), found)


def test_the_sizes_above_split_groups_into_one_part_and_into_several() -> None:
    parts = {
        shape_of_groups(torch.empty(1, channels, 15, 13, device="meta"), nn.GroupNorm(32, channels))[0][1]
        for channels in WIDTHS
    }
    assert parts == {1, 2, 3, 4}


def test_a_group_of_more_parts_than_are_added_up_at_a_time() -> None:
    norm = nn.GroupNorm(1, 8, device=DEVICE).requires_grad_(False)
    x = torch.randn(1, 8, 300, 257, device=DEVICE) * torch.linspace(0.1, 3, 257, device=DEVICE) + 1
    assert shape_of_groups(x, norm)[0][1] > 128
    plain, statistics = PLAIN.normed(x, norm, silu=True)

    found, given = FUSED.normed(x, norm, silu=True)

    near(found, plain, plain)
    wanted = PLAIN.again(x, statistics, norm, silu=True).gradient(x.flip(3))
    near(FUSED.again(x, given, norm, silu=True).gradient(x.flip(3)), wanted, wanted)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [1280, 2560, 5120, 36])
def test_the_gate_of_a_feed_forward_layer(width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    both = (3 * torch.randn(7, 2 * width, device=DEVICE)).to(dtype)
    d = torch.randn(7, width, device=DEVICE).to(dtype)

    found, d_found = FUSED.gated(both), FUSED.gated_gradient(d, both)

    near(found, PLAIN.gated(both.float()), PLAIN.gated(both))
    near(d_found, PLAIN.gated_gradient(d.float().clone(), both.float()), PLAIN.gated_gradient(d.clone(), both))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [640, 1280, 5120, 36])
def test_rows_are_rounded_to_int8(width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    rows, factors = torch.randn(5, width, device=DEVICE).to(dtype), torch.rand(width, device=DEVICE) + 0.5
    rows[2] = 0
    for given in (None, factors):
        found, scales = FUSED.rounded(rows, given, torch.int8)
        wanted, others = PLAIN.rounded(rows, given, torch.int8)

        torch.testing.assert_close(scales, others, rtol=1e-6, atol=0)
        # A number that lies midway between two codes, but for the last bit, may become either.
        assert int((found.int() - wanted.int()).abs().max()) <= 1
        assert float((found != wanted).float().mean()) < 0.01


@pytest.mark.parametrize("sums", [torch.int32, torch.float32])
@pytest.mark.parametrize("dtype", TYPES)
def test_sums_of_codes_are_scaled(dtype: torch.dtype, sums: torch.dtype) -> None:
    torch.manual_seed(0)
    given = (torch.randn(5, 1300, device=DEVICE) * 1e5).to(sums)
    scales, factors = torch.rand(5, 1, device=DEVICE) * 1e-3, torch.rand(1300, device=DEVICE) * 1e-2
    bias = torch.randn(1300, device=DEVICE).to(dtype)
    for columns in ((None, None), (factors, None), (factors, bias)):
        truth = PLAIN.scaled(given, scales, *columns, torch.float32)
        near(FUSED.scaled(given, scales, *columns, dtype), truth, PLAIN.scaled(given, scales, *columns, dtype))


def test_a_network_computed_with_them_answers_as_with_pytorchs() -> None:
    torch.manual_seed(0)
    spec = replace(TINY, channels=(8, 16, 16), heads=(1, 2, 2), attention_depth=(0, 1, 1), norm_groups=4)
    unet = UNet(spec).to(DEVICE).requires_grad_(False)
    assert spec.pooled_width is not None
    given = [torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 7, spec.context_width)]
    given = [each.to(DEVICE) for each in (*given, torch.randn(1, spec.pooled_width), torch.ones(1, 6))]
    found = []
    for by in (PLAIN, FUSED):
        latents = given[0].clone().requires_grad_()
        answer = LeanUNet(unet, pointwise=by)(latents, *given[1:])
        (gradient,) = torch.autograd.grad(answer.square().sum(), latents)
        found.append((answer, gradient))

    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
