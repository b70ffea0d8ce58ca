"""A settings file of kohya's trainer, from the command line to the adapter, on the bundled model."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from brushwork.cli.app import main
from brushwork.config.load import read_toml
from brushwork.film.frames import draw_folder

FILE = """\
[model_arguments]
pretrained_model_name_or_path = "bundled"
train_data_dir = "{data}"
resolution = "64,64"

[network_arguments]
network_module = "networks.lora"
network_dim = 4
network_alpha = 2
network_train_unet_only = true

[training_arguments]
output_dir = "{out}"
output_name = "mia"
max_train_steps = 3
learning_rate = 1e-3
train_batch_size = 2
min_snr_gamma = 5
mixed_precision = "no"
xformers = true
seed = 7
metadata_author = "M. Example"
training_comment = "third try"
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "set"
    draw_folder(folder / "3_mia", count=4, size=96, seed=5)
    return folder


def command(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


def test_a_kohya_file_trains_alone_and_means_the_same_once_migrated(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kohya, ours = tmp_path / "kohya.toml", tmp_path / "ours.toml"
    kohya.write_text(FILE.format(data=pictures, out=tmp_path / "out"))

    command("train", "--config", kohya, "--set", "train.device=cpu")
    told = capsys.readouterr().err
    command("migrate", kohya, "--out", ours)
    command("train", "--config", ours, "--out", tmp_path / "again", "--set", "train.device=cpu")

    run = tmp_path / "out" / "mia"
    assert "not needed: xformers = true" in told
    assert "not needed: xformers = true" in (run / "log.txt").read_text()
    kept = (run / "settings.toml").read_text()
    assert f"rank = 4  # kohya file {kohya}, key network_dim" in kept
    assert 'caption_extension = ".txt"' in kept
    assert read_toml(run / "settings.toml") == read_toml(tmp_path / "again" / "settings.toml")
    one, other = load_file(run / "mia.safetensors"), load_file(tmp_path / "again" / "mia.safetensors")
    assert one.keys() == other.keys()
    assert [name for name in one if not one[name].equal(other[name])] == []
    with safe_open(run / "mia.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_dim"] == "4"
    assert metadata["modelspec.author"] == "M. Example"
    assert metadata["ss_training_comment"] == "third try"


def test_a_run_that_a_kohya_file_began_goes_on_by_itself(pictures: Path, tmp_path: Path) -> None:
    kohya = tmp_path / "kohya.toml"
    kohya.write_text(FILE.format(data=pictures, out=tmp_path / "out"))
    command("train", "--config", kohya, "--set", "train.device=cpu")
    before = (tmp_path / "out" / "mia" / "mia.safetensors").read_bytes()

    command("train", "--config", kohya, "--set", "train.device=cpu")
    command("resume", tmp_path / "out")

    assert (tmp_path / "out" / "mia" / "mia.safetensors").read_bytes() == before


def test_without_pictures_anywhere_the_command_says_what_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--out", str(tmp_path / "run")])
    assert ended.value.code == 1
    assert "no folder of pictures is named" in capsys.readouterr().err
