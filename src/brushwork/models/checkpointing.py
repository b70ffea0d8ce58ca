"""Forgetting what a block computed, and computing it again when the backward pass asks (arXiv:1604.06174)."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    """A block that, with `checkpointing` on, keeps its inputs for the backward pass and nothing beyond them."""

    checkpointing = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """The same numbers either way; only memory and time differ."""
        if self.checkpointing and self._needs_gradient(inputs):
            # preserve_rng_state=False: nothing in a block draws from global random state (LoRA dropout has its own
            # generator), so there is nothing to save and restore, which would make a GPU wait for the CPU.
            output: Tensor = checkpoint(self.compute, *inputs, use_reentrant=False, preserve_rng_state=False)
            return output
        return self.compute(*inputs)

    @abstractmethod
    def compute(self, *inputs: Tensor) -> Tensor:
        """The block itself."""

    def _needs_gradient(self, inputs: tuple[Tensor, ...]) -> bool:
        """Below the first adapter autograd keeps nothing, so there is nothing to forget."""
        return torch.is_grad_enabled() and (
            any(tensor.requires_grad for tensor in inputs)
            or any(weight.requires_grad for weight in self.parameters())
        )
