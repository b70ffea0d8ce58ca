"""The noise that is trained on: each kind equals the formula of kohya's trainer, spreads as it was asked to, and
follows from its generators alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brushwork.config.schema import LossConfig
from brushwork.diffusion.noise import draw, mixed, perturbed, pyramid
from brushwork.runtime import generator

SHAPE = torch.Size([3, 4, 16, 24])


def source(seed: int = 0) -> Callable[[str], torch.Generator]:
    return lambda purpose: generator(seed, purpose)


def latents(shape: torch.Size = SHAPE) -> Tensor:
    return torch.randn(shape, generator=generator(0, "latents")) + 0.3


def mixture(shape: torch.Size = SHAPE, seed: int = 0, **settings: Any) -> Tensor:
    loss = LossConfig(**settings)
    return mixed(draw(shape, loss=loss, source=source(seed)), latents(shape), loss=loss)


def test_offset_noise_shifts_each_channel_by_one_value() -> None:
    shift = mixture(noise_offset=0.1) - mixture()
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand(SHAPE), rtol=0, atol=1e-6)
    assert shift[:, :, 0, 0].unique().numel() == 12


def test_offset_noise_has_the_deviation_that_was_asked_for() -> None:
    noise = mixture(torch.Size([4000, 4, 4, 4]), noise_offset=0.5)
    assert noise.dtype == torch.float32
    means = noise.mean(dim=(2, 3))  # variance 0.25 of the offset and 1/16 of the average of 16 draws
    assert means.var().item() == pytest.approx(0.25 + 1 / 16, rel=0.05)  # 16,000 draws: 4 standard errors
    assert noise.var().item() == pytest.approx(1.25, rel=0.05)


def test_a_random_offset_is_between_nothing_and_all_for_each_picture_by_itself() -> None:
    shape = torch.Size([4000, 4, 2, 2])
    full = mixture(shape, noise_offset=0.4) - mixture(shape)
    part = mixture(shape, noise_offset=0.4, noise_offset_random=True) - mixture(shape)
    share = (part / full)[:, 0, 0, 0].sort().values  # the same draw, a smaller strength
    torch.testing.assert_close(share, torch.linspace(0, 1, 4000), rtol=0, atol=0.03)
    torch.testing.assert_close((part / full)[:, 1, 0, 0], (part / full)[:, 2, 1, 1], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("scale", [0.5, -0.3])
def test_adaptive_offset_noise_is_that_of_kohyas_trainer(scale: float) -> None:
    white, offset = mixture(), (mixture(noise_offset=1.0) - mixture())[:, :, :1, :1]
    strength = 0.05 + scale * torch.abs(latents().mean(dim=(2, 3), keepdim=True))
    expected = white + torch.clamp(strength, 0.0, None) * offset
    found = mixture(noise_offset=0.05, adaptive_noise_scale=scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (strength < 0).any() == (scale < 0)  # so the clamp was seen


def kohyas_pyramid(noise: Tensor, iterations: int, discount: float, draws: torch.Generator) -> Tensor:
    """The formula of kohya's trainer (after J. Whitaker), for one picture."""
    b, c, w, h = noise.shape
    for i in range(iterations):
        r = torch.rand((), generator=draws).item() * 2 + 2
        wn, hn = max(1, int(w / (r**i))), max(1, int(h / (r**i)))
        coarse = torch.randn(b, c, wn, hn, generator=draws)
        noise = noise + interpolate(coarse, size=(w, h), mode="bilinear") * discount**i
        if wn == 1 or hn == 1:
            break
    return noise / noise.std()


@pytest.mark.parametrize(("iterations", "discount"), [(1, 0.3), (4, 0.3), (10, 0.8)])
def test_multires_noise_is_that_of_kohyas_trainer(iterations: int, discount: float) -> None:
    shape = torch.Size([1, 4, 16, 24])
    expected = kohyas_pyramid(mixture(shape), iterations, discount, generator(0, "multires"))
    found = mixture(shape, multires_iterations=iterations, multires_discount=discount)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_multires_noise_of_each_picture_has_deviation_1_and_is_smooth() -> None:
    found, plain = mixture(multires_iterations=8, multires_discount=0.9), mixture()
    torch.testing.assert_close(found.std(dim=(1, 2, 3)), torch.ones(3), rtol=1e-5, atol=0)

    def roughness(noise: Tensor) -> float:
        return (noise[..., 1:] - noise[..., :-1]).square().mean().item()

    assert roughness(found) < 0.9 * roughness(plain)


def test_the_pyramid_ends_where_a_side_is_one() -> None:
    shape = torch.Size([1, 1, 4, 4])
    many, more = (pyramid(shape, levels, 0.9, generator(0, "multires")) for levels in (4, 16))
    torch.testing.assert_close(many, more, rtol=0, atol=0)


def test_offset_and_multires_noise_are_put_on_in_kohyas_order() -> None:
    shape = torch.Size([1, 4, 16, 24])
    expected = kohyas_pyramid(mixture(shape, noise_offset=0.5), 3, 0.3, generator(0, "multires"))
    found = mixture(shape, noise_offset=0.5, multires_iterations=3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_is_shown_more_noise_than_it_is_asked_for() -> None:
    shape, loss = torch.Size([500, 4, 8, 8]), LossConfig(input_perturbation=0.1)
    noise = draw(shape, loss=loss, source=source())
    asked = mixed(noise, latents(shape), loss=loss)
    torch.testing.assert_close(asked, mixture(shape), rtol=0, atol=0)
    more = perturbed(asked, noise) - asked
    assert more.std().item() == pytest.approx(0.1, rel=0.02)
    assert torch.corrcoef(torch.stack([more.flatten(), asked.flatten()]))[0, 1].abs() < 0.02


def test_a_random_perturbation_is_between_nothing_and_all_for_each_picture_by_itself() -> None:
    shape, loss = torch.Size([2000, 4, 8, 8]), LossConfig(input_perturbation=0.1, input_perturbation_random=True)
    perturbation = draw(shape, loss=loss, source=source()).perturbation
    assert perturbation is not None
    strengths = perturbation.std(dim=(1, 2, 3)).sort().values
    torch.testing.assert_close(strengths, torch.linspace(0, 0.1, 2000), rtol=0, atol=0.01)


def test_no_part_of_the_noise_changes_another() -> None:
    """Switching one on keeps the draws of the rest: runs can be compared."""
    plain = draw(SHAPE, loss=LossConfig(), source=source())
    everything = LossConfig(noise_offset=0.1, noise_offset_random=True, multires_iterations=3, input_perturbation=0.1)
    rich = draw(SHAPE, loss=everything, source=source())
    torch.testing.assert_close(rich.white, plain.white, rtol=0, atol=0)
    assert plain.offset is plain.coarse is plain.perturbation is None


def test_every_part_moves_to_the_device() -> None:
    """The meta device stands for any other."""
    everything = LossConfig(noise_offset=0.1, multires_iterations=3, input_perturbation=0.1)
    moved = draw(SHAPE, loss=everything, source=source()).to(torch.device("meta"))
    assert {part.device.type for part in vars(moved).values()} == {"meta"}
    assert draw(SHAPE, loss=LossConfig(), source=source()).to(torch.device("meta")).offset is None
