"""The state file: everything comes back, and a damaged one is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from brushwork.errors import UserError
from brushwork.training.checkpoint import (
    Lowest,
    Position,
    State,
    optimizer_moments,
    read_state,
    restore_moments,
    write_state,
)
from brushwork.training.loss_scale import LossScale


def state_after_some_steps() -> tuple[State, torch.optim.AdamW, dict[str, torch.nn.Parameter]]:
    torch.manual_seed(0)
    parameters = {name: torch.nn.Parameter(torch.randn(3, 2)) for name in ("unet.a.down", "unet.a.up")}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(3):
        for parameter in parameters.values():
            parameter.grad = torch.randn(3, 2)
        optimizer.step()
    position = Position(
        step=3,
        loss_scale=LossScale(512.0, 2, 1),
        loss_sum=0.1 + 0.2,
        loss_weight=1 / 3,
        lowest=Lowest(loss=0.1, step=2, held_out=True),
    )
    tensors = {name: parameter.detach() for name, parameter in parameters.items()}
    state = State(
        position=position,
        parameters=tensors,
        moments=optimizer_moments(optimizer, parameters),
        ema={name: tensor * 2 for name, tensor in tensors.items()},
        alphas={"unet.a": 4.0},
        family="sdxl",
    )
    return state, optimizer, parameters


def assert_same_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state, _, _ = state_after_some_steps()

    write_state(tmp_path / "state.safetensors", state)
    again = read_state(tmp_path / "state.safetensors")

    assert again.position == state.position
    assert (again.alphas, again.family) == (state.alphas, state.family)
    assert_same_tensors(again.parameters, state.parameters)
    assert_same_tensors(again.ema or {}, state.ema or {})
    assert again.moments.keys() == state.moments.keys() == {"exp_avg", "exp_avg_sq", "step"}
    for kind, values in state.moments.items():
        assert_same_tensors(again.moments[kind], values)


def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    state, optimizer, parameters = state_after_some_steps()
    write_state(tmp_path / "state.safetensors", state)
    again = read_state(tmp_path / "state.safetensors")
    copies = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in again.parameters.items()}
    other = torch.optim.AdamW(copies.values(), lr=0.1)
    restore_moments(other, copies, again.moments)

    for each in (parameters, copies):
        for number, parameter in enumerate(each.values()):
            parameter.grad = torch.full((3, 2), 0.5 + number)
    optimizer.step()
    other.step()

    for name, parameter in parameters.items():
        assert torch.equal(parameter, copies[name]), name


def test_the_bytes_depend_on_the_state_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_state(tmp_path / name, state_after_some_steps()[0])

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
def test_a_damaged_state_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, state_after_some_steps()[0])
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(UserError, match=r"state\.safetensors cannot be read as the state of a run"):
        read_state(path)


def test_a_flipped_bit_anywhere_in_a_state_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state = state_after_some_steps()[0]
    write_state(path, state)
    whole = path.read_bytes()
    damaged = 0

    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            again = read_state(path)
        except UserError as error:
            damaged += "is damaged: its checksum does not fit" in str(error)
        else:
            assert (again.position, again.alphas, again.numbers) == (state.position, state.alphas, state.numbers)
            assert_same_tensors(again.parameters, state.parameters)

    assert damaged > 300


def test_a_damaged_state_says_what_is_left_to_go_on_from(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, state_after_some_steps()[0])
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)

    with pytest.raises(UserError, match=r"state\.safetensors is damaged.*\n  fix: .*--set lora.begin_with=FILE"):
        read_state(path)


def test_a_state_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state = state_after_some_steps()[0]
    write_state(path, state)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["brushwork_state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del about["checksum"]
    save_file(tensors, path, metadata={"brushwork_state": json.dumps(about)})

    assert_same_tensors(read_state(path).parameters, state.parameters)


def test_another_safetensors_file_is_not_taken_for_a_state(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")

    with pytest.raises(UserError, match="is not the state of a run"):
        read_state(tmp_path / "lora.safetensors")
