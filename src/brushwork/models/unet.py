"""The network that is trained: it looks at a noisy latent and a prompt, and predicts the noise (or the velocity).

One class is SD 1.5 (arXiv:2112.10752), SDXL (arXiv:2307.01952) and the bundled tiny model. Its weights carry the
names of the diffusers layout, so that they load with `strict=True` and LoRA files find their places.

Shapes in this file:  B batch   H, W height and width in latents   E width of the embedding   L text tokens
D width of the context   P width of the pooled text   K width of the code of one size
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.models.blocks import DownBlock, MidBlock, Skips, UpBlock
from brushwork.models.checkpointing import Checkpointed
from brushwork.models.spec import UNetSpec
from brushwork.models.timestep import TimestepEmbedding, sinusoidal_code


class UNet(nn.Module):
    """Down, across the bottom, and up again, with a skip from every step down to its counterpart on the way up.

    Weights stay in PyTorch's own layout. `unet.to(memory_format=torch.channels_last)` gives the same numbers, but
    measured on a CPU with AVX512-bf16 it gains nothing: 0.94 to 1.03 times the speed for SD 1.5 and SDXL a fifth as
    wide, 0.81 to 0.97 for the tiny model (forward and training step, fp32 and bf16). A GPU has not been measured yet.
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        finest = spec.channels[0]
        self.conv_in = nn.Conv2d(spec.in_channels, finest, 3, padding=1)
        self.time_embedding = TimestepEmbedding(finest, spec.embedding_width)
        if spec.added_width is not None:
            self.add_embedding = TimestepEmbedding(spec.added_width, spec.embedding_width)

        # The widths of the skips, pushed and popped here as the skips themselves are in `forward`.
        width, skips = finest, [finest]
        self.down_blocks = nn.ModuleList()
        for level, channels in enumerate(spec.channels):
            block = DownBlock(spec, level, in_channels=width)
            self.down_blocks.append(block)
            skips += [channels] * (len(block.resnets) + len(block.downsamplers))
            width = channels

        self.mid_block = MidBlock(spec)

        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(spec.channels))):
            popped = [skips.pop() for _ in range(spec.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(spec, level, in_channels=width, skip_channels=popped))
            width = spec.channels[level]

        self.conv_norm_out = nn.GroupNorm(spec.norm_groups, finest, eps=spec.norm_eps)
        self.conv_out = nn.Conv2d(finest, spec.out_channels, 3, padding=1)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, 4, H, W), (B,), (B, L, D), SDXL also (B, P), (B, 6) -> (B, 4, H, W)

        Latents, context and pooled text come in the type of the weights, timesteps and time_ids as integers or
        float32 (bfloat16 would round a size of 1,025 to 1,024).
        """
        embedding = self.embed(timesteps, pooled, time_ids, dtype=latents.dtype)  # (B, E)
        x = self.conv_in(latents)
        skips: Skips = [x]
        for block in self.down_blocks:
            x = block(x, embedding, context, skips)
        x = self.mid_block(x, embedding, context)
        for block in self.up_blocks:
            x = block(x, embedding, context, skips)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]

    def embed(
        self, timesteps: Tensor, pooled: Tensor | None, time_ids: Tensor | None, *, dtype: torch.dtype
    ) -> Tensor:
        """(B,), SDXL also (B, P), (B, 6) -> (B, E): what every residual block is told beside its input."""
        # The codes are made in float32 and only then cast to the type that the weights compute in.
        code = sinusoidal_code(timesteps, self.spec.channels[0]).to(dtype)
        embedding: Tensor = self.time_embedding(code)
        if self.spec.time_id_width is None:
            return embedding
        if pooled is None or time_ids is None:
            raise ValueError("SDXL's UNet needs the pooled text and the time ids beside the context")
        sizes = sinusoidal_code(time_ids.flatten(), self.spec.time_id_width)  # (6B, K)
        side_by_side = [pooled.to(dtype), sizes.to(dtype).view(len(time_ids), -1)]  # (B, P), (B, 6K)
        added: Tensor = self.add_embedding(torch.cat(side_by_side, dim=1))
        return embedding + added

    def set_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory: keep only the inputs of residual and transformer blocks, and compute them twice."""
        for module in self.modules():
            if isinstance(module, Checkpointed):
                module.checkpointing = enabled
