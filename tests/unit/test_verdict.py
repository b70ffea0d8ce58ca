"""What is said of made-up curves."""

import math
import random

import pytest

from brushwork.config.schema import LossConfig
from brushwork.records import Row
from brushwork.training.verdict import judge, usual_loss


def rows(held_out: list[float], training: list[float] | None = None, *, every: int = 100) -> list[Row]:
    """A validation every so many steps; the losses between them do not count."""
    made = []
    for number, loss in enumerate(held_out, start=1):
        row: Row = {"step": number * every, "loss": 0.1, "smoothed_loss": 0.07, "held_out_loss": loss}
        if training is not None:
            row["train_part_loss"] = training[number - 1]
        made.append(row)
    return made


def falling(count: int, *, start: float = 0.2, to: float = 0.1) -> list[float]:
    """Quick at first, then ever slower."""
    return [to + (start - to) * math.exp(-number / (count / 3)) for number in range(count)]


def test_a_loss_that_falls_is_still_learning() -> None:
    for count in range(3, 20):
        verdict = judge(rows(falling(20)[:count], falling(20, to=0.08)[:count]), flat_steps=500)
        assert (verdict.kind, verdict.text) == ("learning", "still learning")


def test_a_slow_steady_fall_is_never_called_flat() -> None:
    steady = [0.2 - 0.0001 * number for number in range(300)]
    assert judge(rows(steady, every=10), flat_steps=500).kind == "learning"


def test_a_loss_that_stays_where_it_is_is_flat_and_the_steps_are_counted() -> None:
    curve = [*falling(10), *([falling(10)[-1]] * 6)]

    verdict = judge(rows(curve, curve), flat_steps=500)

    assert (verdict.kind, verdict.text) == ("flat", "flat for 600 steps: you can stop")
    assert judge(rows(curve[:-2], curve[:-2]), flat_steps=500).kind == "learning"


def test_a_flat_loss_that_is_higher_than_usual_leaves_the_word_to_the_samples() -> None:
    made = rows([0.2] * 8)
    made[-1]["smoothed_loss"] = 0.075

    assert judge(made, flat_steps=500, usual_loss=0.08).text == "flat for 700 steps: you can stop"
    higher = judge(made, flat_steps=500, usual_loss=usual_loss(LossConfig(min_snr_gamma=5)))
    assert higher.text.endswith("a loss of 0.075 is more than the usual 0.07, so let the samples decide")


def test_held_out_that_rises_while_training_falls_names_the_step_to_take() -> None:
    held_out = [*falling(14), 0.107, 0.109, 0.113, 0.118]
    training = falling(18, to=0.05)

    verdict = judge(rows(held_out, training), flat_steps=500)

    assert verdict.kind == "overtrained"
    assert verdict.text == (
        "held-out rises while training falls since step 1,400: take step 1,400 (the lowest-loss file)"
    )


def test_one_measurement_above_the_lowest_is_no_overtraining() -> None:
    held_out = [*falling(14), 0.109]
    assert judge(rows(held_out, falling(15, to=0.05)), flat_steps=500).kind == "learning"


def test_both_losses_that_rise_ask_for_a_lower_rate() -> None:
    held_out = [*falling(8), 0.13, 0.16]
    training = [*falling(8, to=0.09), 0.14, 0.17]

    verdict = judge(rows(held_out, training), flat_steps=500)

    assert verdict.kind == "rising"
    assert verdict.text.startswith("held-out and training loss rise since step 800: take step 800")


def test_a_loss_that_swings_and_gets_nowhere_asks_for_a_lower_rate() -> None:
    verdict = judge(rows([0.2, 0.15, 0.18, 0.149, 0.185, 0.151, 0.182, 0.15]), flat_steps=500)

    assert verdict.kind == "oscillating"
    assert verdict.text == "oscillating: lower the rate (optimizer.learning_rate)"


def test_a_trifle_up_and_down_is_no_swing() -> None:
    noise = random.Random(0)
    curve = [loss * (1 + noise.uniform(-0.001, 0.001)) for loss in falling(12)]
    for count in range(3, 13):
        assert judge(rows(curve[:count]), flat_steps=500).kind == "learning"


def test_two_measurements_say_nothing() -> None:
    assert judge(rows([0.1, 0.2]), flat_steps=1).text == "still learning: too early to say more"


def test_a_measurement_that_was_not_finite_is_left_out() -> None:
    made = rows(falling(6))
    made[3]["held_out_loss"] = None
    assert judge(made, flat_steps=500).kind == "learning"


@pytest.mark.parametrize(("slope", "kind"), [(0.0, "flat"), (-0.0001, "learning")])
def test_without_measurements_the_means_of_the_steps_decide(slope: float, kind: str) -> None:
    noise = random.Random(2)
    made = [
        {"step": step, "loss": max(0.0, 0.12 + slope * step + noise.gauss(0, 0.05)), "smoothed_loss": 0.05}
        for step in range(1, 1001)
    ]

    assert judge(made, flat_steps=500).kind == kind
    assert judge(made[:900], flat_steps=500).text == "still learning: too early to say more"
