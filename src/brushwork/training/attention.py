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
from torch.nn.attention import SDPBackend, sdpa_kernel

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

Chosen = Callable[[], AbstractContextManager[None]]
"""Within it, attention is computed by the chosen kernel."""


def choose_attention(name: str, spec: UNetSpec, *, dtype: torch.dtype, device: torch.device) -> Chosen:
    """The kernel of this name, or PyTorch's own choice where it does not take what the network has; that is told.

    Args:
        name: `train.attention`.
    """
    if name == "auto":
        return nullcontext
    backend = KERNELS[name]
    levels = zip(spec.channels, spec.heads, spec.attention_depth, strict=True)
    for width in sorted({channels // heads for channels, heads, depth in levels if depth}):
        why = _refusal(backend, width, dtype=dtype, device=device)
        if why is not None:
            logger.warning(
                "train.attention = %s: not here for heads of width %d in %s (%s). PyTorch chooses instead",
                name,
                width,
                str(dtype).removeprefix("torch."),
                why,
            )
            return nullcontext
    return lambda: sdpa_kernel(backend)


def _refusal(backend: SDPBackend, width: int, *, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why a kernel does not take such heads, forward or backward; None where it does."""
    q, k, v = (torch.zeros(1, 2, TOKENS, width, dtype=dtype, device=device, requires_grad=True) for _ in range(3))
    try:
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(q, k, v).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return None
