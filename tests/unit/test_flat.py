"""Parameters in one buffer: they learn as they do one by one, and a state of before goes on."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brushwork.config.schema import OptimizerConfig
from brushwork.lean.flat import GRAIN, Flat
from brushwork.training.checkpoint import (
    Position,
    State,
    optimizer_moments,
    optimizer_numbers,
    read_state,
    restore_moments,
    write_state,
)
from brushwork.training.ema import running_mean, start, update
from brushwork.training.flat_adamw import FlatAdamW
from brushwork.training.gradients import FlatGradients
from brushwork.training.optimizers import in_one_buffer, make_optimizer

SHAPES = {
    "unet.a.down": (4, 300),
    "unet.a.up": (300, 4),
    "unet.b.down": (4, 16, 3, 3),
    "unet.b.up": (21, 4, 1, 1),
    "unet.c.down": (3, 7),
    "unet.c.up": (5, 3),
    "text_encoder.d.down": (4, 3),
    "text_encoder.d.up": (3, 4),
}
PLUS = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, lora_plus_ratio=4, text_encoder_learning_rate=2e-3)


def beginning() -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in SHAPES.items()}


def gradient_of(name: str, step: int) -> Tensor | None:
    """Layer b is left out now and then, the text encoder stops after step 3."""
    if (".b." in name and step % 3 == 1) or (name.startswith("text") and step >= 3):
        return None
    source = torch.Generator().manual_seed(100 * step + list(SHAPES).index(name))
    return torch.randn(SHAPES[name], generator=source)


def move(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    flat = optimizer._flat if isinstance(optimizer, FlatAdamW) else None
    for step in steps:
        for name, parameter in parameters.items():
            parameter.grad = gradient_of(name, step)
        if flat is not None:
            flat.collect()
            flat.hand_out()
        for group in optimizer.param_groups:
            group["lr"] = group["base_rate"] * (1 - step / 20)
        optimizer.step()
        if flat is not None:
            flat.clear()


def in_a_buffer(settings: OptimizerConfig) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    parameters = beginning()
    return parameters, make_optimizer(parameters, settings, in_one_buffer(parameters, settings))


def test_parameters_keep_their_numbers_and_become_views_that_begin_where_a_kernel_likes() -> None:
    parameters = beginning()
    flat = in_one_buffer(parameters, PLUS)

    for name, parameter in parameters.items():
        assert torch.equal(parameter, beginning()[name])
        assert parameter.untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr()
        assert parameter.storage_offset() % GRAIN == 0
    flat.values.zero_()
    assert not any(parameter.any() for parameter in parameters.values())


@pytest.mark.parametrize("arguments", [{}, {"amsgrad": True}])
def test_adamw_over_the_buffer_moves_as_torch_moves_each_tensor(arguments: dict[str, bool]) -> None:
    settings = PLUS.model_copy(update={"arguments": arguments})
    separate = beginning()
    theirs = make_optimizer(separate, settings)
    ours, flat = in_a_buffer(settings)
    assert isinstance(theirs, torch.optim.AdamW)
    assert isinstance(flat, FlatAdamW)

    move(separate, theirs, range(8))
    move(ours, flat, range(8))

    for name, tensor in separate.items():
        assert not torch.equal(tensor, beginning()[name])
        assert torch.equal(ours[name], tensor), name
    expected, found = optimizer_moments(theirs, separate), optimizer_moments(flat, ours)
    assert found.keys() == expected.keys()
    for kind, tensors in expected.items():
        assert found[kind].keys() == tensors.keys()
        assert all(torch.equal(found[kind][name], tensor) for name, tensor in tensors.items()), kind


def test_a_state_that_was_written_tensor_by_tensor_goes_on_in_the_buffer_and_the_reverse(tmp_path: Path) -> None:
    whole = beginning()
    move(whole, make_optimizer(whole, PLUS), range(8))
    for first, then in ((False, True), (True, False), (True, True)):
        parameters, optimizer = in_a_buffer(PLUS) if first else (beginning(), None)
        optimizer = optimizer or make_optimizer(parameters, PLUS)
        move(parameters, optimizer, range(4))
        state = State(
            position=Position(step=4),
            parameters=dict(parameters),
            moments=optimizer_moments(optimizer, parameters),
            ema=None,
            alphas={},
            family="sd15",
            numbers=optimizer_numbers(optimizer, parameters, "adamw"),
        )
        write_state(tmp_path / "state.safetensors", state)
        state = read_state(tmp_path / "state.safetensors")

        later, optimizer = in_a_buffer(PLUS) if then else (beginning(), None)
        optimizer = optimizer or make_optimizer(later, PLUS)
        with torch.no_grad():
            for name, parameter in later.items():
                parameter.copy_(state.parameters[name])
        restore_moments(optimizer, later, state.moments, state.numbers)
        move(later, optimizer, range(4, 8))

        assert all(torch.equal(later[name], tensor) for name, tensor in whole.items()), (first, then)


def test_gradients_of_several_passes_add_up_as_autograd_adds_them() -> None:
    separate, ours = beginning(), beginning()
    flat = in_one_buffer(ours, PLUS)
    gradients = FlatGradients(flat)
    for step in range(3):
        for name in SHAPES:
            gradient = gradient_of(name, step)
            if gradient is not None:
                before = separate[name].grad
                separate[name].grad = gradient.clone() if before is None else before + gradient
            ours[name].grad = gradient
        gradients.collect()
        assert all(parameter.grad is None for parameter in ours.values())
    flat.hand_out()

    for name, parameter in separate.items():
        given = ours[name].grad
        assert given is not None
        assert parameter.grad is not None
        assert torch.equal(given, parameter.grad)
        assert flat.gradient is not None
        assert given.untyped_storage().data_ptr() == flat.gradient.untyped_storage().data_ptr()
    expected = torch.stack([each.grad.norm() for each in separate.values() if each.grad is not None]).norm()
    torch.testing.assert_close(flat.norm(), expected, rtol=1e-6, atol=0)
    gradients.clear()
    assert flat.gradient is None
    assert all(parameter.grad is None for parameter in ours.values())


def test_a_whole_adapter_is_moved_by_one_call_for_each_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    ours, optimizer = in_a_buffer(PLUS)
    real = FlatAdamW._move

    def counted(self: FlatAdamW, first: int, last: int, *rest: object) -> None:
        moved.append(last - first + 1)
        real(self, first, last, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FlatAdamW, "_move", counted)
    move(ours, optimizer, range(1))

    assert moved == [3, 3, 1, 1]  # inner and outer halves, of the UNet and of the text encoder


def test_the_running_mean_of_a_buffer_is_that_of_its_tensors() -> None:
    separate = beginning()
    mean = start(separate)
    ours = beginning()
    flat = Flat(list(ours.values()))
    together = running_mean(ours, flat=flat)

    for done in range(1, 4):
        with torch.no_grad():
            for name in SHAPES:
                separate[name].mul_(1.5)
                ours[name].mul_(1.5)
        update(mean, separate, decay=0.9, steps_done=done)
        together.update(decay=0.9, steps_done=done)

    assert len(together.moving) == 1
    assert all(torch.equal(together.tensors[name], tensor) for name, tensor in mean.items())
