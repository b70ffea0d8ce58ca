"""The learning rate as a pure function of the step, so that a continued run cannot lose its place."""

import math

from brushwork.config.schema import ScheduleConfig


def factor(step: int, *, total_steps: int, schedule: ScheduleConfig) -> float:
    """By how much the learning rate is multiplied in optimizer step `step` (counted from 0).

    Rises over `warmup_steps`, the first step being 1 / warmup_steps, then follows the curve to `total_steps`.
    """
    warmup = min(schedule.warmup_steps, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)  # 0 ... 1
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "cosine_with_restarts":
            return 0.5 * (1.0 + math.cos(math.pi * ((schedule.cycles * progress) % 1.0)))
