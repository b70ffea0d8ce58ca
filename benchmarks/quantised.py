"""What a base in fewer bits costs: how far the network's answer moves at each noise level, and the loss of real runs.

    python -m benchmarks.quantised --out runs/quantised
    python -m benchmarks.quantised --base sdxl.safetensors --resolution 512 --steps 0 --out runs/quantised-sdxl

The answer to noisy latents is compared with that of the same base in bf16, as a share of its norm; for the bundled
base bf16's own distance from float32 stands beside it. The latents are those of frames of the drawn film, with their
captions, where the base is the bundled one; of another base they are random, and so is the text. The runs differ in
`model.quantize` and `train.compute` alone: the same pictures, noise and timesteps in every step. `int8 rounded` is
int8 with `train.compute=rounded`, whose products are those of the codes.

    OUT/quantised.json     every distance and loss, with versions and machine
    OUT/quantised.md       the tables
    OUT/distance.png       the distance over the timesteps
    OUT/loss.png           the loss over the steps, beside that of the base as it is
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.step import inputs, machine
from brushwork.atomic import write_text, written_beside
from brushwork.config.schema import Quantize
from brushwork.data.transform import Size, place, render
from brushwork.diffusion.noise import white_noise
from brushwork.diffusion.prediction import add_noise
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.film.frames import draw_folder, draw_frame
from brushwork.lean.network import LeanUNet
from brushwork.models.weights import BUNDLED, Base, open_base
from brushwork.records import read_rows
from brushwork.runtime import generator, pick_device, precision_name
from brushwork.training.run import train
from bundled.stage import run_script

FORMS = ("int8", "int8 rounded", "fp8", "fp8 rounded", "nf4")
LEVELS = (1, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
FRAMES = 4
SMOOTHED_OVER = 20
"""Steps whose mean is drawn."""

COLOURS = {"off": "#444444", "bf16": "#888888", "int8": "#2f5d8a", "fp8": "#b5482a", "nf4": "#2f8a6b"}
COLOURS |= {"int8 rounded": "#7fb0dd", "fp8 rounded": "#e59a80"}


@torch.no_grad()
def shown(base: Base, resolution: int) -> list[Tensor]:
    """Clean latents (B, 4, h, h), text and, for SDXL, pooled text and sizes, on the CPU."""
    if base.source != BUNDLED:
        latents, _, *text = inputs(base.spec, resolution, 1, torch.device("cpu"))
        return [latents.float(), *text]
    frames = [draw_frame(seed, resolution) for seed in range(FRAMES)]
    size = Size(resolution, resolution)
    vae = base.load_vae(dtype=torch.float32, device="cpu")
    mean, _ = vae.encode(torch.stack([render(image, place(size, size)) for image, _ in frames]))
    states = base.load_text(dtype=torch.float32, device="cpu").encode([words for _, words in frames])
    assert states.pooled is not None
    sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]] * FRAMES)
    return [mean * vae.scaling_factor, states.context, states.pooled, sizes.float()]


@torch.no_grad()
def answers(
    base: Base, form: str, given: Sequence[Tensor], dtype: torch.dtype, levels: Sequence[int]
) -> list[Tensor]:
    """The network's answer at each level, float32 on the CPU."""
    device = pick_device()
    quantize, compute = _settings(form)
    unet = replace(base, quantize=quantize).load_unet(dtype=dtype, device=device)
    network = LeanUNet(unet, in_codes=True) if compute == "rounded" else unet
    latents, context, *more = given
    noise = torch.cat([white_noise((1, *latents.shape[1:]), generator(n, "noise")) for n in range(len(latents))])
    text = [context.to(device, dtype), *(tensor.to(device) for tensor in more)]
    schedule, found = NoiseSchedule.scaled_linear(), []
    for level in levels:
        timesteps = torch.full((len(latents),), level)
        noisy = add_noise(latents, noise, *schedule.alpha_sigma(timesteps))
        found.append(network(noisy.to(device, dtype), timesteps.to(device), *text).float().cpu())
        print(f"{form}, {precision_name(dtype)}, timestep {level}", flush=True)
    return found


def _settings(form: str) -> tuple[Quantize, str]:
    """`model.quantize` and `train.compute`"""
    quantize, _, compute = form.partition(" ")
    return cast(Quantize, quantize), compute or "dense"


def distances(base: Base, resolution: int, levels: Sequence[int]) -> dict[str, list[float]]:
    """How far each form is from bf16 at each level; for the bundled base also how far bf16 is from float32."""
    given = shown(base, resolution)
    exact = answers(base, "off", given, torch.bfloat16, levels)
    found = {}
    if base.source == BUNDLED:
        found["bf16"] = _apart(exact, answers(base, "off", given, torch.float32, levels))
    for form in FORMS:
        found[form] = _apart(answers(base, form, given, torch.bfloat16, levels), exact)
    return found


def _apart(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, wanted, strict=True)]


def losses(out: Path, *, steps: int, resolution: int) -> dict[str, dict[str, Any]]:
    """The loss of each step of a run of the bundled base with each form, and what it comes to on held-out frames."""
    draw_folder(out / "frames", count=16, size=resolution, seed=100)
    draw_folder(out / "heldout", count=8, size=resolution, seed=900)
    found = {}
    for form in ("off", *FORMS):
        quantize, compute = _settings(form)
        settings = [f"model.quantize={quantize}", f"train.compute={compute}"]
        settings += [f"train.max_steps={steps}", "train.epochs=off", "lora.rank=8"]
        settings += ["optimizer.learning_rate=5e-4", f"data.resolution={resolution}", "save.every_epochs=off"]
        settings += [f"validation.data={(out / 'heldout').as_posix()}", "validation.every_epochs=off"]
        settings += [f"validation.every_steps={steps}"]
        train(out / "frames", out=out / _run(form), overrides=settings)
        rows = read_rows(out / _run(form) / "metrics.jsonl")
        found[form] = {
            "loss": [row["loss"] for row in rows],
            "held_out_loss": [row["held_out_loss"] for row in rows if row.get("held_out_loss") is not None][-1],
        }
    return found


def _run(form: str) -> str:
    """The folder of its run."""
    return f"run-{form.replace(' ', '-')}"


def tables(result: Mapping[str, Any]) -> str:
    """Markdown: distances, a row for each timestep; losses, a row for each form."""
    names = list(result["distances"])
    lines = ["| timestep | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for index, level in enumerate(result["levels"]):
        cells = [f"{result['distances'][name][index]:.2%}" for name in names]
        lines.append(f"| {level} | " + " | ".join(cells) + " |")
    if not result["losses"]:
        return "\n".join(lines) + "\n"
    plain = result["losses"]["off"]["loss"]
    lines += ["", "| base | loss, mean of all steps | furthest from `off` in a step | held out, at the end |"]
    lines += ["| --- | --- | --- | --- |"]
    for form, row in result["losses"].items():
        furthest = max(abs(one / other - 1) for one, other in zip(row["loss"], plain, strict=True))
        mean = sum(row["loss"]) / len(plain)
        lines.append(f"| {form} | {mean:.5f} | {furthest:.2%} | {row['held_out_loss']:.5f} |")
    return "\n".join(lines) + "\n"


def draw(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], *, across: str, up: str, log: bool) -> None:
    """One picture with a line for each."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), color=COLOURS[name], linewidth=1.4, label=name)
    if log:
        axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#eeeeee")
    axes.legend(frameon=False)
    with written_beside(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def smoothed(values: Sequence[float]) -> list[tuple[float, float]]:
    """The mean of the last steps at each."""
    width = min(SMOOTHED_OVER, len(values))
    return [(end, sum(values[end - width : end]) / width) for end in range(width, len(values) + 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what a base in fewer bits costs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--base", default=BUNDLED)
    parser.add_argument("--resolution", type=int, help="by default what the base was trained on")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS, help="timesteps")
    parser.add_argument("--steps", type=int, default=200, help="of each run of the bundled base; 0 makes none")
    parser.add_argument("--threads", type=int, help="of a CPU; by default all cores")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    base = open_base(given.base)
    resolution = given.resolution or base.spec.native_resolution
    result: dict[str, Any] = {
        **machine(pick_device()),
        "base": Path(base.source).name,
        "resolution": resolution,
        "levels": list(given.levels),
        "distances": distances(base, resolution, given.levels),
        "losses": losses(given.out, steps=given.steps, resolution=resolution) if given.steps else {},
    }
    write_text(given.out / "quantised.json", json.dumps(result, indent=1) + "\n")
    write_text(given.out / "quantised.md", tables(result))
    curves = {name: list(zip(given.levels, row, strict=True)) for name, row in result["distances"].items()}
    draw(given.out / "distance.png", curves, across="timestep", up="distance, share of the answer", log=True)
    if result["losses"]:
        plain = result["losses"]["off"]["loss"]
        curves = {  # the losses themselves lie on each other
            form: smoothed([one / other - 1 for one, other in zip(row["loss"], plain, strict=True)])
            for form, row in result["losses"].items()
        }
        label = f"loss beyond that of `off`, share of it, mean of {SMOOTHED_OVER} steps"
        draw(given.out / "loss.png", curves, across="step", up=label, log=False)
    print(tables(result))


if __name__ == "__main__":
    run_script(main)
