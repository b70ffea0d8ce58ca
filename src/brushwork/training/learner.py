"""Puts together what computes and what learns: the UNet, an adapter beside it or all of it, the optimizer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from brushwork.config.schema import Settings, TrainConfig
from brushwork.errors import UserError
from brushwork.lean.attention import PYTORCH, Kernel
from brushwork.lean.codes import CODES, stays_dense
from brushwork.lean.flat import Flat
from brushwork.lean.fused import choose_pointwise
from brushwork.lean.network import LeanUNet
from brushwork.lean.offload import Offload
from brushwork.lean.pointwise import PLAIN, Pointwise
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import Adapter
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.norms import limit_norms
from brushwork.lora.state import AdapterState
from brushwork.models.assembly import Renamed
from brushwork.models.rewrite import write_base
from brushwork.models.rounded import is_rounded
from brushwork.models.text import TextEncoders, TextStates, joined
from brushwork.models.unet import UNet
from brushwork.models.weights import Base
from brushwork.runtime import PRECISIONS
from brushwork.training.attention import choose_attention, choose_kernel
from brushwork.training.beginning import begin, make_adapter
from brushwork.training.checkpoint import Position, State, optimizer_moments, optimizer_numbers, restore_moments
from brushwork.training.compiling import compile_blocks
from brushwork.training.ema import RunningMean, running_mean
from brushwork.training.gradients import FlatGradients, SeparateGradients
from brushwork.training.loop import Learner
from brushwork.training.optimizers import in_one_buffer, make_optimizer
from brushwork.training.passes import EagerPasses, make_passes
from brushwork.training.sharding import Shards, Whole
from brushwork.training.step import Network, Objective

logger = logging.getLogger("brushwork")

LEAN_DEVICES = ("cpu", "cuda")
"""Where PyTorch has every kernel that the lean path calls by name."""

Write = Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]
"""Makes of parameters (or their running mean) what other programs read: path, parameters by name, metadata."""


@dataclass(frozen=True)
class Learning:
    """What learns: an adapter or the whole network. All that differs between the two is here."""

    parameters: Mapping[str, nn.Parameter]
    """float32, by name."""
    copies: Mapping[str, nn.Parameter]
    """See `Learner.copies`."""
    set_dropout_key: Callable[[int | None], None]
    alphas: Mapping[str, float]
    """Alpha of each adapted module; empty where the whole network learns."""
    begin: Callable[[], None]
    """Gives the parameters what the run begins with, where that is more than nothing learned."""
    load: Callable[[State], None]
    """Takes the parameters of a saved state; raises a UserError where they have another shape."""
    limit_norms: Callable[[], None]
    """See `Learner.limit_norms`."""
    write: Write


@dataclass(frozen=True)
class Trained:
    """A learner with what is needed to save it and to go on."""

    learner: Learner
    learning: Learning
    rule: str
    """`optimizer.name`"""

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Everything that is kept of what learns, by kind and name: of a network in pieces, this process's."""
        learner = self.learner
        kinds: dict[str, Mapping[str, Tensor]] = {"parameter": learner.parameters}
        kinds |= optimizer_moments(learner.optimizer, learner.parameters)
        return kinds if learner.ema is None else kinds | {"ema": learner.ema.tensors}

    def whole(self) -> dict[str, Mapping[str, Tensor]]:
        """The same, whole; of a network in pieces, to be read inside `Shards.hand_over`."""
        shards, kinds = self.learner.shards, self.tensors()
        return kinds if shards is None else {kind: Whole(shards, kind, pieces) for kind, pieces in kinds.items()}

    def state(self, position: Position, family: str) -> State:
        """Everything that a later process needs to go on from `position`."""
        learner, moments = self.learner, self.whole()
        return State(
            position=position,
            parameters=moments.pop("parameter"),
            ema=moments.pop("ema", None),
            moments=moments,
            alphas=dict(self.learning.alphas),
            family=family,
            numbers=optimizer_numbers(learner.optimizer, learner.parameters, self.rule),
        )

    @torch.no_grad()
    def begin(self) -> None:
        """Stand where the first step begins."""
        self.learning.begin()
        self.learner.refresh_copies()
        if self.learner.ema is not None:
            for name, mean in self.learner.ema.tensors.items():
                mean.copy_(self.learner.parameters[name])

    def restore(self, state: State) -> None:
        """Take the weights, the optimizer's memory and the running mean of a saved state.

        Raises:
            UserError: the settings now make something of another shape.
        """
        learner = self.learner
        state = state if learner.shards is None else learner.shards.cut(state)
        self.learning.load(state)
        learner.refresh_copies()
        if learner.ema is not None:
            kept = state.ema or state.parameters  # the mean was switched on since: it begins here
            for name, mean in learner.ema.tensors.items():
                mean.copy_(kept[name])
        restore_moments(learner.optimizer, learner.parameters, state.moments, state.numbers)


def make_learner(
    unet: UNet,
    text: TextEncoders | None,
    base: Base,
    settings: Settings,
    *,
    objective: Objective,
    dtype: torch.dtype,
    device: torch.device,
    shards: Shards | None = None,
) -> Trained:
    """Choose what learns, and put an optimizer behind it.

    Args:
        text: the encoders where they are asked in every step; None where text states come from the cache.
        base: what `unet` was loaded from.
        shards: where this process holds a piece of `unet`.
    """
    full = settings.train.mode == "full"
    learning = whole_network(unet, base, settings, shards) if full else adapter_beside(unet, text, base, settings)
    flat = None if full else in_one_buffer(learning.parameters, settings.optimizer)
    pointwise: Pointwise = PLAIN
    lean = is_lean(unet, settings.train, device)
    if lean:
        code = CODES[settings.model.quantize] if settings.train.compute == "rounded" else None
        pointwise = choose_pointwise(settings.train.fused, unet, dtype=dtype, device=device, code=code)
    asked = settings.train.attention
    kernel = choose_kernel(asked, base.spec, dtype=dtype, device=device, lean=lean)
    network = network_over(unet, settings.train, device, pointwise=pointwise, kernel=kernel)
    if settings.train.compute == "rounded" and (dense := stays_dense(unet)):
        logger.info("%d Linears are of no width that is multiplied in 8 bit; they are spread out", dense)
    if settings.train.compile:
        compile_blocks(unet)
    separate = SeparateGradients(learning.parameters, learning.copies, shards, device)
    gradients = FlatGradients(flat) if flat else separate
    attention = choose_attention(asked, base.spec, dtype=dtype, device=device)
    eager = EagerPasses(network, objective, dtype, device, gradients, attention)
    learner = Learner(
        unet=unet,
        network=network,
        encode=TextEncoding(text, learns=bool(settings.lora.text_encoder)),
        parameters=learning.parameters,
        copies=learning.copies,
        shards=shards,
        flat=flat,
        gradients=gradients,
        passes=make_passes(eager, flat, settings),
        optimizer=make_optimizer(learning.parameters, settings.optimizer, flat),
        ema=start_mean(learning.parameters, settings.train, flat),
        set_dropout_key=learning.set_dropout_key,
        limit_norms=learning.limit_norms,
        objective=objective,
        dtype=dtype,
        device=device,
    )
    return Trained(learner=learner, learning=learning, rule=settings.optimizer.name)


def network_over(
    unet: UNet,
    train: TrainConfig,
    device: torch.device,
    *,
    pointwise: Pointwise = PLAIN,
    kernel: Kernel = PYTORCH,
) -> Network:
    """What computes the loss with the weights of `unet`; what learns is in place.

    Args:
        pointwise: how the lean path computes norms and gates.
        kernel: what computes attention on the lean path.
    """
    if not is_lean(unet, train, device):
        unet.set_checkpointing(train.checkpointing)
        return unet
    recompute = train.recompute
    if recompute == "auto":
        recompute = "block" if train.checkpointing else "keep"
    offload = Offload(device) if train.stream == "all" else None
    in_codes = train.compute == "rounded"
    return LeanUNet(unet, recompute, offload=offload, pointwise=pointwise, attention=kernel, in_codes=in_codes)


def is_lean(unet: UNet, train: TrainConfig, device: torch.device) -> bool:
    """Whether it is the lean path that computes the loss."""
    chosen = train.recompute != "auto" or device.type in LEAN_DEVICES or any(map(is_rounded, unet.modules()))
    return train.path == "lean" or (train.path == "auto" and train.mode == "lora" and chosen and not train.compile)


def blocks_ahead(train: TrainConfig) -> int | None:
    """How many blocks ahead of their use weights are fetched; None where they are on the device."""
    return None if train.stream == "off" else train.stream_ahead


def adapter_beside(unet: UNet, text: TextEncoders | None, base: Base, settings: Settings) -> Learning:
    """An untrained adapter beside the frozen base."""
    components: dict[str, nn.Module] = {"unet": unet}
    if settings.lora.text_encoder and text is not None:
        components |= text.modules
    adapter = make_adapter(components, settings.lora, base.spec, seed=settings.train.seed)
    alphas = {name: layer.alpha for name, layer in adapter.layers.items()}

    def write(path: Path, parameters: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        write_adapter(
            path,
            adapter_state(parameters, alphas),
            spec=base.spec,
            layout=settings.save.layout,
            metadata=metadata,
            dtype=PRECISIONS[settings.save.precision],
        )

    def limit() -> None:
        if settings.lora.scale_weight_norms is not None:
            limit_norms(adapter.layers.values(), largest=settings.lora.scale_weight_norms)

    return Learning(
        parameters=named_parameters(adapter),
        copies={},
        set_dropout_key=adapter.set_dropout_key,
        alphas=alphas,
        begin=lambda: begin(adapter, settings.lora, base.spec),
        load=lambda state: adapter.load(state.adapter()),
        limit_norms=limit,
        write=write,
    )


def whole_network(unet: UNet, base: Base, settings: Settings, shards: Shards | None) -> Learning:
    """Every weight of the UNet, or this process's rows of it. Where it computes in a shorter type, the weights that
    learn are float32 beside it."""
    unet.requires_grad_(True)
    own = {f"unet.{name}": parameter for name, parameter in unet.named_parameters()}
    parameters: Mapping[str, nn.Parameter] = own
    copies: Mapping[str, nn.Parameter] = {}
    if shards is not None:
        parameters = shards.parameters
    elif any(parameter.dtype != torch.float32 for parameter in own.values()):
        parameters = {name: nn.Parameter(parameter.detach().float()) for name, parameter in own.items()}
        copies = own

    def load(state: State) -> None:
        if {name: tensor.shape for name, tensor in state.parameters.items()} != {
            name: parameter.shape for name, parameter in parameters.items()
        }:
            raise UserError(
                f"the saved state holds {len(state.parameters)} tensors of another kind, not this UNet's weights.",
                fix="--set train.mode=lora, as the run was begun, or begin anew with another --out",
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state.parameters[name])

    def write(path: Path, parameters: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        tensors = Renamed(parameters, {name.removeprefix("unet."): name for name in parameters})
        write_base(base, tensors, path, dtype=PRECISIONS[settings.save.precision], told=metadata)

    return Learning(
        parameters=parameters,
        copies=copies,
        set_dropout_key=lambda key: None,
        alphas={},
        begin=lambda: None,
        load=load,
        limit_norms=lambda: None,
        write=write,
    )


def adapter_state(parameters: Mapping[str, Tensor], alphas: Mapping[str, float]) -> AdapterState:
    """Parameters by name, `unet.<path>.down` and `.up`, as an adapter in the canonical form, on the CPU."""
    return {
        name: LoRAWeights(
            down=parameters[f"{name}.down"].detach().cpu().clone(),
            up=parameters[f"{name}.up"].detach().cpu().clone(),
            alpha=alpha,
        )
        for name, alpha in alphas.items()
    }


def start_mean(
    parameters: Mapping[str, nn.Parameter], settings: TrainConfig, flat: Flat | None
) -> RunningMean | None:
    """The running mean before the first step, where one is asked for."""
    if settings.ema_decay is None:
        return None
    device = torch.device("cpu") if settings.ema_device == "cpu" else None
    return running_mean(parameters, flat=flat, device=device)


def named_parameters(adapter: Adapter) -> dict[str, nn.Parameter]:
    """Every weight of the adapter by its canonical name, `unet.<path>.down` and `.up`."""
    parameters = {}
    for name, layer in adapter.layers.items():
        parameters[f"{name}.down"] = layer.down
        parameters[f"{name}.up"] = layer.up
    return parameters


class TextEncoding:
    """Asks the encoders; keeps a gradient only where they learn."""

    def __init__(self, text: TextEncoders | None, *, learns: bool) -> None:
        self._text = text
        self._learns = learns

    def __call__(self, captions: Sequence[str]) -> TextStates:
        assert self._text is not None, "text states come from the cache"
        if self._learns:
            return self._text.encode(captions)
        # One at a time, as they are cached: the last bits of a caption's states depend on what shares its batch.
        with torch.no_grad():
            return joined([self._text.encode([caption]) for caption in captions])
