"""Every picture is its own: what stands beside it in a batch changes nothing about it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError
from brushwork.generation.pipeline import Pipeline, batches
from brushwork.generation.prompts import SAMPLER_NAMES, Request
from brushwork.models.spec import TINY, UNetSpec
from brushwork.models.text import TextStates
from brushwork.models.unet import UNet
from brushwork.runtime import generator

SMALL_SDXL = replace(
    TINY, channels=(32, 64), attention_depth=(0, 1), mid_depth=1, heads=(1, 2), layers_per_block=1, context_width=32
)
SMALL_SD15 = replace(
    SMALL_SDXL, attention_depth=(1, 0), linear_projection=False, pooled_width=None, time_id_width=None
)
BOTH = pytest.mark.parametrize("spec", [SMALL_SD15, SMALL_SDXL], ids=["sd15", "sdxl"])


def encode(prompts: Sequence[str]) -> TextStates:
    """Every text has states of its own."""
    context = [torch.randn(7, 32, generator=generator(0, prompt)) for prompt in prompts]
    pooled = [torch.randn(128, generator=generator(1, prompt)) for prompt in prompts]
    return TextStates(torch.stack(context), torch.stack(pooled))


def decode(latents: Tensor) -> Tensor:
    """Latents as pixels, enlarged; the fourth channel is not shown."""
    return torch.nn.functional.interpolate(latents[:, :3].tanh(), scale_factor=8)


def pipeline(spec: UNetSpec, **changed: object) -> Pipeline:
    torch.manual_seed(0)
    unet = UNet(spec).eval().requires_grad_(False)
    parts = {"unet": unet, "schedule": NoiseSchedule.scaled_linear(), "prediction": "epsilon"}
    return Pipeline(**{**parts, "encode": encode, "decode": decode, **changed})


def request(seed: int, **changed: object) -> Request:
    return replace(Request(f"prompt {seed}", 64, 64, seed, "blurry", steps=3, guidance=5.0), **changed)


@BOTH
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_picture_is_the_same_whatever_the_batch_size(spec: UNetSpec, sampler: str) -> None:
    requests = [request(seed, sampler=sampler, guidance=2.0 + seed) for seed in range(4)]
    drawing = pipeline(spec)
    together = drawing.latents(requests)
    alone = torch.cat([drawing.latents([each]) for each in requests])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=0.1)


def test_the_pictures_come_in_the_order_of_the_requests() -> None:
    requests = [
        request(0),
        request(1),
        request(2, width=96),
        request(3, steps=2),
        request(4),
        request(5, guidance=1.0),
    ]
    drawing = pipeline(SMALL_SDXL)
    in_batches = [np.asarray(image).astype(int) for image in drawing.draw(requests, batch_size=4)]
    one_by_one = [np.asarray(image).astype(int) for each in requests for image in drawing.draw([each])]
    assert [picture.shape for picture in in_batches] == [(64, 96 if i == 2 else 64, 3) for i in range(6)]
    for together, alone in zip(in_batches, one_by_one, strict=True):
        assert np.abs(together - alone).max() <= 1  # of 255: rounding may fall to either side


def test_only_neighbours_that_can_share_a_batch_do() -> None:
    requests = [request(0), request(1), request(2), request(3, height=96), request(4, guidance=0.0), request(5)]
    seeds = [[each.seed for each in batch] for batch in batches(requests, 2)]
    assert seeds == [[0, 1], [2], [3], [4], [5]]


@BOTH
def test_the_same_request_gives_the_same_bits(spec: UNetSpec) -> None:
    drawing = pipeline(spec)
    torch.manual_seed(1)
    first = drawing.latents([request(3)])
    torch.manual_seed(2)
    torch.testing.assert_close(drawing.latents([request(3)]), first, rtol=0, atol=0)


def test_each_part_of_a_request_changes_the_picture() -> None:
    drawing = pipeline(SMALL_SDXL)
    first = drawing.latents([request(0)])
    for change in ({"prompt": "other"}, {"negative": ""}, {"seed": 9}, {"guidance": 6.0}, {"sampler": "euler"}):
        assert not torch.equal(drawing.latents([replace(request(0), **change)]), first), change


@BOTH
def test_guiding_in_two_passes_gives_the_same_picture(spec: UNetSpec) -> None:
    requests = [request(seed) for seed in range(2)]
    at_once = pipeline(spec).latents(requests)
    separately = pipeline(spec, guide_separately=True).latents(requests)
    torch.testing.assert_close(separately, at_once, rtol=1e-4, atol=1e-4)


def test_without_guidance_the_negative_prompt_is_not_computed() -> None:
    asked: list[str] = []

    def noting(prompts: Sequence[str]) -> TextStates:
        asked.extend(prompts)
        return encode(prompts)

    pipeline(SMALL_SDXL, encode=noting).latents([request(0, guidance=1.0)])
    assert asked == ["prompt 0"]
    pipeline(SMALL_SDXL, encode=noting).latents([request(0, negative="")])
    assert asked == ["prompt 0", "prompt 0", ""]


def test_progress_counts_every_step_of_every_picture() -> None:
    steps: list[int] = []
    list(pipeline(SMALL_SDXL).draw([request(seed) for seed in range(3)], batch_size=2, on_step=steps.append))
    assert steps == [2, 2, 2, 1, 1, 1]


def test_the_network_computes_in_its_own_type_and_the_sampler_in_float32() -> None:
    drawing = pipeline(SMALL_SDXL)
    exact = drawing.latents([request(0)])
    drawing.unet.to(torch.bfloat16)
    rough = drawing.latents([request(0)])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.5)  # bfloat16 keeps 8 bits, over 3 steps guided by 5


def test_numbers_that_are_not_finite_are_refused_with_the_prompt() -> None:
    drawing = pipeline(SMALL_SD15)
    drawing.unet.conv_out.weight.fill_(float("inf"))
    with pytest.raises(UserError, match=r"not finite for 'prompt 3' \(seed 3, computed in fp32\)"):
        drawing.latents([request(3)])


def test_drawing_leaves_no_gradients_and_the_weights_alone() -> None:
    drawing = pipeline(SMALL_SD15)
    drawing.unet.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in drawing.unet.state_dict().items()}
    assert not drawing.latents([request(0)]).requires_grad
    for name, tensor in drawing.unet.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
