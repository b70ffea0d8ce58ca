"""The recipe's loss here and in diffusers + PEFT, for a few steps; `python -m benchmarks.same_curve` does 200."""

from pathlib import Path

import pytest

from benchmarks.same_curve import EARLY_STEPS, compare, differences, first_step_apart


def test_the_recipe_has_the_loss_of_diffusers_and_peft_step_by_step(tmp_path: Path) -> None:
    ours, theirs = compare(tmp_path, 8, "train.batch_size=2", size=64)

    assert len(ours) == len(theirs) == 8
    # Ten steps with the same weights ended 2e-7 apart; with alpha, an order or a timestep wrong it is 1e-2.
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert max(differences(ours, theirs)) < 1e-5
    assert len({round(loss, 3) for loss in ours}) == 8
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_curves_are_apart_where_rounding_does_not_explain_it() -> None:
    theirs = [0.2] * (EARLY_STEPS + 50)
    drifting = [0.2 * (1 + 1e-6 * 1.1**step) for step in range(len(theirs))]

    assert first_step_apart(theirs, theirs, theirs) is None
    assert first_step_apart(drifting, theirs, drifting) == 25  # 1e-6 * 1.1 ** 25 > 1e-5: too early to drift so far
    late = [*theirs[:EARLY_STEPS], *drifting[EARLY_STEPS:]]
    assert first_step_apart(late, theirs, drifting) is None
    assert first_step_apart(late, theirs, theirs) == EARLY_STEPS
