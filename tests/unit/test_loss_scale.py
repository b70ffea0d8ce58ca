"""Loss scaling: what an overflow and a long good stretch do to the scale."""

from brushwork.training.loss_scale import GROWTH_INTERVAL, LossScale, initial_scale


def test_an_overflow_halves_the_scale_and_is_counted() -> None:
    assert initial_scale(fp16=True).after_overflow() == LossScale(32768.0, 0, 1)


def test_the_scale_doubles_only_after_a_long_good_stretch() -> None:
    scale = LossScale(1024.0)
    for _ in range(GROWTH_INTERVAL - 1):
        scale = scale.after_good_step()
    assert scale.scale == 1024.0

    assert scale.after_good_step() == LossScale(2048.0, 0, 0)


def test_the_scale_is_exhausted_when_it_cannot_be_halved() -> None:
    assert not LossScale(2.0).exhausted
    assert LossScale(1.0).exhausted
