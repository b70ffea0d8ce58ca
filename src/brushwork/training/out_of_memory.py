"""When memory runs out: how it is known, how a batch is cut, and what to say when that is not enough.

Shapes in this file:  B pictures of a batch
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from brushwork.config.describe import fields as settings_fields
from brushwork.config.describe import text_choices
from brushwork.config.schema import Settings
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.runtime import is_out_of_memory


class MemoryRanOutError(Exception):
    """An allocation failed. It carries the library's first line, and none of the tensors that its traceback holds."""


@contextmanager
def noticing() -> Iterator[None]:
    """Turn a failed allocation into a `MemoryRanOutError`.

    The error as it comes holds every frame, and with them the tensors that have to go before another try.
    """
    said = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or [""])[0] or type(error).__name__
    if said is not None:
        raise MemoryRanOutError(said)


def total_while_memory_lasts(own: Callable[[], float], group: Group) -> float:
    """The sum of what each process computes by itself, the same bits in each.

    Raises:
        MemoryRanOutError: in all of them, where memory ran out in any: none waits for one that is already elsewhere.
    """
    number, said = 0.0, None
    try:
        with noticing():
            number = own()
    except MemoryRanOutError as error:
        said = str(error)
    failed = [each for each in group.gathered(said) if each is not None]
    if failed:
        raise MemoryRanOutError(failed[0])
    return group.total(number)


def part_of(batch: Any, where: slice) -> Any:
    """Some pictures of a batch: of a tensor (B, ...), a tuple of B, or a dataclass of these; None stays None."""
    if batch is None:
        return None
    if isinstance(batch, Tensor | tuple):
        return batch[where]
    return type(batch)(**{field.name: part_of(getattr(batch, field.name), where) for field in fields(batch)})


def parts(count: int, at_once: int | None) -> list[slice]:
    """`count` pictures in parts of `at_once` at most; None is all of them."""
    size = at_once or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def stopped(
    said: str, settings: Settings, *, step: int, saved: bool, device: torch.device, sharded: bool = False
) -> UserError:
    """What to tell when no smaller part is left to try.

    Args:
        said: by the library.
        saved: whether the state of the last whole step was written.
        sharded: whether this process holds a piece of the network: it cannot try again while the others wait.
    """
    kept = (
        f"Everything up to step {step} is saved"
        if saved
        else "The last saved state is unharmed"
        if step
        else "Nothing had been learned yet"
    )
    helpful = savings(settings, device)
    if sharded and settings.train.batch_size > 1:
        smaller = f"train.batch_size={(settings.train.batch_size + 1) // 2}"
        helpful.insert(0, (smaller, "with twice the train.accumulation a step sees as many pictures"))
    lines = "".join(f"\n--set {setting}   {why}" for setting, why in helpful)
    how = f"one picture at a time: {said}"
    if sharded:
        how = f"and a network in pieces (train.sharding) cannot try again in smaller parts: {said}"
    return UserError(
        f"memory ran out in step {step + 1}, {how}\n{kept}.",
        fix="give the command again with --accept-changes and one or more of these, the first saves most for least:"
        f"{lines}\nlora.rank, train.mode and optimizer.name need a new --out as well. More train.accumulation alone "
        "saves nothing",
    )


def _is_frozen(settings: Settings) -> bool:
    """Whether the base's weights may be kept in another way."""
    return settings.train.mode == "lora" and settings.train.path != "plain"


Saving = tuple[str, str, Callable[[Settings, torch.device], bool]]

SAVINGS: tuple[Saving, ...] = (
    ("train.checkpointing=true", "a third more time", lambda s, d: not s.train.checkpointing),
    ("train.precision=bf16", "half the memory of the base",
     lambda s, d: d.type != "cpu" and s.train.precision == "fp32"),
    ("cache.text=on", "the text encoders leave", lambda s, d: s.cache.text == "off" and not s.lora.text_encoder),
    ("optimizer.name=adamw8bit", "a quarter of the optimizer's memory",
     lambda s, d: s.optimizer.name == "adamw" and s.train.sharding == "off"),
    ("train.ema_device=cpu", "the running mean leaves the card",
     lambda s, d: d.type != "cpu" and s.train.ema_decay is not None and s.train.ema_device == "auto"),
    ("model.quantize=int8", "half the memory of the base in bf16, its weights rounded",
     lambda s, d: d.type != "cpu" and _is_frozen(s) and s.model.quantize == "off"),
    ("train.stream=weights", "the base waits in the host's memory; slower where the card waits for it",
     lambda s, d: d.type == "cuda" and _is_frozen(s) and s.train.stream == "off"),
    ("lora.text_encoder=false", "only the UNet learns", lambda s, d: bool(s.lora.text_encoder)),
    ("train.mode=lora", "an adapter instead of the whole network",
     lambda s, d: s.train.mode == "full" and s.train.sharding == "off"),
)  # fmt: skip
"""Settings that save memory, what each costs or brings, and where it is of use."""


def savings(settings: Settings, device: torch.device) -> list[tuple[str, str]]:
    """What would help, as settings to paste; nothing that is set already or cannot be chosen here."""
    found = [(setting, why) for setting, why, helps in SAVINGS if helps(settings, device) and _can_be_chosen(setting)]
    size = settings.data.resolution
    smaller = next((side for side in (768, 512, 256) if side < (size or 1024)), None)
    if smaller is not None:
        found.append((f"data.resolution={smaller}", "activations shrink with the area of the picture"))
    if settings.train.mode == "lora" and settings.lora.rank > 4:
        found.append((f"lora.rank={settings.lora.rank // 2}", "half the adapter, its gradient and its optimizer"))
    return found


def _can_be_chosen(setting: str) -> bool:
    key, _, value = setting.partition("=")
    choices = text_choices(settings_fields()[key])
    return not choices or value in choices
