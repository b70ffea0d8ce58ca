"""How much room a run takes, before it begins: on the disk, and in memory for each weight that learns."""

import math
from dataclasses import dataclass

from brushwork.config.schema import Settings
from brushwork.data.transform import Size
from brushwork.models.spec import PIXELS_PER_LATENT
from brushwork.runtime import PRECISIONS
from brushwork.training.batches import Budget
from brushwork.training.optimizers import RULES
from brushwork.training.prepare import Preparation


@dataclass(frozen=True)
class Space:
    """What a run will write, in bytes."""

    file: int
    num_files: int
    state: int
    cache: int

    @property
    def run(self) -> int:
        """Everything in the run folder but the pictures; the state is there twice while it is replaced."""
        return self.file * self.num_files + 2 * self.state


def needed_space(preparation: Preparation, num_parameters: int) -> Space:
    """What the run will write at most: files, state, and cache entries as if none were there yet."""
    settings = preparation.settings
    width = PRECISIONS[settings.save.precision].itemsize
    copies = 1 if settings.train.ema_decay is None else 2  # weights, running mean
    bytes_each = 4 * copies + RULES[settings.optimizer.name].bytes_per_weight
    latents = sum(_latent_bytes(placement.target) for placement in preparation.shown[1])
    spec = preparation.base.spec
    states = settings.model.max_tokens // 75 * 77 * spec.context_width + (spec.pooled_width or 0)
    text = states * preparation.dtype.itemsize * (len(preparation.captions) + 1) if preparation.caches_text else 0
    return Space(
        file=num_parameters * width + _untrained_bytes(preparation),
        num_files=count_files(settings, preparation.budget),
        state=math.ceil(num_parameters * bytes_each),
        cache=latents + text,
    )


def _latent_bytes(target: Size) -> int:
    """Mean and deviation of a picture's latents, in float32."""
    return 2 * 4 * (target.width // PIXELS_PER_LATENT) * (target.height // PIXELS_PER_LATENT) * 4


def _untrained_bytes(preparation: Preparation) -> int:
    """What a whole base holds beside its UNet; an adapter holds nothing else."""
    if preparation.settings.train.mode == "lora":
        return 0
    others = [part for name, part in preparation.base.parts.items() if name != "unet"]
    return sum(part.num_bytes() for part in others)


def count_files(settings: Settings, budget: Budget) -> int:
    """How many files for others lie in the run folder at most."""
    kept = settings.save.keep_last
    before_last = budget.total_steps - 1  # after the last step the file is the final one
    epochs = range(1, before_last // budget.steps_per_epoch + 1)
    asked = (settings.save.every_epochs, settings.evaluation.every_epochs)  # an evaluation needs a file to draw with
    by_epoch = sum(any(interval and epoch % interval == 0 for interval in asked) for epoch in epochs)
    every_steps = settings.save.every_steps
    by_step = 0 if every_steps is None else before_last // every_steps
    files = sum(count if kept is None else min(count, kept + 1) for count in (by_epoch, by_step))
    files += 2  # the last and the one with the lowest loss
    return files if settings.train.ema_decay is None else 2 * files  # with its running mean beside each


def bytes_per_weight(settings: Settings) -> float:
    """What stays in memory of each weight that learns: it, its gradient, the optimizer's memory, the running mean."""
    mean = 4 if settings.train.ema_decay is not None and settings.train.ema_device == "auto" else 0
    return 4 + 4 + RULES[settings.optimizer.name].bytes_per_weight + mean
