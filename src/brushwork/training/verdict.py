"""What the losses say, in words: still learning, flat, overtrained, rising, oscillating.

A pure function over the rows of `metrics.jsonl`, so that a run that is stopped and continued hears the same. It looks
at what a validation measured: always the same pictures, noise and timesteps, so that only the weights can move it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from brushwork.config.schema import LossConfig
from brushwork.records import Row

Kind = Literal["learning", "flat", "overtrained", "rising", "oscillating"]

FEWEST = 3
"""With fewer measurements nothing is said about a trend."""

RECENT = 6
"""So many measurements show whether the loss swings."""


@dataclass(frozen=True)
class Verdict:
    """What to think of a run, and what to do."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Point:
    """One validation."""

    step: int
    loss: float
    """Of the held-out pictures; of the fixed part of the training set where none are held out."""
    training: float | None
    """Of the fixed part of the training set, where both are measured."""


def judge(rows: Sequence[Row], *, flat_steps: int, usual_loss: float | None = None) -> Verdict:
    """Judge a run by its rows up to now.

    Args:
        flat_steps: steps without a lower loss that count as flat.
        usual_loss: what the smoothed loss of most good runs is below; see `usual_loss`.
    """
    points = measured(rows)
    if not points:
        return _judge_steps(rows, flat_steps=flat_steps, usual_loss=usual_loss)
    if len(points) < FEWEST:
        return Verdict("learning", "still learning: too early to say more")
    best = min(points, key=lambda point: point.loss)
    if rises_since(points, best):
        return _rising(points, best)
    if swings(points):
        return Verdict("oscillating", "oscillating: lower the rate (optimizer.learning_rate)")
    flat_for = points[-1].step - last_improvement(points)
    if flat_for >= flat_steps:
        return _flat(flat_for, rows, usual_loss=usual_loss)
    return Verdict("learning", "still learning")


def usual_loss(loss: LossConfig) -> float | None:
    """Below this the smoothed loss of a good run lies as a rule; None where nobody has said it of such a loss.

    It only adds to the words: what a network can reach depends on the pictures.
    """
    if loss.kind != "mse" or loss.debiased or loss.scale_v_like_noise:
        return None
    return 0.08 if loss.min_snr_gamma is None else 0.07


def measured(rows: Sequence[Row]) -> list[Point]:
    """What the validations measured."""
    points = []
    for row in rows:
        held_out, training = row.get("held_out_loss"), row.get("train_part_loss")
        loss = training if held_out is None else held_out
        if loss is not None and math.isfinite(loss):
            points.append(Point(row["step"], loss, None if held_out is None else training))
    return points


def rises_since(points: Sequence[Point], best: Point) -> bool:
    """Whether the last two measurements lie clearly above the lowest one."""
    since = [point for point in points if point.step > best.step]
    margin = max(0.002 * best.loss, 0.05 * (points[0].loss - best.loss))
    return len(since) >= 2 and all(point.loss > best.loss + margin for point in since[-2:])


def swings(points: Sequence[Point]) -> bool:
    """Whether the last measurements go up and down by more than they get anywhere."""
    losses = [point.loss for point in points]
    recent = losses[-RECENT:]
    changes = [after - before for before, after in pairwise(recent)]
    turns = sum(before * after < 0 for before, after in pairwise(changes))
    swing = sum(map(abs, changes)) / max(1, len(changes))
    far = swing > max(0.01 * sum(recent) / len(recent), 0.2 * (max(losses) - min(losses)))
    return len(recent) == RECENT and turns >= RECENT // 2 and far and abs(recent[-1] - recent[0]) < swing


def last_improvement(points: Sequence[Point]) -> int:
    """The step of the last measurement that was lower by more than a trifle: a thousandth of the loss, and a fiftieth
    of all that it has fallen."""
    first = reference = points[0].loss
    step = points[0].step
    for point in points:
        if point.loss < reference - max(0.001 * reference, 0.02 * (first - reference)):
            reference, step = point.loss, point.step
    return step


def _rising(points: Sequence[Point], best: Point) -> Verdict:
    last = points[-1]
    take = f"since step {best.step:,}: take step {best.step:,} (the lowest-loss file)"
    if best.training is None or last.training is None:
        return Verdict("rising", f"the loss rises {take}, and lower the rate")
    if last.training < 0.999 * best.training:
        return Verdict("overtrained", f"held-out rises while training falls {take}")
    return Verdict("rising", f"held-out and training loss rise {take}, and lower the rate")


def _flat(steps: int, rows: Sequence[Row], *, usual_loss: float | None) -> Verdict:
    loss = rows[-1]["smoothed_loss"]
    text = f"flat for {steps:,} steps: you can stop"
    if usual_loss is not None and loss > usual_loss:
        text += f"; a loss of {loss:.3f} is more than the usual {usual_loss:g}, so let the samples decide"
    return Verdict("flat", text)


def _judge_steps(rows: Sequence[Row], *, flat_steps: int, usual_loss: float | None) -> Verdict:
    """Where nothing is measured: whether the mean loss of the last steps is below that of as many before them.

    The loss of a step swings with its noise levels, so a difference within twice the error of the means is none.
    """
    if len(rows) < 2 * flat_steps:
        return Verdict("learning", "still learning: too early to say more")
    before = [row["loss"] for row in rows[-2 * flat_steps : -flat_steps]]
    recent = [row["loss"] for row in rows[-flat_steps:]]
    error = 2 * math.sqrt((_variance(before) + _variance(recent)) / flat_steps)
    if sum(recent) / flat_steps < sum(before) / flat_steps - error:
        return Verdict("learning", "still learning")
    return _flat(flat_steps, rows, usual_loss=usual_loss)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
