"""A base in fewer bits: what each form loses, that nothing of the size of a weight is kept, and that adapters learn
beside it as they would beside the rounded weights themselves."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes import functional as bitsandbytes
from safetensors.torch import load_file, save_file
from test_lean import SMALL, WITH_CONVOLUTIONS, adapted, answer, distance, given, network
from torch import Tensor, nn

from brushwork.config.load import resolve
from brushwork.errors import UserError
from brushwork.lean.network import LeanUNet, Recompute
from brushwork.lora.merge import fuse
from brushwork.models.bundled import bundled_folder
from brushwork.models.rounded import (
    BLOCK,
    NORMAL_FLOAT,
    ByBlock,
    ByOutput,
    Format,
    is_rounded,
    refuse_not_finite,
    round_blocks,
    rounded,
)
from brushwork.models.spec import TINY, UNetSpec
from brushwork.models.unet import UNet
from brushwork.models.weights import open_base
from brushwork.training.contradictions import refuse_contradictions
from single_files import sdxl_file

FORMATS: tuple[Format, ...] = ("int8", "fp8", "nf4")


def weight(*shape: int, size: float = 0.02) -> Tensor:
    """Normally distributed, each output of another size, one of them all zeros."""
    torch.manual_seed(0)
    drawn = torch.randn(shape) * size * torch.logspace(-2, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
    drawn[shape[0] // 2] = 0
    return drawn


def reduced(unet: UNet, form: Format, dtype: torch.dtype) -> UNet:
    """The network with the weights of its blocks in fewer bits."""
    unet = copy.deepcopy(unet)
    round_blocks(unet, form, dtype=dtype)
    return unet


def spread_out(unet: UNet) -> dict[str, Tensor]:
    """Every weight of a network, those in fewer bits as they are computed with."""
    found = dict(unet.state_dict())
    for path, module in unet.named_modules():
        if is_rounded(module):
            found[f"{path}.weight"] = module.weight.clone()  # type: ignore[operator, union-attr]
    return found


@pytest.mark.parametrize("shape", [(24, 96), (12, 10, 3, 3)], ids=["linear", "convolution"])
def test_int8_is_off_by_half_a_step_of_its_output_at_most(shape: tuple[int, ...]) -> None:
    exact = weight(*shape)
    step = exact.flatten(1).abs().amax(dim=1) / 127

    off = (rounded(exact, "int8", dtype=torch.float32).dense() - exact).abs().flatten(1).amax(dim=1)

    assert bool((off <= step * 0.5001).all())
    assert not off[len(exact) // 2].any()  # zeros stay zeros


@pytest.mark.parametrize("shape", [(24, 96), (12, 10, 3, 3)], ids=["linear", "convolution"])
def test_fp8_is_off_by_a_sixteenth_of_the_weight_or_half_its_smallest_step(shape: tuple[int, ...]) -> None:
    exact = weight(*shape)
    scale = exact.flatten(1).abs().amax(dim=1, keepdim=True) / 448
    allowed = torch.maximum(exact.flatten(1).abs() / 16, scale * 2.0**-10)

    off = (rounded(exact, "fp8", dtype=torch.float32).dense() - exact).abs().flatten(1)

    assert bool((off <= allowed * 1.0001).all())


@pytest.mark.parametrize("shape", [(24, 96), (7, 11)], ids=["whole blocks", "a block that is not full"])
def test_nf4_takes_the_nearest_value_of_its_block(shape: tuple[int, ...]) -> None:
    exact = weight(*shape)
    stored = rounded(exact, "nf4", dtype=torch.float32)
    assert isinstance(stored, ByBlock)
    padded = torch.nn.functional.pad(exact.flatten(), (0, -exact.numel() % BLOCK)).view(-1, BLOCK)
    largest = padded.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NORMAL_FLOAT)
    nearest = values[(padded[..., None] / largest.clamp_min(1e-30)[..., None] - values).abs().argmin(dim=-1)]

    found = stored.dense()

    scales = stored.scales()[:, None]
    torch.testing.assert_close(found.flatten(), (nearest * scales).flatten()[: exact.numel()], rtol=1e-6, atol=0)
    spread = (largest - largest.mean()).abs().amax()
    assert bool(((scales - largest).abs() <= spread / 253).all())  # the scales are codes of 8 bit themselves
    assert not found[len(exact) // 2].any() or shape == (7, 11)


def test_nf4_has_the_codes_that_bitsandbytes_has() -> None:
    exact = weight(64, 128)
    codes, state = bitsandbytes.quantize_4bit(exact, blocksize=64, quant_type="nf4")
    theirs = bitsandbytes.dequantize_4bit(codes, state)

    ours = rounded(exact, "nf4", dtype=torch.float32)

    assert isinstance(ours, ByBlock)
    assert torch.equal(ours.codes, codes.flatten())
    assert distance(ours.dense(), theirs) < 0.01  # theirs keeps the scales of blocks in float32


@pytest.mark.parametrize(("form", "bits"), [("int8", 8.02), ("fp8", 8.02), ("nf4", 4.13)])
def test_a_weight_takes_the_bits_that_are_said(form: Format, bits: float) -> None:
    stored = rounded(torch.randn(1280, 2560), form, dtype=torch.bfloat16)

    taken = sum(tensor.nbytes for tensor in stored.buffers()) * 8 / (1280 * 2560)

    assert taken == pytest.approx(bits, abs=0.01)
    assert stored.dense().dtype == torch.bfloat16


@pytest.mark.parametrize("form", FORMATS)
def test_the_largest_numbers_of_fp16_and_the_smallest_come_through(form: Format) -> None:
    exact = torch.full((4, 64), 65504.0).half()
    exact[1] = 6e-8  # below what fp16 holds with a whole mantissa
    exact[2, ::2] = -1.0

    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        found = rounded(exact, form, dtype=dtype).dense().float()
        assert bool(found.isfinite().all())
        torch.testing.assert_close(found[0], exact[0].float(), rtol=0.005, atol=0)
        if form != "nf4":  # its scales have one step for 256 blocks, which these numbers are nothing beside
            torch.testing.assert_close(found[1], exact[1].float(), rtol=0.005, atol=6e-8)


def test_numbers_that_are_not_finite_are_refused_with_their_name() -> None:
    broken = torch.ones(4, 64)
    broken[1, 3] = float("nan")

    with pytest.raises(UserError, match=r"unet of x: mid\.weight holds numbers that are not finite"):
        refuse_not_finite(broken, "unet of x: mid.weight")


def test_the_first_last_and_telling_layers_stay_as_they_are() -> None:
    unet = reduced(network(SMALL, torch.float32), "nf4", torch.float32)
    kinds = {path: getattr(module, "stored", None) for path, module in unet.named_modules()}
    stays = [path for path, module in unet.named_modules() if type(module) in (nn.Linear, nn.Conv2d)]

    assert isinstance(kinds["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"], ByBlock)
    assert isinstance(kinds["mid_block.resnets.0.conv1"], ByOutput)
    assert all(path.startswith(("conv_", "time_", "add_")) or path.endswith("time_emb_proj") for path in stays)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("spec", [SMALL, WITH_CONVOLUTIONS], ids=["sdxl", "sd15"])
def test_every_gradient_is_that_of_a_plain_network_with_the_rounded_weights(spec: UNetSpec, form: Format) -> None:
    plain = network(spec)
    few = reduced(plain, form, torch.float64)
    plain.load_state_dict(spread_out(few))
    wanted = answer(plain, given(spec), adapted(plain, "kohya_conv").parameters())
    learning = adapted(few, "kohya_conv").parameters()

    for policy in ("keep", "block"):
        found = answer(LeanUNet(few, policy), given(spec), learning)

        # Adapters and their gradients are float32, all else float64 here.
        assert max(distance(*pair) for pair in zip(found, wanted, strict=True)) < 1e-6, policy


@pytest.mark.parametrize("policy", ["keep", "qkv+ff", "block"])
def test_nothing_as_large_as_a_weight_is_kept_for_the_gradient(policy: Recompute) -> None:
    unet = reduced(network(SMALL, torch.float32), "nf4", torch.float32)
    adapted(unet, "kohya_conv")
    lean = LeanUNet(unet, policy)
    weights = {tuple(w.shape) for path, w in spread_out(unet).items() if w.ndim > 1 and "block" in path}
    fused = {(3 * 16, 16), (3 * 32, 32), (2 * 32, 24)}
    kept: list[tuple[int, ...]] = []
    there = {parameter.data_ptr() for parameter in unet.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in there:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = lean(*given(SMALL, torch.float32))

    assert output.requires_grad
    assert len(kept) > 20
    assert not {shape for shape in kept if shape in weights | fused}


def test_the_plain_network_draws_with_the_rounded_weights() -> None:
    plain = network(SMALL, torch.float32)
    few = reduced(plain, "int8", torch.float32)
    plain.load_state_dict(spread_out(few))

    with torch.no_grad():
        assert torch.equal(few(*given(SMALL, torch.float32)), plain(*given(SMALL, torch.float32)))


def test_an_adapter_is_not_fused_into_rounded_weights() -> None:
    few = reduced(network(SMALL, torch.float32), "int8", torch.float32)
    state = adapted(network(SMALL, torch.float32), "attention").state()

    with pytest.raises(UserError, match="kept in fewer bits") as refused:
        fuse({"unet": few}, state)
    assert "--fuse" in refused.value.fix


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_and_a_single_file_are_rounded_alike_as_they_are_read(form: Format, tmp_path: Path) -> None:
    folder = open_base("bundled")
    files = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
    parts = [
        load_file(bundled_folder() / part / f"{files.get(part, 'model')}.safetensors")
        for part in ("unet", "vae", "text_encoder", "text_encoder_2")
    ]
    save_file(sdxl_file(*parts, TINY), tmp_path / "one.safetensors")

    few = replace(folder, quantize=form).load_unet(dtype=torch.float32, device="cpu")
    other = replace(open_base(str(tmp_path / "one.safetensors")), quantize=form)
    again = spread_out(other.load_unet(dtype=torch.float32, device="cpu"))

    found = spread_out(few)
    assert sum(is_rounded(module) for module in few.modules()) > 100
    for name, tensor in found.items():
        exact, module = parts[0][name].float(), few.get_submodule(name.rpartition(".")[0])
        kept = name.endswith(".weight") and is_rounded(module)
        expected = rounded(exact, form, dtype=torch.float32).dense() if kept else exact
        assert torch.equal(tensor, expected), name
        assert torch.equal(tensor, again[name]), name
    assert not any(parameter.requires_grad for parameter in few.parameters())


@pytest.mark.parametrize(
    ("overrides", "about"),
    [
        (["model.quantize=int8", "train.mode=full"], "rounded away"),
        (["model.quantize=nf4", "train.path=plain"], "model.quantize = nf4 needs the lean path"),
        (["train.stream=weights", "train.mode=full"], "train.stream = weights is for a frozen base"),
        (["train.stream=all", "train.path=plain"], "needs the lean path"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], about: str) -> None:
    settings = resolve(overrides=overrides).settings

    with pytest.raises(UserError, match=about):
        refuse_contradictions(settings)
