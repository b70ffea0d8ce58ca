"""Full fine-tuning: every weight of the UNet learns, and what comes out is a base like the one that went in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import quick_runs
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder
from brushwork.models.spec import TINY
from brushwork.models.weights import Base, open_base
from brushwork.training.checkpoint import read_state
from brushwork.training.feed import Loaded
from brushwork.training.loop import Loop
from brushwork.training.run import RunResult
from single_files import sdxl_file

QUICK = {
    "train.mode": "full",
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.max_steps": "3",
    "train.precision": "fp32",
    "data.resolution": "64",
    "optimizer.learning_rate": "1e-4",
    "save.precision": "fp32",
}


def run(folder: Path, name: str, **changes: str) -> RunResult:
    if not (folder / "data").exists():
        draw_folder(folder / "data", count=6, size=64, seed=5)
    return quick_runs.run(QUICK, folder / "data", folder / name, **changes)


def _fails_after_step(last: int) -> Callable[..., torch.Tensor]:
    real = Loop._losses

    def losses(self: Loop, step: int, microbatch: int, loaded: Loaded, where: slice, scale: float) -> torch.Tensor:
        if step >= last:
            raise RuntimeError("power cut")
        return real(self, step, microbatch, loaded, where, scale)

    return losses


def unet(base: Base) -> dict[str, torch.Tensor]:
    return dict(base.load_unet(dtype=torch.float32, device="cpu").state_dict())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_weight_learns_and_the_rest_of_the_base_stays(tmp_path: Path, precision: str) -> None:
    result = run(tmp_path, "run", train__precision=precision, train__accumulation="2", train__ema_decay="0.9")

    assert result.adapter == tmp_path / "run" / "lora"
    before, after = open_base("bundled"), open_base(str(result.adapter))
    old, new = unet(before), unet(after)
    assert [name for name in old if torch.equal(old[name], new[name])] == []
    assert (before.fingerprint("vae"), before.fingerprint("text")) == (
        after.fingerprint("vae"),
        after.fingerprint("text"),
    )
    state = read_state(tmp_path / "run" / "state" / "state.safetensors")
    assert {tensor.dtype for tensor in state.parameters.values()} == {torch.float32}
    for name, tensor in new.items():
        assert torch.equal(tensor, state.parameters[f"unet.{name}"]), name
    assert (tmp_path / "run" / "lora-ema" / "unet" / "config.json").exists()


def test_a_stopped_full_run_goes_on_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"train__max_steps": "4", "train__precision": "bf16", "save__every_steps": "2", "save__keep_last": "1"}
    whole = run(tmp_path, "whole", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_losses", _fails_after_step(2))
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path, "part", **changes)
    part = run(tmp_path, "part", **changes)

    assert whole.adapter is not None
    assert part.adapter is not None
    files = sorted(path.relative_to(whole.folder) for path in whole.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(part.folder) for path in part.folder.rglob("*") if path.is_file())
    weights = Path("unet") / "diffusion_pytorch_model.safetensors"
    ours, theirs = load_file(whole.adapter / weights), load_file(part.adapter / weights)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_single_file_becomes_a_single_file_with_the_same_keys(tmp_path: Path) -> None:
    source = tmp_path / "base.safetensors"
    parts = open_base("bundled").parts
    tensors = [dict(parts[name]) for name in ("unet", "vae", "text_encoder", "text_encoder_2")]
    save_file(sdxl_file(*tensors, TINY), source)
    result = run(tmp_path, "run", model__base=f"'{source}'")

    assert result.adapter == tmp_path / "run" / "lora.safetensors"
    old, new = load_file(source), load_file(result.adapter)
    assert old.keys() == new.keys()
    changed = {key for key in old if not torch.equal(old[key].float(), new[key].float())}
    assert changed == {key for key in old if key.startswith("model.diffusion_model.")}
    opened = open_base(str(result.adapter))
    state = read_state(tmp_path / "run" / "state" / "state.safetensors")
    for name, tensor in unet(opened).items():
        assert torch.equal(tensor, state.parameters[f"unet.{name}"]), name


def test_adapters_on_text_encoders_are_refused_beside_full_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.mode = full trains the UNet, and lora\.text_encoder = true"):
        run(tmp_path, "run", lora__text_encoder="true")


@pytest.mark.parametrize("text", ["on", "off"])
def test_a_dropped_caption_trains_as_an_empty_one(tmp_path: Path, text: str) -> None:
    dropped = run(tmp_path, "dropped", train__mode="lora", data__caption_dropout="1.0", cache__text=text)
    for caption in (tmp_path / "data").glob("*.txt"):
        caption.write_text("")
    empty = run(tmp_path, "empty", train__mode="lora", data__max_missing_captions="1.0", cache__text=text)

    losses = [
        [json.loads(line)["loss"] for line in (each.folder / "metrics.jsonl").read_text().splitlines()]
        for each in (dropped, empty)
    ]
    assert losses[0] == losses[1]
