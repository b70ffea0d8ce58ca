"""Weights that come and go change no number, arrive before their use, leave after it, and come a block ahead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_lean import SMALL, WITH_CONVOLUTIONS, adapted, answer, given, network
from test_rounded import reduced
from torch import Tensor, nn

from brushwork.lean.network import LeanUNet, Recompute
from brushwork.lean.offload import Offload
from brushwork.memory.meter import metered
from brushwork.models.rounded import Format, Whole, can_round, is_rounded, store
from brushwork.models.spec import UNetSpec
from brushwork.models.streaming import Streamer, stream_blocks, units_of
from brushwork.models.unet import UNet
from brushwork.models.weights import open_base

CPU = torch.device("cpu")


class SlowCopier:
    """Copies when it is waited for, and not before: who looks too early finds numbers that are none."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self._open: dict[int, tuple[Tensor, Tensor]] = {}

    def start(self, target: Tensor, source: Tensor) -> int:
        target.fill_(0xFF)
        number = len([word for word, _ in self.told if word == "start"])
        self._open[number] = (target, source)
        self.told.append(("start", number))
        return number

    def wait(self, arrival: int) -> None:
        if arrival in self._open:
            target, source = self._open.pop(arrival)
            target.copy_(source)
        self.told.append(("wait", arrival))


def streamed(unet: UNet, ahead: int) -> tuple[UNet, Streamer, SlowCopier]:
    """The same network, its blocks' weights away."""
    for path, module in list(unet.named_modules()):
        if can_round(path, module) and not is_rounded(module):
            weight = module.weight.detach()  # type: ignore[operator, union-attr]
            whole = Whole(weight.shape, dtype=weight.dtype, device=CPU)
            whole.fill(weight)
            store(module, whole)
    copier = SlowCopier()
    return unet, stream_blocks(unet, device=CPU, ahead=ahead, copier=copier), copier


@pytest.mark.parametrize("policy", ["keep", "qkv+ff", "block"])
@pytest.mark.parametrize("spec", [SMALL, WITH_CONVOLUTIONS], ids=["sdxl", "sd15"])
def test_output_and_gradients_are_the_same_to_the_bit(spec: UNetSpec, policy: Recompute) -> None:
    usual = network(spec)
    wanted = answer(LeanUNet(usual, policy), given(spec), adapted(usual, "kohya_conv").parameters())
    unet, streamer, _ = streamed(network(spec), 1)
    learning = adapted(unet, "kohya_conv").parameters()
    lean = LeanUNet(unet, policy)

    for _ in range(2):
        found = answer(lean, given(spec), learning)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert len(streamer.on_device) <= 2


@pytest.mark.parametrize("form", ["int8", "fp8", "nf4"])
def test_rounded_weights_come_and_go_as_codes(form: Format) -> None:
    usual = reduced(network(SMALL), form, torch.float64)
    wanted = answer(LeanUNet(usual), given(SMALL), adapted(usual, "kohya_conv").parameters())
    unet, streamer, _ = streamed(reduced(network(SMALL), form, torch.float64), 1)

    found = answer(LeanUNet(unet), given(SMALL), adapted(unet, "kohya_conv").parameters())

    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    whole = streamed(network(SMALL), 1)[1]
    assert streamer.device_bytes < whole.device_bytes / 4  # of float64


def asked(streamer: Streamer, call: Callable[[], Any]) -> list[int]:
    """The units in the order in which they are asked for; at each, never more are there than may be."""
    found: list[int] = []
    real = streamer.need

    def need(index: int) -> None:
        real(index)
        assert index in streamer.on_device
        assert len(streamer.on_device) <= 2
        if not found or found[-1] != index:
            found.append(index)

    streamer.need = need  # type: ignore[method-assign]
    call()
    return found


def test_backward_asks_in_the_reverse_order_and_the_second_step_never_waits_for_a_copy_of_its_own() -> None:
    unet, streamer, copier = streamed(network(SMALL), 1)
    learning = adapted(unet, "attention_out").parameters()
    lean = LeanUNet(unet, "block")
    num_units = len(units_of(unet))

    order = asked(streamer, lambda: answer(lean, given(SMALL), learning))

    assert order[:num_units] == list(range(num_units))
    assert order[num_units:] == sorted(order[num_units:], reverse=True)
    assert order[num_units] == num_units - 2  # the last is still there
    assert order[-1] > 0  # below the first adapter there is no gradient, and no weight is fetched for one
    answer(lean, given(SMALL), learning)  # learns how the second step begins
    begun = len(copier.told)
    answer(lean, given(SMALL), learning)
    # Each copy is begun at least one unit before it is waited for: another wait stands between.
    for place, (word, number) in enumerate(copier.told[begun:], start=begun):
        if word == "start":
            first = next((later for later in copier.told[place + 1 :] if later[0] == "wait"), None)
            assert first != ("wait", number)


def test_what_was_fetched_in_vain_gives_way_to_what_is_asked_for() -> None:
    unet, streamer, _ = streamed(network(SMALL), 1)
    for index in (0, 1, 2, 7, 3, 0, 7, 8, 2):
        streamer.need(index)
        assert index in streamer.on_device
        assert len(streamer.on_device) <= 2
    plain = network(SMALL).requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(unet(*given(SMALL)), plain(*given(SMALL)))  # drawing asks by the plain network


@pytest.mark.parametrize("policy", ["keep", "block"])
def test_what_is_kept_for_the_gradient_waits_elsewhere_and_comes_back_the_same(policy: Recompute) -> None:
    usual = network(SMALL)
    wanted = answer(LeanUNet(usual, policy), given(SMALL), adapted(usual, "kohya_conv").parameters())
    unet, copier = network(SMALL), SlowCopier()
    learning = adapted(unet, "kohya_conv").parameters()
    lean = LeanUNet(unet, policy, offload=Offload(CPU, copier=copier, smallest=1024))

    for _ in range(2):
        found = answer(lean, given(SMALL), learning)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    starts = [number for word, number in copier.told if word == "start"]
    assert len(starts) > 20
    assert len(starts) % 4 == 0  # out and back, twice


def test_what_waits_elsewhere_is_not_counted_on_the_device() -> None:
    def peak(offload: Offload | None) -> int:
        with torch.device("meta"):
            unet = UNet(SMALL)
            adapted(unet, "attention_out")
            inputs = [torch.empty(2, 4, 64, 64), torch.empty(2), torch.empty(2, 77, 24), torch.empty(2, 128)]
            lean = LeanUNet(unet, "block", offload=offload)
            with metered([*unet.parameters(), *lean.weights]) as reading:
                lean(*inputs, torch.empty(2, 6)).sum().backward()
        return reading.peak

    assert peak(Offload(torch.device("cuda"), smallest=1)) < 0.8 * peak(None)


def test_every_weight_of_the_blocks_belongs_to_one_unit() -> None:
    unet = network(SMALL)
    found = [id(layer) for layers in units_of(unet) for layer in layers]
    expected = {id(module) for path, module in unet.named_modules() if can_round(path, module)}

    assert len(found) == len(set(found))
    assert set(found) == expected


def test_nothing_stays_on_the_device_but_the_units_in_use_and_what_is_no_weight_of_a_block() -> None:
    unet = open_base("bundled").load_unet(dtype=torch.float32, device="cpu", ahead=2)
    layers = [module for module in unet.modules() if is_rounded(module)]
    streamer = layers[0].stored.home.streamer  # type: ignore[union-attr]

    assert len(layers) > 100
    assert not [name for name, _ in unet.named_parameters() if name.endswith("to_q.weight")]
    assert len(streamer.on_device) == 0
    whole = sum(module.stored.values.nbytes for module in layers)  # type: ignore[union-attr]
    assert streamer.device_bytes < whole / 2
    usual = open_base("bundled").load_unet(dtype=torch.float32, device="cpu")
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 77, 256), torch.randn(1, 128))
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    with torch.no_grad():
        assert torch.equal(unet(*inputs, sizes), usual(*inputs, sizes))
    assert isinstance(usual.conv_in, nn.Conv2d)
