"""`train.fused`: the lean path computes norms and gates by fused kernels where they go, and by PyTorch's elsewhere.

What starts a kernel is a stand-in here, which computes with PyTorch what the kernel of that name is to compute. The
kernels themselves are checked in `tests/full/test_fused_kernels.py`.
"""

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.lean import fused
from brushwork.lean.fused import Fused, choose_pointwise, planned_pointwise, refuse_if_missing
from brushwork.lean.network import LeanUNet, Recompute
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.lora.inject import inject
from brushwork.memory.meter import metered
from brushwork.models.spec import SDXL, TINY
from brushwork.models.unet import UNet
from brushwork.training.contradictions import refuse_contradictions

CPU = torch.device("cpu")
KERNELS = {"group_moments", "group_normed", "group_slopes", "group_gradient", "gate", "gate_gradient"}


class ByPyTorch:
    """Starts what stands for the kernels, and notes which.

    Args:
        wrong: of which kernel the result is twice as large.
    """

    def __init__(self, wrong: str | None = None) -> None:
        self.wrong = wrong
        self.names: list[str] = []

    def __call__(self, name: str, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
        self.names.append(name)
        written = getattr(self, name)(grid, *given, **constants)
        if name == self.wrong:
            written.mul_(2)

    def gate(self, grid: tuple[int, ...], both: Tensor, y: Tensor, width: int, **constants: int) -> Tensor:
        value, gate = both.split(width, dim=1)
        return y.copy_(value * F.gelu(gate))

    def gate_gradient(
        self, grid: Any, both: Tensor, d: Tensor, d_both: Tensor, width: int, **constants: Any
    ) -> Tensor:
        with torch.enable_grad():
            read = both.detach().requires_grad_()
            value, gate = read.split(width, dim=1)
            return d_both.copy_(torch.autograd.grad(value * F.gelu(gate), read, d)[0])

    def rows_rounded(
        self, grid: Any, rows: Tensor, factors: Tensor, codes: Tensor, *more: Any, **constants: Any
    ) -> Tensor:
        scales, width = more
        assert grid == (len(rows),)
        assert rows.shape[1] == width
        given = rows.float() * (factors if constants["HAS_FACTORS"] else 1.0)
        scales.copy_(given.abs().amax(dim=1, keepdim=True) / constants["LARGEST"])
        found = given / scales.where(scales > 0, 1.0)
        codes.copy_(found.round() if constants["WHOLE"] else found)
        return scales

    def sums_scaled(self, grid: Any, sums: Tensor, y: Tensor, scales: Tensor, *more: Any, **constants: Any) -> Tensor:
        factors, bias, _ = more
        found = sums.float() * scales * (factors if constants["HAS_FACTORS"] else 1.0)
        return y.copy_(found + (bias if constants["HAS_BIAS"] else 0.0))

    def group_moments(
        self, grid: Any, x: Tensor, means: Tensor, squares: Tensor, *sizes: int, **constants: Any
    ) -> Tensor:
        assert means.shape == squares.shape == grid
        return means.fill_(7.0)

    def group_normed(
        self, grid: Any, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, *more: Any, **constants: Any
    ) -> Tensor:
        means, _, weight, bias, size, places, groups, parts, eps = more
        assert (size, places) == (x[0].numel() // groups, x[0, 0].numel())
        assert grid == (len(x) * groups, parts)
        if not constants["KNOWN"]:
            assert bool((means == 7.0).all()), "the parts of the groups were not looked at before"
            grouped = x.float().reshape(len(x), groups, -1)
            mean.copy_(grouped.mean(dim=2))
            rstd.copy_((grouped.var(dim=2, correction=0) + eps).rsqrt())
        plain = (x.float().reshape(len(x), groups, -1) - mean[..., None]) * rstd[..., None]
        return y.copy_(activated(plain, x.shape, weight, bias, constants["SILU"]))

    def group_slopes(self, grid: Any, x: Tensor, d_y: Tensor, *more: Any, **constants: Any) -> Tensor:
        sums: Tensor = more[4]
        return sums.fill_(7.0)

    def group_gradient(self, grid: Any, x: Tensor, d_y: Tensor, d_x: Tensor, *more: Any, **constants: Any) -> Tensor:
        mean, rstd, weight, bias, sums, *_ = more
        assert bool((sums == 7.0).all()), "the parts of the groups were not looked at before"
        plain = (x.float().view(len(x), mean.shape[1], -1) - mean[..., None]) * rstd[..., None]
        with torch.enable_grad():
            read = plain.detach().requires_grad_()
            y = activated(read, x.shape, weight, bias, constants["SILU"])
            (d,) = torch.autograd.grad(y, read, d_y.float())
        d = d - d.mean(dim=2, keepdim=True) - plain * (d * plain).mean(dim=2, keepdim=True)
        return d_x.copy_((d * rstd[..., None]).view(x.shape))


def activated(plain: Tensor, shape: torch.Size, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    found = plain.view(shape) * weight.float()[:, None, None] + bias.float()[:, None, None]
    return F.silu(found) if silu else found


def answer(recompute: Recompute, by: Pointwise) -> list[Tensor]:
    torch.manual_seed(0)
    unet = UNet(TINY)
    adapter = inject({"unet": unet}, targets="kohya_conv", rank=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert TINY.pooled_width is not None
    given = torch.randn(2, 4, 12, 8), torch.tensor([5, 800]), torch.randn(2, 5, TINY.context_width)
    found = LeanUNet(unet, recompute, pointwise=by)(*given, torch.randn(2, TINY.pooled_width), torch.ones(2, 6))
    found.square().sum().backward()
    return [found.detach(), *(p.grad for p in adapter.parameters() if p.grad is not None)]


@pytest.mark.parametrize("recompute", ["keep", "block"])
def test_the_lean_path_computes_by_the_fused_kernels_and_gets_the_same_numbers(recompute: Recompute) -> None:
    start = ByPyTorch()

    found, wanted = answer(recompute, Fused(start)), answer(recompute, PLAIN)

    assert set(start.names) == KERNELS
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_norm_that_was_kept_with_its_statistics_is_one_kernel_and_not_two() -> None:
    start, x = ByPyTorch(), torch.randn(1, 32, 4, 4)
    norm = torch.nn.GroupNorm(8, 32).requires_grad_(False)

    value, statistics = Fused(start).normed(x, norm, silu=True)
    again = Fused(start).again(x, statistics, norm, silu=True)

    assert torch.equal(again.value(), value)
    assert start.names == ["group_moments", "group_normed", "group_normed"]


def test_kernels_that_give_other_numbers_are_left_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fused, "why_not", lambda device: None)
    caplog.set_level(logging.INFO, "brushwork")
    unet = UNet(TINY)

    def choose(asked: Any, start: Any, code: torch.dtype | None = None) -> Pointwise:
        return choose_pointwise(asked, unet, dtype=torch.bfloat16, device=CPU, code=code, kernels=Fused(start))

    def fails(*given: Any, **constants: Any) -> None:
        raise OSError("no compiler was found\nand more of it")

    right = ByPyTorch()
    assert choose("auto", right) == Fused(right)
    assert set(right.names) == KERNELS, "one was not tried"
    for wrong in ("group_normed", "group_gradient", "gate", "gate_gradient"):
        assert choose("auto", ByPyTorch(wrong)) is PLAIN, wrong
    for code in (torch.int8, torch.float8_e4m3fn):
        right = ByPyTorch()
        assert choose("auto", right, code) == Fused(right)
        assert {"rows_rounded", "sums_scaled"} <= set(right.names)
        for wrong in ("rows_rounded", "sums_scaled"):
            assert choose("auto", ByPyTorch(wrong), code) is PLAIN, wrong
    assert choose("auto", fails) is PLAIN
    told = [record.getMessage() for record in caplog.records]
    assert "gave PyTorch's numbers" in told[0]
    assert told[1].startswith("no fused kernels (GroupNorm of 64 channels is not what PyTorch computes): norms and")
    assert "(OSError: no compiler was found)" in told[-1]
    with pytest.raises(UserError, match=r"train.fused = on, and it cannot be: the gate of 768"):
        choose("on", ByPyTorch("gate"))


def test_without_a_card_or_triton_pytorch_computes_and_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "brushwork")
    unet, card = UNet(TINY), torch.device("cuda")

    assert choose_pointwise("auto", unet, dtype=torch.float32, device=CPU) is PLAIN
    assert not caplog.records, "on a CPU nobody asked for a card's kernels"
    with pytest.raises(UserError, match="the device is cpu"):
        choose_pointwise("on", unet, dtype=torch.float32, device=CPU)
    with pytest.raises(UserError, match="the device is cpu"):
        refuse_if_missing("on", CPU)
    refuse_if_missing("auto", CPU)
    monkeypatch.setattr(fused, "has_triton", lambda: False)
    assert choose_pointwise("auto", unet, dtype=torch.bfloat16, device=card) is PLAIN
    assert "no fused kernels (Triton is not installed (pip install triton))" in caplog.text
    assert planned_pointwise("auto", card) is PLAIN


def test_on_is_refused_where_the_lean_path_is_not_taken() -> None:
    with pytest.raises(UserError, match=r"train.fused = on is for the lean path") as refused:
        refuse_contradictions(resolve(recipe="tiny", overrides=["train.fused=on", "train.path=plain"]).settings)
    assert "train.fused=auto" in refused.value.fix


def test_a_planned_step_counts_what_the_kernels_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "has_triton", lambda: True)
    by = planned_pointwise("auto", torch.device("cuda"))
    norm = torch.nn.GroupNorm(32, 320, device="meta").requires_grad_(False)
    x = torch.empty(1, SDXL.channels[0], 128, 128, dtype=torch.bfloat16, device="meta")
    peaks = []
    for each in (PLAIN, by):
        with metered([x, *norm.parameters()]) as reading:
            each.again(x, each.normed(x, norm, silu=True)[1], norm, silu=True).gradient(x)
        peaks.append(reading.peak)

    assert isinstance(by, Fused)
    assert x.nbytes <= peaks[1] < 1.01 * x.nbytes, "the gradient alone, with the moments of its groups"
    assert peaks[0] > 2 * x.nbytes
