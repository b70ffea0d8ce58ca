"""The learning rate as a pure function of the step, so that a continued run cannot lose its place."""

import math

from brushwork.config.schema import ScheduleConfig


def factor(step: int, *, total_steps: int, schedule: ScheduleConfig) -> float:
    """By how much the learning rate is multiplied in optimizer step `step` (counted from 0).

    Rises over `warmup_steps`, the first step being 1 / warmup_steps, then follows the curve to `total_steps`: at
    once, or in the last `decay_steps`.
    """
    warmup = min(in_steps(schedule.warmup_steps, total_steps), total_steps)
    if step < warmup:
        return (step + 1) / warmup
    falls = total_steps if schedule.decay_steps is None else in_steps(schedule.decay_steps, total_steps)
    begins = max(warmup, total_steps - falls)
    progress = max(0, step - begins) / max(1, total_steps - begins)  # 0 ... 1
    return schedule.min_factor + (1.0 - schedule.min_factor) * curve(progress, schedule)


def in_steps(steps: float, total_steps: int) -> int:
    """A number of steps, or a share of all of them, as steps."""
    return steps if isinstance(steps, int) else int(steps * total_steps)


def curve(progress: float, schedule: ScheduleConfig) -> float:
    """What the schedule leaves of the full rate when it has gone this far: 1 at 0."""
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "cosine_with_restarts":
            return 0.5 * (1.0 + math.cos(math.pi * ((schedule.cycles * progress) % 1.0)))
        case "polynomial":
            return float((1.0 - progress) ** schedule.power)
