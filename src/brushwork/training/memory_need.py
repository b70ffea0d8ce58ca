"""What a step of a run needs of memory, part by part, and what would make it less: counted before anything is loaded.

The step itself is made on the meta device, with the run's network, adapter, policy and largest picture
(`memory/meter.py`): shapes without numbers, so it takes seconds, on any machine.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from brushwork.amounts import bytes_in_words
from brushwork.config.schema import LoRAConfig, Quantize, Settings, TrainConfig
from brushwork.data.transform import Size
from brushwork.lean.fused import planned_pointwise
from brushwork.lean.network import LeanUNet
from brushwork.memory.meter import Reading, metered
from brushwork.models.rounded import round_blocks, weight_bytes
from brushwork.models.spec import PIXELS_PER_LATENT, UNetSpec
from brushwork.models.streaming import units_of
from brushwork.models.unet import UNet
from brushwork.training.beginning import make_adapter
from brushwork.training.learner import blocks_ahead, network_over
from brushwork.training.passes import why_not
from brushwork.training.prepare import Preparation
from brushwork.training.space import bytes_per_weight
from brushwork.training.what_learns import count_what_learns

FEWER_BITS: tuple[Quantize, ...] = ("int8", "nf4")
"""Forms to advise, from the nearest to the base: fp8 takes as much as int8 and is four times as far from it."""

STREAMS = ("off", "weights", "all")

POLICIES = ("keep", "ff", "qkv+ff", "block")
"""Of the lean path, from the most memory to the least."""


_SAME_STEP = {
    name: TrainConfig.model_fields[name].default
    for name in ("epochs", "max_steps", "batch_size", "accumulation", "ema_decay", "ema_device", "seed", "device")
}
"""Settings that do not change what a micro-batch computes: a step is counted once for all of them."""


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of a step, and what the step computes.

    Args:
        base: the network's weights in the type of the computation.
        text: the text encoders, where they are asked in every step.
        learns: what learns, the optimizer's memory and the running mean.
        step: what the step keeps alive at most, gradients included.
        flops: of one micro-batch.
    """

    base: int
    text: int
    learns: int
    step: int
    flops: int

    @property
    def total(self) -> int:
        """All of it together, in bytes."""
        return self.base + self.text + self.learns + self.step

    @property
    def parts(self) -> list[tuple[str, int]]:
        """What is more than nothing, with its name."""
        named = [
            ("weights of the base", self.base),
            ("text encoders, without a step of theirs", self.text),
            ("what learns, with the optimizer", self.learns),
            ("one step at its peak", self.step),
        ]
        return [(name, size) for name, size in named if size]


@dataclass(frozen=True)
class Option:
    """A change of settings, with what the run would need then.

    Args:
        changes: settings to give, `key=value`; none where the run may stay as it is.
        time: operations of a weights' update, as a share of those of the run as it is.
    """

    changes: tuple[str, ...]
    need: Need
    time: float


def need_of(preparation: Preparation, settings: Settings | None = None) -> Need:
    """What a step needs with the run's settings, or with other ones."""
    settings = settings or preparation.settings
    base, itemsize = preparation.base, preparation.dtype.itemsize
    learning = sum(parameters for _, parameters in count_what_learns(preparation).values())
    text = 0
    if settings.cache.text == "off" or settings.lora.text_encoder:
        text = sum(part.num_parameters() for part in base.text_parts.values()) * itemsize
    reading = step_on_meta(
        base.spec,
        largest_size(preparation),
        batch=settings.train.batch_size,
        tokens=settings.model.max_tokens // 75 * 77,
        dtype=preparation.dtype,
        device=preparation.device.type,
        train=settings.train.model_copy(update=_SAME_STEP),
        lora=settings.lora,
        quantize=settings.model.quantize,
    )
    rounded = settings.train.mode == "full" and preparation.dtype != torch.float32
    gradient = 0 if rounded else 4  # what the step keeps: all of it, or that of the rounded copies beside it
    lean = _takes_lean(settings)
    if lean and preparation.dtype != torch.float32:
        gradient -= itemsize  # the copy that the lean path computes with
    if why_not(settings, preparation.device, lean=lean) is None and settings.train.cuda_graphs != "off":
        gradient -= 4  # the gradient has a place of its own
    return Need(
        base=kept_bytes(base.spec, preparation.dtype, settings.model.quantize, blocks_ahead(settings.train)),
        text=text,
        learns=round(learning * (bytes_per_weight(settings) - gradient)),
        step=reading.peak,
        flops=reading.flops,
    )


def memory_lines(need: Need, *, limit: int | None, command: str) -> list[tuple[str, str]]:
    """What the plan of a run says of memory: on a card all parts, elsewhere the sum.

    Args:
        limit: of the card, in bytes.
        command: what tells more.
    """
    total = bytes_in_words(need.total)
    if limit is None:
        return [("a step", f"about {total} at its peak; {command} tells of what, and what would need less")]
    return [
        *((name, bytes_in_words(size)) for name, size in need.parts),
        ("together", f"{total}; the run may take {bytes_in_words(limit)} of the card (train.memory_fraction)"),
    ]


def beside_measured(need: Need, measured: int) -> str:
    """What the first step took, beside what was planned."""
    share = measured / need.total - 1
    more = f"{abs(share):.0%} {'more' if share > 0 else 'less'} than planned"
    return f"the first step took {bytes_in_words(measured)} at its peak, {more} ({bytes_in_words(need.total)})"


def largest_size(preparation: Preparation) -> Size:
    """The frame with most pixels among those that are trained."""
    return max(
        (picture.placement.target for picture in preparation.pictures), key=lambda size: size.width * size.height
    )


@lru_cache(maxsize=64)
def step_on_meta(
    spec: UNetSpec,
    size: Size,
    *,
    batch: int,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    train: TrainConfig,
    lora: LoRAConfig,
    quantize: Quantize,
) -> Reading:
    """Count one micro-batch: prediction, loss, gradients."""
    with torch.device("meta"):
        unet = empty_unet(spec, dtype, quantize)
        learning = []
        if train.mode == "full":
            unet.requires_grad_(True)
        elif lora.text_encoder == "only":
            unet.requires_grad_(False)
        else:
            own = lora.model_copy(update={"text_encoder": False})
            learning = make_adapter({"unet": unet}, own, spec, seed=0).parameters()
        there = torch.device(device)
        network = network_over(unet, train, there, pointwise=planned_pointwise(train.fused, there))
        latents = torch.empty(
            batch, spec.in_channels, *(side // PIXELS_PER_LATENT for side in (size.height, size.width))
        )
        context = torch.empty(batch, tokens, spec.context_width, dtype=dtype, requires_grad=bool(lora.text_encoder))
        more = []
        if spec.pooled_width is not None:
            more = [torch.empty(batch, spec.pooled_width, dtype=dtype), torch.empty(batch, 6)]
        fused = network.weights if isinstance(network, LeanUNet) else []
        with metered([*unet.parameters(), *unet.buffers(), *fused, *learning, latents, context, *more]) as reading:
            found = network(latents.to(dtype), torch.empty(batch), context, *more)
            (found.float() - latents).square().mean().backward()
    return reading


def empty_unet(spec: UNetSpec, dtype: torch.dtype, quantize: Quantize) -> UNet:
    """The network without numbers, its weights kept as a run would keep them."""
    with torch.device("meta"):
        unet = UNet(spec).to(dtype)
        if quantize != "off":
            round_blocks(unet, quantize, dtype=dtype)
    return unet


@lru_cache(maxsize=16)
def kept_bytes(spec: UNetSpec, dtype: torch.dtype, quantize: Quantize, ahead: int | None) -> int:
    """What the base's weights take on the device while they are not computed with."""
    unet = empty_unet(spec, dtype, quantize)
    whole = sum(tensor.nbytes for tensor in (*unet.parameters(), *unet.buffers()))
    if ahead is None:
        return whole
    units = [sum(weight_bytes(layer) for layer in layers) for layers in units_of(unet)]
    return whole - sum(units) + max(units) * min(ahead + 1, len(units))


def options(preparation: Preparation) -> list[Option]:
    """Single changes that need less, the cheapest in time first; of equal ones, what saves most."""
    most = need_of(preparation).total
    found = [_option(preparation, changes, changed) for changes, changed in _changed(preparation)]
    useful = [option for option in found if option.need.total < most]
    return sorted(useful, key=lambda option: (round(option.time, 2), option.need.total))


def fitted(preparation: Preparation, limit: int) -> tuple[Option, bool]:
    """The least costly settings whose need is at most `limit` bytes, and whether there are any.

    The size of the pictures stays, and so does the number of pictures that an update is made of. Changes that cost no
    operations come first, then layers that are computed twice, then smaller batches; then weights in 8 bits, which
    change what is computed, weights that come and go, for which a card may wait, and weights in 4 bits. Where nothing
    fits, it is what needs least.
    """
    settings, given = preparation.settings, dict[str, str]()
    best = _option(preparation, [], settings)
    for wanted in ("free", "recompute", "batch", "int8", "stream", "nf4"):
        while best.need.total > limit:
            steps = [
                (_option(preparation, changes, changed), changed)
                for kind, changes, changed in _steps(settings, "cuda")  # it is a card that has a limit
                if kind == wanted
            ]
            useful = [step for step in steps if step[0].need.total < best.need.total]
            if not useful:
                break
            best, settings = useful[0]
            given |= dict(change.split("=", 1) for change in best.changes)
    return Option(
        tuple(f"{key}={value}" for key, value in given.items()), best.need, best.time
    ), best.need.total <= limit


def _option(preparation: Preparation, changes: list[str], settings: Settings) -> Option:
    now, need = need_of(preparation), need_of(preparation, settings)
    updates = settings.train.accumulation / preparation.settings.train.accumulation
    return Option(tuple(changes), need, need.flops * updates / now.flops)


def _changed(preparation: Preparation) -> Iterator[tuple[list[str], Settings]]:
    """Every single change, each policy among them."""
    settings = preparation.settings
    for kind, changes, changed in _steps(settings, preparation.device.type):
        if kind in ("free", "batch") or not _takes_lean(settings):
            yield changes, changed
    for policy in POLICIES[_policy(settings) + 1 :] if _takes_lean(settings) else ():
        yield [f"train.recompute={policy}"], _with(settings, "train", recompute=policy)
    for form in _fewer_bits(settings):
        yield [f"model.quantize={form}"], _with(settings, "model", quantize=form)
    if _takes_lean(settings) and preparation.device.type != "cpu":
        for way in STREAMS[STREAMS.index(settings.train.stream) + 1 :]:
            yield [f"train.stream={way}"], _with(settings, "train", stream=way)


def _steps(settings: Settings, device: str) -> Iterator[tuple[str, list[str], Settings]]:
    """One step further on each way: its kind, what to give, and the settings then."""
    train, optimizer = settings.train, settings.optimizer
    if optimizer.name == "adamw" and importlib.util.find_spec("bitsandbytes") is not None:
        yield "free", ["optimizer.name=adamw8bit"], _with(settings, "optimizer", name="adamw8bit")
    if train.ema_decay is not None and train.ema_device == "auto" and device != "cpu":
        yield "free", ["train.ema_device=cpu"], _with(settings, "train", ema_device="cpu")
    if settings.cache.text == "off" and not settings.lora.text_encoder:
        yield "free", ["cache.text=on"], _with(settings, "cache", text="on")
    if _takes_lean(settings):
        for policy in POLICIES[_policy(settings) + 1 :][:1]:
            yield "recompute", [f"train.recompute={policy}"], _with(settings, "train", recompute=policy)
    elif not train.checkpointing:
        yield "recompute", ["train.checkpointing=true"], _with(settings, "train", checkpointing=True)
    if _takes_lean(settings):
        for form in _fewer_bits(settings)[:1]:
            yield form, [f"model.quantize={form}"], _with(settings, "model", quantize=form)
        for way in STREAMS[STREAMS.index(settings.train.stream) + 1 :][:1] if device != "cpu" else ():
            yield "stream", [f"train.stream={way}"], _with(settings, "train", stream=way)
    if train.batch_size % 2 == 0:
        half = {"batch_size": train.batch_size // 2, "accumulation": train.accumulation * 2}
        yield "batch", [f"train.{key}={value}" for key, value in half.items()], _with(settings, "train", **half)


def _fewer_bits(settings: Settings) -> tuple[Quantize, ...]:
    """Forms of fewer bits than the run's own; fp8 takes as many as int8. Codes of 4 bit are not multiplied."""
    if not _takes_lean(settings):
        return ()
    fewer = FEWER_BITS[{"off": 0, "int8": 1, "fp8": 1, "nf4": 2}[settings.model.quantize] :]
    return fewer if settings.train.compute == "dense" else ()


def _takes_lean(settings: Settings) -> bool:
    train = settings.train
    return train.mode == "lora" and train.path != "plain" and not train.compile


def _policy(settings: Settings) -> int:
    """Where the run's own policy stands in `POLICIES`."""
    train = settings.train
    if train.recompute != "auto":
        return POLICIES.index(train.recompute)
    return POLICIES.index("block" if train.checkpointing else "keep")


def _with(settings: Settings, section: str, **values: Any) -> Settings:
    changed = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: changed})
