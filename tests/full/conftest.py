"""What the checks at full size share: a file of each family, written once and removed at the end, and a program."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brushwork.models.spec import Family
from full_size import write_checkpoint

SingleFile = Callable[[Family], Path]


@pytest.fixture(scope="session")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleFile]:
    """The checkpoint of a family: 2.1 GB for SD 1.5 and 6.9 GB for SDXL, when it is first asked for."""
    folder = tmp_path_factory.mktemp("bases")

    def written(family: Family) -> Path:
        path = folder / f"{family}.safetensors"
        return path if path.is_file() else write_checkpoint(path, family)

    yield written
    shutil.rmtree(folder)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """As pytest's own, but removed after each test: here it holds gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def sd_cli() -> str:
    """stable-diffusion.cpp."""
    program = os.environ.get("SD_CLI") or shutil.which("sd-cli")
    if program is None or not Path(program).is_file():
        pytest.fail(
            "there is no stable-diffusion.cpp here: `make test-full` builds it, or set SD_CLI to its `sd-cli`"
        )
    return program
