"""The VAE gives diffusers' numbers, unscaled and in fp32, and refuses what is not finite."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from brushwork.errors import UserError
from brushwork.models import configs
from brushwork.models.vae import VAE, build_vae, empty_autoencoder

CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 4,
    "sample_size": 32,
    "scaling_factor": 0.13025,
}


def reference() -> Any:
    torch.manual_seed(3)
    return AutoencoderKL(**{key: value for key, value in CONFIG.items() if key != "_class_name"}).eval()


def ours(tensors: dict[str, Tensor] | None = None, dtype: torch.dtype = torch.float32, **changes: Any) -> VAE:
    tensors = reference().state_dict() if tensors is None else tensors
    return build_vae({**CONFIG, **changes}, tensors, dtype=dtype, device="cpu", what="vae of x.safetensors")


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_encoding_gives_the_mean_and_deviation_of_diffusers_and_does_not_scale_them() -> None:
    with torch.no_grad():
        theirs = reference().encode(pictures()).latent_dist

    mean, deviation = ours().encode(pictures())

    assert mean.shape == (2, 4, 4, 6)
    torch.testing.assert_close(mean, theirs.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(deviation, theirs.std, rtol=1e-5, atol=1e-6)


def test_decoding_takes_scaled_latents_and_gives_clamped_pictures() -> None:
    latents = 3 * torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = reference().decode(latents / 0.13025).sample

    pixels = ours().decode(latents)

    torch.testing.assert_close(pixels, theirs.clamp(-1, 1), rtol=1e-4, atol=1e-5)
    vae = ours()
    assert torch.equal(vae.decode(0 * latents), ours(scaling_factor=1.0).decode(0 * latents))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_fp32_whatever_the_modules_type(dtype: torch.dtype) -> None:
    vae = ours(dtype=dtype)
    assert vae.dtype == dtype

    mean, deviation = vae.encode(pictures())

    assert {mean.dtype, deviation.dtype, vae.decode(mean).dtype} == {torch.float32}


def test_an_overflow_in_fp16_is_refused_with_the_row_and_what_to_do() -> None:
    """Weights like those of SDXL's VAE: fine in fp32, beyond 65,504 in fp16."""
    tensors = {name: tensor.clone() for name, tensor in reference().state_dict().items()}
    tensors["encoder.conv_in.weight"] *= 200_000
    tensors["decoder.conv_in.weight"] *= 200_000
    batch = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])

    fine = ours(tensors)
    mean, _ = fine.encode(batch)
    fine.decode(torch.ones(1, 4, 4, 4))

    overflowing = ours(tensors, torch.float16)
    assert mean.isfinite().all()
    with pytest.raises(UserError, match=r"fp16 made latents that are not finite \(row 1 of a batch of 2\)") as caught:
        overflowing.encode(batch)
    assert "sdxl-vae-fp16-fix" in str(caught.value)
    with pytest.raises(UserError, match=r"fp16 made pixels that are not finite"):
        overflowing.decode(torch.ones(1, 4, 4, 4))


def test_slices_give_the_same_numbers_and_tiles_nearly_the_same() -> None:
    whole, sliced = ours(), ours()
    sliced.set_slicing(True)
    torch.testing.assert_close(sliced.encode(pictures(3))[0], whole.encode(pictures(3))[0], rtol=1e-5, atol=1e-6)

    tiled = ours()
    tiled.set_tiling(True, side=32)
    large = pictures(1).repeat(1, 1, 2, 2)  # 64 x 96, tiles of 32
    mean, deviation = tiled.encode(large)
    assert mean.shape == deviation.shape == (1, 4, 8, 12)
    assert not torch.equal(mean, whole.encode(large)[0])
    assert tiled.decode(mean).shape == large.shape
    tiled.set_tiling(False)
    assert torch.equal(tiled.encode(large)[0], whole.encode(large)[0])


def test_weights_are_taken_strictly() -> None:
    tensors = dict(reference().state_dict())
    del tensors["quant_conv.bias"]
    with pytest.raises(UserError, match=r"vae of x\.safetensors: 1 tensors are missing: quant_conv\.bias"):
        ours(tensors)
    with pytest.raises(UserError, match=r"1 tensors are not known to this network: loss\.logvar"):
        ours({**reference().state_dict(), "loss.logvar": torch.zeros(())})


def test_a_vae_of_another_family_of_models_is_refused() -> None:
    for key, value in (("shift_factor", 0.1), ("latents_mean", [0.0] * 4)):
        with pytest.raises(UserError, match=key):
            ours(**{key: value})


def test_sides_that_are_no_multiple_of_eight_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        ours().encode(torch.zeros(1, 3, 32, 36))


def test_known_configurations_are_the_autoencoder_of_sd15_and_sdxl() -> None:
    shapes = {
        family: {name: tuple(tensor.shape) for name, tensor in empty_autoencoder(config).state_dict().items()}
        for family, config in configs.VAE.items()
    }

    assert shapes["sd15"] == shapes["sdxl"]
    assert len(shapes["sd15"]) == 248
    assert sum(torch.Size(shape).numel() for shape in shapes["sd15"].values()) == 83_653_863
    assert configs.VAE["sd15"]["scaling_factor"] == 0.18215
    assert configs.VAE["sdxl"]["scaling_factor"] == 0.13025
