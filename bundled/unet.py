"""Stage 3: the UNet learns to draw, by Brushwork's own trainer.

python -m bundled.unet --vae A --clip B --out OUT --minutes 60

OUT/data/    frames with captions, drawn first
OUT/base/    the base of stages 1 and 2 with a UNet that knows nothing
OUT/run/     the run of the trainer, with its log and its curve
OUT/unet/    the UNet as it stands (its running mean, fp16), written whenever the stage stops
"""

import argparse
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch.nn.attention import SDPBackend, sdpa_kernel

from brushwork.atomic import PARTIAL_SUFFIX
from brushwork.errors import UserError
from brushwork.runtime import pick_device
from brushwork.training.checkpoint import read_state
from brushwork.training.run import train
from bundled.assemble import WEIGHTS, untrained_unet, write_model, write_unet
from bundled.frames import PART, write_folder
from bundled.stage import run_script

NAME = "tiny"


def run_settings(given: argparse.Namespace) -> list[str]:
    """The settings of the run, where they are not the defaults."""
    cache = (given.cache or given.out / "cache").resolve()
    return [
        f"name='{NAME}'",
        f"model.base='{(given.out / 'base').resolve()}'",
        "train.mode='full'",
        "train.epochs='off'",
        f"train.max_steps={given.steps}",
        f"train.batch_size={given.batch}",
        "train.checkpointing=false",
        f"train.ema_decay={given.ema_decay}",
        f"train.seed={given.seed}",
        f"train.device='{given.device}'",
        f"train.precision='{given.precision}'",
        f"data.resolution={given.size}",
        "data.caption_dropout=0.1",
        f"optimizer.name='{given.optimizer}'",
        f"optimizer.learning_rate={given.learning_rate}",
        f"schedule.name='{given.schedule}'",
        f"schedule.warmup_steps={min(500, given.steps // 10)}",
        "loss.min_snr_gamma=5.0",
        "save.every_epochs='off'",
        f"save.every_minutes={given.save_minutes}",
        f"cache.folder='{cache}'",
        f"cache.text='{given.cache_text}'",
        "cache.vae_batch_size=64",
    ]


@contextmanager
def ended_after(minutes: float) -> Iterator[None]:
    """Ask this process to end its run when the time is up, as Ctrl-C would: it finishes its step and saves."""
    timer = threading.Timer(60 * minutes, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def attention_for(device: str) -> AbstractContextManager[None]:
    """On a CPU, plain attention: of so few tokens a step in bf16 takes 23 ms a picture, with the fused kernel 30."""
    if pick_device(device).type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def run(given: argparse.Namespace, *, part: int = PART) -> int:
    """Draw, train until the run or the time is over, and write the UNet; -> the steps that are done."""
    data, base = given.out / "data", given.out / "base"
    write_folder(data, num_frames=given.frames, size=given.size, workers=given.workers, part=part)
    if left := [entry.name for entry in data.iterdir() if entry.name.endswith(PARTIAL_SUFFIX)]:
        raise UserError(f"{data} holds {left[0]}, which another process is writing.", fix="wait for it, or remove it")
    if not base.exists():
        begin_with = given.begin_with
        if begin_with is None:
            begin_with = given.out / "untrained"
            write_unet(begin_with, untrained_unet(given.seed))
        write_model(base, vae=given.vae, clip=given.clip, unet=begin_with)
    with ended_after(given.minutes), attention_for(given.device):
        result = train(data, out=given.out / "run", overrides=run_settings(given))
    state_file = given.out / "run" / "state" / "state.safetensors"
    if not state_file.exists():
        print("the time was over before the first step; what was prepared is kept")
        return 0
    state = read_state(state_file)
    assert state.ema is not None
    write_unet(given.out / "unet", {name.removeprefix("unet."): tensor for name, tensor in state.ema.items()})
    print(f"step {result.step} of {result.total_steps}: {given.out / 'unet' / WEIGHTS}")
    return result.step


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the UNet of the bundled model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="folder of stage 1")
    parser.add_argument("--clip", type=Path, required=True, help="folder of stage 2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stage; an earlier one is continued")
    parser.add_argument("--begin-with", type=Path, help="folder of a UNet to begin with, instead of an untrained one")
    parser.add_argument("--frames", type=int, default=20 * PART, help="how many to draw")
    parser.add_argument("--steps", type=int, default=30_000, help="of the whole stage")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training in this sitting")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--schedule", choices=["cosine", "constant"], default="cosine", help="of the learning rate")
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--size", type=int, default=128, help="side of the frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0: this one draws")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--cache", type=Path, help="by default OUT/cache; text states take 80 kB a caption in fp32")
    parser.add_argument(
        "--cache-text", choices=["on", "off"], default="on", help="off: ask the encoders in each step"
    )
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    run_script(main)
