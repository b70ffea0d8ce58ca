"""Captions that are another each time, in whole runs: cached or not, stopped or not, the same adapter comes out."""

import os
import signal
import threading
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from brushwork.film.frames import draw_folder
from brushwork.training.run import RunResult, train

VARIED = [
    "data.shuffle_captions=true",
    "data.keep_tokens=1",
    "data.tag_dropout=0.2",
    "data.caption_dropout=0.2",
    "data.caption_dropout_every_epochs=3",
    "data.wildcards=true",
    "data.token_warmup_steps=3",
    "cache.caption_variants=2",
]
QUICK = [
    "train.device=cpu",
    "train.batch_size=2",
    "train.epochs=3",
    "train.precision=fp32",
    "data.resolution=64",
    "data.repeats=2",
    "lora.rank=2",
    "optimizer.learning_rate=1e-3",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "pictures"
    draw_folder(folder, count=3, size=64, seed=5)
    for number, file in enumerate(sorted(folder.glob("*.txt"))):
        file.write_text(f"mia, {{red|blue|green}} hat, snow, night, picture {number}\nmia, a portrait, close-up\n")
    return folder


def run(data: Path, out: Path, *changes: str) -> RunResult:
    overrides = [*QUICK, *VARIED, *changes]
    return train(data, out=out, overrides=overrides, console=Console(file=StringIO(), width=200))


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    assert result.adapter is not None
    return load_file(result.adapter)


def assert_same(one: RunResult, other: RunResult) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run that the others are held against; its text states are cached."""
    return run(pictures, tmp_path_factory.mktemp("runs") / "whole")


def test_encoders_that_are_asked_in_each_step_train_to_the_bytes_of_the_cache(
    pictures: Path, whole: RunResult, tmp_path: Path
) -> None:
    assert_same(whole, run(pictures, tmp_path / "asked", "cache.text=off"))


def test_a_run_that_is_stopped_goes_on_with_the_words_that_it_would_have_read(
    pictures: Path, whole: RunResult, tmp_path: Path
) -> None:
    def stop() -> None:
        metrics = tmp_path / "stopped" / "metrics.jsonl"
        while not metrics.exists() or not metrics.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    stopped = run(pictures, tmp_path / "stopped")

    assert not stopped.finished
    assert_same(whole, run(pictures, tmp_path / "stopped"))


def test_the_adapter_tells_how_captions_were_varied(whole: RunResult) -> None:
    assert whole.adapter is not None

    with safe_open(whole.adapter, "pt") as file:
        told = file.metadata()

    expected = {
        "ss_shuffle_caption": "True",
        "ss_keep_tokens": "1",
        "ss_caption_dropout_rate": "0.2",
        "ss_caption_dropout_every_n_epochs": "3",
        "ss_caption_tag_dropout_rate": "0.2",
    }
    assert {key: told[key] for key in expected} == expected
    assert '"red hat": 3' in told["ss_tag_frequency"]
