"""`train.compile`: blocks that are compiled give the network's numbers, and are not compiled again in every step."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.lora.inject import Adapter, inject
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.training.compiling import compile_blocks
from brushwork.training.contradictions import refuse_contradictions
from brushwork.training.learner import network_over

SPEC = replace(
    TINY, channels=(8, 16), heads=(1, 2), attention_depth=(0, 1), mid_depth=1, norm_groups=4, context_width=8
)


def adapted() -> tuple[UNet, Adapter]:
    torch.manual_seed(0)
    unet = UNet(SPEC)
    adapter = inject({"unet": unet}, targets="attention_out", rank=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return unet, adapter


def gradients(unet: UNet, adapter: Adapter, step: int) -> list[Tensor]:
    adapter.set_dropout_key(step)
    torch.manual_seed(1)
    more = [torch.randn(1, SPEC.pooled_width), torch.ones(1, 6)] if SPEC.pooled_width else []
    for parameter in adapter.parameters():
        parameter.grad = None
    unet(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 5, 8), *more).square().sum().backward()
    return [parameter.grad.clone() for parameter in adapter.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_give_the_gradients_of_the_network(backend: str, checkpointing: bool) -> None:
    plain = gradients(*adapted(), 0)
    unet, adapter = adapted()
    unet.set_checkpointing(checkpointing)
    torch._dynamo.reset()  # type: ignore[no-untyped-call]

    assert compile_blocks(unet, backend) > 3
    found = gradients(unet, adapter, 0)

    assert len(found) == len(plain) > 0
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch._dynamo.utils.counters.clear()
    gradients(unet, adapter, 1)  # another step: nothing is compiled anew
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


def test_to_compile_is_to_take_the_plain_path_and_what_cannot_be_is_refused() -> None:
    unet, _ = adapted()
    asked = resolve(overrides=["train.compile=true"]).settings
    assert network_over(unet, asked.train, torch.device("cpu")) is unet
    refuse_contradictions(asked)
    for more, words in {
        "train.path=lean": "written by hand",
        "train.recompute=ff": "written by hand",
        "lora.dropout=0.1": "dropout is another number",
    }.items():
        with pytest.raises(UserError, match=words):
            refuse_contradictions(resolve(overrides=["train.compile=true", more]).settings)
