"""Stage 2: pictures and captions learn to find each other, which gives the text encoders and the tiny CLIP.

    python -m bundled.clip --pool POOL --out OUT --minutes 60

One image tower and two text towers, of the widths of the two text encoders; each text tower is trained to find the
picture of its caption and the caption of its picture (arXiv:2103.00020). Image tower and first text tower are the
tiny CLIP, as SDXL's first text encoder is the text tower of a CLIP. Writes OUT/clip, OUT/text_encoder and
OUT/text_encoder_2 whenever it stops.

Shapes in this file:  B pictures with captions   S side   L tokens   D width of what both become
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection

from brushwork.atomic import write_bytes, write_text
from brushwork.film.captions import caption
from brushwork.models.bundled import NUM_MERGES, PADDING, TEXT_ENCODER, TEXT_ENCODER_2
from brushwork.models.configs import Config
from brushwork.models.text import CONFIG_KEYS, WRAPPER, Tokenizer
from brushwork.models.vocabulary import packaged_vocabulary, write_vocabulary
from brushwork.runtime import generator
from bundled.frames import CHUNK, SOURCES, UNSEEN, Pool, unseen
from bundled.stage import Settings, Stage, begin_from, command_line, run_script, settings, shown_in

IMAGE_TOWER: Config = {
    "model_type": "clip_vision_model",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 128,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
    "projection_dim": 128,
}

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""By which CLIP normalises pixels in [0, 1]; the same here, so that the same code prepares pictures for both."""

NUM_CAPTIONS = 4
"""Phrasings of each frame that are shown."""

MOST_ALIKE = 4.6
"""Largest logarithm of the factor by which similarities are sharpened: 100, as CLIP has it."""

CANDIDATES = 64
NUM_MEASURED = 8 * CANDIDATES


class Towers(nn.Module):
    """The tiny CLIP with a second text tower beside its own."""

    def __init__(self, image: Config, first: Config, second: Config) -> None:
        super().__init__()
        width = second["projection_dim"]
        self.clip = CLIPModel(CLIPConfig(text_config=first, vision_config=image, projection_dim=width))
        kept = {key: second[key] for key in CONFIG_KEYS if key in second}
        self.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**kept))
        self.logit_scale_2 = nn.Parameter(self.clip.logit_scale.detach().clone())

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, D), of length 1"""
        mean, deviation = (
            torch.tensor(values, device=pictures.device)[:, None, None] for values in (MEAN, DEVIATION)
        )
        pixels = (pictures / 2 + 0.5 - mean) / deviation
        state = self.clip.vision_model(pixel_values=pixels.to(self.clip.visual_projection.weight.dtype)).pooler_output
        return F.normalize(self.clip.visual_projection(state).float(), dim=-1)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> what each text tower makes of it: (B, D) of length 1, twice"""
        first = self.clip.text_projection(self.clip.text_model(input_ids=tokens).pooler_output)
        second = self.text_encoder_2(input_ids=tokens).text_embeds
        return F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)

    def factors(self) -> tuple[Tensor, Tensor]:
        """By how much similarities are sharpened before they are compared."""
        return (
            self.clip.logit_scale.float().clamp(max=MOST_ALIKE).exp(),
            self.logit_scale_2.float().clamp(max=MOST_ALIKE).exp(),
        )


def loss_of(towers: Towers, pictures: Tensor, tokens: Tensor) -> Tensor:
    """How badly pictures and captions find each other: (B, 3, S, S), (B, L) -> ()"""
    seen = towers.look(pictures)
    right = torch.arange(len(seen), device=seen.device)
    total = seen.new_zeros(())
    for read, factor in zip(towers.read(tokens), towers.factors(), strict=True):
        alike = factor * seen @ read.T  # (B, B)
        total = total + F.cross_entropy(alike, right) + F.cross_entropy(alike.T, right)
    return total / 4


@torch.no_grad()
def measure(towers: Towers, pictures: Tensor, tokens: Tensor) -> dict[str, float]:
    """How often the right caption of 64 is found, and the right picture, and the loss in such groups of 64."""
    device = towers.logit_scale_2.device
    seen = torch.cat([towers.look(part.to(device)) for part in torch.split(pictures, CANDIDATES)])
    read = [towers.read(part.to(device)) for part in torch.split(tokens, CANDIDATES)]
    found: dict[str, float] = {"held_out_loss": 0.0}
    for number, (name, factor) in enumerate(zip(("", "_2"), towers.factors(), strict=True)):
        towards = torch.cat([each[number] for each in read])
        captions, images = retrieval(seen, towards)
        found |= {f"finds_caption{name}": captions, f"finds_picture{name}": images}
        groups = zip(torch.split(seen, CANDIDATES), torch.split(towards, CANDIDATES), strict=True)
        losses = [F.cross_entropy(factor * a @ b.T, torch.arange(len(a), device=device)) for a, b in groups]
        found["held_out_loss"] += float(torch.stack(losses).mean()) / 2
    return found


def retrieval(seen: Tensor, read: Tensor, candidates: int = CANDIDATES) -> tuple[float, float]:
    """The share of pictures whose own caption is the most alike of so many, and of captions with their picture."""
    num_groups = len(seen) // candidates
    if not num_groups:
        raise ValueError(f"{len(seen)} pictures make no group of {candidates}")
    right = torch.arange(candidates, device=seen.device)
    captions = pictures = 0
    for group in range(num_groups):
        rows = slice(group * candidates, (group + 1) * candidates)
        alike = seen[rows] @ read[rows].T
        captions += int((alike.argmax(dim=1) == right).sum())
        pictures += int((alike.argmax(dim=0) == right).sum())
    return captions / (num_groups * candidates), pictures / (num_groups * candidates)


class Phrasings:
    """The captions of the pool's frames as tokens, made when a chunk comes in.

    Padding follows the end of a caption and is never looked at, so one tensor does for both text towers; what is
    beyond the longest caption of a batch is not computed.
    """

    def __init__(self, num_frames: int, device: torch.device) -> None:
        self._tokenizer = Tokenizer(packaged_vocabulary(padding=PADDING["tokenizer"], num_merges=NUM_MERGES))
        self._end = self._tokenizer.vocabulary.end_id
        self._tokens = torch.empty(num_frames, NUM_CAPTIONS, 77, dtype=torch.int16)
        self._device = device
        self._num_ready = 0

    def wait_for(self, count: int) -> None:
        """Have the captions of the first `count` frames ready."""
        for number in range(self._num_ready, count):
            scene = SOURCES["base"](number)
            for phrasing in range(NUM_CAPTIONS):
                self._tokens[number, phrasing] = self._chunk(caption(scene, number * NUM_CAPTIONS + phrasing))
        self._num_ready = max(count, self._num_ready)

    def choose(self, numbers: Tensor, phrasings: Tensor) -> Tensor:
        """Frames (B,) and which of their captions (B,) -> (B, L), L with the end of the longest"""
        return self._cut(self._tokens[numbers, phrasings].long()).to(self._device)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """B captions -> (B, L)"""
        return self._cut(torch.stack([self._chunk(words) for words in captions]))

    def _chunk(self, words: str) -> Tensor:
        return self._tokenizer.chunks(words, 1)[0]

    def _cut(self, tokens: Tensor) -> Tensor:
        longest = int((tokens == self._end).int().argmax(dim=1).max()) + 1
        return tokens[:, :longest]


def write_towers(towers: Towers, folder: Path) -> None:
    """Write the tiny CLIP and the two text encoders in fp16, in the layouts of transformers."""
    write_clip(towers.clip, folder / "clip")
    first = {name: tensor for name, tensor in towers.clip.state_dict().items() if name.startswith(WRAPPER)}
    for part, config, tensors in (
        ("text_encoder", TEXT_ENCODER, first),
        ("text_encoder_2", TEXT_ENCODER_2, towers.text_encoder_2.state_dict()),
    ):
        write_text(folder / part / "config.json", json.dumps(config, indent=2) + "\n")
        _write_half(folder / part / "model.safetensors", tensors)


def write_clip(clip: Any, folder: Path) -> None:
    """A CLIP folder as transformers reads it: configuration, weights, tokenizer, and how pictures are prepared."""
    config = json.loads(clip.config.to_json_string())
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    _write_half(folder / "model.safetensors", clip.state_dict())
    write_vocabulary(packaged_vocabulary(padding=PADDING["tokenizer"], num_merges=NUM_MERGES), folder)
    side = clip.config.vision_config.image_size
    preparation = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
        "do_convert_rgb": True,
    }
    write_text(folder / "preprocessor_config.json", json.dumps(preparation, indent=2) + "\n")


def _write_half(path: Path, tensors: dict[str, Tensor]) -> None:
    halves = {
        name: tensor.half().cpu().contiguous()
        for name, tensor in tensors.items()
        if not name.endswith("position_ids")
    }
    write_bytes(path, save(halves, metadata={"format": "pt"}))


def train(
    given: Settings, image: Config = IMAGE_TOWER, *, chunk: int = CHUNK, num_measured: int = NUM_MEASURED
) -> Stage:
    """Train until the stage or the time is over, and write what came out."""
    pool = Pool(
        given.pool, "base", given.frames, given.size, given.workers, given.reuse, chunk=chunk, device=given.device
    )
    image = {**image, "image_size": given.size}
    towers = begin_from(given.seed, lambda: Towers(image, TEXT_ENCODER, TEXT_ENCODER_2))
    phrasings = Phrasings(given.frames, given.device)
    scenes, pictures = unseen("base", num_measured, given.size)
    tokens = phrasings.tokens([caption(scene, UNSEEN + number) for number, scene in enumerate(scenes)])

    def loss(towers: Any, step: int) -> Tensor:
        num_shown = pool.num_shown(step * given.batch)
        pool.wait_for(num_shown)
        phrasings.wait_for(num_shown)
        numbers = shown_in(step, given, num_shown)
        which = torch.randint(NUM_CAPTIONS, numbers.shape, generator=generator(given.seed, "phrasing", step))
        return loss_of(towers, pool.pictures(numbers), phrasings.choose(numbers, which))

    with pool.drawing():
        pool.wait_for(chunk)
        stage = Stage(
            given,
            towers,
            loss=loss,
            measure=lambda towers: measure(towers, pictures, tokens),  # type: ignore[arg-type]
            recipe={"image": image, "first": TEXT_ENCODER, "second": TEXT_ENCODER_2, "captions": NUM_CAPTIONS},
            title="CLIP",
        )
        stage.run()
    averaged: Any = stage.averaged()
    write_towers(averaged, given.out)
    found = measure(averaged, pictures, tokens)
    print(
        f"step {stage.position.step}: finds the caption of an unseen frame among {CANDIDATES}: "
        f"{100 * found['finds_caption']:.1f} % (first text encoder), {100 * found['finds_caption_2']:.1f} % (second)"
    )
    return stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the text encoders and the tiny CLIP of the bundled model."""
    parser = command_line(main.__doc__, steps=800, batch=128, learning_rate=2e-3, frames=40 * CHUNK)
    train(settings(parser.parse_args(arguments)))


if __name__ == "__main__":
    run_script(main)
