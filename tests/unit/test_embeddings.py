"""Vectors of files: computed once, found again by content, and shared out over processes."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import ImageOps
from torch import Tensor

from brushwork.config.schema import DataConfig
from brushwork.distributed import joined
from brushwork.errors import UserError
from brushwork.vision import embeddings
from brushwork.vision.embeddings import embed_files
from brushwork.vision.encoder import Encoder, load_encoder
from several_processes import together
from small_encoders import gradient, write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), "clip")


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    return load(folder)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Encoder:
    return load_encoder(str(folder), device=torch.device("cpu"), dtype=dtype)


def draw(folder: Path, count: int = 7) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        gradient(40 + number, 50, turn=20 * number).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


class Counting:
    """An encoder that tells how many pictures it was shown."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.shown = encoder, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def embed_prepared(self, prepared: list[object], *, layer: bool = False) -> Tensor:
        self.shown += len(prepared)
        return self.encoder.embed_prepared(prepared, layer=layer)  # type: ignore[arg-type]


def embed(encoder: object, files: list[Path], cache: Path | None, **options: object) -> Tensor:
    return embed_files(encoder, files, cache_folder=cache, batch_size=3, **options)  # type: ignore[arg-type]


def test_files_have_the_vectors_of_their_pictures_in_their_order(encoder: Encoder, tmp_path: Path) -> None:
    files = draw(tmp_path / "pictures")
    told: list[tuple[int, int]] = []

    found = embed(
        encoder, files[::-1], tmp_path / "cache", on_progress=lambda done, total: told.append((done, total))
    )

    expected = encoder.embed_pictures([gradient(40 + n, 50, turn=20 * n) for n in reversed(range(7))])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert told[0] == (0, 7)
    assert told[-1] == (7, 7)


def test_a_second_time_nothing_is_computed_wherever_the_pictures_lie(encoder: Encoder, tmp_path: Path) -> None:
    first = embed(encoder, draw(tmp_path / "here"), tmp_path / "cache")
    counting = Counting(encoder)

    again = embed(counting, draw(tmp_path / "there"), tmp_path / "cache")

    assert counting.shown == 0
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_a_layer_and_a_mirror_are_kept_apart_from_the_vectors_and_found_again(
    encoder: Encoder, tmp_path: Path
) -> None:
    files, cache = draw(tmp_path / "pictures"), tmp_path / "cache"
    plain = embed(encoder, files, cache)
    seen, turned = embed(encoder, files, cache, layer=True), embed(encoder, files, cache, layer=True, mirrored=True)

    mirrored = [ImageOps.mirror(gradient(40 + n, 50, turn=20 * n)) for n in range(7)]
    expected = encoder.embed_prepared([encoder.prepare(each) for each in mirrored], layer=True)
    torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[:, : -encoder.layer_width], plain, rtol=1e-5, atol=1e-6)
    counting = Counting(encoder)
    assert torch.equal(embed(counting, files, cache), plain)
    assert torch.equal(embed(counting, files, cache, layer=True), seen)
    assert torch.equal(embed(counting, files, cache, layer=True, mirrored=True), turned)
    assert counting.shown == 0


def test_only_what_is_new_is_computed_and_twins_once(encoder: Encoder, tmp_path: Path) -> None:
    files = draw(tmp_path / "pictures")
    embed(encoder, files[:4], tmp_path / "cache")
    twin = tmp_path / "pictures" / "twin.png"
    twin.write_bytes(files[6].read_bytes())
    counting = Counting(encoder)

    found = embed(counting, [*files, twin], tmp_path / "cache")

    assert counting.shown == 3
    assert torch.equal(found[6], found[7])


def test_a_changed_picture_another_precision_and_another_background_have_other_vectors(
    encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    files = draw(tmp_path / "pictures", 3)
    clear = gradient(40, 40).convert("RGBA")
    clear.putalpha(90)
    clear.save(files[0])
    first = embed(encoder, files, tmp_path / "cache")

    gradient(60, 30).save(files[1])
    changed = embed(encoder, files, tmp_path / "cache")
    on_black = embed(encoder, files, tmp_path / "cache", data=DataConfig(background="black"))
    half = embed(load(folder, torch.bfloat16), files, tmp_path / "cache")

    assert torch.equal(changed[2], first[2])
    assert not torch.allclose(changed[1], first[1])
    assert not torch.allclose(on_black[0], first[0])
    assert not torch.equal(half, changed)


def test_a_damaged_shard_is_computed_again(encoder: Encoder, tmp_path: Path) -> None:
    files = draw(tmp_path / "pictures")
    first = embed(encoder, files, tmp_path / "cache")
    shard = next((tmp_path / "cache").rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-40] ^= 1
    shard.write_bytes(data)
    counting = Counting(encoder)

    again = embed(counting, files, tmp_path / "cache")

    assert counting.shown == 7
    torch.testing.assert_close(again, first, rtol=1e-5, atol=1e-6)


def test_many_shards_become_one(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SECONDS_A_SHARD", -1.0)
    monkeypatch.setattr(embeddings, "MANY_SHARDS", 4)
    files = draw(tmp_path / "pictures")

    first = embed(encoder, files, tmp_path / "cache")
    counting = Counting(encoder)
    again = embed(counting, files, tmp_path / "cache")

    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    assert counting.shown == 0
    assert torch.equal(first, again)


def test_a_full_disk_under_the_cache_does_not_stop_the_work(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embeddings, "write_tensors", full)
    files = draw(tmp_path / "pictures")

    torch.testing.assert_close(embed(encoder, files, tmp_path / "cache"), embed(encoder, files, None))


def test_a_file_that_is_gone_broken_or_changed_is_named(encoder: Encoder, tmp_path: Path) -> None:
    files = draw(tmp_path / "pictures", 2)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    gradient(9, 9).save(files[1])
    with pytest.raises(UserError, match=r"1\.png was changed while it was looked at"):
        embed(encoder, files, None, digests=digests)
    files[1].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png cannot be used: not a picture"):
        embed(encoder, files, None)
    files[0].unlink()
    with pytest.raises(UserError, match=r"0\.png cannot be read"):
        embed(encoder, files, None, digests=digests)


def test_no_files_are_no_vectors(encoder: Encoder) -> None:
    assert embed(encoder, [], None).shape[0] == 0


class KilledError(BaseException):
    """Ends the work where it stands, as a kill does: nothing catches it, and nothing is written on its way out."""


def test_a_kill_in_the_middle_goes_on_from_there(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = draw(tmp_path / "pictures")

    def kill(done: int, total: int) -> None:
        if done == 4:
            raise KilledError

    monkeypatch.setattr(embeddings, "SECONDS_A_SHARD", -1.0)  # a shard after each picture
    with pytest.raises(KilledError):
        embed(encoder, files, tmp_path / "cache", on_progress=kill)
    counting = Counting(encoder)

    found = embed(counting, files, tmp_path / "cache")

    assert counting.shown == 3
    torch.testing.assert_close(found, embed(encoder, files, None), rtol=1e-5, atol=1e-6)


def shared(rank: int, folder: Path, pictures: Path, cache: Path) -> tuple[int, list[list[float]]]:
    with joined() as group:
        counting = Counting(load(folder))
        # Each process has a cache of its own, as on two machines; the first knows some already.
        found = embed(counting, sorted(pictures.glob("*.png")), cache / str(rank), group=group)
        return counting.shown, found.tolist()


def test_two_processes_share_the_work_and_hold_the_same_bits(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    files = draw(tmp_path / "pictures")
    embed(encoder, files[:2], tmp_path / "cache" / "0")

    (first, ours), (second, theirs) = together(shared, folder, tmp_path / "pictures", tmp_path / "cache")

    assert (first, second) == (3, 2)
    assert ours == theirs
    torch.testing.assert_close(torch.tensor(ours), embed(encoder, files, None), rtol=1e-5, atol=1e-6)
