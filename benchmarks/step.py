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

What is in OUT already is not measured again, so a call that was stopped goes on, and one that is given other modes or
sizes adds to it; with nothing to measure it draws table and picture anew.

Shapes in this file:  B pictures   h side of the latents
"""

import argparse
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.kohya_step import NAMES as KOHYA
from benchmarks.kohya_step import commit_of, kohya_network
from benchmarks.step_report import PEERS, draw, table
from brushwork.atomic import write_text
from brushwork.config.schema import OptimizerConfig, Quantize
from brushwork.errors import UserError
from brushwork.lean.codes import CODES
from brushwork.lean.flat import Flat
from brushwork.lean.fused import choose_pointwise
from brushwork.lean.graph import CudaGraphs, Records
from brushwork.lean.network import POLICIES, LeanUNet, Recompute
from brushwork.lean.offload import Offload
from brushwork.lean.pointwise import Pointwise
from brushwork.lora.inject import inject
from brushwork.memory.meter import metered
from brushwork.models.rounded import can_round, room, round_blocks, store
from brushwork.models.spec import PIXELS_PER_LATENT, SD15, SDXL, TINY, UNetSpec
from brushwork.models.streaming import Streamer, stream_blocks
from brushwork.models.unet import UNet
from brushwork.runtime import is_out_of_memory, pick_device, release_memory
from brushwork.training.flat_adamw import FlatAdamW
from brushwork.training.learner import named_parameters
from brushwork.training.memory_need import kept_bytes
from brushwork.training.optimizers import in_one_buffer
from bundled.stage import run_script

REDUCED = replace(
    SDXL, channels=(64, 128, 256), heads=(1, 2, 4), context_width=416, pooled_width=256, time_id_width=64
)
"""SDXL's blocks, each a fifth as wide: 103 M parameters."""

TINY_SD15 = replace(TINY, linear_projection=False, pooled_width=None, time_id_width=None)
MODELS = {"sdxl": SDXL, "sd15": SD15, "reduced": REDUCED, "tiny": TINY, "tiny-sd15": TINY_SD15}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
RANK = 16
OURS = ("plain", "plain, checkpointing", *POLICIES)
GRAPHS = tuple(f"{policy}, graph" for policy in POLICIES)
"""The same as CUDA graphs, on a card."""


@dataclass(frozen=True)
class Low:
    """How a base that takes little memory is kept: in fewer bits (`nf4` has its convolutions in int8), or coming and
    going, with what is kept for the gradient; and whether 8 bit codes are multiplied as they are."""

    form: Quantize
    policy: Recompute = "block"
    streamed: bool = False
    in_codes: bool = False


LOW = {
    "int8, block": Low("int8"),
    "nf4, block": Low("nf4"),
    "block, streamed": Low("off", streamed=True),
    "int8 rounded, keep": Low("int8", "keep", in_codes=True),
    "fp8 rounded, keep": Low("fp8", "keep", in_codes=True),
}
"""Each has a network of its own."""

WHOLE = Low("off")
AHEAD = 1
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
        streamer: brings the weights, where they are not on the device.
    """

    name: str
    predict: Callable[..., Tensor]
    learning: Sequence[nn.Parameter]
    prepare: Callable[[], None] = lambda: None
    autocast: bool = False
    flat: Flat | None = None
    known: Sequence[Tensor] = ()
    graph: "Graph | None" = None
    streamer: Streamer | None = None


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


def our_unet(spec: UNetSpec, device: torch.device, form: Quantize = "off", *, streamed: bool = False) -> UNet:
    """bf16 weights with small random numbers, or what is kept of them in fewer bits; on the meta device none."""
    with torch.device("meta"):
        unet = UNet(spec).bfloat16()
        if device.type == "meta":
            if form != "off":
                round_blocks(unet, form, dtype=torch.bfloat16)
            return unet
    unet.to_empty(device=device)
    source = torch.Generator(device).manual_seed(0)
    for path, module in list(unet.named_modules()):
        fill(module, source)
        if (form != "off" or streamed) and can_round(path, module):  # one by one: no more than one is there twice
            weight = cast(nn.Linear, module).weight.detach().to("cpu" if streamed else device)
            stored = room(weight.shape, form, dtype=torch.bfloat16, device=weight.device)
            stored.fill(weight)
            store(module, stored)
    return unet


@torch.no_grad()
def fill(module: nn.Module, source: torch.Generator) -> None:
    """Give a layer's own weights random numbers; a norm changes nothing."""
    for name, parameter in module.named_parameters(recurse=False):
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            parameter.fill_(1.0 if name == "weight" else 0.0)
        else:
            bound = 1.0 / max(1, parameter[0].numel()) ** 0.5
            parameter.uniform_(-bound, bound, generator=source)


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
    if set(names) & {*PEERS, *OURS, *GRAPHS}:
        found += shared_modes(spec, device, names)
    found += [low_mode(spec, device, name) for name in LOW if name in names]
    return [mode for mode in found if mode.name in names]


def shared_modes(spec: UNetSpec, device: torch.device, names: Sequence[str]) -> list[Mode]:
    """diffusers' ways and ours, over one set of weights."""
    found: list[Mode] = []
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
    if not set(names) & {*OURS, *GRAPHS}:
        return found
    own, flat = adapted(ours)
    plain = (lambda: ours.set_checkpointing(False), lambda: ours.set_checkpointing(True))
    known = [*ours.parameters(), *flat.buffers]
    found += [
        Mode(name, ours, own, switch, flat=flat, known=known) for name, switch in zip(OURS[:2], plain, strict=True)
    ]
    if set(names) & {*POLICIES, *GRAPHS}:
        lean = LeanUNet(ours, pointwise=pointwise_of(ours, device))
        known = [*ours.parameters(), *flat.buffers, *lean.weights]
        found += [
            Mode(
                policy,
                lean,
                own,
                lambda policy=policy: lean.set_recompute(policy),  # type: ignore[misc]
                flat=flat,
                known=known,
            )
            for policy in POLICIES
        ]
    if set(names) & set(GRAPHS):  # last, because from the first one on the gradient keeps its memory
        records = CudaGraphs()
        graphed = [mode for mode in found if mode.name in POLICIES]
        found += [replace(mode, name=f"{mode.name}, graph", graph=Graph(mode, records)) for mode in graphed]
    return found


def low_mode(spec: UNetSpec, device: torch.device, name: str) -> Mode:
    """A way for a card with little memory."""
    low = LOW[name]
    unet = our_unet(spec, device, low.form, streamed=low.streamed)
    known = [*unet.parameters(), *([] if low.streamed else unet.buffers())]
    streamer = None
    if low.streamed and device.type != "meta":
        streamer = stream_blocks(unet, device=device, ahead=AHEAD)
        known += streamer.memories
    own, flat = adapted(unet)
    lean = LeanUNet(
        unet,
        low.policy,
        offload=Offload(device) if low.streamed else None,
        pointwise=pointwise_of(unet, device, low),
        in_codes=low.in_codes,
    )
    return Mode(name, lean, own, flat=flat, known=[*known, *flat.buffers, *lean.weights], streamer=streamer)


def pointwise_of(unet: UNet, device: torch.device, low: Low = WHOLE) -> Pointwise:
    """Kernels for norms and gates, as a run chooses them."""
    code = CODES[low.form] if low.in_codes else None
    return choose_pointwise("auto", unet, dtype=torch.bfloat16, device=device, code=code)


def adapted(unet: UNet) -> tuple[list[nn.Parameter], Flat]:
    """An adapter beside the network: what learns, and the buffer in which all of it lies."""
    adapter = inject({"unet": unet}, targets=TARGETS, rank=RANK)
    own, flat = adapter.parameters(), in_one_buffer(named_parameters(adapter), OptimizerConfig())
    flat.round_to(torch.bfloat16)
    return own, flat


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
    types = torch.autocast(given[0].device.type, torch.bfloat16) if mode.autocast else nullcontext()
    with types:
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
    """GiB beside the weights, TFLOP and calls of one pass; calls of all that follows it, for themselves; and GiB of
    what learns with its moments."""
    mode.prepare()
    with metered([*mode.known, *given, *mode.learning]) as reading:
        make_pass(replace(mode, flat=None), given)
    optimizer = optimizer_of(mode)
    with metered() as update:
        if mode.flat is not None:
            mode.flat.collect()
        make_update(mode, optimizer)
    return {
        "peak_gib": reading.peak / 2**30,
        "tflop": reading.flops / 1e12,
        "calls": reading.calls,
        "update_calls": update.calls,
        "learns_gib": held(learned(mode, optimizer)) / 2**30,
    }


def learned(mode: Mode, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What learns, its moments, and a gradient that has a place of its own."""
    moments = [each for state in optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
    flat = [] if mode.flat is None else [*mode.flat.buffers]
    if mode.flat is not None and mode.flat.gradient is not None:
        flat.append(mode.flat.gradient)
    return [*mode.learning, *flat, *moments]


def held(tensors: Sequence[Tensor]) -> int:
    """Bytes that tensors take, those that share memory once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def counted(spec: UNetSpec, resolution: int, batch: int, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """What each mode keeps and computes; autocast does nothing on the meta device, so the peers are left out."""
    device = torch.device("meta")
    found = {}
    for name in (name for name in names if name not in (*PEERS, *KOHYA, *GRAPHS)):
        (mode,) = modes(spec, device, [name])
        found[name] = count(mode, inputs(spec, resolution, batch, device))
        low = LOW.get(name, WHOLE)
        weights = kept_bytes(spec, torch.bfloat16, low.form, AHEAD if low.streamed else None)
        found[name]["held_gib"] = weights / 2**30 + found[name].pop("learns_gib")
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
    """Seconds of each step, the modes in turn, after one step of each that does not count; and what it takes.

    On a CPU they are processor seconds, which other work on the machine hardly changes; on a card those of the clock.
    Memory is what the mode holds all the time and, beside it, the most in a step: on a card what was allocated more
    than before, elsewhere what lived at once, by the same count for everybody.
    """
    given = inputs(spec, resolution, batch, device)
    chosen = modes(spec, device, names, checkout)
    optimizers = {mode.name: optimizer_of(mode) for mode in chosen}
    found: dict[str, dict[str, Any]] = {mode.name: {"seconds": [], "peak_gib": 0.0} for mode in chosen}
    for number in range(WARM_UP + rounds):
        for mode in [mode for mode in chosen if mode.name in found]:
            row = found[mode.name]
            if number == 0 and device.type == "cpu":
                row["peak_gib"] = _counted_here(mode, given, spec)
                continue
            taken = one_step_that_fits(mode, optimizers[mode.name], given)
            if taken is None:
                del found[mode.name]
                continue
            seconds, peak = taken
            if device.type == "cuda":
                row["peak_gib"] = max(row["peak_gib"], peak)  # that of a graph is when it is recorded
            print(f"round {number}: {mode.name} {seconds:.3f} s", flush=True)
            if number >= WARM_UP:
                row["seconds"].append(seconds)
    for mode in [mode for mode in chosen if mode.name in found]:
        row = found[mode.name]
        row["median_seconds"] = statistics.median(row["seconds"])
        if checkout is not None and mode.name in KOHYA:
            row["commit"] = commit_of(checkout)
        row["held_gib"] = held([*mode.known, *learned(mode, optimizers[mode.name])]) / 2**30
        if device.type == "cuda":
            row["kernels"] = kernels_of(lambda mode=mode: one_step(mode, optimizers[mode.name], given))  # type: ignore[misc]
            if len(chosen) == 1:  # else it holds those of the others too
                row["allocated_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def one_step_that_fits(
    mode: Mode, optimizer: torch.optim.Optimizer, given: Sequence[Tensor]
) -> tuple[float, float] | None:
    """See `one_step`; None where memory ran out, and nothing of the step is left."""
    try:
        return one_step(mode, optimizer, given)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    print(f"{mode.name} is left out: memory ran out", flush=True)  # the tensors in the error's traceback are gone
    for parameter in mode.learning:
        parameter.grad = None
    if mode.flat is not None:
        mode.flat.clear()
    release_memory(given[0].device)
    return None


def _counted_here(mode: Mode, given: Sequence[Tensor], spec: UNetSpec) -> float:
    """GiB of a step on a CPU, whose own memory is where a card's tensors would wait: that is not counted."""
    peak = count(mode, given)["peak_gib"]
    if mode.streamer is None:
        return peak
    side = given[0].shape[-1] * PIXELS_PER_LATENT
    return counted(spec, side, len(given[0]), [mode.name])[mode.name]["peak_gib"]


def one_step(mode: Mode, optimizer: torch.optim.Optimizer, given: Sequence[Tensor]) -> tuple[float, float]:
    """Seconds of a whole step; GiB that a card allocated in it at most, beside what there was before."""
    device, before = given[0].device, 0
    mode.prepare()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    started = clock()
    make_pass(mode, given)
    make_update(mode, optimizer)
    if device.type != "cuda":
        return clock() - started, 0.0
    torch.cuda.synchronize(device)
    seconds = clock() - started
    return seconds, (torch.cuda.max_memory_allocated(device) - before) / 2**30


def kernels_of(call: Callable[[], Any], activity: ProfilerActivity = ProfilerActivity.CUDA) -> int | None:
    """Kernels and copies that a card computes in a call; None where its profiler does not work."""
    kind = DeviceType.CUDA if activity == ProfilerActivity.CUDA else DeviceType.CPU
    try:
        with profile(activities=[activity], acc_events=True) as profiler:
            call()
        return sum(event.count for event in profiler.key_averages() if event.device_type == kind) or None
    except RuntimeError as error:
        print(f"kernels are not counted: {error}", flush=True)
        return None


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


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's words."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="sdxl")
    parser.add_argument("--resolution", type=int, nargs="+", default=[512])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=[*PEERS, *OURS, *GRAPHS, *LOW],
        help="by default the peers, keep, ff and block; on a card also as graphs, in fewer bits and streamed",
    )
    parser.add_argument("--kohya", type=Path, help="a checkout of sd-scripts, which is then timed too (SDXL)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of a CPU; by default all cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--count-only", action="store_true", help="memory and operations alone, which needs no machine"
    )
    parser.add_argument("--no-count", dest="count", action="store_false", help="only time, which a card is lent for")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare a training step with that of diffusers and PEFT."""
    given = parsed(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device, spec = pick_device(given.device), MODELS[given.model]
    if given.kohya is not None and given.model != "sdxl":
        raise UserError("--kohya is for --model sdxl, which is the one network it has.", fix="--model sdxl")
    usual = ["keep", "ff", "block", *((*GRAPHS, *LOW) if device.type == "cuda" else ())]
    chosen = [*(given.modes or [*PEERS, *usual]), *(KOHYA if given.kohya else ())]
    if device.type != "cuda" and set(chosen) & set(GRAPHS):
        raise UserError("graphs are for a CUDA card, and there is none here.", fix="leave them out of --modes")
    told, results = read_results(given.out, machine(device), count_only=given.count_only)
    for resolution in given.resolution:
        for batch in given.batch:
            result = result_of(results, given.model, resolution, batch)
            missing = [name for name in chosen if name not in result["counted"]] if given.count else []
            result["counted"] |= counted(spec, resolution, batch, missing)
            missing = [name for name in chosen if name not in result["timed"]]
            if missing and not given.count_only:
                result["timed"] |= timed(
                    spec, resolution, batch, missing, device=device, rounds=given.rounds, checkout=given.kohya
                )
            write_results(given.out, told, results)
    print(table(results))


def read_results(
    out: Path, told: dict[str, Any], *, count_only: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is in the folder already, and what it was measured on; counting needs no machine.

    Raises:
        UserError: it was measured with another machine or other versions.
    """
    try:
        found = json.loads((out / "step.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return told, []
    before, results = {key: value for key, value in found.items() if key != "results"}, list(found["results"])
    others = {key: before.get(key) for key in told if key != "date" and before.get(key) != told[key]}
    if count_only or not any(result["timed"] for result in results):
        return (before if count_only else told), results
    if others:
        words = ", ".join(f"{key} {value}, now {told[key]}" for key, value in others.items())
        raise UserError(f"{out / 'step.json'} was measured otherwise: {words}.", fix="name another --out")
    return before, results


def result_of(results: list[dict[str, Any]], model: str, resolution: int, batch: int) -> dict[str, Any]:
    """The place of a size among the results."""
    key: dict[str, Any] = {"model": model, "resolution": resolution, "batch": batch}
    for result in results:
        if all(result[name] == value for name, value in key.items()):
            return result
    results.append({**key, "timed": {}, "counted": {}})
    return results[-1]


def write_results(out: Path, told: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """JSON, table and picture."""
    write_text(out / "step.json", json.dumps({**told, "results": results}, indent=1) + "\n")
    write_text(out / "step.md", table(results))
    if any(result["timed"] for result in results):
        draw(results, out / "step.png")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("brushwork").setLevel(logging.INFO)  # tells which kernels are taken, and why not others
    run_script(main)
