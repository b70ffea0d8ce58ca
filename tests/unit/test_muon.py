"""Muon evens out the directions of a matrix, moves the rest as AdamW does, and goes on exactly after a stop."""

import copy

import pytest
import torch
from torch import nn

from brushwork.training.checkpoint import optimizer_moments, restore_moments
from brushwork.training.muon import Muon, is_matrix, orthogonalised


@pytest.mark.parametrize("shape", [(2, 16, 40), (1, 40, 16), (3, 24, 24)])
def test_singular_values_come_near_one_and_the_directions_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    evened = orthogonalised(matrices)
    U, _, Vh = torch.linalg.svd(matrices, full_matrices=False)
    sizes = torch.einsum("pki,pij,pjk->pk", U.mT, evened, Vh.mT)  # diagonal of U^T X V
    assert sizes.median() > 0.6
    assert sizes.min() > 0.1  # a square matrix has tiny ones, too
    assert sizes.max() < 1.3
    off = U.mT @ evened @ Vh.mT - torch.diag_embed(sizes)
    assert off.abs().max() < 0.05


def test_a_gradient_of_zeros_moves_nothing_and_stays_finite() -> None:
    weight = nn.Parameter(torch.randn(16, 16))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight, before)


def _network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 20), nn.LayerNorm(20), nn.Linear(20, 3))


def _give_gradients(network: nn.Module, step: int) -> None:
    source = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=source)


def test_it_moves_as_torch_does() -> None:
    """Matrices as torch's own Muon, everything else (a matrix of 3 rows too) as torch's AdamW."""
    ours, theirs = _network(), _network()
    matrices = [p for p in theirs.parameters() if is_matrix(p)]
    others = [p for p in theirs.parameters() if not is_matrix(p)]
    assert [tuple(p.shape) for p in matrices] == [(20, 12)]
    optimizer = Muon(ours.parameters(), lr=0.02, weight_decay=0.1)
    reference = [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.02, weight_decay=0.1),
    ]
    for step in range(5):
        _give_gradients(ours, step)
        _give_gradients(theirs, step)
        optimizer.step()
        for each in reference:
            each.step()
    for name, wanted in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), wanted, atol=2e-3 if wanted.ndim == 2 else 1e-6, rtol=0)


def test_a_convolution_moves_as_the_matrix_of_its_taps() -> None:
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    kernel.grad = torch.randn_like(kernel)
    matrix.grad = kernel.grad.flatten(1).clone()
    Muon([kernel], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    assert torch.equal(kernel.flatten(1), matrix)


def test_embeddings_can_be_left_to_adamw() -> None:
    table = nn.Parameter(torch.zeros(16, 16))
    table.grad = torch.ones(16, 16)
    optimizer = Muon([{"params": [table], "orthogonal": False}], lr=0.1)
    optimizer.step()
    torch.testing.assert_close(table.detach(), torch.full((16, 16), -0.1))


def test_continued_is_never_stopped() -> None:
    whole, halves = _network(), _network()
    optimizer = Muon(whole.parameters(), lr=0.02)
    first = Muon(halves.parameters(), lr=0.02)
    for step in range(6):
        _give_gradients(whole, step)
        optimizer.step()
        if step < 3:
            _give_gradients(halves, step)
            first.step()
    moments = copy.deepcopy(optimizer_moments(first, dict(halves.named_parameters())))
    second = Muon(halves.parameters(), lr=0.02)
    restore_moments(second, dict(halves.named_parameters()), moments)
    for step in range(3, 6):
        _give_gradients(halves, step)
        second.step()
    for name, wanted in whole.named_parameters():
        assert torch.equal(halves.get_parameter(name), wanted), name
