"""Loss scaling for fp16, whose smallest gradients would be rounded to zero."""

from dataclasses import dataclass

SMALLEST = 1.0
LARGEST = 2.0**24
GROWTH_INTERVAL = 2000
"""Good steps after which the scale is doubled (the figure of arXiv:1710.03740, section 3.2)."""


@dataclass(frozen=True)
class LossScale:
    """By how much the loss is multiplied before its gradient is taken; 1 is no scaling."""

    scale: float = 1.0
    good_steps: int = 0
    overflows: int = 0
    """Updates that were skipped so far."""

    @property
    def is_on(self) -> bool:
        """Whether losses are scaled; a scale that was halved down to 1 still is."""
        return self != LossScale()

    def after_good_step(self) -> "LossScale":
        """Doubled when it has held for long enough."""
        if self.good_steps + 1 < GROWTH_INTERVAL:
            return LossScale(self.scale, self.good_steps + 1, self.overflows)
        return LossScale(min(self.scale * 2, LARGEST), 0, self.overflows)

    def after_overflow(self) -> "LossScale":
        """Halved; the update is left out."""
        return LossScale(self.scale / 2, 0, self.overflows + 1)

    @property
    def exhausted(self) -> bool:
        """Whether the scale cannot be halved any further."""
        return self.scale / 2 < SMALLEST


def initial_scale(fp16: bool) -> LossScale:
    """65,536 for fp16, as torch's own scaler begins; 1 otherwise."""
    return LossScale(scale=65536.0 if fp16 else 1.0)
