"""What this machine has, what of it matters here, and what would put right what is missing: `brushwork doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from brushwork.config.cards import advice
from brushwork.places import user_cache_folder
from brushwork.runtime import has_bf16

GIB = 2**30
LITTLE_ROOM = 5 * GIB
"""Below this much free disk, a warning: one SDXL base is 7 GB, a state up to 2 GB."""

IN_USE = 0.15
"""Above this share of a card in use already, a note: a desktop alone takes less."""

CORE = ("transformers", "diffusers", "safetensors", "huggingface_hub", "pydantic", "Pillow")
EXTRAS = {
    "quantize": ("bitsandbytes", "8-bit and 4-bit weights"),
    "optimizers": ("bitsandbytes prodigyopt schedulefree", "AdamW8bit, paged, Lion, Prodigy, schedule-free"),
    "search": ("optuna", "searching settings"),
    "dashboard": ("optuna_dashboard", "watching a search in the browser"),
    "postgresql": ("psycopg", "a search of several machines"),
    "data": ("pyarrow", "reading parquet files and Hugging Face data sets"),
    "studio": ("nicegui", "the local page"),
    "tags": ("onnxruntime", "captions by taggers"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
    "wandb": ("wandb", "curves in Weights & Biases"),
    "tracking": ("tensorboard wandb", "both of these"),
}
"""What is optional: extra -> the modules that it brings, and what they are for."""

PYTORCH = "https://pytorch.org/get-started/locally"

PROBE = "stabilityai/stable-diffusion-xl-base-1.0"
"""The repository that is asked for, to see whether the hub answers."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    found: str
    verdict: Literal["ok", "note", "problem"] = "ok"
    fix: str | None = None


def examine(*, online: bool = False) -> Iterator[Finding]:
    """Look at everything, quick things first. The network is used only if `online`."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _torch()
    yield from _cards()
    yield _attention()
    yield Finding("memory", _free_of(psutil.virtual_memory().available, psutil.virtual_memory().total))
    yield _disk()
    for package in CORE:
        yield _package(package)
    for extra, (modules, purpose) in EXTRAS.items():
        yield _extra(extra, modules, purpose)
    yield _hub(online)
    yield suited_recipe(_largest_card())


def suited_recipe(card: tuple[float, tuple[int, int]] | None) -> Finding:
    """The recipe for a card of so many GiB and this compute capability (None: no card), and why."""
    found = advice(*(card or (None,)))
    size = f"{card[0]:.0f} GiB: " if card else ""
    others = f"; also {', '.join(found.others)}" if found.others else ""
    guessed = f" (the guides' figures, not measured{others})" if card else ""
    recipe = found.recipe or "sdxl-512-tiny-vram"
    fix = f"brushwork recipes {recipe}"
    if card:  # what is counted for the run itself is better than any table
        fix = f"brushwork plan DATA --recipe {recipe} --base BASE --vram {card[0]:.0f} has the last word"
    words = f"{size}{found.recipe or 'none'}: {found.why}{guessed}"
    return Finding("recipe", words, "ok" if found.fits else "note", fix)


def _torch() -> Iterator[Finding]:
    built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield Finding("torch", f"{torch.__version__}, {built_for}")
    if torch.version.cuda and not torch.cuda.is_available():
        fix = "install the NVIDIA driver, until nvidia-smi lists the card"
        yield Finding("CUDA", "torch was built for it, but sees no card", "note", fix)
    elif torch.version.cuda is None and shutil.which("nvidia-smi"):
        found = "there is an NVIDIA driver, but this torch was built without CUDA"
        yield Finding("CUDA", found, "problem", f"reinstall torch from {PYTORCH}")


def _cards() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        name, about = torch.cuda.get_device_name(index), f"card {index}"
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        yield _card(about, f"{name} (sm_{major}{minor})", free, total)
        if not runs_on((major, minor), torch.cuda.get_arch_list()):
            found = f"this torch has no code for sm_{major}{minor}"
            yield Finding(about, found, "problem", f"install a newer torch from {PYTORCH}")
        bf16 = has_bf16(torch.device("cuda", index))
        found = "yes" if bf16 else "no: fp16 with loss scaling will be used"
        yield Finding("bf16", found, "ok" if bf16 else "note")
    if torch.backends.mps.is_available():
        yield Finding("card", "Apple MPS")
    elif not torch.cuda.is_available():
        yield Finding("card", "none that torch sees: the CPU computes", "note")


def _card(about: str, name: str, free: int, total: int) -> Finding:
    """A card, and whether other programs leave enough of it."""
    if total - free > IN_USE * total:
        fix = "nvidia-smi shows which programs hold the rest; close them"
        return Finding(about, f"{name}, {_free_of(free, total)}", "note", fix)
    return Finding(about, f"{name}, {_free_of(free, total)}")


def runs_on(capability: tuple[int, int], compiled_for: list[str]) -> bool:
    """Whether a torch compiled for `sm_90`, `compute_90`, ... has code for a card of this compute capability.

    Machine code (sm) runs on cards of the same generation, from its own minor number on; PTX (compute) on all later.
    """
    for arch in compiled_for:
        if found := re.match(r"(sm|compute)_(\d+)(\d)", arch):
            kind, compiled = found[1], (int(found[2]), int(found[3]))
            if compiled <= capability and (kind == "compute" or compiled[0] == capability[0]):
                return True
    return False


def _attention() -> Finding:
    """Which of torch's attention kernels run here: each is tried on a small input."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    x = torch.ones(1, 2, 64, 64, dtype=dtype, device=device)
    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "plain": SDPBackend.MATH,
    }
    return Finding("attention", ", ".join(name for name, backend in backends.items() if _runs(backend, x)))


def _runs(backend: SDPBackend, x: torch.Tensor) -> bool:
    import warnings

    with warnings.catch_warnings(), sdpa_kernel(backend):
        warnings.simplefilter("ignore")  # torch says at length why a kernel cannot run
        try:
            F.scaled_dot_product_attention(x, x, x)
        except RuntimeError:
            return False
    return True


def _disk() -> Finding:
    folder = user_cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    usage = shutil.disk_usage(existing)
    found = f"{_free_of(usage.free, usage.total)} for the cache in {folder}"
    if not os.access(existing, os.W_OK):
        return Finding("disk", f"{found}, which cannot be written to", "problem", "--set cache.folder=ANOTHER-FOLDER")
    if usage.free < LITTLE_ROOM:
        return Finding("disk", found, "problem", "free some room, or --set cache.folder=ANOTHER-FOLDER")
    return Finding("disk", found)


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", "problem", f"pip install {name}")


def _extra(extra: str, modules: str, purpose: str) -> Finding:
    absent = [module for module in modules.split() if importlib.util.find_spec(module) is None]
    if not absent:
        return Finding(f"[{extra}]", purpose)
    what = "not installed" if modules == absent[0] else f"{', '.join(absent)} not installed"
    return Finding(f"[{extra}]", f"{what} ({purpose})", "note", f"pip install 'brushwork[{extra}]'")


def _hub(online: bool) -> Finding:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "HF_HUB_OFFLINE is set: nothing is asked of it")
    if not online:
        return Finding("hub", "not asked; `brushwork doctor --online` asks it")
    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/models/{PROBE}", timeout=10):
            return Finding("hub", f"{constants.ENDPOINT} answers")
    except OSError as error:
        found = f"{constants.ENDPOINT} does not answer ({getattr(error, 'reason', error)})"
        return Finding("hub", found, "note", "use a base that is on this machine: --base FILE.safetensors")


def _largest_card() -> tuple[float, tuple[int, int]] | None:
    if not torch.cuda.is_available():
        return None
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    largest = max(cards, key=lambda card: int(card.total_memory))
    return largest.total_memory / GIB, (largest.major, largest.minor)


def _free_of(free: int, total: int) -> str:
    return f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
