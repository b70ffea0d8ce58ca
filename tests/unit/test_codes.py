"""`train.compute = rounded`: products of the codes themselves are exact but for the rounding of the rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lean import SMALL, adapted, answer, distance, given, network
from test_rounded import reduced
from torch import Tensor, nn

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.lean import codes
from brushwork.lean.codes import CODES, InCodes, in_codes, product_of_codes, stays_dense
from brushwork.lean.fused import Fused
from brushwork.lean.network import LeanUNet
from brushwork.lean.pointwise import PLAIN
from brushwork.memory.meter import metered
from brushwork.models.rounded import ByOutput, RoundedLinear, rounded, store
from brushwork.training.contradictions import refuse_contradictions
from brushwork.training.memory_need import options
from brushwork.training.prepare import prepare

FORMS = ("int8", "fp8")


def parts(form: Any, *shapes: tuple[int, int], dtype: torch.dtype = torch.float32) -> list[ByOutput]:
    torch.manual_seed(0)
    return [rounded(torch.randn(shape) * 0.02, form, dtype=dtype) for shape in shapes]  # type: ignore[misc]


def as_rounded(rows: Tensor, factors: Tensor | None, form: str) -> Tensor:
    """The numbers that the codes of rows stand for, in float64."""
    found, scales = PLAIN.rounded(rows, factors, CODES[form])
    return found.double() * scales.double()


@pytest.mark.parametrize("num_rows", [1, 33])
def test_int8_is_multiplied_exactly(num_rows: int) -> None:
    torch.manual_seed(0)
    rows, matrix = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((num_rows, 2560), (2560, 48)))

    assert torch.equal(product_of_codes(rows, matrix).long(), rows.long() @ matrix.long())


@pytest.mark.parametrize("form", FORMS)
def test_a_product_is_that_of_the_rounded_rows_with_the_rounded_weights(form: str) -> None:
    several, bias = parts(form, (48, 64), (16, 64)), torch.randn(64)
    rows = torch.randn(21, 64) * torch.logspace(-3, 2, 21)[:, None]
    rows[4] = 0
    weight = torch.cat([part.dense() for part in several])

    found = InCodes(several).multiply(rows, bias)

    wanted = as_rounded(rows, None, form) @ weight.double().T + bias.double()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(InCodes(several).dense(), weight)
    crosswise = rows.T.contiguous().T  # as the gradient of a map arrives
    assert torch.equal(InCodes(several).multiply(crosswise, bias), found)
    assert torch.equal(
        InCodes(several).multiply_back([crosswise[:, :48], crosswise[:, 48:]]),
        InCodes(several).multiply_back([rows[:, :48], rows[:, 48:]]),
    )


@pytest.mark.parametrize("form", FORMS)
def test_its_gradient_is_that_of_the_rounded_gradients_with_the_rounded_weights(form: str) -> None:
    several = parts(form, (48, 64), (16, 64))
    wanted = [torch.randn(21, 48) * 1e-6, torch.randn(21, 16) * 1e-6]

    found = InCodes(several).multiply_back(wanted)

    expected = sum(
        as_rounded(d_y, part.scales[:, 0], form) @ part.codes.double()
        for d_y, part in zip(wanted, several, strict=True)
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-13)


@pytest.mark.parametrize(("form", "most"), [("int8", 0.012), ("fp8", 0.03)])
def test_rounding_rows_moves_a_product_by_about_a_hundredth(form: str, most: float) -> None:
    (part,) = parts(form, (640, 1280))
    rows, d_y = torch.randn(64, 1280), torch.randn(64, 640)

    assert distance(InCodes([part]).multiply(rows, None), rows @ part.dense().T) < most
    assert distance(InCodes([part]).multiply_back([d_y]), d_y @ part.dense()) < most


@pytest.mark.parametrize(("form", "most"), [("int8", 0.03), ("fp8", 0.09)])
def test_a_network_learns_by_them_nearly_as_by_the_weights_spread_out(form: Any, most: float) -> None:
    unet = reduced(network(SMALL, torch.float32), form, torch.float32)
    learning, inputs = adapted(unet, "kohya_conv").parameters(), given(SMALL, torch.float32)

    dense = answer(LeanUNet(unet), inputs, learning)
    found, twice = (answer(LeanUNet(unet, policy, in_codes=True), inputs, learning) for policy in ("keep", "block"))

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in tensors[1:]])

    assert 0 < distance(found[0], dense[0]) < most
    assert 0 < distance(joined(found), joined(dense)) < most
    assert all(torch.equal(tensor, again) for tensor, again in zip(found, twice, strict=True))


def test_every_linear_of_the_blocks_but_the_ways_out_is_multiplied_so(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = reduced(network(SMALL, torch.float32), "int8", torch.float32)
    learning = adapted(unet, "attention_out").parameters()
    plain, shapes = product_of_codes, []

    def seen(rows: Tensor, matrix: Tensor) -> Tensor:
        shapes.append(tuple(matrix.shape))
        return plain(rows, matrix)

    monkeypatch.setattr(codes, "product_of_codes", seen)
    with torch.no_grad():
        LeanUNet(unet, in_codes=True)(*given(SMALL, torch.float32))
    linears = [module for module in unet.modules() if isinstance(module, RoundedLinear)]
    blocks = sum(name.endswith("attn1") for name, _ in unet.named_modules())
    ways_out = sum(name.endswith("proj_out") for name, _ in unet.named_modules())
    assert learning
    # q, k and v are one product. The text is 24 wide here, so k and v of it are not multiplied so, and that is told.
    assert len(shapes) == len(linears) - 2 * blocks - 2 * blocks - ways_out
    assert (32, 96) in shapes
    assert stays_dense(unet) == 2 * blocks


def test_a_width_that_no_card_multiplies_stays_spread_out() -> None:
    layers = [nn.Linear(64, 40), nn.Linear(64, 48)]
    for layer in layers:
        store(layer, rounded(layer.weight.detach(), "int8", dtype=torch.float32))

    assert in_codes(layers[1:], PLAIN) is not None
    assert in_codes(layers, PLAIN) is None
    assert in_codes([nn.Linear(64, 64)], PLAIN) is None


@pytest.mark.parametrize("form", FORMS)
def test_the_plan_counts_their_operations_and_their_memory(form: Any) -> None:
    (part,) = parts(form, (1280, 640))
    part, rows = part.to("meta"), torch.empty(4096, 640, dtype=torch.bfloat16, device="meta")

    with metered([rows, *part.buffers()]) as reading:
        y = Fused().rounded(rows, None, part.codes.dtype)[0]
        sums = product_of_codes(y, part.codes.t())

    assert reading.flops == 2 * 4096 * 640 * 1280
    assert sums.shape == (4096, 1280)
    assert reading.peak >= 4096 * (640 + 4 * 1280), "the sums are four bytes each"


@pytest.mark.parametrize("quantize", ["off", "nf4"])
def test_it_is_refused_for_weights_of_other_forms(quantize: str) -> None:
    settings = resolve(overrides=["train.compute=rounded", f"model.quantize={quantize}"]).settings

    with pytest.raises(UserError, match="weights of 8 bit as they are kept") as refused:
        refuse_contradictions(settings)
    assert "model.quantize=int8" in refused.value.fix


def test_a_device_that_does_not_multiply_so_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "frames", count=2, size=64, seed=0)
    asked = ["train.compute=rounded", "model.quantize=fp8", "train.device=cpu"]
    settings = resolve(recipe="tiny", overrides=asked).settings

    def refuse(with_: Callable[..., Tensor], about: str) -> None:
        monkeypatch.setattr(codes, "product_of_codes", with_)
        with pytest.raises(UserError, match=about) as refused:
            prepare(tmp_path / "frames", settings)
        assert "train.compute=dense" in refused.value.fix

    def fails(*given: Any) -> Tensor:
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 8.9\nmore")

    preparation = prepare(tmp_path / "frames", settings)
    offered = [change for option in options(preparation) for change in option.changes]
    assert offered
    assert not [change for change in offered if "quantize" in change], "what is refused would be offered"
    refuse(fails, r"cpu does not multiply in fp8 here \(torch._scaled_mm is only .* >= 8.9\)")
    refuse(lambda rows, matrix: torch.zeros(len(rows), matrix.shape[1]), "its product of ones is wrong")
