"""`--wait-for-captions`: the run begins when the last caption is there, and not before."""

import threading
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import brushwork.training.run as run_module
from brushwork.config.schema import DataConfig, FolderConfig
from brushwork.data.waiting import wait_for_captions
from brushwork.training.run import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A numbered folder, whose name is no caption, and three pictures, one with an empty caption."""
    folder = tmp_path / "photos" / "2_mia"
    folder.mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (64, 64)).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("mia, a")
    (folder / "b.txt").write_text("")
    return tmp_path / "photos"


def test_it_waits_for_every_caption_of_every_folder(photos: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (64, 64)).save(more / "d.png")
    page = StringIO()
    data = DataConfig(folders=(FolderConfig(path=str(more)),), class_prompt="a dog")

    def waiting() -> None:
        wait_for_captions(photos, data=data, console=Console(file=page, width=200), seconds=0.01)

    waiter = threading.Thread(target=waiting, daemon=True)
    waiter.start()
    for file in (photos / "2_mia" / "b.txt", photos / "2_mia" / "c.txt", more / "d.txt"):
        waiter.join(0.1)
        assert waiter.is_alive(), f"began without {file.name}"
        file.write_text("mia")
    waiter.join(20)

    assert not waiter.is_alive()
    assert "waiting for captions 1/4 none yet: 2_mia/b.png, 2_mia/c.png and 1 more" in page.getvalue()
    assert "waiting for captions 4/4" in page.getvalue()


def test_a_run_that_was_told_to_wait_begins_with_all_captions(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "bc":
        threading.Timer(0.2, (photos / "2_mia" / f"{name}.txt").write_text, ["mia"]).start()
    monkeypatch.setattr("brushwork.data.waiting.SECONDS", 0.01)
    found = []

    def begin(data: Path, *arguments: object, **keywords: object) -> None:
        found.extend(sorted(file.read_text() for file in data.rglob("*.txt")))

    monkeypatch.setattr(run_module, "_run", begin)

    train(photos, wait=True, console=Console(file=StringIO()))

    assert found == ["mia", "mia", "mia, a"]
