"""What can be asked of an adapter's training beyond its plain form: each does what it says, also across a stop."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import quick_runs
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.lora.files import read_adapter
from brushwork.training.checkpoint import State, read_state
from brushwork.training.loop import Loop
from brushwork.training.run import RunResult

QUICK = {
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.max_steps": "3",
    "train.precision": "fp32",
    "data.resolution": "64",
    "lora.rank": "2",
    "lora.targets": "attention",
    "optimizer.learning_rate": "1e-3",
    "schedule.name": "constant",
}

UNREACHED = "lora_te1_text_model_encoder_layers_2_"
"""SDXL reads the penultimate states of its first text encoder: nothing reaches the last of its layers."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "pictures"
    draw_folder(folder, count=4, size=96, seed=5)
    return folder


run = partial(quick_runs.run, QUICK)


def state(result: RunResult) -> State:
    return read_state(result.folder / "state" / "state.safetensors")


def told(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def stopped_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the next run end as if Ctrl-C had been typed in that step."""
    after_step = Loop._after_step

    def stop(self: Loop, row: dict[str, object]) -> None:
        after_step(self, row)
        if self.position.step == steps:
            self.interruption.agree()

    monkeypatch.setattr(Loop, "_after_step", stop)


def test_dropouts_norms_and_stopped_encoders_go_on_exactly_after_a_stop(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "lora__text_encoder": "true",
        "lora__rank_dropout": "0.3",
        "lora__module_dropout": "0.3",
        "lora__scale_weight_norms": "0.001",
        "lora__rslora": "true",
        "optimizer__lora_plus_ratio": "4",
        "train__stop_text_encoder_after": "1 epochs",
        "train__max_steps": "4",
    }
    whole = run(pictures, tmp_path / "whole", **asked)
    with monkeypatch.context() as patched:
        stopped_after(patched, 1)
        assert not run(pictures, tmp_path / "parts", **asked).finished
    parts = run(pictures, tmp_path / "parts", **asked)

    assert whole.adapter is not None
    assert parts.adapter is not None
    one, other = load_file(whole.adapter), load_file(parts.adapter)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    metadata = told(whole.adapter)
    assert json.loads(metadata["ss_network_args"]) == {
        "rank_dropout": "0.3", "module_dropout": "0.3", "loraplus_lr_ratio": "4",
    }  # fmt: skip
    assert metadata["ss_scale_weight_norms"] == "0.001"
    assert float(metadata["ss_network_alpha"]) == pytest.approx(2 * 2**0.5)  # what makes alpha / rank what it was


def test_text_encoders_stand_still_from_where_they_are_told_to(pictures: Path, tmp_path: Path) -> None:
    result = run(
        pictures, tmp_path / "run", lora__text_encoder="true", lora__dropout="0.2", train__max_steps="3",
        train__stop_text_encoder_after="2", save__every_steps="1", save__precision="fp32",
    )  # fmt: skip

    names = ("lora-step00000001.safetensors", "lora-step00000002.safetensors", "lora.safetensors")
    files = [load_file(result.folder / name) for name in names]
    text = [name for name in files[0] if name.startswith("lora_te") and name.endswith("lora_up.weight")]
    text = [name for name in text if not name.startswith(UNREACHED)]
    unet = [name for name in files[0] if name.startswith("lora_unet") and name.endswith("lora_up.weight")]
    assert [name for name in text if torch.equal(files[0][name], files[1][name])] == []
    assert [name for name in text if not torch.equal(files[1][name], files[2][name])] == []
    assert [name for name in unet if torch.equal(files[1][name], files[2][name])] == []


def test_text_encoders_can_learn_alone(pictures: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "run", lora__text_encoder="only", optimizer__text_encoder_learning_rate="1e-2")

    assert result.adapter is not None
    adapter = read_adapter(result.adapter)
    assert {name.partition(".")[0] for name in adapter.state} == {"text_encoder", "text_encoder_2"}
    unmoved = {name for name, weights in adapter.state.items() if not weights.up.any()}
    assert len(unmoved) == 3
    assert all("text_encoder.text_model.encoder.layers.2." in name for name in unmoved)
    metadata = told(result.adapter)
    assert (metadata["ss_unet_lr"], metadata["ss_text_encoder_lr"]) == ("None", "0.01")


def test_each_part_learns_at_its_own_rate(pictures: Path, tmp_path: Path) -> None:
    rates = {"unet": 1e-3, "text_encoder": 2e-3, "text_encoder_2": 5e-3}
    result = run(
        pictures, tmp_path / "run", lora__text_encoder="true", train__max_steps="1", optimizer__weight_decay="0",
        optimizer__text_encoder_learning_rate="2e-3", optimizer__text_encoder_2_learning_rate="5e-3",
        optimizer__lora_plus_ratio="16", optimizer__eps="1e-30",
    )  # fmt: skip

    # AdamW's first step moves every number by the rate, whatever its gradient.
    for name, parameter in state(result).parameters.items():
        if name.endswith(".up"):
            wanted = torch.full_like(parameter, 16 * rates[name.partition(".")[0]])
            torch.testing.assert_close(parameter[parameter != 0].abs(), wanted[parameter != 0], msg=name)
    assert result.adapter is not None
    assert told(result.adapter)["ss_text_encoder_lr"] == "[0.002, 0.005]"


def test_a_run_begins_with_the_weights_of_a_file(pictures: Path, tmp_path: Path) -> None:
    first = run(pictures, tmp_path / "first", lora__alpha="3")
    still = {"train__max_steps": "1", "optimizer__learning_rate": "1e-30", "save__precision": "fp32"}

    again = run(pictures, tmp_path / "again", lora__begin_with=str(first.folder), lora__alpha="3", **still)
    wider = run(
        pictures, tmp_path / "wider", lora__begin_with=str(first.adapter), lora__alpha="3",
        lora__targets="attention_out", **still,
    )  # fmt: skip
    as_it_is = run(
        pictures, tmp_path / "as", lora__begin_with=str(first.adapter), lora__as_in_file="true",
        lora__rank="8", lora__targets="kohya", **still,
    )  # fmt: skip

    assert first.adapter is not None
    begun = load_file(first.adapter)
    for result in (again, as_it_is):
        file = load_file(result.folder / "lora.safetensors")
        assert file.keys() == begun.keys()
        assert [name for name in file if not torch.equal(file[name], begun[name].float())] == []
        assert told(result.folder / "lora.safetensors")["ss_network_dim"] == "2"
        assert float(told(result.folder / "lora.safetensors")["ss_network_alpha"]) == 3
    file = load_file(wider.folder / "lora.safetensors")
    assert [name for name in begun if not torch.equal(file[name], begun[name].float())] == []
    new = [tensor for name, tensor in file.items() if name not in begun and "lora_up" in name]
    assert new
    assert max(tensor.abs().max() for tensor in new) < 1e-20  # untrained, but for the smallest of steps


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lora__rank": "4"}, "has rank 2 and alpha 2 in .*; these settings make it rank 4"),
        ({"lora__alpha": "1"}, "these settings make it rank 2 and alpha 1"),
        ({"lora__targets": "to_q"}, "teaches .*to_k, which these settings do not"),
        ({"lora__as_in_file": "true", "lora__text_encoder": "true"}, "lora.text_encoder = true says"),
        ({"train__mode": "full"}, "is an adapter, and train.mode = full trains the UNet itself"),
        ({"lora__begin_with": "nowhere.safetensors"}, "there is no LoRA nowhere.safetensors"),
        ({"lora__begin_with": "off", "lora__as_in_file": "true"}, "lora.as_in_file = true needs a file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_encoded(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], problem: str
) -> None:
    first = run(pictures, tmp_path / "first", train__max_steps="1")
    monkeypatch.setattr("brushwork.training.session._encode", lambda *_: pytest.fail("it was too late"))

    with pytest.raises(UserError, match=problem):
        run(pictures, tmp_path / "run", **{"lora__begin_with": str(first.adapter)} | changes)


def test_a_run_goes_on_without_the_file_that_it_began_with(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = run(pictures, tmp_path / "first", train__max_steps="1").adapter
    assert file is not None
    asked = {"lora__begin_with": str(file), "train__ema_decay": "0.9"}
    whole = run(pictures, tmp_path / "whole", **asked)
    with monkeypatch.context() as patched:
        stopped_after(patched, 1)
        run(pictures, tmp_path / "parts", **asked)
    file.unlink()
    run(pictures, tmp_path / "parts", **asked)

    for name in ("lora.safetensors", "lora-ema.safetensors"):
        one, other = load_file(whole.folder / name), load_file(tmp_path / "parts" / name)
        assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_a_batch_from_which_every_layer_is_left_out_moves_nothing(pictures: Path, tmp_path: Path) -> None:
    result = run(
        pictures, tmp_path / "run", lora__targets='["mid_block.attentions.0.proj_in"]', lora__module_dropout="0.9"
    )

    assert result.finished
    norms = [json.loads(line)["gradient_norm"] for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert 0.0 in norms


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train__stop_text_encoder_after": "3"}, "the text encoders do not learn at all"),
        ({"train__stop_text_encoder_after": "3", "lora__text_encoder": "only"}, "nothing else learns"),
        ({"schedule__decay_steps": "2"}, "schedule.name = constant never falls"),
    ],
)
def test_settings_without_effect_are_refused(
    pictures: Path, tmp_path: Path, changes: dict[str, str], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        run(pictures, tmp_path / "run", **changes)
