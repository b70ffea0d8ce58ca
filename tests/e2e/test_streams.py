"""One set of pictures as a folder, as tar shards and as parquet: the same run comes out."""

import os
import tarfile
from functools import partial
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.torch import load_file

import quick_runs
from brushwork.film.frames import draw_folder
from brushwork.training.cache_ahead import build_cache
from brushwork.training.run import RunResult, resume

QUICK = {
    "train.device": "cpu",
    "train.batch_size": "2",
    "train.max_steps": "2",
    "train.precision": "fp32",
    "data.resolution": "64",
    "lora.rank": "2",
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    draw_folder(root / "folder", count=4, size=72, seed=3)
    pictures = sorted((root / "folder").glob("*.png"))
    (root / "shards").mkdir()
    for number in range(2):
        with tarfile.open(root / "shards" / f"{number:05}.tar", "w") as archive:
            for picture in pictures[2 * number : 2 * number + 2]:
                archive.add(picture, picture.name)
                archive.add(picture.with_suffix(".txt"), picture.with_suffix(".txt").name)
    (root / "parquet").mkdir()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": picture.read_bytes(), "path": picture.name} for picture in pictures], struct)
    captions = pa.array([picture.with_suffix(".txt").read_text() for picture in pictures])
    pq.write_table(pa.table({"image": images, "text": captions}), root / "parquet" / "train-0.parquet")
    return root


run = partial(quick_runs.run, QUICK)


def bytes_of(result: RunResult) -> dict[str, bytes]:
    assert result.adapter is not None
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(result.adapter).items()}


def test_the_form_of_a_data_set_changes_no_bit_of_the_run(forms: Path, tmp_path: Path) -> None:
    fresh = [{"cache__folder": f"'{tmp_path / form}'"} for form in ("a", "b", "c")]
    folder = run(forms / "folder", tmp_path / "run-folder", **fresh[0])
    shards = run(forms / "shards" / "{00000..00001}.tar", tmp_path / "run-shards", **fresh[1])
    parquet = run(forms / "parquet", tmp_path / "run-parquet", **fresh[2])

    assert bytes_of(shards) == bytes_of(folder)
    assert bytes_of(parquet) == bytes_of(folder)
    assert shards.smoothed_loss == parquet.smoothed_loss == folder.smoothed_loss


def test_a_run_on_shards_goes_on_from_another_folder(
    forms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(forms)
    first = run(Path("shards/*.tar"), tmp_path / "run", validation__data="'parquet/*.parquet'", train__max_steps="1")
    assert first.step == 1
    settings = tmp_path / "run" / "settings.toml"
    settings.write_text(settings.read_text().replace("max_steps = 1", "max_steps = 2"))
    os.chdir(tmp_path)

    second = resume(tmp_path / "run", console=Console(file=StringIO()))

    assert second.step == 2
    description = (tmp_path / "run" / "run.json").read_text()
    assert f'"{forms}/shards/*.tar"' in description
    assert '"num_held_out": 4' in description


def test_the_cache_is_filled_from_shards_as_a_run_fills_it(forms: Path, tmp_path: Path) -> None:
    overrides = [f"{key}={value}" for key, value in (QUICK | {"cache.folder": f"'{tmp_path}'"}).items()]

    def build(data: Path) -> int:
        built = build_cache(data, overrides=overrides, console=Console(file=StringIO()))
        assert built.num_pictures == 4
        return len(list(built.folder.rglob("*.safetensors")))

    assert build(forms / "shards") == build(forms / "folder") == build(forms / "parquet") == 4 + 5
