"""Which kernel computes attention in a training step.

All give the same numbers but for rounding. Which is fastest depends on card, width of a head and number of tokens;
not every one takes every shape and type, so the chosen one is tried before the first step.

Shapes in this file:  N heads   T tokens   D width of a head
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from brushwork.lean.attention import PYTORCH, Kernel
from brushwork.lean.flash_attention import INSTALL, FlashAttention
from brushwork.models.spec import UNetSpec

logger = logging.getLogger("brushwork")

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
TOKENS = 64
"""Of the trial: no kernel minds how many there are."""

MOST_ERROR = 0.02
"""Of flash-attn against PyTorch's, as a share: in bf16 each rounds in its own places."""

Chosen = Callable[[], AbstractContextManager[None]]
"""Within it, attention is computed by the chosen kernel."""


def choose_attention(name: str, spec: UNetSpec, *, dtype: torch.dtype, device: torch.device) -> Chosen:
    """The kernel of this name, or PyTorch's own choice where it does not take what the network has; that is told.

    Args:
        name: `train.attention`.
    """
    if name not in KERNELS:
        return nullcontext
    backend = KERNELS[name]
    for width in head_widths(spec):
        q, k, v = _trial(width, dtype=dtype, device=device)
        try:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, k, v).sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            _tell(name, f"not here for heads of width {width} in {type_name(dtype)} ({first_line(error)})")
            return nullcontext
    return lambda: sdpa_kernel(backend)


def choose_kernel(name: str, spec: UNetSpec, *, dtype: torch.dtype, device: torch.device, lean: bool) -> Kernel:
    """flash-attn for the lean path, where it is asked for and gives PyTorch's numbers; else PyTorch's, which is told.

    Args:
        name: `train.attention`.
    """
    if name != "flash-attn":
        return PYTORCH
    if not lean:
        _tell(name, "for the lean path, which is not taken")
        return PYTORCH
    try:
        kernel = FlashAttention()
    except ImportError as error:
        missing = getattr(error, "name", None) == "flash_attn"
        _tell(name, f"not installed ({INSTALL})" if missing else f"not to be imported ({first_line(error)})")
        return PYTORCH
    for width in head_widths(spec):
        try:
            near = _agrees(kernel, width, dtype=dtype, device=device)
        except (RuntimeError, ValueError) as error:
            _tell(name, f"not here for heads of width {width} in {type_name(dtype)} ({first_line(error)})")
            return PYTORCH
        if not near:
            _tell(name, f"for heads of width {width} its numbers are not PyTorch's")
            return PYTORCH
    return kernel


def head_widths(spec: UNetSpec) -> list[int]:
    """Every width of a head that the network has."""
    levels = zip(spec.channels, spec.heads, spec.attention_depth, strict=True)
    return sorted({channels // heads for channels, heads, depth in levels if depth})


def _agrees(kernel: Kernel, width: int, *, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether attention and the gradients of q, k and v are those of PyTorch's kernels."""
    generator = torch.Generator().manual_seed(width)
    drawn = [torch.randn(1, TOKENS, 2 * width, generator=generator).to(device, dtype) for _ in range(4)]
    results = []
    for each in (kernel, PYTORCH):
        q, k, v = (tensor.clone().requires_grad_() for tensor in drawn[:3])
        mixed = each.mix(*(each.split(tensor, 2) for tensor in (q, k, v)))
        results.append([mixed.detach(), *torch.autograd.grad(mixed, (q, k, v), drawn[3])])
    return all(
        float((found - wanted).float().norm()) <= MOST_ERROR * float(wanted.float().norm())
        for found, wanted in zip(*results, strict=True)
    )


def _trial(width: int, *, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """q, k and v for two heads: (1, 2, T, D) each"""
    return [torch.zeros(1, 2, TOKENS, width, dtype=dtype, device=device, requires_grad=True) for _ in range(3)]


def _tell(name: str, why: str) -> None:
    logger.warning("train.attention = %s: %s. PyTorch chooses instead", name, why)


def type_name(dtype: torch.dtype) -> str:
    """As PyTorch calls it."""
    return str(dtype).removeprefix("torch.")


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
