"""The meter counts what lives, what is computed and what is called."""

import torch

from brushwork.memory.meter import GRAIN, metered


def test_the_peak_is_what_lived_at_once() -> None:
    x = torch.empty(1024, device="meta")  # 4 KiB
    with metered([x]) as reading:
        first = x + 1
        second = first + 1
        del first
        third = second * 2
        del second, third

    assert reading.peak == 2 * 4096
    assert reading.live == 0
    assert reading.calls == 3


def test_memory_is_given_in_whole_grains_and_a_view_takes_none() -> None:
    with metered() as reading:
        small = torch.empty(3, device="meta")
        seen = small[1:].view(2, 1)

    assert reading.live == GRAIN
    assert seen.shape == (2, 1)


def test_a_product_counts_two_operations_for_each_pair_also_in_place() -> None:
    a, b = torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta")
    with metered() as reading:
        y = a @ b
        y.addmm_(a, b)

    assert reading.flops == 2 * (2 * 3 * 4 * 5)


def test_attention_on_meta_makes_no_matrix_of_all_pairs() -> None:
    q = torch.empty(1, 8, 4096, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    with metered([q]) as reading:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()

    assert reading.peak < 8 * 4096 * 64 * 2 * 8  # a few times q; all pairs would be 256 MiB
    usual = torch.nn.functional.scaled_dot_product_attention
    assert usual.__module__ != "brushwork.memory.meter"


def test_what_autograd_keeps_lives_until_the_gradient_is_there() -> None:
    x = torch.empty(1024, device="meta", requires_grad=True)
    with metered([x]) as reading:
        y = x.exp()
        kept = reading.live
        y.sum().backward()
        del y

    assert kept == 4096
    assert reading.live == 4096  # the gradient
