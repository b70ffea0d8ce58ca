"""`generate`: from a base, adapters and prompts to a folder of pictures.

The text encoders are loaded first, encode every prompt, and are released before the UNet is loaded. A folder that
holds some of the pictures already is continued: what is there with the same parameters is kept, and what was made
otherwise is refused, never replaced.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from brushwork.atomic import PARTIAL_SUFFIX, written_beside
from brushwork.config.load import resolve
from brushwork.config.schema import ModelConfig, SampleConfig, Settings, TrainConfig
from brushwork.data.layout import CONTACT_SHEET
from brushwork.diffusion.prediction import check_prediction
from brushwork.diffusion.samplers import timesteps_for
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.distributed import current, joined, voice
from brushwork.errors import UserError
from brushwork.generation.adapters import Applied, Chosen, Wanted, choose, ema_base, put_on, wanted
from brushwork.generation.graphs import Graphs, Tell, graphs_for
from brushwork.generation.grid import cell_size, contact_sheet
from brushwork.generation.pictures import already_drawn, record_of, save_picture
from brushwork.generation.pipeline import Pipeline, kind
from brushwork.generation.prompts import PromptLine, Request, known_sampler, parse_size, read_lines
from brushwork.generation.prompts import choose as choose_prompts
from brushwork.models.text import TextStates
from brushwork.models.vae import VAE
from brushwork.models.weights import Base, open_configured
from brushwork.progress import progress_bar
from brushwork.runtime import pick_device, pick_dtype, precision_name, release_memory

LORA = str | Path | tuple[str | Path, float] | Wanted
PROMPTS_AT_ONCE = 16
LARGE_PICTURE = 1536 * 1536
"""Pixels above which the VAE works in tiles. One feature map of 2048 x 2048 is 4 GiB in fp32 (256 channels)."""

SMALL_TILE, LARGE_TILE = 512, 1024


@dataclass(frozen=True)
class Generated:
    """What `generate` made."""

    folder: Path
    pictures: tuple[Path, ...]
    contact_sheet: Path
    applied: tuple[Applied, ...]
    num_kept: int
    """How many of the pictures were there already."""


@dataclass(frozen=True)
class Job:
    """A picture to draw, where it goes, and what is written with it."""

    request: Request
    path: Path
    extra: Mapping[str, Any]


@joined()
def generate(
    *,
    out: str | Path,
    prompt: str | Sequence[str] | None = None,
    prompts: str | Path | None = None,
    base: str | None = None,
    vae: str | None = None,
    loras: Sequence[LORA] = (),
    negative: str = "",
    num_images: int | None = None,
    batch_size: int = 1,
    size: str | int | tuple[int, int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    ema: bool = False,
    fuse: bool = False,
    low_memory: bool = False,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Generated:
    """Draw pictures into a folder, each with its prompt and its parameters beside it.

    Picture number i is drawn from the seed `seed` + i (or its line's own), and does not depend on `batch_size`.

    Args:
        out: the folder; itself a data set of pictures and captions. One that was begun is continued.
        prompt: a prompt, or several; taken literally.
        prompts: a file of prompts instead, one a line, with kohya's flags.
        base: `bundled`, a diffusers folder, a single file, or a hub id. Unset: that of the first run folder among
            the LoRAs, else `bundled`.
        vae: another VAE than the base's own.
        loras: adapter files or run folders, each as `FILE`, `"FILE:STRENGTH"` or `(FILE, STRENGTH)`.
        num_images: so many pictures, with the prompts shuffled by the seed and repeated as needed. Unset: every
            prompt once, in its order.
        batch_size: pictures that go through the network at once.
        size: `"768x512"` (width x height) or 512. Unset: the size that the base was trained on.
        steps, guidance, sampler, seed: unset, the settings in the section `sample`.
        ema: use the running mean of the weights, which the training wrote beside the adapter.
        fuse: add the adapters into the base's weights instead of running them beside it. A little faster.
        low_memory: the least memory rather than the least time: on a card the weights come and go, each half of the
            guidance is computed by itself, and the VAE works in tiles.
        overrides: changed settings as `key=value` of the sections `model`, `sample` and `train` (precision, device,
            stream).
        console: where progress is shown; by default the error stream.
    """
    group = current()
    console = voice(group, console)
    if batch_size < 1 or (num_images is not None and num_images < 1):
        raise UserError(f"batch size {batch_size}, {num_images} pictures: both must be 1 or more.")
    asked = [_wanted(lora) for lora in loras]
    settings = _settings(asked, ema_base(base) if ema and not asked else base, vae, overrides)
    lines = _prompt_lines(prompt, prompts)
    device = pick_device(settings.train.device)
    dtype = pick_dtype(settings.train.precision, device)
    opened = open_configured(settings.model)
    adapters = [choose(lora, spec=opened.spec, ema=ema) for lora in asked]

    sample = settings.sample
    width, height = _size(size, opened)
    defaults = Request(
        prompt="",
        width=width,
        height=height,
        seed=sample.seed if seed is None else seed,
        negative=negative,
        steps=sample.steps if steps is None else steps,
        guidance=sample.guidance if guidance is None else guidance,
        sampler=known_sampler(sampler or sample.sampler),
    )
    requests = choose_prompts(lines, defaults, num_images=num_images)
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=opened.zero_terminal_snr)
    check_prediction(opened.prediction, schedule)
    for name, num_steps in {(request.sampler, request.steps) for request in requests}:
        timesteps_for(name, schedule=schedule, num_steps=num_steps)  # refuses what the sampler cannot do, now

    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"--out {folder} is a file; the pictures go into a folder.", fix=f"--out {folder.stem}-pictures"
        )
    extra = what_decides(opened, settings.model, adapters, dtype)
    jobs = [Job(request, folder / f"{index:05d}.png", extra) for index, request in enumerate(requests)]
    todo = [job for job in jobs if not already_drawn(job.path, record_of(job.request, extra))]
    if len(todo) < len(jobs):
        console.print(f"{len(jobs) - len(todo)} of {len(jobs)} pictures are there already", highlight=False)

    group.wait()  # every process has seen what is there before one draws
    applied: tuple[Applied, ...] = ()
    if todo and group.is_first:
        _make_ready(folder)
    group.wait()
    undrawn = {job.path for job in todo}
    own = [job for job in group.share(jobs) if job.path in undrawn]
    if own:
        pipeline, applied = _load(
            opened,
            schedule,
            settings.model,
            adapters,
            _batched_texts(jobs, own),
            dtype,
            device,
            fuse=fuse,
            low_memory=low_memory,
            ahead=ahead_for(settings.train, device, low_memory=low_memory, fuse=fuse),
            sample=sample,
            tell=lambda words: console.print(words, highlight=False, markup=False, soft_wrap=True),
        )
        for line in applied:
            console.print(str(line), highlight=False, markup=False)
        _draw(pipeline, own, batch_size, console)
    group.wait()
    sheet = folder / CONTACT_SHEET
    if group.is_first:
        _write_sheet(sheet, jobs)
    return Generated(folder, tuple(job.path for job in jobs), sheet, applied, len(jobs) - len(todo))


def _settings(asked: Sequence[Wanted], base: str | None, vae: str | None, overrides: Sequence[str]) -> Settings:
    """Those of the first run folder among the LoRAs, so that it is drawn as it was sampled; else the defaults."""
    runs = [lora.run_settings for lora in asked if lora.run_settings is not None]
    # The run may have been on another machine: where it computed says nothing about here.
    here = ["train.device=auto", "train.precision=auto", "train.stream=off", "sample.cuda_graphs=auto"]
    if base is not None:  # another base than the run's has its own VAE and prediction type
        here += ["model.vae=off", "model.prediction=auto", "model.zero_terminal_snr=auto"]
    settings = resolve(files=runs[:1], overrides=[*here, *overrides]).settings
    named = {"base": base, "vae": vae}
    model = settings.model.model_copy(update={key: value for key, value in named.items() if value is not None})
    return settings.model_copy(update={"model": model})


def ahead_for(train: TrainConfig, device: torch.device, *, low_memory: bool, fuse: bool) -> int | None:
    """How many blocks ahead of their use weights come to the device; None where they are there. `low_memory` lets
    them come and go on a card: the pictures are the same. On a CPU there is nowhere else to keep them."""
    asked = train.stream != "off" or (low_memory and device.type == "cuda" and not fuse)
    return train.stream_ahead if asked else None


def _prompt_lines(prompt: str | Sequence[str] | None, prompts: str | Path | None) -> list[PromptLine]:
    if (prompt is None) == (prompts is None):
        raise UserError("give either a prompt or a file of prompts.", fix='--prompt "a photo of a corgi"')
    if prompts is not None:
        return read_lines(Path(prompts))
    assert prompt is not None
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not texts:
        raise UserError("there are no prompts.", fix='--prompt "a photo of a corgi"')
    return [PromptLine(" ".join(text.split()), {}) for text in texts]  # a caption is one line


def _size(size: str | int | tuple[int, int] | None, base: Base) -> tuple[int, int]:
    if size is None:
        return base.spec.native_resolution, base.spec.native_resolution
    return size if isinstance(size, tuple) else parse_size(str(size))


def _wanted(lora: LORA) -> Wanted:
    match lora:
        case Wanted():
            return lora
        case (path, strength):
            return Wanted(Path(path), float(strength))
        case str():
            return wanted(lora)
        case _:
            return Wanted(Path(lora))


def what_decides(base: Base, model: ModelConfig, adapters: Sequence[Chosen], dtype: torch.dtype) -> dict[str, Any]:
    """What decides the pixels besides the request. No folders: pictures are given away."""
    rounded = {} if base.quantize == "off" else {"quantize": base.quantize}
    return {
        "base": Path(base.source).name if Path(base.source).exists() else base.source,
        "weights": {part: base.fingerprint(part) for part in ("unet", "vae", "text")},
        "prediction": base.prediction,
        "zero_terminal_snr": base.zero_terminal_snr,
        "clip_skip": model.clip_skip,
        "max_tokens": model.max_tokens,
        "precision": precision_name(dtype),
        **rounded,
        "loras": [adapter.record() for adapter in adapters],
    }


def _texts(jobs: Iterable[Job]) -> list[str]:
    """Every different prompt, negative ones too."""
    return list(dict.fromkeys(text for job in jobs for text in (job.request.prompt, job.request.negative)))


def _batched_texts(jobs: Sequence[Job], own: Sequence[Job]) -> list[list[str]]:
    """The texts of all jobs in batches, of which only those with a text of `own` are given: the last bits of a text's
    states depend on what shares its batch, so it is always the same ones."""
    texts, wanted = _texts(jobs), set(_texts(own))
    batches = [texts[start : start + PROMPTS_AT_ONCE] for start in range(0, len(texts), PROMPTS_AT_ONCE)]
    return [batch for batch in batches if wanted & set(batch)]


def _load(
    base: Base,
    schedule: NoiseSchedule,
    model: ModelConfig,
    adapters: Sequence[Chosen],
    batches: Sequence[Sequence[str]],
    dtype: torch.dtype,
    device: torch.device,
    *,
    fuse: bool,
    low_memory: bool,
    ahead: int | None,
    sample: SampleConfig,
    tell: Tell,
) -> tuple[Pipeline, tuple[Applied, ...]]:
    """Encode the prompts and let the encoders go, then load the UNet and the VAE."""
    graphs = graphs_of(sample, device, ahead=ahead, low_memory=low_memory, tell=tell)
    encoders = base.load_text(dtype=dtype, device=device, clip_skip=model.clip_skip, max_tokens=model.max_tokens)
    text_counts = put_on(encoders.modules, adapters, fused=fuse)
    states = encode_texts(encoders.encode, batches)
    del encoders
    release_memory(device)

    unet = base.load_unet(dtype=dtype, device=device, ahead=ahead)
    unet_counts = put_on({"unet": unet}, adapters, fused=fuse)
    vae = base.load_vae(dtype=dtype, device=device)
    pipeline = Pipeline(
        unet=unet,
        schedule=schedule,
        prediction=base.prediction,
        encode=lambda prompts: stacked([states[prompt] for prompt in prompts]),
        decode=decoding(vae, low_memory=low_memory),
        guide_separately=guides_apart(sample, low_memory=low_memory),
        graphs=graphs,
    )
    counts = [text + of_unet for text, of_unet in zip(text_counts, unet_counts, strict=True)]
    applied = tuple(
        Applied(adapter.path.name, adapter.strength, count, len(adapter.content.state))
        for adapter, count in zip(adapters, counts, strict=True)
    )
    return pipeline, applied


def guides_apart(sample: SampleConfig, *, low_memory: bool) -> bool:
    """Whether the prompt and the negative one go through the network one after the other."""
    return low_memory if sample.guide == "auto" else sample.guide == "apart"


def graphs_of(
    sample: SampleConfig, device: torch.device, *, ahead: int | None, low_memory: bool, tell: Tell
) -> Graphs | None:
    """What replays the network's steps, where it can be."""
    obstacles = {
        "weights come and go (train.stream, or --low-memory)": ahead is not None,
        "they keep the memory of a step, and --low-memory asks for the least": low_memory,
    }
    return graphs_for(sample.cuda_graphs, device, obstacles=obstacles, tell=tell)


def decoding(vae: VAE, *, low_memory: bool = False) -> Callable[[Tensor], Tensor]:
    """How latents become pixels: one picture at a time, a large one in tiles."""
    vae.set_slicing(True)

    def decode(latents: Tensor) -> Tensor:
        is_large = latents[0, 0].numel() * vae.patch**2 > LARGE_PICTURE
        vae.set_tiling(low_memory or is_large, side=SMALL_TILE if low_memory else LARGE_TILE)
        return vae.decode(latents)

    return decode


@torch.no_grad()
def encode_texts(
    encode: Callable[[Sequence[str]], TextStates], batches: Sequence[Sequence[str]]
) -> dict[str, TextStates]:
    """The states of every text, on the CPU."""
    states: dict[str, TextStates] = {}
    for some in batches:
        encoded = encode(some)
        for index, text in enumerate(some):
            pooled = None if encoded.pooled is None else encoded.pooled[index].cpu()
            states[text] = TextStates(encoded.context[index].cpu(), pooled)
    return states


def stacked(states: Sequence[TextStates]) -> TextStates:
    """B of (L, D) and (P,) -> (B, L, D) and (B, P)"""
    pooled = [state.pooled for state in states if state.pooled is not None]
    return TextStates(torch.stack([state.context for state in states]), torch.stack(pooled) if pooled else None)


def _draw(pipeline: Pipeline, todo: Sequence[Job], batch_size: int, console: Console) -> None:
    """Draw and save each picture; those that can share a batch are brought together."""
    jobs = sorted(todo, key=lambda job: kind(job.request))
    steps_done, num_saved, num_steps = 0, 0, sum(job.request.steps for job in jobs)
    with progress_bar(console, "drawing", num_steps) as advance:

        def report(num_pictures: int) -> None:
            nonlocal steps_done
            steps_done += num_pictures
            advance(steps_done, num_steps, f"picture {min(num_saved + 1, len(jobs))} of {len(jobs)}")

        images = pipeline.draw([job.request for job in jobs], batch_size=batch_size, on_step=report)
        for job, image in zip(jobs, images, strict=True):
            save_picture(image, job.request, job.path, job.extra)
            num_saved += 1


def _make_ready(folder: Path) -> None:
    """See that pictures can be written, before an hour is spent on them; remove what a kill left half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: no folder can be made there ({error.strerror}).") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder}: nothing can be written there.", fix="choose another folder with --out")
    for partial in folder.glob(f"[0-9][0-9][0-9][0-9][0-9].*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


def _write_sheet(path: Path, jobs: Sequence[Job]) -> None:
    """Lay all pictures on one sheet, those of an earlier run too."""
    largest = max(max(job.request.width, job.request.height) for job in jobs)
    labels = [f"{job.path.stem}, seed {job.request.seed}\n{job.request.prompt}" for job in jobs]
    cell = max(160, min(largest, cell_size(len(jobs)))) if len(jobs) <= 100 else cell_size(len(jobs))
    sheet = contact_sheet(_opened(job.path for job in jobs), labels=labels, cell=cell)
    with written_beside(path) as partial:
        sheet.save(partial, format="PNG")


def _opened(paths: Iterable[Path]) -> Iterator[Image.Image]:
    for path in paths:
        with Image.open(path) as image:
            yield image
