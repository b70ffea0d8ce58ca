"""Every candidate draws every cell, and no picture is ever drawn twice.

A picture's file is named after what decides its pixels: the weights of the base, the adapter's numbers and strength,
and the request. So a second evaluation, one that was killed, and one with more prompts find what is there.

Pictures are drawn in batches that are always the same, whatever is there already and however many processes share
the work: the last bits of a picture depend on what shares its batch.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console

from brushwork.atomic import remove_partials
from brushwork.config.schema import ModelConfig, SampleConfig
from brushwork.diffusion.schedule import NoiseSchedule
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.evaluation.candidates import Candidate
from brushwork.evaluation.prompts import Cell
from brushwork.generation.generate import (
    PROMPTS_AT_ONCE,
    SMALL_TILE,
    decoding,
    encode_texts,
    graphs_of,
    guides_apart,
    stacked,
    what_decides,
)
from brushwork.generation.pictures import save_picture
from brushwork.generation.pipeline import Pipeline, batches, kind
from brushwork.generation.prompts import Request
from brushwork.lora.files import read_adapter
from brushwork.lora.inject import apply
from brushwork.lora.state import AdapterState, Components, component_of
from brushwork.models.text import TextStates
from brushwork.models.weights import Base
from brushwork.progress import progress_bar
from brushwork.runtime import release_memory

States = Mapping[str, TextStates]


@dataclass(frozen=True)
class Studio:
    """What all candidates have in common, and where their pictures lie.

    Args:
        sample: how the network is asked.
        folder_of_base: where the base's pictures lie, so that several evaluations draw them once; by default a folder
            beside those of the candidates.
        low_memory: see `generate`.
        ahead: how many blocks ahead of their use weights come to the device; None where they are there.
    """

    base: Base
    model: ModelConfig
    dtype: torch.dtype
    device: torch.device
    folder: Path
    cells: Sequence[Cell]
    batch_size: int
    sample: SampleConfig
    folder_of_base: Path | None = None
    low_memory: bool = False
    ahead: int | None = None

    @cached_property
    def _of_base(self) -> dict[str, Any]:
        return what_decides(self.base, self.model, (), self.dtype)

    def facts(self, candidate: Candidate, request: Request) -> dict[str, Any]:
        """What decides a candidate's picture besides the request."""
        loras = [] if candidate.file is None else [_lora(candidate)]
        in_tiles = self.low_memory and max(request.width, request.height) > SMALL_TILE
        return {**self._of_base, **({"vae_tile": SMALL_TILE} if in_tiles else {}), "loras": loras}

    def file(self, candidate: Candidate, cell: Cell) -> Path:
        """Where a picture lies: told apart by all that decides it, names aside."""
        facts = self.facts(candidate, cell.request)
        contents = [[lora["sha256"], lora["strength"]] for lora in facts["loras"]]
        decides = {**cell.request.to_json(), **facts, "loras": contents, "base": None}
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{cell.prompt + 1:02d}-seed{cell.request.seed}-{key}.png"
        if candidate.is_base and self.folder_of_base is not None:
            return self.folder_of_base / name
        return self.folder / candidate.name.replace(":", "@") / name

    def files(self, candidate: Candidate) -> list[Path]:
        return [self.file(candidate, cell) for cell in self.cells]

    def missing(self, candidate: Candidate) -> list[Path]:
        """The pictures that are still to be drawn."""
        return [file for file in self.files(candidate) if not file.exists()]


Work = tuple[Candidate, list[Cell]]
"""Cells that a candidate draws in one batch."""


def draw_missing(
    studio: Studio,
    asked: Sequence[Candidate],
    *,
    group: Group,
    console: Console,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Draw what is not there; -> why candidates could not draw, by name.

    Args:
        interrupted: asked between two pictures.
    """
    if group.is_first and studio.folder.exists():
        remove_partials(studio.folder)  # not in `folder_of_base`, where somebody else may be writing
    group.wait()  # every process has seen what is there before one draws
    incomplete = [each for each in asked if studio.missing(each)]
    work = [(each, batch) for each in incomplete for batch in _batches(studio)]
    group.wait()
    own = [(each, batch) for each, batch in group.share(work) if _lacks(studio, each, batch)]
    problems: dict[str, str] = {}
    if own:
        problems = _draw(studio, own, console, interrupted)
    gathered = group.gathered(problems)
    return {name: text for each in gathered for name, text in each.items()}


def draw_with(
    pipeline: Pipeline,
    studio: Studio,
    candidate: Candidate,
    *,
    group: Group,
    interrupted: Callable[[], bool] = lambda: False,
) -> bool:
    """Draw what is missing of one candidate with a model that is there already; -> whether all is there."""
    problem = None
    try:
        for batch in [each for each in group.share(_batches(studio)) if _lacks(studio, candidate, each)]:
            for _ in _draw_batch(pipeline, studio, candidate, batch):
                if interrupted():
                    break
            if interrupted():
                break
    except Exception as error:  # told when every process is here: one that left early would keep the others waiting
        problem = f"{type(error).__name__}: {error}"
    pipeline.forget_graphs()
    problems = [each for each in group.gathered(problem) if each is not None]
    if problems:
        raise UserError(f"{candidate.name} could not draw: {problems[0]}")
    return not studio.missing(candidate)


def texts_of(cells: Sequence[Cell]) -> list[list[str]]:
    """Every text in batches that are always the same."""
    texts = list(dict.fromkeys(text for cell in cells for text in (cell.request.prompt, cell.request.negative)))
    return [texts[start : start + PROMPTS_AT_ONCE] for start in range(0, len(texts), PROMPTS_AT_ONCE)]


def opened(file: Path) -> Image.Image:
    """A drawn picture."""
    with Image.open(file) as image:
        return image.convert("RGB")


def _lora(candidate: Candidate) -> dict[str, Any]:
    assert candidate.file is not None
    return {"file": candidate.file.name, "strength": candidate.strength, "sha256": candidate.digest}


def _batches(studio: Studio) -> list[list[Cell]]:
    cells = sorted(studio.cells, key=lambda cell: kind(cell.request))
    requests = batches([cell.request for cell in cells], studio.batch_size)
    rest = iter(cells)
    return [[next(rest) for _ in batch] for batch in requests]


def _lacks(studio: Studio, candidate: Candidate, batch: Sequence[Cell]) -> bool:
    return any(not studio.file(candidate, cell).exists() for cell in batch)


def _draw(studio: Studio, work: Sequence[Work], console: Console, interrupted: Callable[[], bool]) -> dict[str, str]:
    """One network for all: each candidate's adapter is put on, draws, and is taken off again."""
    who = list(dict.fromkeys(each for each, _ in work))
    graphs = graphs_of(
        studio.sample,
        studio.device,
        ahead=studio.ahead,
        low_memory=studio.low_memory,
        tell=lambda words: console.print(words, highlight=False, markup=False, soft_wrap=True),
    )
    adapters, problems = _adapters(studio, who)
    states, unread = _states(studio, adapters)
    problems |= unread
    unet = studio.base.load_unet(dtype=studio.dtype, device=studio.device, ahead=studio.ahead)
    vae = studio.base.load_vae(dtype=studio.dtype, device=studio.device)
    schedule = NoiseSchedule.scaled_linear(zero_terminal_snr=studio.base.zero_terminal_snr)
    total = sum(len(batch) for _, batch in work)
    done = 0
    pipeline = Pipeline(
        unet=unet,
        schedule=schedule,
        prediction=studio.base.prediction,
        encode=_from({}),
        decode=decoding(vae, low_memory=studio.low_memory),
        guide_separately=guides_apart(studio.sample, low_memory=studio.low_memory),
        graphs=graphs,
    )
    with progress_bar(console, "drawing", total) as advance:
        for candidate in states:
            own = [batch for each, batch in work if each == candidate]
            pipeline.forget_graphs()  # they compute with what the candidate before put on
            pipeline = replace(pipeline, encode=_from(states[candidate]))
            try:
                part = {name: each for name, each in adapters[candidate].items() if component_of(name) == "unet"}
                with _wearing({"unet": unet}, part, candidate):
                    for batch in own:
                        for _ in _draw_batch(pipeline, studio, candidate, batch):
                            done += 1
                            advance(done, total, candidate.name)
                            if interrupted():
                                return problems
            except UserError as error:
                problems[candidate.name] = error.problem
    pipeline.forget_graphs()
    del unet, vae, pipeline
    release_memory(studio.device)
    return problems


def _draw_batch(pipeline: Pipeline, studio: Studio, candidate: Candidate, batch: Sequence[Cell]) -> Iterator[Path]:
    """Draw a batch as a whole, and keep of it what is not there."""
    images = pipeline.draw([cell.request for cell in batch], batch_size=len(batch))
    for cell, image in zip(batch, images, strict=True):
        file = studio.file(candidate, cell)
        if not file.exists():
            save_picture(image, cell.request, file, studio.facts(candidate, cell.request))
        yield file


def _adapters(studio: Studio, who: Sequence[Candidate]) -> tuple[dict[Candidate, AdapterState], dict[str, str]]:
    """What each candidate puts on, and why some cannot."""
    adapters: dict[Candidate, AdapterState] = {}
    problems: dict[str, str] = {}
    for candidate in who:
        try:
            adapters[candidate] = (
                {} if candidate.file is None else read_adapter(candidate.file, spec=studio.base.spec).state
            )
        except UserError as error:
            problems[candidate.name] = error.problem
    return adapters, problems


def _states(
    studio: Studio, adapters: Mapping[Candidate, AdapterState]
) -> tuple[dict[Candidate, States], dict[str, str]]:
    """The prompts as each candidate's text encoders read them, which leave before the UNet comes; and why some cannot
    be read."""
    encoders = studio.base.load_text(
        dtype=studio.dtype,
        device=studio.device,
        clip_skip=studio.model.clip_skip,
        max_tokens=studio.model.max_tokens,
    )
    texts = texts_of(studio.cells)
    plain = encode_texts(encoders.encode, texts)
    states: dict[Candidate, States] = {}
    problems: dict[str, str] = {}
    for candidate, state in adapters.items():
        part = {name: each for name, each in state.items() if component_of(name) != "unet"}
        try:
            with _wearing(encoders.modules, part, candidate):
                states[candidate] = encode_texts(encoders.encode, texts) if part else plain
        except UserError as error:
            problems[candidate.name] = error.problem
    del encoders
    release_memory(studio.device)
    return states, problems


def _from(states: States) -> Callable[[Sequence[str]], TextStates]:
    return lambda prompts: stacked([states[prompt] for prompt in prompts])


@contextmanager
def _wearing(components: Components, part: AdapterState, candidate: Candidate) -> Iterator[None]:
    """Within it, the networks compute as the candidate does."""
    if not part:
        yield
        return
    adapter = apply(components, part, strength=candidate.strength)
    try:
        yield
    finally:
        adapter.detach()
