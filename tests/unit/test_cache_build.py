"""Filling the cache: what is missing or damaged is made, alone, and the same however often the work was cut."""

import io
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from brushwork.cache.build import build_latents, build_text, latent_keys
from brushwork.cache.store import Store
from brushwork.config.schema import DataConfig
from brushwork.data.folder import Sample, read_dataset
from brushwork.data.picture import open_rgb
from brushwork.data.transform import Placement, Size, place, render
from brushwork.errors import UserError
from brushwork.models.text import TextStates


@dataclass
class Encoder:
    """Stands for a VAE: averages of 8 x 8 pixels, with last bits that depend on what shares the batch."""

    batches: list[int] = field(default_factory=list)
    stop_after: int | None = None
    spoil: float | None = None

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        assert pixels.dtype == torch.float32
        self.batches.append(len(pixels))
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1) + pixels.mean() * 1e-3
        if self.spoil is not None:
            mean[-1, 0, 0, 0] = self.spoil
        return mean, mean.abs()


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Sample, ...]:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "own"))
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(7):
        Image.effect_noise((40 + number, 30), 60).convert("RGB").save(folder / f"{number}.png")
    return read_dataset(folder, data=DataConfig(max_missing_captions=1)).samples


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def squares(samples: Sequence[Sample]) -> list[Placement]:
    return [place(Size(sample.width, sample.height), Size(16, 16)) for sample in samples]


def build(samples: Sequence[Sample], store: Store, encode: Encoder, **options: object) -> list[str]:
    arguments: dict[str, object] = {
        "placements": squares(samples),
        "encoder": "vae",
        "background": "white",
        "max_pixels": 10_000,
    }
    return build_latents(samples, store=store, encode=encode, **(arguments | options))  # type: ignore[arg-type]


def files(store: Store) -> dict[str, bytes]:
    return {key: store.path(key).read_bytes() for key in list(store.keys())}


def test_an_entry_is_what_the_encoder_makes_of_the_picture_in_its_frame(
    samples: tuple[Sample, ...], store: Store
) -> None:
    keys = build(samples, store, Encoder())

    for sample, placement, key in zip(samples, squares(samples), keys, strict=True):
        image = open_rgb(sample.path, background="white", max_pixels=10_000)
        mean, deviation = Encoder()(render(image, placement)[None])
        entry = store.read(key)
        torch.testing.assert_close(entry["mean"], mean[0], rtol=0, atol=0)
        torch.testing.assert_close(entry["deviation"], deviation[0], rtol=0, atol=0)
        assert store.about(key)["picture"] == sample.name
    assert keys == latent_keys(samples, squares(samples), background="white", encoder="vae")


def test_what_is_there_is_not_made_again(samples: tuple[Sample, ...], store: Store) -> None:
    first = build(samples, store, Encoder())
    before = files(store)
    again = Encoder()

    assert build(samples, store, again) == first
    assert again.batches == []
    assert files(store) == before


def test_a_damaged_or_removed_entry_alone_is_made_again(samples: tuple[Sample, ...], store: Store) -> None:
    keys = build(samples, store, Encoder(), batch_size=3)
    before = files(store)
    damaged = bytearray(before[keys[1]])
    damaged[-5] ^= 4
    store.path(keys[1]).write_bytes(damaged)
    store.path(keys[6]).write_bytes(b"")
    written: list[str] = []
    write = store.write
    store.write = lambda key, tensors, *, about: (written.append(key), write(key, tensors, about=about))[1]  # type: ignore[method-assign]
    again = Encoder()

    build(samples, store, again, batch_size=3)

    assert sorted(written) == sorted([keys[1], keys[6]])
    assert again.batches == [3, 1]
    assert files(store) == before


@pytest.mark.parametrize("changed", ["encoder", "background", "placements"])
def test_another_encoder_background_or_frame_makes_entries_of_its_own(
    samples: tuple[Sample, ...], store: Store, changed: str
) -> None:
    others = {
        "encoder": "another vae",
        "background": "black",
        "placements": [place(Size(sample.width, sample.height), Size(24, 16)) for sample in samples],
    }
    before = files(store)
    first = build(samples, store, Encoder())

    second = build(samples, store, Encoder(), **{changed: others[changed]})

    assert not set(first) & set(second)
    assert before.items() <= files(store).items()
    assert len(files(store)) == 14


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_build_that_is_cut_at_any_batch_ends_in_the_same_bytes(
    samples: tuple[Sample, ...], tmp_path: Path, batch_size: int
) -> None:
    whole = Store(tmp_path / "whole")
    build(samples, whole, Encoder(), batch_size=batch_size)
    cut = Store(tmp_path / "cut")
    total = 0

    while len(files(cut)) < len(samples):
        encoder = Encoder(stop_after=1)
        with suppress(KeyboardInterrupt):
            build(samples, cut, encoder, batch_size=batch_size)
        total += len(encoder.batches)

    assert files(cut) == files(whole)
    assert total == -(-len(samples) // batch_size)  # nothing was encoded twice


def test_a_kill_inside_a_batch_leaves_the_entries_of_the_others_the_same(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    whole = Store(tmp_path / "whole")
    keys = build(samples, whole, Encoder(), batch_size=3)
    cut = Store(tmp_path / "cut")
    build(samples, cut, Encoder(), batch_size=3)
    for key in (keys[0], keys[2]):
        cut.remove(key)

    build(samples, cut, Encoder(), batch_size=3)

    assert files(cut) == files(whole)


def test_pictures_of_different_frames_are_not_in_one_batch(samples: tuple[Sample, ...], store: Store) -> None:
    placements = [
        place(Size(sample.width, sample.height), Size(24, 16) if index % 2 else Size(16, 16))
        for index, sample in enumerate(samples)
    ]
    encoder = Encoder()

    keys = build(samples, store, encoder, placements=placements, batch_size=3)

    assert encoder.batches == [3, 3, 1]  # in the order of their first pictures
    shapes = [tuple(store.read(key)["mean"].shape) for key in keys]
    assert shapes == [(4, 2, 3) if index % 2 else (4, 2, 2) for index in range(7)]


def test_copies_of_a_picture_share_an_entry(samples: tuple[Sample, ...], store: Store) -> None:
    encoder = Encoder()
    seen: list[tuple[int, int]] = []

    keys = build(
        [samples[0], samples[1], samples[0]],
        store,
        encoder,
        on_progress=lambda done, total: seen.append((done, total)),
    )

    assert keys[0] == keys[2] != keys[1]
    assert encoder.batches == [1, 1]
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_stop_the_build_with_the_name_of_the_picture(
    samples: tuple[Sample, ...], store: Store, value: float
) -> None:
    with pytest.raises(UserError, match=r"2\.png: the VAE gives latents that are not finite"):
        build(samples, store, Encoder(spoil=value), batch_size=3)

    assert len(files(store)) == 2  # those before it in the batch


def test_a_complaint_of_the_encoder_gets_the_names_of_the_pictures(samples: tuple[Sample, ...], store: Store) -> None:
    def complain(pixels: Tensor) -> tuple[Tensor, Tensor]:
        raise UserError("overflow in fp16", fix="use fp32")

    with pytest.raises(UserError, match=r"0\.png, 1\.png: overflow in fp16") as caught:
        build(samples, store, complain, batch_size=2)  # type: ignore[arg-type]
    assert caught.value.fix == "use fp32"


def test_a_picture_that_changed_since_it_was_scanned_is_not_cached_under_its_old_name(
    samples: tuple[Sample, ...], store: Store
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (42, 30), "red").save(file, "PNG")
    samples[2].path.write_bytes(file.getvalue())

    with pytest.raises(UserError, match=r"2\.png: the file changed after the folder was read"):
        build(samples, store, Encoder())
    samples[2].path.unlink()
    with pytest.raises(UserError, match=r"2\.png: cannot be read any more"):
        build(samples, store, Encoder())
    assert len(files(store)) == 2


def test_the_next_pictures_are_decoded_while_one_is_encoded(
    samples: tuple[Sample, ...], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = threading.Event()

    def watched(image: Image.Image, placement: Placement) -> Tensor:
        if placement.original.width == samples[1].width:
            second.set()
        return render(image, placement)

    monkeypatch.setattr("brushwork.cache.build.render", watched)
    encoder = Encoder()

    def waits(pixels: Tensor) -> tuple[Tensor, Tensor]:
        assert second.wait(10), "the first picture is being encoded and the second has not been decoded"
        return encoder(pixels)

    build(samples[:2], store, waits)  # type: ignore[arg-type]

    assert encoder.batches == [1, 1]


class Words:
    """Stands for text encoders: a number for each letter."""

    def __init__(self, *, pooled: bool = True) -> None:
        self.asked: list[list[str]] = []
        self.pooled = pooled

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        self.asked.append(list(prompts))
        assert not torch.is_grad_enabled()
        rows = [torch.tensor([float(ord(letter)) for letter in prompt.ljust(6)[:6]]) for prompt in prompts]
        context = torch.stack(rows)[:, :, None].expand(-1, -1, 2).to(torch.bfloat16)
        return TextStates(context=context, pooled=context[:, 0] if self.pooled else None)


def test_each_caption_is_encoded_once_and_the_empty_one_always(store: Store) -> None:
    encode = Words()

    entries = build_text(["a dog", "a cat", "a dog"], store, encode_text=encode, encoder="clip", batch_size=2)

    assert encode.asked == [["", "a dog"], ["a cat"]]
    assert list(entries) == ["", "a dog", "a cat"]
    for caption, key in entries.items():
        with torch.no_grad():
            states = Words()([caption])
        entry = store.read(key)
        assert entry.keys() == {"context", "pooled"}
        assert entry["context"].dtype == torch.bfloat16
        torch.testing.assert_close(entry["context"], states.context[0], rtol=0, atol=0)
        assert states.pooled is not None
        torch.testing.assert_close(entry["pooled"], states.pooled[0], rtol=0, atol=0)

    assert build_text(["a cat"], store, encode_text=encode, encoder="clip", batch_size=2).keys() == {"", "a cat"}
    assert len(encode.asked) == 2


def test_a_damaged_caption_alone_is_made_again(store: Store) -> None:
    entries = build_text(["a", "b", "c"], store, encode_text=Words(), encoder="clip", batch_size=1)
    before = files(store)
    store.path(entries["b"]).write_bytes(before[entries["b"]][:-1])
    again = Words()

    build_text(["a", "b", "c"], store, encode_text=again, encoder="clip", batch_size=1)

    assert again.asked == [["b"]]
    assert files(store) == before


def test_an_encoder_without_a_pooled_state_keeps_none(store: Store) -> None:
    entries = build_text(["a"], store, encode_text=Words(pooled=False), encoder="clip")

    assert store.read(entries["a"]).keys() == {"context"}


def test_text_states_that_are_not_finite_stop_the_build_with_the_caption(store: Store) -> None:
    def spoiled(prompts: Sequence[str]) -> TextStates:
        states = Words()(prompts)
        states.context[-1, 2, 1] = float("inf")
        return TextStates(context=states.context, pooled=states.pooled)

    with pytest.raises(UserError, match="not finite for the caption 'a dog'"):
        build_text(["a dog"], store, encode_text=spoiled, encoder="clip")
