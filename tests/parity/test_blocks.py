"""Every block of the UNet gives the numbers of its counterpart in diffusers, with the same names for its weights."""

from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention as ReferenceAttention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding as ReferenceEmbedding
from diffusers.models.embeddings import Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from brushwork.models.attention import Attention, SpatialTransformer, TransformerBlock
from brushwork.models.blocks import Downsample, ResidualBlock, Upsample
from brushwork.models.timestep import TimestepEmbedding, sinusoidal_code


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def share_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """The same random weights in both; norms too, which a fresh module would leave at one and zero."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in theirs.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        is_norm_scale = "norm" in name and name.endswith("weight")
        spread = 0.3 if weight.ndim < 2 else weight[0].numel() ** -0.5
        weight.data = noise * spread + is_norm_scale
    ours.load_state_dict(theirs.state_dict(), strict=True)


def assert_same(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Outputs and the gradients of all inputs agree."""
    results = []
    for function in (ours, theirs):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        results.append([output, *torch.autograd.grad((output * weighting).sum(), leaves)])
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [64, 256, 320])
def test_sinusoidal_code_matches_diffusers(width: int) -> None:
    theirs = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
    numbers = torch.cat([torch.arange(1000), torch.tensor([1024, 1536, 4096])])
    torch.testing.assert_close(sinusoidal_code(numbers, width), theirs(numbers), rtol=1e-5, atol=1e-6)


def test_sinusoidal_code_tells_all_timesteps_apart_even_when_asked_in_bfloat16_networks() -> None:
    assert len(sinusoidal_code(torch.arange(1000), 320).unique(dim=0)) == 1000
    assert sinusoidal_code(torch.arange(1000), 320).dtype == torch.float32


def test_timestep_embedding_matches_diffusers() -> None:
    ours, theirs = TimestepEmbedding(64, 256), ReferenceEmbedding(64, 256)
    share_weights(ours, theirs)
    assert_same(ours, theirs, sinusoidal_code(torch.arange(0, 1000, 7), 64))


@pytest.mark.parametrize("out_channels", [32, 64], ids=["same width", "wider, through a shortcut"])
def test_residual_block_matches_diffusers(out_channels: int) -> None:
    theirs = ResnetBlock2D(in_channels=32, out_channels=out_channels, temb_channels=48, groups=8, eps=1e-5)
    ours = ResidualBlock(32, out_channels, embedding_width=48, norm_groups=8, norm_eps=1e-5)
    share_weights(ours, theirs)
    assert_same(ours, theirs, torch.randn(2, 32, 7, 10), torch.randn(2, 48))


@pytest.mark.parametrize("context_width", [64, 40], ids=["self", "cross"])
def test_attention_matches_diffusers(context_width: int) -> None:
    theirs = ReferenceAttention(64, cross_attention_dim=context_width, heads=4, dim_head=16)
    ours = Attention(64, heads=4, context_width=context_width)
    share_weights(ours, theirs)
    assert_same(ours, theirs, torch.randn(2, 35, 64), torch.randn(2, 11, context_width))


def test_transformer_block_matches_diffusers() -> None:
    theirs = BasicTransformerBlock(64, 4, 16, cross_attention_dim=40)
    ours = TransformerBlock(64, heads=4, context_width=40)
    share_weights(ours, theirs)
    assert_same(
        ours,
        lambda x, context: theirs(x, encoder_hidden_states=context),
        torch.randn(2, 35, 64),
        torch.randn(2, 11, 40),
    )


@pytest.mark.parametrize("linear_projection", [True, False], ids=["sdxl", "sd15"])
@pytest.mark.parametrize("depth", [1, 2])
def test_spatial_transformer_matches_diffusers(linear_projection: bool, depth: int) -> None:
    theirs = Transformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=64,
        num_layers=depth,
        cross_attention_dim=40,
        norm_num_groups=8,
        use_linear_projection=linear_projection,
    )
    ours = SpatialTransformer(
        64, heads=4, depth=depth, context_width=40, linear_projection=linear_projection, norm_groups=8
    )
    share_weights(ours, theirs)
    assert_same(
        ours,
        lambda x, context: theirs(x, encoder_hidden_states=context).sample,
        torch.randn(2, 64, 5, 7),
        torch.randn(2, 11, 40),
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_downsample_matches_diffusers(size: tuple[int, int]) -> None:
    ours, theirs = Downsample(16), Downsample2D(16, use_conv=True, padding=1, name="op")
    reference_names = {"conv.weight", "conv.bias"}
    assert reference_names <= set(theirs.state_dict())
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict({name: theirs.state_dict()[name] for name in reference_names}, strict=True)
    assert_same(ours, theirs, torch.randn(2, 16, *size))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (7, 10)], ids=["twice", "odd", "odd and even"])
def test_upsample_matches_diffusers(size: tuple[int, int]) -> None:
    ours, theirs = Upsample(16), Upsample2D(16, use_conv=True)
    share_weights(ours, theirs)
    assert_same(lambda x: ours(x, size), lambda x: theirs(x, size), torch.randn(2, 16, 4, 5))
