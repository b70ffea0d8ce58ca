"""The held-out loss: the same pictures, noise and timesteps every time, so that only the weights can move it.

The same is measured on a fixed part of the training set: what parts the two is learned by heart.
"""

import torch

from brushwork.diffusion.noise import Noise
from brushwork.distributed import Group
from brushwork.runtime import generator
from brushwork.training.feed import EncodesText, Feed
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
    """
    plain = Objective(
        schedule=objective.schedule, prediction=objective.prediction, scaling_factor=objective.scaling_factor
    )
    total = 0.0
    count = len(feed.examples)
    for index in group.share(range(count)):
        loaded = feed.read([index])
        text = loaded.text if loaded.text is not None else encode(loaded.captions)
        batch = loaded.with_text(text).to(device)
        for level in range(num_timesteps):
            draws = Draws(
                timesteps=torch.tensor([stratified_timestep(objective, level, num_timesteps, index, count)]),
                latent_noise=torch.randn(
                    batch.mean.shape, generator=generator(seed, "held-out latent", index, level)
                ),
                noise=Noise(torch.randn(batch.mean.shape, generator=generator(seed, "held-out noise", index, level))),
            )
            total += loss_per_picture(network, batch, draws.to(device), plain, dtype=dtype).item()
    return group.total(total) / (count * num_timesteps)


def fixed_part(count: int, size: int, *, seed: int) -> list[int]:
    """Which of `count` training pictures are measured: `size` of them, the same in every process of the run."""
    return sorted(torch.randperm(count, generator=generator(seed, "train part"))[:size].tolist())


def stratified_timestep(objective: Objective, level: int, num_levels: int, index: int, count: int) -> int:
    """The timestep of picture `index` of `count` at `level` of `num_levels`: one in each equal part."""
    place = (index + 0.5) / count
    low, high = objective.loss.min_timestep, objective.loss.max_timestep
    return low + int((level + place) / num_levels * (high - low))
