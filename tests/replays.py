"""What stands in for a card that records graphs."""

from collections.abc import Callable

from torch import Tensor


class Replays:
    """Stands in for a card: what is recorded is called again, and its result put where the first one stands."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        call()  # the warm-up
        result = call()

        def replay() -> None:
            result.copy_(call())

        return result, replay


class Refuses:
    """A card that cannot record, found out in the midst of it."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        call()
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
