"""A card's memory: how much a run may take, what is told of it before and after the first step."""

import torch

from brushwork.runtime import BESIDE, limit_memory, measure_peak_anew
from brushwork.training.memory_need import Need, beside_measured, memory_lines

CARD = torch.device("cuda")
GIB = 2**30
NEED = Need(base=5 * GIB, text=0, learns=GIB // 2, step=2 * GIB, flops=10**12)


class Eight:
    """A card of 8 GiB."""

    def __init__(self) -> None:
        self.share: float | None = None
        self.begun_anew = 0

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return 3 * GIB, 8 * GIB

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        self.share = fraction

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.begun_anew += 1


def test_a_run_leaves_what_cuda_takes_beside_it_and_no_more() -> None:
    card = Eight()

    assert limit_memory(None, CARD, card) == round((8 - BESIDE) * GIB)
    assert card.share == 1 - BESIDE / 8


def test_a_share_that_is_asked_for_is_the_one_that_holds() -> None:
    card = Eight()

    assert limit_memory(0.5, CARD, card) == 4 * GIB
    assert card.share == 0.5


def test_nothing_is_limited_or_measured_where_there_is_no_card() -> None:
    card = Eight()

    assert limit_memory(0.5, torch.device("cpu"), card) is None
    measure_peak_anew(torch.device("cpu"), card)
    assert card.share is None
    assert card.begun_anew == 0
    measure_peak_anew(CARD, card)
    assert card.begun_anew == 1


def test_the_plan_tells_every_part_on_a_card_and_the_sum_elsewhere() -> None:
    lines = memory_lines(NEED, limit=7 * GIB, command="plan")
    assert lines[0] == ("weights of the base", "5.0 GiB")
    assert lines[-1] == ("together", "7.5 GiB; the run may take 7.0 GiB of the card (train.memory_fraction)")

    ((name, told),) = memory_lines(NEED, limit=None, command="plan")
    assert name == "a step"
    assert told == "about 7.5 GiB at its peak; plan tells of what, and what would need less"


def test_what_the_first_step_took_stands_beside_what_was_planned() -> None:
    assert beside_measured(NEED, round(7.2 * GIB)) == (
        "the first step took 7.2 GiB at its peak, 4% less than planned (7.5 GiB)"
    )
    assert "10% more than planned" in beside_measured(NEED, round(8.25 * GIB))
