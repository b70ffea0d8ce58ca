"""`brushwork cache build` makes exactly what a run with the same settings looks for."""

from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from brushwork.cache.store import Store
from brushwork.config.load import resolve
from brushwork.training.cache_ahead import build_cache
from brushwork.training.prepare import prepare


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(["red", "green", "blue"]):
        Image.new("RGB", (150 + number, 140), colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} wall")
    return folder


@pytest.mark.parametrize("text", ["on", "off"])
def test_a_run_finds_every_entry_that_was_built_ahead(photos: Path, tmp_path: Path, text: str) -> None:
    overrides = [f"cache.folder={tmp_path / 'cache'}", f"cache.text={text}", "data.caption_prefix=mia, "]
    overrides += ["validation.data=0.34", "train.device=cpu"]

    built = build_cache(photos, recipe="tiny", overrides=overrides, console=Console(quiet=True))

    preparation = prepare(photos, resolve(recipe="tiny", overrides=overrides).settings)
    store = Store(tmp_path / "cache")
    pictures = (*preparation.pictures, *preparation.held_out)
    wanted = {view.latent_key for picture in pictures for view in picture.views}
    if text == "on":
        wanted |= {preparation.text_key(caption) for caption in ["", *preparation.captions]}
    assert set(store.keys()) == wanted
    assert store.verify() == {}
    assert built.finished
    assert built.num_pictures == 3
    assert built.num_captions == (3 if text == "on" else 0)
