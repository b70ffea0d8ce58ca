"""What is known and said when memory runs out."""

from dataclasses import dataclass

import pytest
import torch

from brushwork.config.load import resolve
from brushwork.runtime import is_out_of_memory
from brushwork.training.out_of_memory import (
    MemoryRanOutError,
    noticing,
    part_of,
    parts,
    savings,
    stopped,
)

CARD, CPU = torch.device("cuda"), torch.device("cpu")


def test_a_failed_allocation_of_this_machine_is_known() -> None:
    with pytest.raises(MemoryRanOutError), noticing():
        torch.empty(2**60)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_the_words_of_every_library_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_another_error_stays_what_it_is() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"), noticing():
        raise RuntimeError("shapes cannot be multiplied")


@dataclass(frozen=True)
class Pair:
    tensor: torch.Tensor
    inner: object
    names: tuple[str, ...]


def test_parts_put_together_are_the_whole_batch() -> None:
    whole = Pair(torch.arange(10).reshape(5, 2), Pair(torch.rand(5), None, ()), ("a", "b", "c", "d", "e"))

    cut = [part_of(whole, where) for where in parts(5, 2)]

    assert [len(part.names) for part in cut] == [2, 2, 1]
    assert torch.equal(torch.cat([part.tensor for part in cut]), whole.tensor)
    assert torch.equal(torch.cat([part.inner.tensor for part in cut]), whole.inner.tensor)  # type: ignore[attr-defined]
    assert sum((part.names for part in cut), ()) == whole.names
    assert parts(5, None) == [slice(0, 5)]


def test_what_would_help_is_said_as_settings_and_nothing_that_is_set_already() -> None:
    asked = ["train.checkpointing=false", "cache.text=off", "lora.rank=32", "train.ema_decay=0.99"]
    settings = resolve(overrides=asked).settings

    told = dict(savings(settings, CARD))
    assert {"train.checkpointing=true", "cache.text=on", "train.ema_device=cpu", "lora.rank=16"} <= told.keys()
    assert "data.resolution=768" in told
    for setting in told:
        resolve(overrides=[setting])  # each can be pasted

    lean = resolve(overrides=["lora.rank=4", "data.resolution=256", "train.ema_device=cpu"]).settings
    assert {setting.partition("=")[0] for setting, _ in savings(lean, CPU)} <= {"optimizer.name"}


def test_the_end_says_what_is_saved_and_never_advises_accumulation_alone() -> None:
    settings = resolve(overrides=["train.checkpointing=false"]).settings
    told = stopped("CUDA out of memory", settings, step=41, saved=True, device=CARD)

    assert told.problem.startswith("memory ran out in step 42, one picture at a time: CUDA out of memory\n")
    assert "Everything up to step 41 is saved." in told.problem
    assert told.fix is not None
    assert "--set train.checkpointing=true" in told.fix
    assert "--set train.accumulation" not in told.fix
    assert "Nothing had been learned yet" in stopped("", settings, step=0, saved=False, device=CARD).problem
