"""Which recipe for which card. The figures are those of the guides behind the recipes; none of them is measured."""

from dataclasses import dataclass

BF16_SINCE = (8, 0)
TENSOR_CORES_SINCE = (7, 0)


@dataclass(frozen=True)
class Advice:
    """The recipe to begin with on a card."""

    recipe: str | None
    """None: no recipe for SD 1.5 or SDXL is advised."""
    why: str
    others: tuple[str, ...] = ()
    """What may be worth a try too."""
    fits: bool = True
    """Whether there is room to spare; otherwise it just fits, or not at all."""


_STANDARD = "its guide takes 13-14 GB for it"
_FROM = {
    38: Advice(
        "sdxl-standard",
        f"{_STANDARD}; full fine-tuning, 36 GB by count, has a chance too",
        ("sdxl-1024-r16", "sdxl-16gb", "sd15-character", "sdxl-full-finetune"),
    ),
    24: Advice("sdxl-standard", _STANDARD, ("sdxl-1024-r16", "sdxl-16gb", "sd15-character")),
    16: Advice("sdxl-standard", _STANDARD, ("sdxl-16gb", "sdxl-768", "sd15-character")),
    12: Advice(
        "sdxl-low-memory",
        "its guide takes 11-12 GB for it, so it just fits; sdxl-standard, where it sends a 4070 Ti, takes 13-14 GB",
        ("sdxl-512-tiny-vram", "sd15-character"),
        fits=False,
    ),
    8: Advice(
        "sdxl-512-tiny-vram",
        "its guide takes 7.5 GB for it; sdxl-low-memory, where another guide sends cards of 8 GB, takes 11-12 GB",
        ("sd15-character",),
        fits=False,
    ),
    0: Advice(
        None,
        "less than 8 GB is not recommended for SDXL; the smallest recipe, sdxl-512-tiny-vram, takes 7.5 GB",
        ("sd15-character",),
        fits=False,
    ),
}
"""From so many GiB on, the largest first. Cards that are sold with 40 GB report 39 GiB, and some a little less."""


def advice(memory_gib: float | None, capability: tuple[int, int] | None = None) -> Advice:
    """The recipe for a card with so much memory and this CUDA compute capability; without a card, for the CPU."""
    if memory_gib is None:
        return Advice("tiny", "without a card, SD 1.5 and SDXL train too slowly to be of use", fits=False)
    memory = round(memory_gib)  # a card sold with 12 GB reports a little less
    found = next(found for least, found in _FROM.items() if memory >= least)
    return Advice(found.recipe, found.why + _precision(capability), found.others, found.fits)


def _precision(capability: tuple[int, int] | None) -> str:
    if capability is None or capability >= BF16_SINCE:
        return ""
    if capability >= TENSOR_CORES_SINCE:
        return "; this card has no bf16 and computes in fp16 with loss scaling"
    return "; this card has neither bf16 nor tensor cores: expect many times the hours"
