"""Cache entries: named by what they follow from, whole or not there, checked at every read."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from brushwork.cache.fingerprint import latent_key, text_key
from brushwork.cache.store import BadEntryError, Store, cache_folder
from brushwork.data.transform import Size, place

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "mean": torch.randn(4, 8, 6, generator=generator),
        "deviation": torch.rand(4, 8, 6, generator=generator).to(torch.bfloat16),
        "pooled": torch.randn(5, generator=generator).half(),
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    store.write(KEY, tensors(), about={"picture": "Hündchen.png"})
    return store


def aged(store: Store, key: str, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(store.path(key), (then, then))


def test_what_is_written_is_read_to_the_bit(store: Store) -> None:
    read = store.read(KEY)

    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)
    assert store.about(KEY) == {"picture": "Hündchen.png"}
    assert store.has(KEY)
    assert store.is_good(KEY)


def test_an_entry_is_a_safetensors_file_that_other_programs_open(store: Store) -> None:
    with safe_open(store.path(KEY), "pt") as file:
        assert set(file.keys()) == {"mean", "deviation", "pooled"}
        torch.testing.assert_close(file.get_tensor("mean"), tensors()["mean"], rtol=0, atol=0)


def test_the_same_tensors_give_the_same_bytes(store: Store) -> None:
    before = store.path(KEY).read_bytes()
    store.write(KEY, dict(reversed(tensors().items())), about={"picture": "Hündchen.png"})

    assert store.path(KEY).read_bytes() == before


def test_an_entry_that_is_not_there_is_a_missing_key(store: Store) -> None:
    with pytest.raises(KeyError):
        store.read(OTHER)
    assert not store.has(OTHER)
    assert not store.is_good(OTHER)
    store.remove(OTHER)


def test_any_flipped_bit_is_found(store: Store) -> None:
    path = store.path(KEY)
    whole = path.read_bytes()
    for position in range(0, len(whole), 13):
        for bit in (0, 5):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(BadEntryError):
                store.read(KEY)

    path.write_bytes(whole)
    assert store.is_good(KEY)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:4],
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: whole.replace(b'schema\\": 1', b'schema\\": 0'),
        lambda whole: bytes(len(whole)),
    ],
)
def test_a_file_cut_short_or_of_another_version_is_found(store: Store, damage: Callable[[bytes], bytes]) -> None:
    path = store.path(KEY)
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))

    with pytest.raises(BadEntryError):
        store.read(KEY)


def test_a_whole_entry_of_another_version_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brushwork.cache.store.SCHEMA", 2)

    with pytest.raises(BadEntryError, match="written by another version"):
        store.read(KEY)


def test_an_entry_under_another_ones_name_is_found(store: Store) -> None:
    store.path(OTHER).parent.mkdir()
    store.path(OTHER).write_bytes(store.path(KEY).read_bytes())

    with pytest.raises(BadEntryError):
        store.read(OTHER)


def test_verifying_names_the_damaged_entries_and_touches_nothing(store: Store) -> None:
    store.write(OTHER, tensors(), about={})
    store.path(OTHER).write_bytes(store.path(OTHER).read_bytes()[:-3])
    progress: list[tuple[int, int]] = []

    problems = store.verify(lambda done, total: progress.append((done, total)))

    assert list(problems) == [OTHER]
    assert progress == [(1, 2), (2, 2)]
    assert list(store.keys()) == [KEY, OTHER]


def test_a_write_that_fails_leaves_the_old_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write(KEY, {"mean": torch.zeros(3)}, about={})

    torch.testing.assert_close(store.read(KEY)["mean"], tensors()["mean"], rtol=0, atol=0)
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [f"{KEY}.safetensors"]


def test_pruning_keeps_what_was_read_lately_and_what_it_is_told_to_keep(store: Store) -> None:
    third = "ef" + "2" * 62
    for key in (OTHER, third):
        store.write(key, tensors(), about={})
    for key in (KEY, OTHER, third):
        aged(store, key, days=40)
    store.read(KEY)  # a use
    size = store.path(OTHER).stat().st_size

    removed = store.prune(unused_days=30, keep={third})

    assert (removed.entries, removed.num_bytes) == (1, size)
    assert list(store.keys()) == [KEY, third]
    assert store.prune().entries == 2
    assert list(store.keys()) == []


def test_pruning_touches_only_entries(store: Store) -> None:
    folder = store.path(KEY).parent
    others = [
        folder / "lora.safetensors",
        folder / f"{OTHER}.safetensors",  # not in the folder of its name
        store.folder / f"{KEY}.safetensors",
        store.folder / "notes.txt",
        folder / f"{KEY}.safetensors.99.partial",
    ]
    for path in others:
        path.write_bytes(b"mine")
    old = folder / f"{KEY}.safetensors.98.partial"
    old.write_bytes(b"half of an entry")
    os.utime(old, (0, 0))

    assert list(store.keys()) == [KEY]
    store.prune()

    assert sorted(path for path in store.folder.rglob("*") if path.is_file()) == sorted(others)


def test_using_a_cache_that_may_only_be_read_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(store, KEY, days=3)

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refused)

    assert store.is_good(KEY)


def test_an_empty_cache_has_no_entries(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")

    assert list(store.keys()) == []
    assert store.verify() == {}
    assert store.prune().entries == 0
    assert store.num_bytes() == 0
    assert not (tmp_path / "nowhere").exists()


def test_only_floating_point_tensors_are_kept(store: Store) -> None:
    with pytest.raises(ValueError, match="int64"):
        store.write(OTHER, {"mean": torch.zeros(2, dtype=torch.int64)}, about={})


def test_the_folder_is_the_setting_or_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path))

    assert cache_folder(None) == tmp_path
    assert cache_folder("~/kept") == Path("~/kept").expanduser()


def test_a_key_changes_with_everything_that_the_latents_follow_from() -> None:
    placement = place(Size(300, 200), Size(64, 64))
    keys = {
        latent_key("digest", placement, "white", "vae"),
        latent_key("other digest", placement, "white", "vae"),
        latent_key("digest", place(Size(300, 200), Size(72, 72)), "white", "vae"),
        latent_key("digest", place(Size(301, 200), Size(64, 64)), "white", "vae"),
        latent_key("digest", place(Size(300, 200), Size(64, 72)), "white", "vae"),
        latent_key("digest", placement._replace(crop=placement.crop._replace(left=3)), "white", "vae"),
        latent_key("digest", placement, "black", "vae"),
        latent_key("digest", placement, "white", "vae in bf16"),
        text_key("digest", "vae"),
    }

    assert len(keys) == 9
    assert latent_key("digest", placement, "#ffffff", "vae") == latent_key("digest", placement, "white", "vae")
    assert text_key("a", "clip") != text_key("b", "clip") != text_key("b", "clip/2")
    assert all(len(key) == 64 for key in keys)


def test_keys_are_the_same_in_every_version_of_the_program_with_this_schema() -> None:
    placement = place(Size(300, 200), Size(64, 64))

    assert latent_key("digest", placement, "white", "vae") == (
        "c63d3943262e9ed70423c15821503c3643904b5bab17c77974ccca3875a07d41"
    )
    assert text_key("a dog", "clip") == "ce5f87649eb024478546c698f0efa1c7174273eb5302368899b6a6509ebc827a"
