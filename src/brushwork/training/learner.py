"""Puts together what computes and what learns: the UNet, an adapter beside it or all of it, the optimizer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from brushwork.config.schema import OptimizerConfig, Settings
from brushwork.diffusion.prediction import check_prediction
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.lora.files import write_adapter
from brushwork.lora.inject import Adapter, inject
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState, component_of
from brushwork.models.rewrite import write_base
from brushwork.models.text import TextEncoders, TextStates
from brushwork.models.unet import UNet
from brushwork.models.weights import Base
from brushwork.runtime import PRECISIONS
from brushwork.training import ema
from brushwork.training.checkpoint import Position, State, optimizer_moments, restore_moments
from brushwork.training.loop import Learner
from brushwork.training.step import Objective


@dataclass(frozen=True)
class Trained:
    """A learner, with what makes a file of its parameters. Adapter and whole network differ in these values alone."""

    learner: Learner
    alphas: Mapping[str, float]
    """Alpha of each adapted module; empty where the whole network learns."""
    write: Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]
    """Writes parameters (or their running mean) as what other programs read: path, parameters, metadata."""

    def state(self, position: Position, family: str) -> State:
        """Everything that a later process needs to go on from `position`."""
        learner = self.learner
        return State(
            position=position,
            parameters=dict(learner.parameters),
            moments=optimizer_moments(learner.optimizer, learner.parameters),
            ema=None if learner.ema is None else dict(learner.ema),
            alphas=dict(self.alphas),
            family=family,
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Take the weights, the optimizer's memory and the running mean of a saved state."""
        learner = self.learner
        for name, parameter in learner.parameters.items():
            parameter.copy_(state.parameters[name])
        learner.refresh_copies()
        if learner.ema is not None:
            kept = state.ema or state.parameters  # the mean was switched on since: it begins here
            for name, mean in learner.ema.items():
                mean.copy_(kept[name])
        restore_moments(learner.optimizer, learner.parameters, state.moments)


def make_learner(
    unet: UNet,
    text: TextEncoders | None,
    base: Base,
    settings: Settings,
    *,
    scaling_factor: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Trained:
    """Choose what learns, and put an optimizer behind it.

    Args:
        text: the encoders where they are asked in every step; None where text states come from the cache.
    """
    unet.set_checkpointing(settings.train.checkpointing)
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=base.zero_terminal_snr)
    check_prediction(base.prediction, schedule)
    objective = Objective(
        schedule=schedule,
        prediction=base.prediction,
        scaling_factor=scaling_factor,
        min_snr_gamma=settings.loss.min_snr_gamma,
        noise_offset=settings.loss.noise_offset,
    )
    chosen = (
        _whole_network(unet, base, settings)
        if settings.train.mode == "full"
        else _adapter(unet, text, base, settings)
    )
    return Trained(
        learner=Learner(
            unet=unet,
            encode=TextEncoding(text, learns=settings.lora.text_encoder),
            parameters=chosen.parameters,
            copies=chosen.copies,
            optimizer=make_optimizer(chosen.parameters, settings.optimizer),
            ema=None if settings.train.ema_decay is None else ema.start(chosen.parameters),
            set_dropout_key=chosen.set_dropout_key,
            objective=objective,
            dtype=dtype,
            device=device,
        ),
        alphas=chosen.alphas,
        write=chosen.write,
    )


@dataclass(frozen=True)
class _Chosen:
    """What learns: see `Learner` and `Trained`."""

    parameters: Mapping[str, nn.Parameter]
    copies: Mapping[str, nn.Parameter]
    set_dropout_key: Callable[[int | None], None]
    alphas: Mapping[str, float]
    write: Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]


def _adapter(unet: UNet, text: TextEncoders | None, base: Base, settings: Settings) -> _Chosen:
    """An untrained adapter beside the base."""
    components: dict[str, nn.Module] = {"unet": unet}
    if settings.lora.text_encoder and text is not None:
        components |= text.modules
    adapter = inject(
        components,
        targets=settings.lora.targets,
        rank=settings.lora.rank,
        alpha=settings.lora.alpha,
        dropout=settings.lora.dropout,
        conv_rank=settings.lora.conv_rank,
        conv_alpha=settings.lora.conv_alpha,
        text_encoder=settings.lora.text_encoder,
        seed=settings.train.seed,
    )
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

    return _Chosen(named_parameters(adapter), {}, adapter.set_dropout_key, alphas, write)


def _whole_network(unet: UNet, base: Base, settings: Settings) -> _Chosen:
    """Every weight of the UNet. Where it computes in a shorter type, the weights that learn are float32 beside it."""
    unet.requires_grad_(True)
    own = {f"unet.{name}": parameter for name, parameter in unet.named_parameters()}
    if all(parameter.dtype == torch.float32 for parameter in own.values()):
        parameters, copies = own, dict[str, nn.Parameter]()
    else:
        parameters = {name: nn.Parameter(parameter.detach().float()) for name, parameter in own.items()}
        copies = own

    def write(path: Path, parameters: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        tensors = {name.removeprefix("unet."): tensor for name, tensor in parameters.items()}
        write_base(base, tensors, path, dtype=PRECISIONS[settings.save.precision], told=metadata)

    return _Chosen(parameters, copies, lambda key: None, {}, write)


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


def named_parameters(adapter: Adapter) -> dict[str, nn.Parameter]:
    """Every weight of the adapter by its canonical name, `unet.<path>.down` and `.up`."""
    parameters = {}
    for name, layer in adapter.layers.items():
        parameters[f"{name}.down"] = layer.down
        parameters[f"{name}.up"] = layer.up
    return parameters


def make_optimizer(parameters: Mapping[str, nn.Parameter], settings: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with one group for the UNet and one for the text encoders, each with its own `base_rate`."""
    unet = [parameter for name, parameter in parameters.items() if component_of(name) == "unet"]
    text = [parameter for name, parameter in parameters.items() if component_of(name) != "unet"]
    text_rate = settings.text_encoder_learning_rate or settings.learning_rate
    groups = [
        {"params": group, "lr": rate, "base_rate": rate}
        for group, rate in ((unet, settings.learning_rate), (text, text_rate))
        if group
    ]
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)


class TextEncoding:
    """Asks the encoders; keeps a gradient only where they learn."""

    def __init__(self, text: TextEncoders | None, *, learns: bool) -> None:
        self._text = text
        self._learns = learns

    def __call__(self, captions: Sequence[str]) -> TextStates:
        assert self._text is not None, "text states come from the cache"
        with torch.set_grad_enabled(self._learns and torch.is_grad_enabled()):
            return self._text.encode(captions)
