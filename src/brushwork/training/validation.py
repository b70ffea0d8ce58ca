"""The held-out loss: the same pictures, noise and timesteps every time, so that only the weights can move it.

The same is measured on a fixed part of the training set: what parts the two is learned by heart.
"""

import torch

from brushwork.diffusion.noise import Noise
from brushwork.distributed import Group
from brushwork.runtime import generator
from brushwork.training.feed import EncodesText, Feed
from brushwork.training.out_of_memory import total_while_memory_lasts
from brushwork.training.step import Draws, Network, Objective, loss_per_picture


@torch.no_grad()
def fixed_loss(
    network: Network,
    feed: Feed,
    encode: EncodesText,
    objective: Objective,
    *,
    num_timesteps: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    group: Group,
) -> float:
    """Mean squared error over all pictures of the feed at `num_timesteps` levels spread evenly over those that train.

    Whatever the loss of the run is, so that runs can be compared. Each picture is shown at the middles of equal
    parts of the schedule, shifted by its own place among the others,
    so that many pictures cover the schedule finely.

    Raises:
        MemoryRanOutError: in all processes, where memory ran out in any of them: they stay in step.
    """
    plain = Objective(
        schedule=objective.schedule, prediction=objective.prediction, scaling_factor=objective.scaling_factor
    )
    count = len(feed.examples)

    def own_losses() -> float:
        total = 0.0
        for index in group.share(range(count)):
            loaded = feed.read([index])
            text = loaded.text if loaded.text is not None else encode(loaded.captions)
            batch = loaded.with_text(text).to(device)
            for level in range(num_timesteps):
                draws = _fixed_draws(objective, batch.mean.shape, (index, count), (level, num_timesteps), seed=seed)
                total += loss_per_picture(network, batch, draws.to(device), plain, dtype=dtype).item()
        return total

    return total_while_memory_lasts(own_losses, group) / (count * num_timesteps)


def _fixed_draws(
    objective: Objective, shape: torch.Size, picture: tuple[int, int], level: tuple[int, int], *, seed: int
) -> Draws:
    """What is drawn for picture i of n at level l of m: the same at every measurement."""
    place = (picture[0], level[0])
    return Draws(
        timesteps=torch.tensor([stratified_timestep(objective, *level, *picture)]),
        latent_noise=torch.randn(shape, generator=generator(seed, "held-out latent", *place)),
        noise=Noise(torch.randn(shape, generator=generator(seed, "held-out noise", *place))),
    )


def fixed_part(count: int, size: int, *, seed: int) -> list[int]:
    """Which of `count` training pictures are measured: `size` of them, the same in every process of the run."""
    return sorted(torch.randperm(count, generator=generator(seed, "train part"))[:size].tolist())


def stratified_timestep(objective: Objective, level: int, num_levels: int, index: int, count: int) -> int:
    """The timestep of picture `index` of `count` at `level` of `num_levels`: one in each equal part."""
    place = (index + 0.5) / count
    low, high = objective.loss.min_timestep, objective.loss.max_timestep
    return low + int((level + place) / num_levels * (high - low))
