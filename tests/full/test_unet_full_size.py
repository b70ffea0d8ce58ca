"""SD 1.5 and SDXL at full size, random weights: the same numbers as diffusers' UNet2DConditionModel.

Both networks use the same tensors, so that SDXL in float32 takes 10 GB and not 20.
"""

import pytest
import torch
from diffusers import UNet2DConditionModel

from brushwork.models.spec import SD15, SDXL, UNetSpec
from brushwork.models.unet import UNet
from full_size import make_weights

pytestmark = pytest.mark.full


@pytest.mark.parametrize("spec", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_full_size_network_matches_diffusers(spec: UNetSpec) -> None:
    with torch.device("meta"):
        ours, theirs = UNet(spec), UNet2DConditionModel.from_config(spec.to_config())
    weights = make_weights(theirs)
    for network in (ours, theirs):
        network.load_state_dict(weights, strict=True, assign=True)
        network.eval().requires_grad_(False)

    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 13, 20, generator=generator)
    timesteps = torch.tensor([601])
    context = torch.randn(1, 77, spec.context_width, generator=generator)
    pooled, time_ids, added = None, None, None
    if spec.pooled_width is not None:
        pooled = torch.randn(1, spec.pooled_width, generator=generator)
        time_ids = torch.tensor([[1024, 1536, 0, 16, 768, 1152]])
        added = {"text_embeds": pooled, "time_ids": time_ids}

    mine, reference = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    output = ours(mine, timesteps, context, pooled, time_ids)
    expected = theirs(reference, timesteps, context, added_cond_kwargs=added, return_dict=False)[0]
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    weighting = torch.randn(output.shape, generator=generator)
    (gradient,) = torch.autograd.grad((output * weighting).sum(), mine)
    (expected_gradient,) = torch.autograd.grad((expected * weighting).sum(), reference)
    atol = 1e-4 * expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=atol)
