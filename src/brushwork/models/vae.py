"""Pictures become latents and back: AutoencoderKL, by diffusers.

Shapes in this file:  B batch   H, W pixels   h, w = H/8, W/8 latents
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from brushwork.errors import UserError
from brushwork.models.assembly import assemble
from brushwork.runtime import precision_name

FIX_NOT_FINITE = (
    "SDXL's own VAE overflows in fp16: use bf16 or fp32 (--set train.precision=bf16), or the VAE that was mended for "
    "fp16 (--vae madebyollin/sdxl-vae-fp16-fix)"
)


class VAE:
    """The autoencoder of a base model, with latents as the base's UNet knows them.

    Args:
        module: diffusers' AutoencoderKL, from `build_vae`.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scaling_factor = float(module.config.scaling_factor)

    @property
    def device(self) -> torch.device:
        return torch.device(self.module.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.module.dtype
        return dtype

    @property
    def patch(self) -> int:
        """Pixels to a latent, along a side: 8."""
        return int(2 ** (len(self.module.config.block_out_channels) - 1))

    def to(self, device: torch.device | str) -> Self:
        """Move the module."""
        self.module.to(device)
        return self

    def set_slicing(self, enabled: bool) -> None:
        """One picture after another, to save memory."""
        self.module.use_slicing = enabled

    def set_tiling(self, enabled: bool, *, side: int = 512) -> None:
        """Pictures wider or higher than `side` go in overlapping tiles of that size, to save memory.

        The seams are blended and each tile is normalised by itself, so the numbers differ a little.
        """
        self.module.use_tiling = enabled
        # Not from the config, which in many published VAEs says nothing (and then means 32).
        self.module.tile_sample_min_size = side
        self.module.tile_latent_min_size = side // self.patch

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean, deviation, each (B, 4, h, w) in fp32 and not scaled"""
        if pixels.shape[-1] % self.patch or pixels.shape[-2] % self.patch:
            raise ValueError(f"sides must be multiples of {self.patch}, found {tuple(pixels.shape[-2:])}")
        moments = self.module.encode(pixels.to(self.device, self.dtype)).latent_dist.parameters.float()
        mean, log_variance = moments.chunk(2, dim=1)
        deviation = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
        self._refuse_not_finite("latents", moments)
        return mean, deviation

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) scaled -> (B, 3, H, W) in [-1, 1], fp32"""
        unscaled = latents.to(self.device).float() / self.scaling_factor
        pixels: Tensor = self.module.decode(unscaled.to(self.dtype)).sample.float()
        self._refuse_not_finite("pixels", pixels)
        return pixels.clamp(-1.0, 1.0)

    def _refuse_not_finite(self, what: str, values: Tensor) -> None:
        finite = values.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            bad = ", ".join(str(index) for index in (~finite).nonzero().flatten().tolist())
            raise UserError(
                f"the VAE in {precision_name(self.dtype)} made {what} that are not finite "
                f"(row {bad} of a batch of {len(values)}).",
                fix=FIX_NOT_FINITE if self.dtype == torch.float16 else "the VAE's weights or the latents are damaged",
            )


def build_vae(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    what: str = "VAE",
) -> VAE:
    """A VAE from a `config.json` and its weights by their diffusers names (older ones: `naming.vae_origins`)."""
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise UserError(f"{what}: its latents are normalised by {key}, which no VAE of SD 1.5 or SDXL does.")
    return VAE(assemble(empty_autoencoder(config), state_dict, dtype=dtype, device=device, what=what))


def empty_autoencoder(config: Mapping[str, Any]) -> nn.Module:
    """An AutoencoderKL on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        module: nn.Module = AutoencoderKL(**{key: value for key, value in config.items() if not key.startswith("_")})
    return module
