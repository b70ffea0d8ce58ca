"""What a person decided about pictures: read, written so that no kill loses it, and heeded by every reader."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from brushwork.cache.build import build_latents, build_masks, latent_keys
from brushwork.cache.store import Store
from brushwork.captioning.edits import Edit, edit_captions
from brushwork.captioning.statistics import caption_statistics
from brushwork.config.schema import DataConfig, Settings
from brushwork.data.folder import Dataset, Sample, read_dataset
from brushwork.data.masks import give_masks
from brushwork.data.picture import open_rgb
from brushwork.data.reviews import Review, append_reviews, read_reviews
from brushwork.data.transform import Corner, Placement, Size, mirrored, place, render
from brushwork.data.waiting import wait_for_captions
from brushwork.data.writing import prepare_set
from brushwork.errors import UserError

CROP = (2, 8, 26, 24)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of noise, 32 x 40, with captions."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abc"):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"of {name}")
    return folder


def say(folder: Path, **row: object) -> None:
    with (folder / "review.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"decision": "keep", **row}) + "\n")


def read(folder: Path, **data: object) -> Dataset:
    return read_dataset(folder, data=DataConfig(**data))  # type: ignore[arg-type]


def named(dataset: Dataset, name: str) -> Sample:
    return next(sample for sample in dataset.samples if sample.name == name)


def test_the_last_review_of_a_picture_counts_as_a_whole(photos: Path) -> None:
    append_reviews(photos, [Review("a.png", "refuse", "blur", crop=CROP, time="1")])
    append_reviews(photos, [Review("b.png", "keep", duplicate_of="c.png", caption="of b, sitting")])
    append_reviews(photos, [Review("a.png", "undecided", time="2")])

    reviews = read_reviews(photos)

    assert reviews == {
        "a.png": Review("a.png", "undecided", time="2", line=3),
        "b.png": Review("b.png", "keep", duplicate_of="c.png", caption="of b, sitting", line=2),
    }
    assert [sample.name for sample in read(photos).samples] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("end", ['{"file": "b.png", "decis', '{"file": "b.png", "decision": "refuse"}'])
def test_after_a_kill_in_the_middle_of_a_row_the_next_one_stands_on_its_own(photos: Path, end: str) -> None:
    append_reviews(photos, [Review("a.png", "refuse")])
    with (photos / "review.jsonl").open("a") as file:
        file.write(end)
    whole = {"b.png"} if end.endswith("}") else set()

    assert read_reviews(photos).keys() == {"a.png"} | whole
    append_reviews(photos, [Review("c.png", "refuse")])

    assert read_reviews(photos).keys() == {"a.png", "c.png"} | whole
    assert all(json.loads(line) for line in (photos / "review.jsonl").read_text().splitlines())


BROKEN = {
    "not JSON": "{file: a.png}",
    "a JSON object": '["a.png", "keep"]',
    "`file`": '{"decision": "keep"}',
    "`decision`": '{"file": "a.png", "decision": "maybe"}',
    "`reason`": '{"file": "a.png", "decision": "keep", "reason": 3}',
    "`crop` should be .left, top": '{"file": "a.png", "decision": "keep", "crop": [8, 0, 8, 4]}',
    "`crop`": '{"file": "a.png", "decision": "keep", "crop": [0, 0, 8.5, 4]}',
}


@pytest.mark.parametrize(("what", "line"), BROKEN.items(), ids=BROKEN)
def test_a_broken_line_is_named_whoever_reads(photos: Path, what: str, line: str) -> None:
    (photos / "review.jsonl").write_text(f'{{"file": "a.png", "decision": "keep"}}\n\n{line}\n')

    with pytest.raises(UserError, match=f"review.jsonl, line 3: .*{what}"):
        read(photos)
    with pytest.raises(UserError, match=r"review.jsonl, line 3"):
        caption_statistics(photos, settings=Settings())


def test_every_reader_leaves_out_what_is_refused_and_says_how_many(photos: Path, tmp_path: Path) -> None:
    say(photos, file="b.png", decision="refuse")
    (photos / "b.txt").unlink()
    told = "left out, refused in review.jsonl: 1 (b.png)"

    assert told in read(photos).notes
    assert told in caption_statistics(photos, settings=Settings()).notes
    edited = edit_captions(photos, Edit(prefix="luca,"), data=DataConfig())
    assert [change.file.name for change in edited.changes] == ["a.txt", "c.txt"]
    assert "refused in review.jsonl, left as they are: 1 (b.png)" in edited.notes
    wait_for_captions(photos, data=DataConfig(), console=Console(file=StringIO()))  # b has none: it would never end
    prepared = prepare_set(photos, tmp_path / "out", form="folder", console=Console(file=StringIO()))
    assert told in prepared.notes
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a.txt", "c.png", "c.txt"]


def test_where_all_is_refused_the_error_says_so(photos: Path) -> None:
    for name in "abc":
        say(photos, file=f"{name}.png", decision="refuse")

    with pytest.raises(UserError, match=r"3 are refused in review\.jsonl") as caught:
        read(photos)
    assert caught.value.fix == f"keep some: brushwork review {photos}"


def test_a_numbered_folder_is_reviewed_by_the_names_below_its_root(photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "10_luca")
    say(tmp_path, file="10_luca/b.png", decision="refuse")
    say(tmp_path, file="10_luca/c.png", crop=CROP)

    dataset = read(tmp_path)

    assert dataset.refused == ("10_luca/b.png",)
    assert [(each.name, each.repeats, each.width, each.height) for each in dataset.samples] == [
        ("10_luca/a.png", 10, 32, 40),
        ("10_luca/c.png", 10, 24, 16),
    ]


def test_a_crop_is_what_is_trained_and_has_a_cache_entry_of_its_own(photos: Path, tmp_path: Path) -> None:
    store, frame = Store(tmp_path / "store"), Size(16, 16)

    def cached(dataset: Dataset, name: str) -> tuple[str, torch.Tensor]:
        sample = named(dataset, name)
        placement = place(Size(sample.width, sample.height), frame)
        key = build_latents(
            [sample], [placement], store, encode=lambda x: (x, x), encoder="vae", background="white", max_pixels=9999
        )[0]
        return key, store.read(key)["mean"]

    whole, _ = cached(read(photos), "a.png")
    say(photos, file="a.png", crop=CROP)
    dataset = read(photos)
    key, pixels = cached(dataset, "a.png")

    expected = Image.open(photos / "a.png").crop(CROP)
    torch.testing.assert_close(pixels, render(expected, place(Size(24, 16), frame)), rtol=0, atol=0)
    assert "used in part, cropped in review.jsonl: 1 (a.png)" in dataset.notes
    say(photos, file="a.png", crop=(5, 8, 29, 24))
    moved, _ = cached(read(photos), "a.png")
    say(photos, file="a.png")
    assert len({whole, key, moved}) == 3
    assert cached(read(photos), "a.png")[0] == whole


def test_a_crop_is_of_the_picture_as_exif_turns_it(photos: Path) -> None:
    image, exif = Image.open(photos / "a.png"), Image.Exif()
    exif[0x0112] = 6
    image.save(photos / "a.png", exif=exif)  # 40 x 32 now
    say(photos, file="a.png", crop=(30, 0, 40, 32))

    sample = named(read(photos), "a.png")

    found = open_rgb(sample.path, background="white", max_pixels=9999, crop=sample.box)
    assert (sample.width, sample.height) == found.size == (10, 32)
    turned = image.transpose(Image.Transpose.ROTATE_270).crop((30, 0, 40, 32))
    assert np.array_equal(np.array(found), np.array(turned))


def test_a_crop_of_another_picture_is_an_error_that_names_its_line(photos: Path) -> None:
    say(photos, file="b.png")
    say(photos, file="a.png", crop=(0, 0, 33, 40))

    with pytest.raises(UserError, match=r"review\.jsonl, line 2: the crop .* of a\.png .*32 x 40"):
        read(photos)


def test_the_mask_of_a_cropped_picture_is_cropped_with_it(photos: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(9).integers(0, 256, (80, 64), dtype=np.uint8)  # twice the picture's size
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(values).save(masks / "a.png")
    say(photos, file="a.png", crop=CROP)
    data = DataConfig(masks=str(masks), max_missing_masks=1)
    sample = named(give_masks(read_dataset(photos, data=data), data), "a.png")
    placement = Placement(Size(24, 16), Size(24, 16), Corner(8, 0), Size(16, 16))
    store = Store(tmp_path / "store")

    for way in (placement, mirrored(placement)):
        build_masks([sample], [way], store, max_pixels=9999)
        key = next(iter(path.stem for path in store.folder.rglob("*.safetensors")))
        found = store.read(key)["mask"]
        part = values[16:48, 20:52].astype(np.float32) / 255
        expected = part.reshape(2, 16, 2, 16).mean(axis=(1, 3))
        expected = expected[:, ::-1].copy() if way.flipped else expected
        torch.testing.assert_close(found[0], torch.from_numpy(expected), rtol=1e-5, atol=1e-3)
        next(store.folder.rglob("*.safetensors")).unlink()


def test_a_prepared_set_holds_the_part_that_was_chosen(photos: Path, tmp_path: Path) -> None:
    clear = Image.open(photos / "b.png").convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(photos / "b.png")
    Image.open(photos / "c.png").save(photos / "c.jpg")
    (photos / "c.png").unlink()
    for name in ("b.png", "c.jpg"):
        say(photos, file=name, crop=CROP)

    prepare_set(photos, tmp_path / "out", form="folder", validate=True, console=Console(file=StringIO()))

    assert (tmp_path / "out" / "a.png").read_bytes() == (photos / "a.png").read_bytes()
    for name, source in (("b.png", clear), ("c.png", Image.open(photos / "c.jpg"))):
        written = Image.open(tmp_path / "out" / name)
        assert written.mode == source.mode
        assert np.array_equal(np.array(written), np.array(source.crop(CROP)))


def test_without_crops_the_addresses_in_the_cache_are_those_of_before(photos: Path) -> None:
    samples = read(photos).samples
    frames = [place(Size(32, 40), Size(16, 16))] * 3

    assert [sample.content for sample in samples] == [sample.digest for sample in samples]
    assert len(set(latent_keys(samples, frames, background="white", encoder="vae"))) == 3
