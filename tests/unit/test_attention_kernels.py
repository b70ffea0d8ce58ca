"""`train.attention`: the named kernel computes the step, with the same numbers; where it cannot, it is told."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from brushwork.lean.network import LeanUNet
from brushwork.lora.inject import inject
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.training.attention import choose_attention

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


def gradients(name: str, recompute: Any) -> tuple[list[Tensor], set[str]]:
    torch.manual_seed(0)
    unet = UNet(SPEC)
    adapter = inject({"unet": unet}, targets="attention_out", rank=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network = LeanUNet(unet, recompute)
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
