"""Where the program computes, in which precision, and where its random numbers come from."""

import gc
import hashlib
import re
from typing import Protocol

import psutil
import torch

from brushwork.distributed import current
from brushwork.errors import UserError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""The names of number types in settings, files and messages."""

BESIDE = 0.6
"""GiB of a card that are not the run's: CUDA's context and the workspaces of its libraries. Not measured."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""What libraries say when an allocation fails: CUDA and MPS, torch's allocator on the CPU, cuBLAS and cuDNN."""


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Of several processes on a machine, each takes the card of its number.
    """
    group = current()
    if group.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{group.local_rank}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if re.fullmatch(r"cpu|mps|cuda(:\d+)?", name) is None:
        raise UserError(
            f"train.device = {name!r}: unknown.", fix="--set train.device=auto, or cpu, cuda, cuda:1, mps"
        )
    device = torch.device(name)
    num_cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= num_cards:
        raise UserError(
            f"train.device = {name}: torch {torch.__version__} sees {num_cards} CUDA cards.",
            fix="--set train.device=auto; `brushwork doctor` tells what is there",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"train.device = {name}: this machine has none.", fix="--set train.device=auto")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether a CUDA card computes in bf16 itself. Older cards only pretend to, and take many times as long."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the frozen weights and of what is computed with them.

    `auto` is bf16 on a card that has it, fp16 on a card that has not, fp32 on the CPU.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        if device.type == "cuda" and not has_bf16(device):
            return torch.float16
        return torch.bfloat16
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}.", fix="use auto, bf16, fp16 or fp32")
    return PRECISIONS[precision]


def precision_name(dtype: torch.dtype) -> str:
    """What a number type is called in settings, files and messages: `bf16`, `fp16`, `fp32`, else torch's name."""
    names = {known: name for name, known in PRECISIONS.items()}
    return names.get(dtype, str(dtype).removeprefix("torch."))


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed that is a pure function of the run's seed, what the numbers are for, and where they are used."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A CPU generator for one purpose at one place, e.g. `generator(seed, "noise", step, microbatch)`.

    The draws are made on the CPU and moved, so that every device and every batch size sees the same numbers.
    """
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *index))


def release_memory(device: torch.device) -> None:
    """Give back what networks that were let go of still hold, before the next one is loaded."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


class Card(Protocol):
    """What is asked of CUDA about memory: `torch.cuda`."""

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        """Bytes that are free, and all that there are."""

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        """Refuse this process more than its share."""

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        """Begin to measure anew."""


def limit_memory(share: float | None, device: torch.device, card: Card = torch.cuda) -> int | None:
    """Take no more of a CUDA card than this share; -> that in bytes, None elsewhere.

    Where a driver lends a card the machine's own memory, a run that needs too much goes on many times as slowly, and
    nobody is told. With a limit it runs out of memory, which the loop knows how to meet.

    Args:
        share: None leaves what CUDA takes beside a run.
    """
    if device.type != "cuda":
        return None
    total = card.mem_get_info(device)[1]
    share = max(0.1, 1 - BESIDE * 2**30 / total) if share is None else share
    card.set_per_process_memory_fraction(share, device)
    return round(share * total)


def measure_peak_anew(device: torch.device, card: Card = torch.cuda) -> None:
    """Let `peak_memory` tell of what comes from here on, where it can."""
    if device.type == "cuda":
        card.reset_peak_memory_stats(device)


def reserved_memory(device: torch.device) -> int | None:
    """Bytes that torch holds of a CUDA card now, in use or not; None elsewhere."""
    return int(torch.cuda.memory_reserved(device)) if device.type == "cuda" else None


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a CUDA card so far, elsewhere the process's resident memory now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
