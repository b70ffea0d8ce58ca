"""What the tests of several processes share; other files have a `data` of their own."""

from pathlib import Path

import pytest

from brushwork.film.frames import draw_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures; a fifth held out and two in a batch, that is 4 batches an epoch: 3 in a step, and then 1."""
    folder = tmp_path_factory.mktemp("film") / "pictures"
    draw_folder(folder, count=9, size=64, seed=5)
    (folder.parent / "prompts.txt").write_text("a red fox\na blue house\na green bird\n")
    return folder
