"""Training in buckets: what a run sees, and that it goes on exactly where it was stopped."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file

import brushwork.training.passes as passes_module
import quick_runs
from brushwork.errors import UserError
from brushwork.training.step import Batch

QUICK = {
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.epochs": "2",
    "train.precision": "fp32",
    "data.resolution": "64",
    "lora.rank": "2",
    "schedule.name": "constant",
    "buckets.enabled": "true",
    "buckets.step": "16",
}
SIZES = [(96, 64), (96, 64), (96, 64), (60, 100), (70, 70), (300, 80)]


def write_picture(path: Path, size: tuple[int, int], number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(image).ellipse((5 + number, 9, 30 + 2 * number, 40), fill=(40 * number % 256, 200, 30))
    image.save(path)
    path.with_suffix(".txt").write_text(f"a disc, number {number}")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for number, size in enumerate(SIZES):
        write_picture(folder / f"{number}.png", size, number)
    return folder


run = partial(quick_runs.run, QUICK)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Every batch that the network is shown."""
    seen: list[Batch] = []
    real = passes_module.loss_per_picture

    def watch(unet: object, batch: Batch, *rest: object, **named: object) -> torch.Tensor:
        seen.append(batch)
        return real(unet, batch, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(passes_module, "loss_per_picture", watch)
    return seen


def test_every_picture_is_seen_in_its_own_shape_also_where_a_bucket_is_smaller_than_the_batch(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)

    result = run(shapes, tmp_path / "run")

    assert result.step == 10
    assert Counter(name for batch in seen for name in batch.names) == {f"{n}.png": 2 for n in range(len(SIZES))}
    shapes_seen = {batch.names: tuple(batch.mean.shape[2:]) for batch in seen}
    assert shapes_seen[("3.png",)] == (10, 6)  # 48 x 80 pixels, height first
    assert shapes_seen[("4.png",)] == (8, 8)
    assert shapes_seen[("5.png",)] == (4, 14)
    assert Counter(len(batch.names) for batch in seen) == {2: 2, 1: 8}
    for batch in seen:
        assert batch.time_ids is not None
        for name, ids in zip(batch.names, batch.time_ids.tolist(), strict=True):
            width, height = SIZES[int(name[0])]
            assert ids[:2] == [height, width]
            assert ids[4:] == [8 * side for side in batch.mean.shape[2:]]
    with safe_open(tmp_path / "run" / "lora.safetensors", "pt") as file:
        told = file.metadata()
    assert told["ss_enable_bucket"] == "True"
    assert (told["ss_min_bucket_reso"], told["ss_max_bucket_reso"]) == ("32", "112")
    assert '{"resolution": [80, 48], "count": 3}' in told["ss_bucket_info"]


def test_a_run_in_buckets_that_is_cut_anywhere_ends_in_the_same_bits(shapes: Path, tmp_path: Path) -> None:
    whole = run(shapes, tmp_path / "whole", train__accumulation="2")
    for steps in (1, 4):  # in the middle of the first epoch, and of the second
        run(shapes, tmp_path / "cut", train__accumulation="2", train__max_steps=str(steps), accept_changes=True)
    cut = run(shapes, tmp_path / "cut", train__accumulation="2", accept_changes=True)

    assert whole.adapter is not None
    assert cut.adapter is not None
    one, other = load_file(whole.adapter), load_file(cut.adapter)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_loss_of_regularisation_pictures_is_weighed_and_nothing_of_them_is_held_out(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "reg" / "1_disc" / "a.png", (64, 64), 7)
    (tmp_path / "reg" / "1_disc" / "a.txt").unlink()
    seen = watched(monkeypatch)
    plain: list[torch.Tensor] = []
    watching = passes_module.loss_per_picture

    def unweighed(unet: object, batch: Batch, *rest: object, **named: object) -> torch.Tensor:
        losses = watching(unet, batch, *rest, **named)
        seen.pop()
        plain.append(watching(unet, replace(batch, weights=None), *rest, **named))
        seen[-1] = batch
        weights = torch.ones(len(batch.names)) if batch.weights is None else batch.weights
        torch.testing.assert_close(losses, plain[-1] * weights, rtol=0, atol=0)
        return losses

    monkeypatch.setattr(passes_module, "loss_per_picture", unweighed)
    folders = f"[{{path = '{tmp_path / 'reg'}', regularisation = true}}]"

    run(
        shapes,
        tmp_path / "run",
        data__folders=folders,
        loss__prior_weight="0.25",
        validation__data="0.3",
        train__epochs="1",
        train__batch_size="8",
    )

    names = Counter(name for batch in seen for name in batch.names)
    learned = sum(count for name, count in names.items() if not name.startswith("reg/"))
    assert names["reg/1_disc/a.png"] == learned == 4  # two of six are held out
    for batch in seen:
        weights = [1.0] * len(batch.names) if batch.weights is None else batch.weights.tolist()
        assert weights == [0.25 if name.startswith("reg/") else 1.0 for name in batch.names]
    with safe_open(tmp_path / "run" / "lora.safetensors", "pt") as file:
        told = file.metadata()
    assert (told["ss_num_train_images"], told["ss_num_reg_images"]) == ("4", "4")
    assert told["ss_reg_dataset_dirs"] == '{"1_disc": {"n_repeats": 4, "img_count": 1}}'
    assert told["ss_prior_loss_weight"] == "0.25"


def test_masks_mirrors_and_crops_come_from_the_cache_and_a_cut_run_sees_the_same(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (width, height) in enumerate(SIZES):
        mask = Image.new("L", (width, height), 0)
        mask.paste(255, (0, 0, width, height // 2))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{number}.png")
    seen = watched(monkeypatch)
    ways = {
        "data__masks": f"'{tmp_path / 'masks'}'",
        "data__flip": "true",
        "data__random_crop": "true",
        "loss__unmasked_weight": "0.1",
        "buckets__enabled": "false",
        "validation__data": "0.2",
        "cache__folder": f"'{tmp_path / 'cache'}'",
    }

    whole = run(shapes, tmp_path / "whole", train__epochs="3", **ways)
    during = [(batch.names, batch.mean.clone(), batch.time_ids) for batch in seen]
    run(shapes, tmp_path / "cut", train__epochs="3", train__max_steps="4", **ways)
    cut = run(shapes, tmp_path / "cut", train__epochs="3", accept_changes=True, **ways)

    for batch in seen:
        assert batch.masks is not None
        assert batch.masks.shape == (len(batch.names), 1, 8, 8)
        for name, mask in zip(batch.names, batch.masks[:, 0], strict=True):
            if name != "3.png":  # it is upright, and its parts lie above one another
                assert mask[:3].min() > 0.99
                assert mask[5:].max() < 0.01
    different: dict[str, set[float]] = {name: set() for names, _, _ in during for name in names}
    for names, means, _ in during:
        for name, mean in zip(names, means, strict=True):
            different[name].add(mean.sum().item())
    assert max(len(sums) for sums in different.values()) > 2  # mirrored, and in several parts
    assert whole.adapter is not None
    assert cut.adapter is not None
    one, other = load_file(whole.adapter), load_file(cut.adapter)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []

    (tmp_path / "masks" / "0.png").unlink()
    Image.new("L", SIZES[0], 128).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match="changed since"):
        run(shapes, tmp_path / "cut", train__epochs="3", **ways)
