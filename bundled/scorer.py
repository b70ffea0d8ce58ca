"""Stage 4: the scorer learns to tell what a frame shows, from all frames, the lead's and the held-out ones too.

    python -m bundled.scorer --pool ANOTHER_POOL --out OUT --minutes 20

Writes OUT/scorer.safetensors and OUT/accuracy.json whenever it stops.

Shapes in this file:  B pictures   S side
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from brushwork.atomic import write_bytes, write_text
from brushwork.film.scene import ATTRIBUTES, Scene, classes
from brushwork.film.scorer import Scorer, judge
from brushwork.runtime import generator
from bundled.frames import CHUNK, SOURCES, Pool, unseen
from bundled.stage import Settings, Stage, begin_from, command_line, run_script, settings, shown_in

NUM_MEASURED = 1024
MOST_NOISE = 0.15


class Truths:
    """The classes of the pool's frames, made when a chunk comes in."""

    def __init__(self, num_frames: int, device: torch.device) -> None:
        self._classes = torch.empty(num_frames, len(ATTRIBUTES), dtype=torch.int64)
        self._device = device
        self._num_ready = 0

    def wait_for(self, count: int) -> None:
        """Have those of the first `count` frames ready."""
        for number in range(self._num_ready, count):
            self._classes[number] = torch.tensor(list(classes(SOURCES["any"](number)).values()))
        self._num_ready = max(count, self._num_ready)

    def choose(self, numbers: Tensor) -> Tensor:
        """Frames (B,) -> (B, attributes)"""
        return self._classes[numbers].to(self._device)


def blemish(pictures: Tensor, *, seed: int, step: int) -> Tensor:
    """Blur half of the pictures and lay noise over all, since what a model draws is less crisp than a frame."""
    source = generator(seed, "blemish", step)
    blurred = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    is_blurred = (torch.rand(len(pictures), generator=source) < 0.5).to(pictures.device)[:, None, None, None]
    strength = MOST_NOISE * torch.rand(len(pictures), 1, 1, 1, generator=source)
    noise = (strength * torch.randn(pictures.shape, generator=source)).to(pictures.device)
    return torch.where(is_blurred, blurred, pictures) + noise


def loss_of(scorer: Any, pictures: Tensor, truths: Tensor) -> Tensor:
    """(B, 3, S, S), (B, attributes) -> ()"""
    scores = scorer(pictures.to(scorer.scores.weight.dtype))
    losses = [F.cross_entropy(scores[name].float(), truths[:, column]) for column, name in enumerate(scores)]
    return torch.stack(losses).mean()


@torch.no_grad()
def measure(scorer: Any, scenes: Sequence[Scene], pictures: Tensor) -> dict[str, float]:
    """How often each attribute is told rightly."""
    device = scorer.scores.weight.device
    truths = torch.tensor([list(classes(scene).values()) for scene in scenes])
    losses = [
        loss_of(scorer, part.to(device), rows.to(device)) * len(part)
        for part, rows in zip(torch.split(pictures, 64), torch.split(truths, 64), strict=True)
    ]
    found = judge(scorer, pictures)
    right = {
        f"right_{name}": sum(row[name] == getattr(scene, name) for row, scene in zip(found, scenes, strict=True))
        / len(scenes)
        for name in ATTRIBUTES
    }
    return {"held_out_loss": float(torch.stack(losses).sum()) / len(pictures), **right}


def train(given: Settings, *, chunk: int = CHUNK, num_measured: int = NUM_MEASURED) -> Stage:
    """Train until the stage or the time is over, and write what came out."""
    pool = Pool(
        given.pool, "any", given.frames, given.size, given.workers, given.reuse, chunk=chunk, device=given.device
    )
    truths = Truths(given.frames, given.device)
    scenes, pictures = unseen("any", num_measured, given.size)

    def loss(scorer: Any, step: int) -> Tensor:
        num_shown = pool.num_shown(step * given.batch)
        pool.wait_for(num_shown)
        truths.wait_for(num_shown)
        numbers = shown_in(step, given, num_shown)
        return loss_of(scorer, blemish(pool.pictures(numbers), seed=given.seed, step=step), truths.choose(numbers))

    with pool.drawing():
        pool.wait_for(chunk)
        stage = Stage(
            given,
            begin_from(given.seed, Scorer),
            loss=loss,
            measure=lambda scorer: measure(scorer, scenes, pictures),
            recipe={
                "most noise": MOST_NOISE,
                "attributes": {name: len(values) for name, values in ATTRIBUTES.items()},
            },
            title="scorer",
        )
        stage.run()
    averaged = stage.averaged()
    halves = {name: tensor.half().cpu().contiguous() for name, tensor in averaged.state_dict().items()}
    write_bytes(given.out / "scorer.safetensors", save(halves, metadata={"format": "pt"}))
    found = measure(averaged, scenes, pictures)
    write_text(given.out / "accuracy.json", json.dumps({"step": stage.position.step, **found}, indent=2) + "\n")
    for name in ATTRIBUTES:
        print(f"{name:12} {100 * found[f'right_{name}']:5.1f} % of {len(scenes)} unseen frames")
    return stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the scorer of the film."""
    parser = command_line(main.__doc__, steps=6_000, batch=64, learning_rate=2e-3, frames=40 * CHUNK)
    train(settings(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_script(main)
