"""Where and in what a run computes, and its random numbers."""

from contextlib import nullcontext

import pytest
import torch

from brushwork.errors import UserError
from brushwork.runtime import PRECISIONS, derive_seed, generator, pick_device, pick_dtype, precision_name


def test_a_run_of_today_is_continued_with_the_same_numbers_by_later_versions() -> None:
    assert derive_seed(0, "noise", 17, 1) == 4279299725783073151
    assert torch.equal(
        torch.randint(1000, (4,), generator=generator(7, "timestep", 3, 0)), torch.tensor([375, 537, 331, 382])
    )


def test_every_purpose_and_place_has_numbers_of_its_own() -> None:
    places = [
        (seed, purpose, step, batch) for seed in (0, 1) for purpose in "ab" for step in (1, 11) for batch in (1, 11)
    ]

    assert len({derive_seed(*place) for place in places}) == len(places)
    assert all(0 <= derive_seed(*place) < 2**63 for place in places)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", "", "cpu:0"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"train\.device = .*: unknown"):
        pick_device(name)


def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"cuda:2: torch .* sees 2 CUDA cards"):
        pick_device("cuda:2")


@pytest.mark.parametrize(("real", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_that_only_pretends_to_have_bf16_computes_in_fp16(
    monkeypatch: pytest.MonkeyPatch, real: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or real)

    assert pick_dtype("auto", torch.device("cuda", 0)) == expected
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bf16", torch.device("cuda", 0)) == torch.bfloat16


def test_a_precision_is_called_as_in_the_settings() -> None:
    assert {name: precision_name(dtype) for name, dtype in PRECISIONS.items()} == {name: name for name in PRECISIONS}
    assert precision_name(torch.float64) == "float64"
