"""Muon: an optimizer that moves every direction of a weight matrix by the same amount.

AdamW scales each number of a gradient for itself. Muon takes the running gradient of a whole matrix and replaces it
by the nearest matrix whose singular values are all about 1: rare directions are learned as fast as common ones.
Source: K. Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024); the size of the step follows
arXiv:2502.16982, eq. 4, so that one learning rate serves Muon and AdamW.

Shapes in this file:  P matrices of one shape   R rows: outputs   C columns: inputs, and a kernel's taps
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose repeated use brings singular values between 0 and 1 near 1."""

NUM_ITERATIONS = 5

LIKE_ADAMW = 0.2
"""The root mean square of AdamW's updates, about; Muon's are brought to it."""

SMALLEST_SIDE = 8
"""A matrix with fewer rows or columns has too few directions to even out: a last convolution has 4 rows."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for everything else.

    Args:
        params: parameters or groups of them. In a group with `orthogonal=False` AdamW moves all: embeddings, where
            each row is a thing of its own.
        lr: step size of both.
        momentum: decay of Muon's running gradient, with Nesterov's look ahead.
        betas: decays of AdamW's two running means.
        weight_decay: share by which weights shrink, times the learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "orthogonal": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "one gradient a step"
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices = [p for p in learning if group["orthogonal"] and is_matrix(p)]
            chosen = {id(parameter) for parameter in matrices}
            self._move_matrices(matrices, group)
            self._move_others([p for p in learning if id(p) not in chosen], group)

    def _move_matrices(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in matrices:
            by_shape[tuple(parameter.shape)].append(parameter)
        for shape, alike in by_shape.items():
            directions = []
            for parameter in alike:
                assert parameter.grad is not None
                running = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                running.lerp_(parameter.grad, 1 - group["momentum"])
                directions.append(parameter.grad.lerp(running, group["momentum"]).flatten(1))  # (R, C)
            evened = orthogonalised(torch.stack(directions))  # (P, R, C)
            R, C = evened.shape[1:]
            size = group["lr"] * LIKE_ADAMW * max(R, C) ** 0.5
            for parameter, direction in zip(alike, evened, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.reshape(shape), alpha=-size)

    def _move_others(self, others: list[nn.Parameter], group: dict[str, Any]) -> None:
        """AdamW (arXiv:1711.05101, algorithm 2)."""
        (beta_1, beta_2), lr = group["betas"], group["lr"]
        for parameter in others:
            state, gradient = self.state[parameter], parameter.grad
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            assert gradient is not None
            state["step"] += 1
            done = float(state["step"])
            mean = state["exp_avg"].lerp_(gradient, 1 - beta_1)
            square = state["exp_avg_sq"].mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
            divisor = (square / (1 - beta_2**done)).sqrt_().add_(group["eps"])
            parameter.mul_(1 - lr * group["weight_decay"])
            parameter.addcdiv_(mean, divisor, value=-lr / (1 - beta_1**done))


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon moves it: a matrix or a convolution with enough rows and columns."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values of about 1 (0.7 to 1.2), by five steps: (P, R, C) -> (P, R, C)

    A Newton-Schulz iteration: X <- a X + (b A + c A A) X with A = X X^T acts on each singular value s as
    a s + b s^3 + c s^5 and leaves the singular vectors alone.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if tall else matrices
    # The norm is at least the largest singular value, so all of them begin in [0, 1].
    X = (X / X.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)).bfloat16()  # Five steps forgive rounding.
    for _ in range(NUM_ITERATIONS):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    evened: Tensor = (X.mT if tall else X).to(matrices.dtype)
    return evened
