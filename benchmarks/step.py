"""A training step here and in diffusers + PEFT: time, in turn in one process; memory and operations, on any machine.

    python -m benchmarks.step --model sdxl --resolution 512 --threads 1 --rounds 5 --out runs/step
    python -m benchmarks.step --model sdxl --resolution 512 768 1024 --count-only --out runs/step-counted
    python -m benchmarks.step --device cuda --resolution 512 1024 --batch 1 8 --kohya ../sd-scripts --out runs/card

Every step is a whole one: prediction from cached latents and text, mean squared error, backward, clipping, AdamW, for
an adapter of rank 16 on to_q, to_k, to_v and to_out.0. diffusers is run as its own script runs it: bf16 weights, fp32
adapter, autocast. Both read the same base weights from the same memory, random ones: speed does not depend on them.

    OUT/step.json     every time, peak and count, with versions and machine
    OUT/step.md       the tables
    OUT/step.png      time against memory for each mode and peer

Shapes in this file:  B pictures   h side of the latents
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from matplotlib.figure import Figure
from peft import LoraConfig
from torch import Tensor, nn

from benchmarks.kohya_step import NAMES as KOHYA
from benchmarks.kohya_step import commit_of, kohya_network
from brushwork.atomic import write_text
from brushwork.config.schema import OptimizerConfig
from brushwork.errors import UserError
from brushwork.lean.flat import Flat
from brushwork.lean.graph import CudaGraphs, Records
from brushwork.lean.network import POLICIES, LeanUNet
from brushwork.lora.inject import inject
from brushwork.memory.meter import metered
from brushwork.models.spec import SD15, SDXL, TINY, UNetSpec
from brushwork.models.unet import UNet
from brushwork.runtime import pick_device
from brushwork.training.flat_adamw import FlatAdamW
from brushwork.training.learner import named_parameters
from brushwork.training.optimizers import in_one_buffer
from bundled.stage import run_script

REDUCED = replace(
    SDXL, channels=(64, 128, 256), heads=(1, 2, 4), context_width=416, pooled_width=256, time_id_width=64
)
"""SDXL's blocks, each a fifth as wide: 103 M parameters."""

MODELS = {"sdxl": SDXL, "sd15": SD15, "reduced": REDUCED, "tiny": TINY}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 16
PEERS = ("diffusers", "diffusers, checkpointing")
OURS = ("plain", "plain, checkpointing", *POLICIES)
GRAPHS = tuple(f"{policy}, graph" for policy in POLICIES)
"""The same as CUDA graphs, on a card."""
WARM_UP = 1


@dataclass(frozen=True)
class Mode:
    """One way to make a step.

    Args:
        predict: the network, with the arguments of ours.
        learning: what the optimizer moves.
        prepare: called before each step of this mode, where modes share a network.
        flat: the buffer in which all of `learning` lies; the peers have none.
        known: weights of the network, which count for nothing where its memory is counted.
        graph: what replays the pass, where it is not made kernel by kernel.
    """

    name: str
    predict: Callable[..., Tensor]
    learning: Sequence[nn.Parameter]
    prepare: Callable[[], None] = lambda: None
    autocast: bool = False
    flat: Flat | None = None
    known: Sequence[Tensor] = ()
    graph: "Graph | None" = None


class Graph:
    """A mode's pass, recorded the first time and replayed from then on."""

    def __init__(self, mode: Mode, records: Records) -> None:
        assert mode.flat is not None
        self._mode, self._flat, self._records = mode, mode.flat, records
        self._replay: Callable[[], None] | None = None

    def __call__(self, given: Sequence[Tensor]) -> None:
        self._flat.keep_gradient()
        if self._replay is None:

            def call() -> Tensor:
                make_pass(self._mode, given)
                return given[0]  # nothing is read but the gradient

            _, self._replay = self._records.record(call)
            self._flat.clear()
        self._replay()
        self._flat.present = [True] * len(self._flat.parameters)


def our_unet(spec: UNetSpec, device: torch.device) -> UNet:
    """bf16 weights with small random numbers; on the meta device none."""
    with torch.device("meta"):
        unet = UNet(spec).bfloat16()
    if device.type == "meta":
        return unet
    unet.to_empty(device=device)
    source = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                bound = 1.0 / max(1, parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound, generator=source)
    return unet


def their_unet(spec: UNetSpec, ours: UNet) -> Any:
    """diffusers' network over the same weights, with PEFT's adapter in float32."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**{k: v for k, v in spec.to_config().items() if not k.startswith("_")})
    unet.load_state_dict(ours.state_dict(), strict=True, assign=True)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return unet.train()


def modes(spec: UNetSpec, device: torch.device, names: Sequence[str], checkout: Path | None = None) -> list[Mode]:
    """The ways that are asked for, over one set of weights; kohya's trainer, from a checkout, has its own."""
    found: list[Mode] = []
    if checkout is not None and set(names) & set(KOHYA):
        kohya, learns, switch = kohya_network(checkout, rank=RANK, device=device)
        switches = (switch.disable_gradient_checkpointing, switch.enable_gradient_checkpointing)
        for name, prepare in zip(KOHYA, switches, strict=True):
            found.append(Mode(name, kohya, learns, prepare, autocast=True, known=[*switch.parameters()]))
    ours = our_unet(spec, device)
    if set(names) & set(PEERS):
        theirs = their_unet(spec, ours)
        learning = [parameter for parameter in theirs.parameters() if parameter.requires_grad]

        def predict(latents: Tensor, timesteps: Tensor, context: Tensor, *more: Tensor) -> Tensor:
            added = {"added_cond_kwargs": {"text_embeds": more[0], "time_ids": more[1]}} if more else {}
            return theirs(latents, timesteps, context, return_dict=False, **added)[0]  # type: ignore[no-any-return]

        off, on = theirs.disable_gradient_checkpointing, theirs.enable_gradient_checkpointing
        for name, switch in zip(PEERS, (off, on), strict=True):
            found.append(Mode(name, predict, learning, switch, autocast=True, known=[*theirs.parameters()]))
    adapter = inject({"unet": ours}, targets=TARGETS, rank=RANK)
    own, flat = adapter.parameters(), in_one_buffer(named_parameters(adapter), OptimizerConfig())
    flat.round_to(torch.bfloat16)
    plain = (lambda: ours.set_checkpointing(False), lambda: ours.set_checkpointing(True))
    known = [*ours.parameters(), *flat.buffers]
    found += [
        Mode(name, ours, own, switch, flat=flat, known=known) for name, switch in zip(OURS[:2], plain, strict=True)
    ]
    if set(names) & {*POLICIES, *GRAPHS}:
        lean = LeanUNet(ours)
        found += [
            Mode(
                policy,
                lean,
                own,
                lambda policy=policy: lean.set_recompute(policy),  # type: ignore[misc]
                flat=flat,
                known=[*known, *lean.weights],
            )
            for policy in POLICIES
        ]
    if set(names) & set(GRAPHS):  # last, because from the first one on the gradient keeps its memory
        records = CudaGraphs()
        graphed = [mode for mode in found if mode.name in POLICIES]
        found += [replace(mode, name=f"{mode.name}, graph", graph=Graph(mode, records)) for mode in graphed]
    return [mode for mode in found if mode.name in names]


def inputs(spec: UNetSpec, resolution: int, batch: int, device: torch.device) -> list[Tensor]:
    """Latents (B, 4, h, h), timesteps, text and, for SDXL, pooled text and sizes."""
    side = resolution // 8

    def numbers(*shape: int) -> Tensor:
        source = None if device.type == "meta" else torch.Generator(device).manual_seed(1)
        return torch.randn(*shape, generator=source, device=device).bfloat16()

    given = [numbers(batch, 4, side, side), torch.full((batch,), 500, device=device)]
    given.append(numbers(batch, 77, spec.context_width))
    if spec.pooled_width is not None:
        sizes = [resolution, resolution, 0, 0, resolution, resolution]
        given += [numbers(batch, spec.pooled_width), torch.tensor([sizes] * batch, device=device).float()]
    return given


def make_pass(mode: Mode, given: Sequence[Tensor]) -> None:
    """Predict, compare, go back."""
    if mode.graph is not None:
        mode.graph(given)
        return
    cast = torch.autocast(given[0].device.type, torch.bfloat16) if mode.autocast else nullcontext()
    with cast:
        found = mode.predict(*given)
    F.mse_loss(found.float(), given[0].float()).backward()  # type: ignore[no-untyped-call]
    if mode.flat is not None:
        mode.flat.collect()


def optimizer_of(mode: Mode) -> torch.optim.Optimizer:
    """AdamW, over the buffer where there is one."""
    if mode.flat is None:
        return torch.optim.AdamW(mode.learning, lr=1e-4)
    return FlatAdamW([{"params": list(mode.learning)}], flat=mode.flat, lr=1e-4)


def make_update(mode: Mode, optimizer: torch.optim.Optimizer) -> None:
    """Clip, move what learns, clear."""
    if mode.flat is None:
        torch.nn.utils.clip_grad_norm_(mode.learning, 1.0)
        optimizer.step()
        for parameter in mode.learning:
            parameter.grad = None
        return
    assert mode.flat.gradient is not None
    mode.flat.gradient.mul_((1.0 / (mode.flat.norm() + 1e-6)).clamp(max=1.0))
    optimizer.step()
    mode.flat.clear()
    mode.flat.round_to(torch.bfloat16)


def count(mode: Mode, given: Sequence[Tensor]) -> dict[str, float]:
    """GiB beside the weights, TFLOP and calls of one pass; calls of all that follows it, for themselves."""
    mode.prepare()
    with metered([*mode.known, *given, *mode.learning]) as reading:
        make_pass(replace(mode, flat=None), given)
    with metered() as update:
        if mode.flat is not None:
            mode.flat.collect()
        make_update(mode, optimizer_of(mode))
    return {
        "peak_gib": reading.peak / 2**30,
        "tflop": reading.flops / 1e12,
        "calls": reading.calls,
        "update_calls": update.calls,
    }


def counted(spec: UNetSpec, resolution: int, batch: int, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """What each mode keeps and computes; autocast does nothing on the meta device, so the peers are left out."""
    device = torch.device("meta")
    found = {}
    for name in (name for name in names if name not in (*PEERS, *KOHYA, *GRAPHS)):
        (mode,) = modes(spec, device, [name])
        found[name] = count(mode, inputs(spec, resolution, batch, device))
        print(f"{resolution} px, batch {batch}, {name}: {found[name]}", flush=True)
    return found


def timed(
    spec: UNetSpec,
    resolution: int,
    batch: int,
    names: Sequence[str],
    *,
    device: torch.device,
    rounds: int,
    checkout: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Seconds of each step, the modes in turn, after one step of each that does not count.

    On a CPU they are processor seconds, which other work on the machine hardly changes; on a card those of the clock.
    """
    given = inputs(spec, resolution, batch, device)
    chosen = modes(spec, device, names, checkout)
    optimizers = {mode.name: optimizer_of(mode) for mode in chosen}
    found: dict[str, dict[str, Any]] = {mode.name: {"seconds": []} for mode in chosen}
    for number in range(WARM_UP + rounds):
        for mode in chosen:
            mode.prepare()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            if number == 0 and device.type == "cpu":  # what lives at once, by the same count for everybody
                found[mode.name]["peak_gib"] = count(mode, given)["peak_gib"]
                continue
            started = clock()
            make_pass(mode, given)
            make_update(mode, optimizers[mode.name])
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                found[mode.name]["peak_allocated_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
            seconds = clock() - started
            print(f"round {number}: {mode.name} {seconds:.3f} s", flush=True)
            if number >= WARM_UP:
                found[mode.name]["seconds"].append(seconds)
    for row in found.values():
        row["median_seconds"] = statistics.median(row["seconds"])
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = {package: version(package) for package in ("torch", "diffusers", "peft", "brushwork")}
    return {
        "device": device.type,
        "machine": name,
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        **packages,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each mode of each size, with how many times as fast as diffusers without and with
    checkpointing it is."""
    lines = [
        "| model | px | batch | mode | s a step | faster than diffusers | than with checkpointing | GiB | TFLOP "
        "| calls |"
    ]
    lines.append("| --- " * 10 + "|")
    for result in results:
        times = {name: row["median_seconds"] for name, row in result["timed"].items()}
        for name in dict.fromkeys([*result["timed"], *result["counted"]]):
            ratios = [
                f"{times[peer] / times[name]:.2f}x" if peer in times and name in times else "" for peer in PEERS
            ]
            counts = result["counted"].get(name, {})
            cells = [result["model"], result["resolution"], result["batch"], name]
            cells += [f"{times[name]:.2f}" if name in times else "", *ratios]
            gib = memory_of(result["timed"].get(name, {}), counts)
            cells += ["" if gib is None else f"{gib:.2f}", f"{counts['tflop']:.2f}" if counts else ""]
            cells.append(f"{counts['calls'] + counts['update_calls']}" if counts else "")
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def memory_of(timed: dict[str, Any], counts: dict[str, float]) -> float | None:
    """GiB: what a card allocated, the network's weights with it; elsewhere what lived at once beside the weights."""
    known = [timed.get("peak_allocated_gib"), counts.get("peak_gib"), timed.get("peak_gib")]
    return next((float(gib) for gib in known if gib is not None), None)


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds against memory, a panel for each size, a point for each mode. Left and low is good."""
    panels = [result for result in results if result["timed"]]
    figure = Figure(figsize=(6.0 * len(panels), 4.5), layout="constrained")
    for result, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for name, row in result["timed"].items():
            gib = memory_of(row, result["counted"].get(name, {}))
            if gib is not None:
                ours = name in OURS
                axes.plot(
                    gib, row["median_seconds"], "o" if ours else "s", color="tab:blue" if ours else "tab:orange"
                )
                axes.annotate(name, (gib, row["median_seconds"]), xytext=(5, 5), textcoords="offset points")
        axes.set(title=f"{result['model']}, {result['resolution']} px, batch {result['batch']}", xlabel="GiB")
        axes.set(ylabel="seconds a step", xlim=(0, None), ylim=(0, None))
        axes.margins(0.25)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare a training step with that of diffusers and PEFT."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="sdxl")
    parser.add_argument("--resolution", type=int, nargs="+", default=[512])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=[*PEERS, *OURS, *GRAPHS],
        help="by default the peers, keep, ff and block; on a card also as graphs",
    )
    parser.add_argument("--kohya", type=Path, help="a checkout of sd-scripts, which is then timed too (SDXL)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of a CPU; by default all cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--count-only", action="store_true", help="memory and operations alone, which needs no machine"
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device, spec = pick_device(given.device), MODELS[given.model]
    if given.kohya is not None and given.model != "sdxl":
        raise UserError("--kohya is for --model sdxl, which is the one network it has.", fix="--model sdxl")
    usual = ["keep", "ff", "block", *(GRAPHS if device.type == "cuda" else ())]
    chosen = [*(given.modes or [*PEERS, *usual]), *(KOHYA if given.kohya else ())]
    if device.type != "cuda" and set(chosen) & set(GRAPHS):
        raise UserError("graphs are for a CUDA card, and there is none here.", fix="leave them out of --modes")
    results = []
    for resolution in given.resolution:
        for batch in given.batch:
            result: dict[str, Any] = {"model": given.model, "resolution": resolution, "batch": batch, "timed": {}}
            result["counted"] = counted(spec, resolution, batch, chosen)
            if not given.count_only:
                result["timed"] = timed(
                    spec, resolution, batch, chosen, device=device, rounds=given.rounds, checkout=given.kohya
                )
            results.append(result)
    told = {**machine(device), **({"kohya": commit_of(given.kohya)} if given.kohya else {})}
    write_text(given.out / "step.json", json.dumps({**told, "results": results}, indent=1) + "\n")
    write_text(given.out / "step.md", table(results))
    if not given.count_only:
        draw(results, given.out / "step.png")
    print(table(results))


if __name__ == "__main__":
    run_script(main)
