"""The learning rate against transformers' schedules, step by step."""

import pytest
import torch
import transformers

from brushwork.config.schema import ScheduleConfig
from brushwork.training.learning_rate import factor

TOTAL, WARMUP = 57, 5
THEIRS = {
    "constant": lambda optimizer: transformers.get_constant_schedule_with_warmup(optimizer, WARMUP),
    "linear": lambda optimizer: transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, TOTAL),
    "cosine": lambda optimizer: transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP, TOTAL),
    "cosine_with_restarts": lambda optimizer: transformers.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer, WARMUP, TOTAL, num_cycles=3
    ),
    "polynomial": lambda optimizer: transformers.get_polynomial_decay_schedule_with_warmup(
        optimizer, WARMUP, TOTAL, lr_end=0.1, power=2.0
    ),
    "warmup, a plateau, cosine": lambda optimizer: transformers.get_wsd_schedule(
        optimizer, WARMUP, num_decay_steps=20, num_training_steps=TOTAL
    ),
    "cosine to a tenth": lambda optimizer: transformers.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, WARMUP, TOTAL, min_lr_rate=0.1
    ),
}
OURS = {
    "polynomial": {"power": 2.0, "min_factor": 0.1},
    "warmup, a plateau, cosine": {"name": "cosine", "decay_steps": 20},
    "cosine to a tenth": {"name": "cosine", "min_factor": 0.1},
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_curve_is_transformers_curve(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = THEIRS[name](optimizer)
    theirs = []
    for _ in range(TOTAL):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    schedule = ScheduleConfig(**{"name": name, "warmup_steps": WARMUP, "cycles": 3} | OURS.get(name, {}))
    ours = [factor(step, total_steps=TOTAL, schedule=schedule) for step in range(TOTAL)]

    # Ours counts the warm-up from one step earlier: their first step has a rate of zero and teaches nothing.
    assert ours[:WARMUP] == pytest.approx([(step + 1) / WARMUP for step in range(WARMUP)])
    assert ours[WARMUP:] == pytest.approx(theirs[WARMUP:])


def test_a_run_shorter_than_its_warm_up_still_rises_to_the_full_rate() -> None:
    schedule = ScheduleConfig(name="cosine", warmup_steps=100)

    assert [factor(step, total_steps=4, schedule=schedule) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
