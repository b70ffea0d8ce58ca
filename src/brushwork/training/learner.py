"""Puts together what computes and what learns: the UNet, the adapter beside it, the optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from brushwork.config.schema import OptimizerConfig, Settings
from brushwork.lora.inject import Adapter, inject
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.state import AdapterState, component_of
from brushwork.models.text import TextEncoders, TextStates
from brushwork.models.unet import UNet
from brushwork.training import ema
from brushwork.training.checkpoint import Position, State, optimizer_moments, restore_moments
from brushwork.training.loop import Learner
from brushwork.training.step import Objective


@dataclass(frozen=True)
class Trained:
    """A learner with the adapter that its parameters belong to."""

    learner: Learner
    adapter: Adapter

    def ema_state(self) -> AdapterState | None:
        """The running mean of the adapter, where one is kept."""
        mean = self.learner.ema
        if mean is None:
            return None
        return {
            name: LoRAWeights(
                down=mean[f"{name}.down"].cpu().clone(), up=mean[f"{name}.up"].cpu().clone(), alpha=layer.alpha
            )
            for name, layer in self.adapter.layers.items()
        }

    def state(self, position: Position, family: str) -> State:
        """Everything that a later process needs to go on from `position`."""
        learner = self.learner
        return State(
            position=position,
            parameters=dict(learner.parameters),
            moments=optimizer_moments(learner.optimizer, learner.parameters),
            ema=None if learner.ema is None else dict(learner.ema),
            alphas={name: layer.alpha for name, layer in self.adapter.layers.items()},
            family=family,
        )

    def restore(self, state: State) -> None:
        """Take the weights, the optimizer's memory and the running mean of a saved state.

        Raises:
            UserError: the settings now make an adapter of another shape.
        """
        learner = self.learner
        self.adapter.load(state.adapter())
        if learner.ema is not None:
            kept = state.ema or state.parameters  # the mean was switched on since: it begins here
            for name, mean in learner.ema.items():
                mean.copy_(kept[name])
        restore_moments(learner.optimizer, learner.parameters, state.moments)


def make_learner(
    unet: UNet,
    text: TextEncoders | None,
    settings: Settings,
    *,
    objective: Objective,
    dtype: torch.dtype,
    device: torch.device,
) -> Trained:
    """Put an untrained adapter beside the base and an optimizer behind it.

    Args:
        text: the encoders where they are asked in every step; None where text states come from the cache.
    """
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
    unet.set_checkpointing(settings.train.checkpointing)
    parameters = named_parameters(adapter)
    learner = Learner(
        unet=unet,
        encode=TextEncoding(text, learns=settings.lora.text_encoder),
        parameters=parameters,
        optimizer=make_optimizer(parameters, settings.optimizer),
        ema=None if settings.train.ema_decay is None else ema.start(parameters),
        set_dropout_key=adapter.set_dropout_key,
        objective=objective,
        dtype=dtype,
        device=device,
    )
    return Trained(learner=learner, adapter=adapter)


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
    groups = [
        {"params": group, "lr": rate, "base_rate": rate}
        for group, rate in ((unet, settings.learning_rate), (text, settings.text_rate))
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
