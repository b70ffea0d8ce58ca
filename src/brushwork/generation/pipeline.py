"""From requests to pictures, with a model whose parts are already there.

Generating and the samples that are drawn during training go through this same file. Every picture is a function of
the weights and its own request: its noise comes from its seed, so its pixels do not depend on which other pictures
are in its batch, or how many.

The negative prompt is always encoded, also where it is empty, as A1111, ComfyUI and kohya's trainer do. (diffusers
puts zeros in its place for SDXL when none is given.) It is also what caption dropout in training shows the network,
so guidance starts from the state that was learned.

Shapes in this file:  B pictures   h, w size of the latents   H, W pixels   L tokens   D width of the context
P width of the pooled text
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brushwork.diffusion.noise import white_noise
from brushwork.diffusion.prediction import Prediction
from brushwork.diffusion.samplers import sample
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.errors import UserError
from brushwork.generation.graphs import Graphs
from brushwork.generation.prompts import Request
from brushwork.models.spec import PIXELS_PER_LATENT
from brushwork.models.text import TextStates
from brushwork.models.unet import UNet
from brushwork.runtime import generator, precision_name


@dataclass(frozen=True)
class Conditions:
    """What steers the network: context (B, L, D), and for SDXL pooled (B, P) and time ids (B, 6)."""

    context: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def followed_by(self, other: "Conditions") -> "Conditions":
        """Two of B -> one of 2 B"""
        context = torch.cat([self.context, other.context])
        if self.pooled is None or other.pooled is None or self.time_ids is None or other.time_ids is None:
            return Conditions(context)
        return Conditions(context, torch.cat([self.pooled, other.pooled]), torch.cat([self.time_ids, other.time_ids]))


@dataclass(frozen=True)
class Asked:
    """What the network is asked in a step of the sampler.

    Args:
        x: (B, 4, h, w)
        timestep: ()
        given: what to follow; where it is guided, what to keep away from before it, in one of 2 B or in two of B.
        guidance: (B, 1, 1, 1); None where nothing is guided.
    """

    x: Tensor
    timestep: Tensor
    given: tuple[Conditions, ...]
    guidance: Tensor | None = None


@dataclass(frozen=True)
class Pipeline:
    """The parts of a model, put together to draw. It loads nothing, moves no weights, and draws no dropout masks:
    an adapter that is in training is told so by its owner (`adapter.set_dropout_key(None)`).

    Args:
        encode: B prompts -> their text states, from the encoders or from what was computed before.
        decode: (1, 4, h, w) scaled latents -> (1, 3, H, W) in [-1, 1]; called for one picture at a time.
        guide_separately: run the network once for the prompt and once for the negative prompt, instead of on both
            at a time: a little slower on a large card, and less memory.
        graphs: what replays the network's steps, of this pipeline alone; None: kernel by kernel.
    """

    unet: UNet
    schedule: NoiseSchedule
    prediction: Prediction
    encode: Callable[[Sequence[str]], TextStates]
    decode: Callable[[Tensor], Tensor]
    guide_separately: bool = False
    graphs: Graphs | None = None

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.unet.conv_norm_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In which type. A norm tells: no adapter stands on it and no quantisation touches it."""
        return self.unet.conv_norm_out.weight.dtype

    def draw(
        self, requests: Sequence[Request], *, batch_size: int = 1, on_step: Callable[[int], None] | None = None
    ) -> Iterator[Image.Image]:
        """The pictures, in the order of the requests.

        Args:
            batch_size: at most so many neighbours of the same size, sampler and steps go through the network at once.
            on_step: told after each step of the sampler how many pictures took it.
        """
        for batch in batches(requests, batch_size):
            latents = self.latents(batch, on_step=on_step)
            for index in range(len(batch)):  # one at a time: the VAE needs more memory than all else
                with torch.no_grad():
                    pixels = self.decode(latents[index : index + 1])
                yield to_image(pixels)

    @torch.no_grad()
    def latents(self, requests: Sequence[Request], *, on_step: Callable[[int], None] | None = None) -> Tensor:
        """B requests of one size, sampler and number of steps -> (B, 4, h, w) float32, scaled, on the device."""
        first = requests[0]
        shape = (1, 4, first.height // PIXELS_PER_LATENT, first.width // PIXELS_PER_LATENT)

        def draw_noise(purpose: str, *index: int) -> Tensor:
            each = [white_noise(shape, generator(request.seed, purpose, *index)) for request in requests]
            return torch.cat(each).to(self.device)

        latents = sample(
            first.sampler,
            self._predictor(requests),
            draw_noise("picture"),
            schedule=self.schedule,
            prediction=self.prediction,
            num_steps=first.steps,
            draw_noise=lambda step: draw_noise("picture step", step),
            on_step=None if on_step is None else lambda *_: on_step(len(requests)),
        )
        _refuse_not_finite(latents, requests, self.dtype)
        return latents

    def forget_graphs(self) -> None:
        """Let go of the memory that graphs keep between two pictures."""
        if self.graphs is not None:
            self.graphs.forget()

    def _predictor(self, requests: Sequence[Request]) -> Callable[[Tensor, Tensor], Tensor]:
        """The network's answer for these requests, guided: (B, 4, h, w), () -> (B, 4, h, w) float32."""
        given: tuple[Conditions, ...] = (self._conditions([request.prompt for request in requests], requests),)
        guidance = None
        if _is_guided(requests[0]):
            negative = self._conditions([request.negative for request in requests], requests)
            given = (negative, *given) if self.guide_separately else (negative.followed_by(*given),)
            told = [request.guidance for request in requests]
            guidance = torch.tensor(told, device=self.device)[:, None, None, None]

        def answer(x: Tensor, timestep: Tensor) -> Tensor:
            asked = Asked(x, timestep, given, guidance)
            return self._answer(asked) if self.graphs is None else self.graphs(self._answer, asked)

        return answer

    def _answer(self, asked: Asked) -> Tensor:
        """-> (B, 4, h, w) float32"""
        x, guidance = asked.x, asked.guidance
        if guidance is None:
            return self._ask(x, asked.timestep, *asked.given)
        if len(asked.given) == 2:
            without, following = (self._ask(x, asked.timestep, each) for each in asked.given)
        else:
            without, following = self._ask(torch.cat([x, x]), asked.timestep, *asked.given).chunk(2)
        return without + guidance * (following - without)  # eq. 6, arXiv:2207.12598, its w + 1 = guidance

    def _ask(self, x: Tensor, timestep: Tensor, given: Conditions) -> Tensor:
        """(B, 4, h, w), () -> (B, 4, h, w): the network computes in its type, the answer is float32."""
        timesteps = timestep.expand(len(x))
        output: Tensor = self.unet(x.to(self.dtype), timesteps, given.context, given.pooled, given.time_ids)
        return output.float()

    def _conditions(self, prompts: Sequence[str], requests: Sequence[Request]) -> Conditions:
        """B prompts -> their text states in the network's type, and for SDXL the sizes"""
        states = self.encode(prompts)
        context = states.context.to(self.device, self.dtype)
        if self.unet.spec.family == "sd15":
            return Conditions(context)
        assert states.pooled is not None
        # Drawn as if from an original of just this size, not cropped: what SDXL makes its best pictures for.
        sizes = [(request.height, request.width, 0, 0, request.height, request.width) for request in requests]
        time_ids = torch.tensor(sizes, dtype=torch.float32, device=self.device)
        return Conditions(context, states.pooled.to(self.device, self.dtype), time_ids)


def batches(requests: Sequence[Request], batch_size: int) -> Iterator[list[Request]]:
    """Neighbours that the network can take at once: of one size, sampler, and number of steps."""
    for _, alike in itertools.groupby(requests, key=kind):
        run = list(alike)
        yield from (run[start : start + batch_size] for start in range(0, len(run), batch_size))


def kind(request: Request) -> tuple[int, int, str, int, bool]:
    """What the pictures of a batch have in common."""
    return request.width, request.height, request.sampler, request.steps, _is_guided(request)


def to_image(pixels: Tensor) -> Image.Image:
    """(1, 3, H, W) in [-1, 1] -> a picture of 8 bits a channel"""
    values = (pixels[0].float() / 2 + 0.5).clamp(0, 1) * 255
    return Image.fromarray(values.round().byte().permute(1, 2, 0).numpy(force=True).astype(np.uint8))


def _is_guided(request: Request) -> bool:
    """Up to 1 there is nothing to guide away from, and the negative prompt is not computed."""
    return request.guidance > 1


def _refuse_not_finite(latents: Tensor, requests: Sequence[Request], dtype: torch.dtype) -> None:
    for latent, request in zip(latents, requests, strict=True):
        if not latent.isfinite().all():
            raise UserError(
                f"the network gave numbers that are not finite for {request.prompt!r} (seed {request.seed}, computed "
                f"in {precision_name(dtype)}).",
                fix="use bf16 or fp32, a lower LoRA strength, or look at the adapter with `brushwork inspect FILE`",
            )
