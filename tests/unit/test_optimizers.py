"""Every rule by its name: it moves as its package does, and a continued run is the run that never stopped."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brushwork.config.load import resolve
from brushwork.config.schema import OptimizerConfig, Settings
from brushwork.errors import UserError
from brushwork.training import optimizers
from brushwork.training.checkpoint import (
    Position,
    State,
    optimizer_moments,
    optimizer_numbers,
    read_state,
    restore_moments,
    write_state,
)
from brushwork.training.optimizers import RULES, learning_rate, make_optimizer, refuse_unfit_optimizer, used_weights

RATES = {"prodigy": 1.0}
TOLD = {
    "adamw": {"amsgrad": True},
    "adamw8bit": {"min_8bit_size": 64},
    "paged_adamw8bit": {"min_8bit_size": 64},
    "lion8bit": {"min_8bit_size": 64},
    "paged_lion8bit": {"min_8bit_size": 64},
    "adafactor": {"beta1": 0.9, "scale_parameter": True, "eps": (1e-30, 1e-3)},
    "prodigy": {"d_coef": 2.0, "use_bias_correction": True, "slice_p": 3},
}
SHAPES = {
    "unet.a.down": (4, 300),
    "unet.a.up": (300, 4),
    "unet.b.down": (4, 16, 3, 3),
    "unet.b.up": (20, 4, 1, 1),
    "text_encoder.c.down": (4, 3),
    "text_encoder.c.up": (3, 4),
}


def config(name: str, **more: object) -> OptimizerConfig:
    return OptimizerConfig(
        name=name, learning_rate=RATES.get(name, 1e-2), arguments=TOLD.get(name, {}), lora_plus_ratio=None, **more
    )


def beginning() -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in SHAPES.items()}


def move(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Gradients that follow from the step alone; the text encoder's end at step 3, as when it is told to stop."""
    for step in steps:
        for place, (name, parameter) in enumerate(parameters.items()):
            source = torch.Generator().manual_seed(100 * step + place)
            gradient = 0.2 * torch.randn(parameter.shape, generator=source) + parameter.detach()
            parameter.grad = None if step >= 3 and name.startswith("text") else gradient
        for group in optimizer.param_groups:
            group["lr"] = group["base_rate"] * (1 - step / 10)
        optimizer.step()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_on_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    whole = beginning()
    move(whole, make_optimizer(whole, config(name)), range(6))

    first = beginning()
    optimizer = make_optimizer(first, config(name))
    move(first, optimizer, range(2))
    write_state(
        tmp_path / "state.safetensors",
        State(
            position=Position(),
            parameters=dict(first),
            moments=optimizer_moments(optimizer, first),
            ema=None,
            alphas={},
            family="sd15",
            numbers=optimizer_numbers(optimizer, first, name),
        ),
    )
    state = read_state(tmp_path / "state.safetensors")
    second = {parameter: nn.Parameter(state.parameters[parameter]) for parameter in SHAPES}
    again = make_optimizer(second, config(name))
    restore_moments(again, second, state.moments, state.numbers)
    move(second, again, range(2, 6))

    for parameter, tensor in whole.items():
        assert not torch.equal(tensor, beginning()[parameter])
        assert torch.equal(second[parameter], tensor), parameter


@pytest.mark.parametrize("name", RULES)
def test_whatever_a_rule_changes_in_a_group_is_remembered(name: str) -> None:
    parameters = beginning()
    optimizer = make_optimizer(parameters, config(name))
    before = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]

    move(parameters, optimizer, range(3))

    for old, group in zip(before, optimizer.param_groups, strict=True):
        changed = {key for key in group if key != "params" and group[key] != old.get(key)} - {"lr"}
        assert changed <= set(RULES[name].group_memory)
    told = {key for key in RULES[name].group_memory if key not in optimizer.param_groups[0]}
    assert not told


def test_the_rules_are_those_of_their_packages() -> None:
    import bitsandbytes
    import prodigyopt
    import schedulefree
    from transformers.optimization import Adafactor

    theirs = {
        "adamw8bit": lambda p: bitsandbytes.optim.AdamW8bit(p, 1e-2, weight_decay=0.1, min_8bit_size=64),
        "lion": lambda p: bitsandbytes.optim.Lion(p, 1e-2, weight_decay=0.1),
        "prodigy": lambda p: prodigyopt.Prodigy(
            p, 1.0, weight_decay=0.1, d_coef=2.0, use_bias_correction=True, slice_p=3
        ),
        "schedulefree": lambda p: schedulefree.AdamWScheduleFree(p, 1e-2, weight_decay=0.1),
        "adafactor": lambda p: Adafactor(
            p, 1e-2, weight_decay=0.1, beta1=0.9, relative_step=False, scale_parameter=True
        ),
    }
    for name, make in theirs.items():
        ours, reference = beginning(), beginning()
        move(ours, make_optimizer(ours, config(name, weight_decay=0.1)), range(3))
        rate = RATES.get(name, 1e-2)
        optimizer = make([{"params": list(reference.values()), "base_rate": rate}])
        if name == "schedulefree":
            optimizer.train()
        move(reference, optimizer, range(3))
        for parameter, tensor in reference.items():
            assert torch.equal(ours[parameter], tensor), (name, parameter)


def test_schedule_free_gives_out_the_mean_and_learns_on_where_it_was(tmp_path: Path) -> None:
    parameters = beginning()
    optimizer = make_optimizer(parameters, config("schedulefree"))
    move(parameters, optimizer, range(4))
    learning = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    state = State(
        position=Position(),
        parameters=dict(parameters),
        moments=optimizer_moments(optimizer, parameters),
        ema=None,
        alphas={},
        family="sd15",
        numbers=optimizer_numbers(optimizer, parameters, "schedulefree"),
    )
    write_state(tmp_path / "state", state)
    from_the_state = read_state(tmp_path / "state").used_parameters()

    with used_weights(optimizer, parameters):
        used = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    for name, parameter in parameters.items():
        assert torch.equal(parameter, learning[name])
        assert not torch.equal(used[name], learning[name])
        torch.testing.assert_close(from_the_state[name], used[name], rtol=1e-5, atol=1e-7)
        # y = (1 - beta_1) z + beta_1 x (arXiv:2405.15682, eq. 4)
        z = optimizer.state[parameter]["z"]
        torch.testing.assert_close(0.1 * z + 0.9 * used[name], learning[name], rtol=1e-5, atol=1e-6)
    move(parameters, optimizer, range(4, 5))  # it is in its training mode again


def test_other_rules_give_out_what_they_learn() -> None:
    parameters = beginning()
    optimizer = make_optimizer(parameters, config("adamw"))
    move(parameters, optimizer, range(2))
    pointers = [parameter.data_ptr() for parameter in parameters.values()]

    with used_weights(optimizer, parameters):
        assert [parameter.data_ptr() for parameter in parameters.values()] == pointers


def test_the_outer_halves_learn_faster_by_the_ratio_and_each_part_at_its_rate() -> None:
    settings = OptimizerConfig(
        learning_rate=1.0, text_encoder_learning_rate=0.5, text_encoder_2_learning_rate=0.25, lora_plus_ratio=16
    )
    names = ("unet.a", "text_encoder.a", "text_encoder_2.a")
    parameters = {f"{name}.{half}": nn.Parameter(torch.zeros(1)) for name in names for half in ("down", "up")}

    rates = {id(each): group["base_rate"] for group in optimizers.parameter_groups(parameters, settings)
             for each in group["params"]}  # fmt: skip

    assert {name: rates[id(parameter)] for name, parameter in parameters.items()} == {
        "unet.a.down": 1.0, "unet.a.up": 16.0, "text_encoder.a.down": 0.5, "text_encoder.a.up": 8.0,
        "text_encoder_2.a.down": 0.25, "text_encoder_2.a.up": 4.0,
    }  # fmt: skip


def test_the_rate_that_prodigy_found_is_told() -> None:
    parameters = beginning()
    optimizer = make_optimizer(parameters, config("prodigy"))
    assert learning_rate(optimizer) == pytest.approx(1e-6)

    move(parameters, optimizer, range(4))

    first = optimizer.param_groups[0]
    assert learning_rate(optimizer) == first["lr"] * first["d"]
    assert first["d"] > 2e-6


def settings(*overrides: str) -> Settings:
    return resolve(overrides=list(overrides)).settings


@pytest.mark.parametrize(
    ("overrides", "problem", "fix"),
    [
        (["optimizer.arguments.d_coeff=2", "optimizer.name=prodigy", "optimizer.learning_rate=1"],
         "prodigy has no such argument", "did you mean d_coef"),
        (["optimizer.arguments.weight_decay=2"], "it is optimizer.weight_decay", "take weight_decay out"),
        (["optimizer.arguments.relative_step=true", "optimizer.name=adafactor"], "the schedule alone", "take"),
        (["optimizer.arguments.amsgrad=true", "optimizer.name=muon"], "it has momentum", "take amsgrad out"),
        (["optimizer.arguments.d0=-1", "optimizer.name=prodigy", "optimizer.learning_rate=1"], "Invalid d0", "look"),
        (["optimizer.name=prodigy"], "next to nothing would be learned", "--set optimizer.learning_rate=1"),
        (["optimizer.name=prodigy", "optimizer.learning_rate=1", "optimizer.lora_plus_ratio=4"], "one rate", "off"),
        (["optimizer.name=prodigy", "optimizer.learning_rate=1", "optimizer.text_encoder_learning_rate=0.5",
          "lora.text_encoder=true"], "one rate", "off"),
        (["optimizer.name=schedulefree"], "schedule.name = cosine", "--set schedule.name=constant"),
        (["optimizer.name=schedulefree", "schedule.name=constant", "train.ema_decay=0.9"], "ema_decay", "off"),
        (["optimizer.name=lion", "optimizer.eps=1e-8"], "says nothing to lion", "--set optimizer.eps=off"),
        (["optimizer.lora_plus_ratio=4", "train.mode=full"], "has none", "--set optimizer.lora_plus_ratio=off"),
    ],
)  # fmt: skip
def test_what_a_rule_cannot_be_told_is_refused(overrides: list[str], problem: str, fix: str) -> None:
    with pytest.raises(UserError, match=problem) as told:
        refuse_unfit_optimizer(settings(*overrides))
    assert fix in (told.value.fix or "")


@pytest.mark.parametrize("name", ["adamw8bit", "prodigy", "schedulefree"])
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"optimizer.name = {name} needs the package") as told:
        make_optimizer(beginning(), OptimizerConfig(name=name))
    assert "pip install 'brushwork[optimizers]'" in (told.value.fix or "")
    assert ("optimizer.name=adamw" in (told.value.fix or "")) == (name == "adamw8bit")


def test_arguments_are_set_one_by_one_and_survive_being_written(tmp_path: Path) -> None:
    from brushwork.config.load import read_toml, to_toml

    file = tmp_path / "run.toml"
    file.write_text('[optimizer]\nname = "prodigy"\n[optimizer.arguments]\nd_coef = 0.5\nslice_p = 11\n')

    found = resolve(files=[file], overrides=["optimizer.arguments.d_coef=2", "optimizer.arguments.decouple=true"])

    assert found.settings.optimizer.arguments == {"d_coef": 2, "slice_p": 11, "decouple": True}
    (tmp_path / "again.toml").write_text(to_toml(found.settings, found.origins))
    assert read_toml(tmp_path / "again.toml") == found.settings


def test_eight_bit_memory_is_a_quarter_and_what_is_remembered_fits_the_plan() -> None:
    for name, rule in RULES.items():
        source = torch.Generator().manual_seed(0)
        parameters = {"unet.a.down": nn.Parameter(torch.randn(64, 512, generator=source))}
        optimizer = make_optimizer(parameters, OptimizerConfig(name=name, learning_rate=RATES.get(name, 1e-3)))
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        kept: list[Tensor] = [value for kind, values in optimizer_moments(optimizer, parameters).items()
                              for value in values.values() if kind != "step"]  # fmt: skip
        found = sum(value.nbytes for value in kept) / (64 * 512)
        assert found <= rule.bytes_per_weight * 1.05, name
        assert found >= rule.bytes_per_weight * 0.45, name  # Muon remembers half as much of matrices as of the rest
