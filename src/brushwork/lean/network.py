"""The UNet as a frozen base with adapters computes it fastest: the same weights, walked by other functions.

`LeanUNet` owns nothing. It reads the layers of a plain `UNet`, adapters in place, and gives the same numbers; the
plain network goes on working beside it. Where several layers read the same (q, k and v), their weights become one
tensor, of which the plain layers keep views.

Shapes in this file:  B batch   T tokens   C channels   H, W height and width in latents   E width of the embedding
L text tokens   D width of the context   N heads
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brushwork.lean.attention import PYTORCH, Kernel, attend
from brushwork.lean.codes import in_codes
from brushwork.lean.functions import (
    added_map,
    added_product,
    convolution,
    feed_forward,
    fork,
    normed_convolution,
    normed_product,
    normed_tokens,
)
from brushwork.lean.offload import Offload
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.lean.products import Dense, FrozenWeight, Product, Stacked, product_of
from brushwork.lean.recompute import ConvolutionTail, FeedForwardTail, recomputed
from brushwork.lora.layers import base_layer
from brushwork.models.attention import GEGLU, SpatialTransformer, TransformerBlock
from brushwork.models.blocks import DownBlock, Downsample, ResidualBlock, Skips, UpBlock, Upsample
from brushwork.models.rounded import RoundedConv2d, RoundedLinear, is_rounded
from brushwork.models.unet import UNet

Recompute = Literal["keep", "ff", "qkv+ff", "block"]
"""What a block computes twice rather than keep it, from nothing (but norms and gates) to all."""

POLICIES: tuple[Recompute, ...] = get_args(Recompute)


class LeanUNet:
    """Called as the plain network is, with the same arguments and the same result.

    Args:
        unet: the plain network, adapters in place; all else in it must be frozen.
        recompute: one policy for every block, or a choice for each by its path, such as `mid_block.resnets.0`.
        offload: where what is kept for the gradient waits, if not where it was made.
        pointwise: how norms of groups and gates are computed.
        attention: what computes attention.
        in_codes: whether Linears whose weights are kept as int8 or fp8 are multiplied so.
    """

    def __init__(
        self,
        unet: UNet,
        recompute: Recompute | Callable[[str], Recompute] = "keep",
        *,
        offload: Offload | None = None,
        pointwise: Pointwise = PLAIN,
        attention: Kernel = PYTORCH,
        in_codes: bool = False,
    ) -> None:
        self.unet = unet
        self._by = pointwise
        self._attention = attention
        self._in_codes = in_codes
        self._offload = offload
        self._weights: dict[int, FrozenWeight] = {}
        self._policies: dict[int, Recompute] = {}
        for module in unet.modules():
            if isinstance(module, TransformerBlock):
                self._fuse([module.attn1.to_q, module.attn1.to_k, module.attn1.to_v])
                self._fuse([module.attn2.to_k, module.attn2.to_v])
        self.set_recompute(recompute)

    def set_recompute(self, recompute: Recompute | Callable[[str], Recompute]) -> None:
        """Choose anew what is computed twice."""
        for path, module in self.unet.named_modules():
            if isinstance(module, (TransformerBlock, ResidualBlock)):
                self._policies[id(module)] = recompute(path) if callable(recompute) else recompute

    @property
    def weights(self) -> list[Tensor]:
        """The tensors that were made of several weights; the plain layers hold views of them."""
        return [weight.tensor for weight in self._weights.values() if isinstance(weight, Dense)]

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        """(B, 4, H, W), (B,), (B, L, D), SDXL also (B, P), (B, 6) -> (B, 4, H, W)"""
        with nullcontext() if self._offload is None else self._offload.hooks():
            return self._compute(latents, timesteps, context, pooled, time_ids)

    def _compute(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor | None, time_ids: Tensor | None
    ) -> Tensor:
        unet = self.unet
        steering = F.silu(unet.embed(timesteps, pooled, time_ids, dtype=latents.dtype))  # (B, E)
        x = self._convolution(unet.conv_in, latents)
        skips: Skips = [x]
        for block in cast("list[DownBlock]", unet.down_blocks):
            for resnet, attention in zip_longest(block.resnets, block.attentions):
                x = self._level(resnet, attention, x, steering, context)
                skips.append(x)
            for downsample in cast("list[Downsample]", block.downsamplers):
                x = self._convolution(downsample.conv, x)
                skips.append(x)
        middle = unet.mid_block
        x = self._level(middle.resnets[0], middle.attentions[0], x, steering, context)
        x = self._residual(middle.resnets[1], x, steering)
        for above in cast("list[UpBlock]", unet.up_blocks):
            for resnet, attention in zip_longest(above.resnets, above.attentions):
                x = self._level(resnet, attention, torch.cat([x, skips.pop()], dim=1), steering, context)
            for upsample in cast("list[Upsample]", above.upsamplers):
                larger = F.interpolate(x, size=tuple(skips[-1].shape[-2:]), mode="nearest")
                x = self._convolution(upsample.conv, larger)
        last = self._product(unet.conv_out)
        return normed_convolution(x, unet.conv_norm_out, base_conv(unet.conv_out), last, by=self._by)

    def _level(
        self,
        resnet: nn.Module,
        attention: nn.Module | None,
        x: Tensor,
        steering: Tensor,
        context: Tensor,
    ) -> Tensor:
        x = self._residual(resnet, x, steering)
        return x if attention is None else self._transformer(cast(SpatialTransformer, attention), x, context)

    def _residual(self, resnet: nn.Module, x: Tensor, steering: Tensor) -> Tensor:
        """(B, C_in, H, W), (B, E) -> (B, C_out, H, W)"""
        block = cast(ResidualBlock, resnet)
        first, second = self._product(block.conv1), self._product(block.conv2)
        conv1, conv2 = base_conv(block.conv1), base_conv(block.conv2)
        beside = block.conv_shortcut
        side = None if beside is None else self._product(beside)
        shift = block.time_emb_proj(steering)  # (B, C_out); its adapter learns by autograd, it is small

        def head(x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
            through, shortcut = fork(x)
            if beside is not None and side is not None:
                shortcut = convolution(shortcut, base_conv(beside), side)
            return normed_convolution(through, block.norm1, conv1, first, shift=shift, by=self._by), shortcut

        tail = ConvolutionTail(block.norm2, conv2, second, self._by)
        if self._policies[id(block)] == "block":
            factors = [*first.factors, *(side.factors if side else ())]
            return recomputed(head, tail, [x, shift], factors)
        hidden, shortcut = head(x, shift)
        return normed_convolution(hidden, block.norm2, conv2, second, residual=shortcut, by=self._by)

    def _transformer(self, transformer: SpatialTransformer, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, H, W), (B, L, D) -> (B, C, H, W)"""
        size = (x.shape[-2], x.shape[-1])
        into = self._product(transformer.proj_in, on_map=size)
        tokens = normed_tokens(x, transformer.norm, into, by=self._by)
        for block in transformer.transformer_blocks:
            tokens = self._block(cast(TransformerBlock, block), tokens, context)
        return added_map(tokens, self._product(transformer.proj_out, on_map=size), x)

    def _block(self, block: TransformerBlock, x: Tensor, context: Tensor) -> Tensor:
        """(B, T, C), (B, L, D) -> (B, T, C)"""
        policy = self._policies[id(block)]
        own, other = block.attn1, block.attn2
        qkv, out = self._product(own.to_q, own.to_k, own.to_v), self._product(own.to_out[0])
        q, kv, out2 = (
            self._product(other.to_q),
            self._product(other.to_k, other.to_v),
            self._product(other.to_out[0]),
        )
        rebuilt = policy == "qkv+ff"

        def head(x: Tensor, context: Tensor) -> tuple[Tensor]:
            # Each value has a name of its own: q, k and v may be made again later, of the same ones.
            mixed = attend(
                lambda: normed_product(x, block.norm1, qkv), heads=own.heads, rebuilt=rebuilt, kernel=self._attention
            )
            (seen,) = added_product(mixed, out, x)
            keys, values = added_product(context, kv)
            mixed = attend(
                lambda: (*normed_product(seen, block.norm2, q), keys, values),
                heads=other.heads,
                rebuilt=rebuilt,
                kernel=self._attention,
            )
            return added_product(mixed, out2, seen)  # type: ignore[return-value]

        inner, outer = self._product(cast(GEGLU, block.ff.net[0]).proj), self._product(block.ff.net[2])
        tail = FeedForwardTail(block.norm3, inner, outer, self._by)
        if policy == "block":
            factors = [factor for product in (qkv, out, q, kv, out2) for factor in product.factors]
            return recomputed(head, tail, [x, context], factors)
        (x,) = head(x, context)
        return feed_forward(x, block.norm3, inner, outer, recompute=policy != "keep", by=self._by)

    def _convolution(self, layer: nn.Module, x: Tensor) -> Tensor:
        return convolution(x, base_conv(layer), self._product(layer))

    def _product(self, *layers: nn.Module, on_map: tuple[int, int] | None = None) -> Product:
        """The layers as they are now, their weights as one."""
        first = base_layer(layers[0])
        weight = self._weights.get(id(first))
        if weight is None:
            weight = self._coded([first]) or frozen_weight(first)
        return product_of(weight, layers, on_map=on_map)

    def _fuse(self, layers: Sequence[nn.Module]) -> None:
        """Make one tensor of the weights of layers that read the same, and the plain layers' weights views of it."""
        bases = [cast(nn.Linear, base_layer(layer)) for layer in layers]
        if is_rounded(bases[0]):
            self._weights[id(bases[0])] = self._coded(bases) or Stacked(
                [cast(RoundedLinear, base).stored for base in bases]
            )
            return
        together = torch.cat([base.weight.detach() for base in bases])  # (O, I)
        for base, part in zip(bases, torch.split(together, [base.out_features for base in bases]), strict=True):
            base.weight.data = part
        self._weights[id(bases[0])] = Dense(together)

    def _coded(self, layers: Sequence[nn.Module]) -> FrozenWeight | None:
        return in_codes(layers, self._by) if self._in_codes else None


def frozen_weight(layer: nn.Module) -> FrozenWeight:
    """The weight of a layer of the base, as it is stored."""
    if isinstance(layer, RoundedLinear | RoundedConv2d):
        return layer.stored
    assert isinstance(layer.weight, Tensor)
    return Dense(layer.weight)


def base_conv(layer: nn.Module) -> nn.Conv2d:
    """The convolution inside its adapters."""
    base = base_layer(layer)
    assert isinstance(base, nn.Conv2d)
    return base
