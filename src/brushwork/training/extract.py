"""`brushwork extract`: a file of weights alone from the state of a run, at the step where it stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.errors import UserError
from brushwork.lora import family
from brushwork.lora.files import WrittenLayout, write_adapter
from brushwork.run_files import STATE_FILE, is_run
from brushwork.runtime import PRECISIONS
from brushwork.tensor_file import read_tensors
from brushwork.training.checkpoint import read_state


@dataclass(frozen=True)
class Extracted:
    """What was written."""

    out: Path
    step: int
    num_modules: int
    ema: bool

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"out": str(self.out), "step": self.step, "modules": self.num_modules, "ema": self.ema}


def extract(
    state: str | Path,
    out: str | Path,
    *,
    layout: WrittenLayout = "kohya",
    precision: str = "fp16",
    ema: bool = False,
) -> Extracted:
    """Write the adapter that is in the state of a run.

    Args:
        state: a run folder, its `state` folder, or the state file.
        out: the file to write.
        layout: `kohya`, `diffusers` or `peft`.
        precision: `fp32`, `fp16` or `bf16`.
        ema: take the running mean of the weights instead of the weights.
    """
    file = find_state(Path(state))
    read = read_state(file)
    if not read.alphas:
        raise UserError(
            f"{file} is of a run that trained the whole UNet (train.mode = full), so there is no adapter in it.",
            fix="go on with `brushwork resume`; the next file that it writes holds the network",
        )
    if ema and read.ema is None:
        raise UserError(f"{file} holds no running mean; the run kept none.", fix="leave --ema away")
    adapter = read.adapter(read.ema if ema else read.used_parameters())
    modules: family.Modules = {name: {"down": each.down, "up": each.up} for name, each in adapter.items()}
    spec, _ = family.resolve(modules, spec=None, metadata={}, source=str(file))
    metadata = {**_told_by_the_run(file), "ss_steps": str(read.position.step)}
    write_adapter(Path(out), adapter, spec=spec, layout=layout, metadata=metadata, dtype=PRECISIONS[precision])
    return Extracted(Path(out), read.position.step, len(adapter), ema)


def find_state(path: Path) -> Path:
    """The state file of a run folder, of its `state` folder, or the file itself."""
    if path.is_file():
        return path
    for file in (path / STATE_FILE, path / STATE_FILE.name):
        if file.is_file():
            return file
    raise UserError(f"{path} holds no state of a run.", fix="name a run folder, or RUN/state/state.safetensors")


def _told_by_the_run(state_file: Path) -> dict[str, str]:
    """The metadata of the adapter file that the run wrote last; none where it has written no file yet."""
    run = state_file.resolve().parent.parent
    if not is_run(run):
        return {}
    files = sorted(run.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    return read_tensors(files[-1])[1] if files else {}
