"""`train.attention`: the named kernel computes the step, with the same numbers; where it cannot, it is told."""

import logging
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from brushwork.lean.attention import PYTORCH, Kernel
from brushwork.lean.network import LeanUNet
from brushwork.lora.inject import inject
from brushwork.models.attention import TransformerBlock
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.training.attention import choose_attention, choose_kernel

SPEC = replace(TINY, channels=(8, 16, 16), heads=(1, 2, 2), attention_depth=(0, 1, 1), norm_groups=4, context_width=8)
CPU = torch.device("cpu")


class Called(TorchDispatchMode):
    """Notes which kernels are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func.name()))
        return func(*args, **(kwargs or {}))


def gradients(name: str, recompute: Any, kernel: Kernel = PYTORCH) -> tuple[list[Tensor], set[str]]:
    torch.manual_seed(0)
    unet = UNet(SPEC)
    adapter = inject({"unet": unet}, targets="attention_out", rank=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network = LeanUNet(unet, recompute, attention=kernel)
    pooled = [torch.randn(1, SPEC.pooled_width), torch.ones(1, 6)] if SPEC.pooled_width else []
    chosen = choose_attention(name, SPEC, dtype=torch.float32, device=CPU)
    with chosen(), Called() as called:
        network(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 5, 8), *pooled).square().sum().backward()
    return [parameter.grad.clone() for parameter in adapter.parameters() if parameter.grad is not None], called.names


@pytest.mark.parametrize("recompute", ["keep", "qkv+ff", "block"])
def test_each_kernel_is_the_one_that_is_called_and_the_gradients_are_the_same(recompute: str) -> None:
    usual, _ = gradients("auto", recompute)
    for name, kernel in {"math": "attention_math", "flash": "flash_attention"}.items():
        found, called = gradients(name, recompute)

        others = {each for each in called if "scaled_dot_product" in each and kernel not in each}
        assert name == "math" or any(kernel in each for each in called)
        assert not others
        for ours, theirs in zip(found, usual, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_does_not_go_here_is_told_and_the_step_is_computed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "brushwork")

    found, _ = gradients("cudnn", "keep")

    (record,) = [record for record in caplog.records if record.name == "brushwork"]
    assert "train.attention = cudnn: not here for heads of width 8 in float32" in record.getMessage()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, gradients("auto", "keep")[0], strict=True))


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Stands for the package's: (B, T, N, D) each -> (B, T, N, D), in PyTorch."""
    assert q.shape[2:] == k.shape[2:] == v.shape[2:], "heads come last but one"
    mixed: Tensor = Flash.apply(q, k, v)  # type: ignore[no-untyped-call]
    return mixed


class Flash(torch.autograd.Function):
    """Keeps its own inputs, as the package's does."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in given)).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, ...]:
        given = [each.detach().requires_grad_() for each in ctx.saved_tensors]
        with torch.enable_grad():
            mixed = F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in given)).transpose(1, 2)
        return torch.autograd.grad(mixed, given, d)


def installed(monkeypatch: pytest.MonkeyPatch, attend: Any) -> list[tuple[int, ...]]:
    """Put a package of that name in place; -> the shapes of q that it is called with."""
    shapes: list[tuple[int, ...]] = []

    def seen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        found: Tensor = attend(q, k, v)
        return found

    package = ModuleType("flash_attn")
    package.flash_attn_func = seen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    return shapes


def chosen(lean: bool = True) -> Kernel:
    return choose_kernel("flash-attn", SPEC, dtype=torch.float32, device=CPU, lean=lean)


@pytest.mark.parametrize("recompute", ["keep", "qkv+ff", "block"])
def test_flash_attn_computes_every_attention_of_the_lean_path_where_it_is_installed(
    recompute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, _ = gradients("auto", recompute)
    shapes = installed(monkeypatch, flash_attn_func)
    kernel = chosen()
    shapes.clear()

    found, _ = gradients("flash-attn", recompute, kernel)

    blocks = sum(isinstance(module, TransformerBlock) for module in UNet(SPEC).modules())
    assert len(shapes) in (2 * blocks, 4 * blocks), "once, or twice where whole blocks are computed again"
    assert {shape[-2:] for shape in shapes} == {(2, 8)}
    for ours, theirs in zip(found, usual, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_where_flash_attn_does_not_go_it_is_told_in_a_line_and_pytorch_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "brushwork")

    def fails(*given: Tensor) -> Tensor:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type\nand more")

    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert chosen() is PYTORCH
    for attend in (fails, lambda q, k, v: flash_attn_func(q, k, v) * 1.1):
        installed(monkeypatch, attend)
        assert chosen() is PYTORCH
    assert chosen(lean=False) is PYTORCH

    told = [record.getMessage() for record in caplog.records if record.name == "brushwork"]
    assert told == [
        f"train.attention = flash-attn: {why}. PyTorch chooses instead"
        for why in (
            "not installed (pip install flash-attn --no-build-isolation)",
            "not here for heads of width 8 in float32 (FlashAttention only support fp16 and bf16 data type)",
            "for heads of width 8 its numbers are not PyTorch's",
            "for the lean path, which is not taken",
        )
    ]
