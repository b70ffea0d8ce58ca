"""The running mean of the adapter."""

import torch

from brushwork.training import ema


def test_the_mean_follows_the_formula_with_its_warm_up() -> None:
    weights = {"a": torch.tensor([1.0, 2.0])}
    mean = ema.start(weights)
    weights["a"].mul_(3)
    expected = torch.tensor([1.0, 2.0])

    for done in range(1, 40):
        ema.update(mean, weights, decay=0.7, steps_done=done)
        decay = min(0.7, (1 + done) / (10 + done))
        expected = decay * expected + (1 - decay) * weights["a"]

    torch.testing.assert_close(mean["a"], expected, rtol=1e-6, atol=0)


def test_the_mean_does_not_share_memory_with_the_weights() -> None:
    weights = {"a": torch.ones(3)}
    mean = ema.start(weights)

    weights["a"].zero_()

    assert torch.equal(mean["a"], torch.ones(3))


def test_a_mean_on_the_cpu_stays_there_and_has_the_same_numbers() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    beside, on_cpu = ema.start(weights), ema.start(weights, device=torch.device("cpu"))

    for done in range(1, 5):
        for weight in weights.values():
            weight.mul_(1.5)
        ema.update(beside, weights, decay=0.9, steps_done=done)
        ema.update(on_cpu, weights, decay=0.9, steps_done=done)

    assert {mean.device.type for mean in on_cpu.values()} == {"cpu"}
    assert all(torch.equal(beside[name], on_cpu[name]) for name in weights)


def test_the_mean_does_not_share_memory_with_weights_on_its_own_device() -> None:
    weights = {"a": torch.ones(3)}
    mean = ema.start(weights, device=torch.device("cpu"))

    weights["a"].zero_()

    assert torch.equal(mean["a"], torch.ones(3))
