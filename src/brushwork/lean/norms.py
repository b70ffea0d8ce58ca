"""The norms with their statistics in the open: what they are computed again from, backward.

In bf16 and fp16 the statistics stay float32. On a CPU PyTorch rounds them to the type of the weights, so those are
handed over in float32 there; on a card they are float32 whatever the weights are.

Shapes in this file:  B pictures   T tokens   C channels   G groups   H, W height and width
"""

import torch
from torch import Tensor, nn

aten = torch.ops.aten
Statistics = tuple[Tensor, Tensor]
"""Mean and 1 / deviation."""


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Statistics]:
    """(..., C) -> the same, and statistics (..., 1) each"""
    normed, mean, rstd = aten.native_layer_norm(x, norm.normalized_shape, *affine(x, norm), norm.eps)
    return normed, (mean, rstd)


def layer_norm_gradient(d_normed: Tensor, x: Tensor, statistics: Statistics, norm: nn.LayerNorm) -> Tensor:
    """(..., C) -> gradient of x (..., C)"""
    d_x: Tensor = aten.native_layer_norm_backward(
        d_normed, x, norm.normalized_shape, *statistics, *affine(x, norm), [True, False, False]
    )[0]
    return d_x


def group_norm(x: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Statistics]:
    """(B, C, H, W) -> the same, and statistics (B, G) each"""
    B, C, H, W = x.shape
    normed, mean, rstd = aten.native_group_norm(x, *affine(x, norm), B, C, H * W, norm.num_groups, norm.eps)
    return normed, (mean, rstd)


def group_norm_gradient(d_normed: Tensor, x: Tensor, statistics: Statistics, norm: nn.GroupNorm) -> Tensor:
    """(B, C, H, W) -> gradient of x (B, C, H, W)"""
    B, C, H, W = x.shape
    weight, _ = affine(x, norm)
    d_x: Tensor = aten.native_group_norm_backward(
        d_normed.contiguous(), x, *statistics, weight, B, C, H * W, norm.num_groups, [True, False, False]
    )[0]
    return d_x


def affine(x: Tensor, norm: nn.LayerNorm | nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias in the type that keeps the statistics in float32."""
    if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):
        return norm.weight.float(), norm.bias.float()
    return norm.weight, norm.bias
