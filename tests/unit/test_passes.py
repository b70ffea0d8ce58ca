"""Passes as graphs: the numbers of passes kernel by kernel, and a way back where there can be none."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from brushwork.config.load import resolve
from brushwork.config.schema import LossConfig, OptimizerConfig, Settings
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError
from brushwork.lean.flat import Flat
from brushwork.lean.network import LeanUNet
from brushwork.lora.inject import Adapter, inject
from brushwork.models.spec import TINY
from brushwork.models.unet import UNet
from brushwork.training.gradients import FlatGradients
from brushwork.training.learner import named_parameters
from brushwork.training.optimizers import in_one_buffer
from brushwork.training.passes import EagerPasses, RecordedPasses, make_passes, why_not
from brushwork.training.step import Batch, Draws, Objective, draw
from replays import Refuses, Replays

SMALL = replace(
    TINY, channels=(8, 16, 16), heads=(1, 2, 2), attention_depth=(0, 1, 1), norm_groups=4, context_width=8
)
OBJECTIVE = Objective(
    schedule=NoiseSchedule.scaled_linear(),
    prediction="epsilon",
    scaling_factor=0.13,
    loss=LossConfig(min_snr_gamma=5, noise_offset=0.1),
)
CPU = torch.device("cpu")


class Forgets:
    """A card whose graph leaves the gradient as it was."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        return call(), lambda: None


def learner() -> tuple[EagerPasses, Flat, Adapter]:
    torch.manual_seed(0)
    unet = UNet(SMALL)
    adapter = inject({"unet": unet}, targets="attention_out", rank=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    flat = in_one_buffer(named_parameters(adapter), OptimizerConfig())
    return EagerPasses(LeanUNet(unet), OBJECTIVE, torch.float32, CPU, FlatGradients(flat)), flat, adapter


def given(
    number: int, *, size: tuple[int, int] = (8, 8), batch: int = 2, masked: bool = False
) -> tuple[Batch, Draws]:
    torch.manual_seed(number)
    shape = torch.Size((batch, 4, *size))
    pooled = None if SMALL.pooled_width is None else torch.randn(batch, SMALL.pooled_width)
    return (
        Batch(
            mean=torch.randn(shape),
            deviation=torch.rand(shape),
            context=torch.randn(batch, 5, SMALL.context_width),
            pooled=pooled,
            time_ids=None if pooled is None else torch.tensor([[64.0, 64, 0, 0, 64, 64]] * batch),
            names=tuple(f"{number}-{place}.png" for place in range(batch)),
            masks=torch.rand(batch, 1, *size) if masked else None,
        ),
        draw(shape, OBJECTIVE, seed=0, step=number, microbatch=0),
    )


def gradient_of(flat: Flat) -> Tensor:
    assert flat.gradient is not None
    return flat.gradient.clone()


def test_replayed_passes_give_losses_and_gradients_to_the_bit() -> None:
    eager, flat, _ = learner()
    recorder = Replays()
    steps = [
        [given(0), given(1)],  # two batches of one shape are one gradient
        [given(2, size=(8, 16)), given(3)],
        [given(4, masked=True), given(5, batch=1), given(6)],
    ]
    wanted: list[list[Tensor]] = []
    for number, batches in enumerate(steps):
        losses = [eager(*each, 0.5 + number) for each in batches]
        wanted.append([*losses, gradient_of(flat)])
        flat.clear()

    recorded = RecordedPasses(eager, flat, recorder, required=True)
    for number, (batches, expected) in enumerate(zip(steps, wanted, strict=True)):
        found = [*(recorded(*each, 0.5 + number) for each in batches), gradient_of(flat)]
        assert all(flat.present)
        flat.clear()
        assert not gradient_of(flat).any()
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs), number
    assert recorder.recorded == 4  # shapes: square, wide, masked, a single picture


def test_a_graph_follows_weights_that_move() -> None:
    eager, flat, _ = learner()
    recorded = RecordedPasses(eager, flat, Replays(), required=True)
    before = recorded(*given(0), 1.0)
    flat.clear()

    flat.values.mul_(1.5)
    after = recorded(*given(0), 1.0)

    assert not torch.equal(before, after)
    assert torch.equal(after, eager(*given(0), 1.0))


def test_of_too_many_shapes_the_later_ones_go_kernel_by_kernel_and_it_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "brushwork")
    eager, flat, _ = learner()
    recorder = Replays()
    recorded = RecordedPasses(eager, flat, recorder, required=False, most=1)

    found = [recorded(*given(0, size=size), 1.0) for size in ((8, 8), (8, 16), (16, 8), (8, 8))]

    assert recorder.recorded == 1
    assert [record.getMessage() for record in caplog.records].count(
        "train.cuda_graphs: there are more than 1 shapes of batches; the others go without"
    ) == 1
    both = gradient_of(flat)
    flat.clear()
    for size, losses in zip(((8, 8), (8, 16), (16, 8), (8, 8)), found, strict=True):
        assert torch.equal(eager(*given(0, size=size), 1.0), losses)
    assert torch.equal(gradient_of(flat), both)


def test_where_nothing_can_be_recorded_training_goes_on_with_the_same_numbers_or_stops_if_graphs_are_required(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "brushwork")
    eager, flat, _ = learner()
    eager(*given(0), 1.0)
    expected = [eager(*given(1), 1.0), gradient_of(flat)]
    flat.clear()

    recorded = RecordedPasses(eager, flat, Refuses(), required=False)
    recorded(*given(0), 1.0)
    found = [recorded(*given(1), 1.0), gradient_of(flat)]

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert len(caplog.records) == 1
    assert "operation not permitted when stream is capturing): training goes on" in caplog.text
    with pytest.raises(UserError, match="no graph could be recorded: operation not permitted"):
        RecordedPasses(eager, flat, Refuses(), required=True)(*given(0), 1.0)


def test_a_graph_with_other_numbers_than_the_pass_is_not_trained_with(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "brushwork")
    eager, flat, _ = learner()
    expected = [eager(*given(0), 2.0), gradient_of(flat)]
    flat.clear()

    found = [RecordedPasses(eager, flat, Forgets(), required=False)(*given(0), 2.0), gradient_of(flat)]

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert "not those of the pass kernel by kernel): training goes on" in caplog.text
    with pytest.raises(UserError, match="not those of the pass kernel by kernel"):
        RecordedPasses(eager, flat, Forgets(), required=True)(*given(0), 2.0)


def settings(*overrides: str) -> Settings:
    return resolve(overrides=overrides).settings


def test_what_cannot_be_recorded_is_told_and_on_insists() -> None:
    eager, flat, _ = learner()
    card = torch.device("cuda")
    assert why_not(settings(), card, lean=True) is None
    for override, words in {
        "lora.dropout=0.1": "dropout draws",
        "lora.module_dropout=0.1": "dropout draws",
        "lora.text_encoder=true": "text encoders learn",
        "train.mode=full": "whole network",
    }.items():
        assert words in str(why_not(settings(override), card, lean=True))
    assert "lean path" in str(why_not(settings(), card, lean=False))

    assert make_passes(eager, flat, settings()) is eager
    assert make_passes(eager, flat, settings("train.cuda_graphs=off")) is eager
    with pytest.raises(UserError, match="there can be none: the device is cpu"):
        make_passes(eager, flat, settings("train.cuda_graphs=on"))
