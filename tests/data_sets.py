"""Small pictures as bytes, and data sets read as `brushwork train` reads them."""

import io
from pathlib import Path

import pytest
from PIL import Image

from brushwork.config.schema import DataConfig
from brushwork.data.folder import Dataset, read_dataset
from brushwork.errors import UserError


def png(colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (12, 8)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def read(path: Path, **data: object) -> Dataset:
    """The data set, read with these settings of the section `[data]`."""
    return read_dataset(path, data=DataConfig.model_validate(data))


def refusal(path: Path, **data: object) -> str:
    """Why it cannot be read."""
    with pytest.raises(UserError) as caught:
        read(path, **data)
    return str(caught.value)


def captions(dataset: Dataset) -> dict[str, str]:
    """By the names of the pictures."""
    return {sample.name: sample.caption for sample in dataset.samples}
