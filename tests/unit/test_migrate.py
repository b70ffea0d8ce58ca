"""`brushwork migrate`: kohya's settings as ours, SD 1.5's carried over to SDXL, one character's to another."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from brushwork.cli.app import main
from brushwork.config.carry import USUAL_VIEWS, SetSize, guess_character, pace, rename
from brushwork.config.load import differences, flatten, read_toml, resolve
from brushwork.config.migrate import Migrated, migrate
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from tests.kohya_files import DATA_SETS, LUCA, SDXL_16GB

SD15_RUN = """\
name = "luca_v3"
trigger = "luca"
[model]
base = "v1-5.safetensors"
vae = "vae-ft-mse.safetensors"
clip_skip = 2
[lora]
rank = 128
alpha = 96
text_encoder = true
[data]
resolution = 512
repeats = 10
caption_prefix = "a 3d animated character, Luca"
[optimizer]
learning_rate = 1.3e-4
text_encoder_learning_rate = 8e-5
[schedule]
name = "cosine_with_restarts"
[loss]
min_snr_gamma = 5
noise_offset = 0.05
[train]
batch_size = 4
accumulation = 3
epochs = 18
precision = "fp16"
[sample]
prompts = "prompts/luca.txt"
"""
"""The SD 1.5 side of the table that the figures for SDXL come from."""


def write(folder: Path, text: str, name: str = "run.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", [LUCA, SDXL_16GB, DATA_SETS, 'network_module = "networks.lora"\nseed = 1\nvae = ""'])
def test_a_migrated_file_means_what_the_kohya_file_means(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    made = migrate([file])
    ours = write(tmp_path, made.text, "ours.toml")

    assert read_toml(ours) == resolve(files=[file]).settings
    for line in made.told:
        assert f"# - {line}" in made.text


def test_each_line_tells_the_key_that_it_came_from_and_the_head_what_to_type(tmp_path: Path) -> None:
    made = migrate([write(tmp_path, LUCA)])
    assert "rank = 64  # network_dim\n" in made.text
    assert "# brushwork train --config THIS.toml --out /output/luca/luca_final_v1_pure\n" in made.text
    assert "# - not needed: xformers = true: attention is torch's own" in made.text


def test_settings_for_sd15_become_those_of_the_table_for_sdxl(tmp_path: Path) -> None:
    made = migrate([write(tmp_path, SD15_RUN)], to="sdxl", measure=lambda folder: None)
    found = flatten(made.settings)
    expected = {
        "model.base": "stabilityai/stable-diffusion-xl-base-1.0",
        "model.vae": None,
        "model.clip_skip": 1,
        "optimizer.name": "adamw8bit",
        "optimizer.learning_rate": 1e-4,
        "optimizer.text_encoder_learning_rate": 6e-5,
        "train.batch_size": 1,
        "train.accumulation": 8,
        "train.epochs": 20,
        "train.precision": "bf16",
        "data.resolution": 1024,
        "lora.rank": 128,
        "lora.alpha": 96.0,
        "loss.min_snr_gamma": 5.0,
        "loss.noise_offset": 0.05,
        "schedule.name": "cosine_with_restarts",
    }
    assert {key: found[key] for key in expected} == expected


def test_every_change_is_explained_beside_its_line_and_none_is_hidden(tmp_path: Path) -> None:
    file = write(tmp_path, SD15_RUN)
    made = migrate([file], to="sdxl", measure=lambda folder: SetSize(413, 413, numbered=False))
    really = {key for key, _, _ in differences(read_toml(file), made.settings)}
    assert {change.key for change in made.changes} == really
    for change in made.changes:
        assert f"before: {change.why}" in made.text
    written = write(tmp_path, made.text, "sdxl.toml")
    assert read_toml(written) == made.settings


def test_settings_that_are_for_sdxl_already_keep_base_and_vae(tmp_path: Path) -> None:
    made = migrate([write(tmp_path, SDXL_16GB)], to="sdxl")
    assert made.settings.model.base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert made.settings.model.vae == "madebyollin/sdxl-vae-fp16-fix"


def test_a_run_that_ends_by_steps_sees_as_many_pictures_in_larger_batches(tmp_path: Path) -> None:
    file = write(tmp_path, '[train]\nepochs = "off"\nmax_steps = 1000\nbatch_size = 4\naccumulation = 3\n')
    assert migrate([file], to="sdxl").settings.train.max_steps == 1500


# Epochs and repeats


def paced(old: SetSize | None, new: SetSize | None, *, repeats: int = 10, epochs: int = 18, to: int = 20) -> Settings:
    values = {"data": {"repeats": repeats}, "train": {"epochs": epochs}}
    changes, how = pace(Settings.model_validate(values), old=old, new=new, epochs=to)
    assert how
    for change in changes:
        table, _, name = change.key.partition(".")
        values[table][name] = change.new
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    ("old", "new", "repeats", "epochs"),
    [
        (SetSize(413, 413, numbered=False), SetSize(413, 413, numbered=False), 10, 20),
        (SetSize(413, 413, numbered=False), SetSize(100, 100, numbered=False), 41, 20),
        (SetSize(413, 413, numbered=False), SetSize(4130, 4130, numbered=False), 1, 20),
        (SetSize(413, 413, numbered=False), SetSize(8260, 8260, numbered=False), 1, 10),
        (SetSize(413, 4130, numbered=True), SetSize(59, 59, numbered=False), 70, 20),
        (None, SetSize(413, 413, numbered=False), 10, 20),
        (None, SetSize(50, 50, numbered=False), 83, 20),
        (SetSize(413, 413, numbered=False), SetSize(50, 500, numbered=True), 10, 165),
        (SetSize(10, 10, numbered=False), None, 10, 20),
    ],
)
def test_an_epoch_shows_as_many_pictures_as_before_whatever_the_size_of_the_set(
    old: SetSize | None, new: SetSize | None, repeats: int, epochs: int
) -> None:
    settings = paced(old, new)
    assert (settings.data.repeats, settings.train.epochs) == (repeats, epochs)
    if new is not None:
        goal = 20 * (USUAL_VIEWS if old is None else old.seen(10))
        assert abs(new.seen(settings.data.repeats) * epochs - goal) < 0.05 * goal


def draw(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(number):
        (folder / f"{index}.png").touch()
        (folder / f"{index}.txt").write_text("a")
    return folder


def test_the_sizes_of_both_sets_are_counted_in_their_folders(tmp_path: Path) -> None:
    draw(tmp_path / "luca" / "10_luca", 6)
    draw(tmp_path / "mia", 4)
    text = LUCA.replace("/data/luca/train", str(tmp_path / "luca"))
    out = tmp_path / "mia.toml"
    with pytest.raises(SystemExit) as ended:
        main(["migrate", str(write(tmp_path, text)), "--character", "mia", "--out", str(out)])
    assert ended.value.code == 0
    made = read_toml(out)
    assert made.data.repeats == 15  # 60 pictures an epoch, 4 in the set
    assert made.train.epochs == 20
    assert made.name == "mia_final_v1_pure"
    assert "an epoch of 60 (6 pictures), 20 times, are 1200 pictures seen; 4 pictures make 60" in out.read_text()
    assert made.data.path == str(tmp_path / "mia")
    assert f"brushwork train --config {out}" in out.read_text()


def test_a_numbered_set_is_told_which_number_would_keep_the_pace(tmp_path: Path) -> None:
    _, how = pace(
        Settings.model_validate({"data": {"repeats": 10}}),
        old=SetSize(40, 40, numbered=False),
        new=SetSize(20, 20, numbered=True),
        epochs=5,
    )
    assert "20_NAME" in how


# One character -> another


def carried(tmp_path: Path, character: str, text: str = SD15_RUN) -> Migrated:
    return migrate([write(tmp_path, text)], character=character)


@pytest.mark.parametrize("character", ["mia", "luca=mia"])
def test_another_character_has_its_name_in_names_paths_and_captions(tmp_path: Path, character: str) -> None:
    settings = carried(tmp_path, character).settings
    assert settings.name == "mia_v3"
    assert settings.trigger == "mia"
    assert settings.data.caption_prefix == "a 3d animated character, Mia"
    assert settings.sample.prompts == "prompts/mia.txt"
    assert settings.lora == read_toml(tmp_path / "run.toml").lora


def test_the_paths_of_a_kohya_file_are_another_characters_too(tmp_path: Path) -> None:
    made = carried(tmp_path, "alberto", LUCA)
    assert made.settings.data.path == "/data/alberto/train"
    assert "--out /output/alberto/alberto_final_v1_pure" in made.text
    assert "luca is" in made.text


def test_further_folders_are_another_characters_too(tmp_path: Path) -> None:
    folders = '[[data.folders]]\npath = "more/luca"\nclass_prompt = "luca"\n[[data.folders]]\npath = "boys"\n'
    settings = carried(tmp_path, "mia", SD15_RUN + folders).settings
    more, boys = settings.data.folders
    assert (more.path, more.class_prompt, boys.path) == ("more/mia", "mia", "boys")


def test_a_name_is_replaced_only_where_it_is_a_word() -> None:
    assert rename("luca, Luca and LUCA on lucas's 10_luca", "luca", "mia") == "mia, Mia and MIA on lucas's 10_mia"


def test_whose_settings_these_are_is_guessed_from_what_agrees() -> None:
    settings = Settings.model_validate({"name": "final_luca_v2", "data": {"caption_prefix": "luca, a boy"}})
    assert guess_character(settings) == "luca"
    assert guess_character(Settings(name="best-mia"), "/data/mia") == "mia"
    with pytest.raises(UserError, match="cannot be told"):
        guess_character(Settings())


@pytest.mark.parametrize("character", ["", "luca=", "=mia", "!!"])
def test_a_name_that_names_nobody_is_refused(tmp_path: Path, character: str) -> None:
    with pytest.raises(UserError, match="names nobody"):
        carried(tmp_path, character)


# The command


def test_what_cannot_be_had_is_a_choice_in_the_file_and_no_refusal(tmp_path: Path) -> None:
    file = write(tmp_path, 'network_module = "networks.lora"\nseed = 1\nlr_scheduler = "inverse_sqrt"\n')
    made = migrate([file])
    assert any(line.startswith("choose: ") and "schedule.name" in line for line in made.told)
    tomllib.loads(made.text)


def test_what_is_printed_is_a_settings_file_and_the_reasons_go_to_the_error_stream(tmp_path: Path) -> None:
    file = write(tmp_path, LUCA)
    command = [sys.executable, "-m", "brushwork", "migrate", str(file), "--to", "sdxl"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read_toml(write(tmp_path, ended.stdout, "out.toml")).train.accumulation == 8
    assert "changed: train.accumulation: 2 -> 8: " in ended.stderr
    assert "not needed: xformers = true" in ended.stderr


def test_as_json_everything_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["migrate", str(write(tmp_path, SD15_RUN)), "--to", "sdxl", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["changes"]["train.batch_size"] == {
        "old": 4,
        "new": 1,
        "why": "one picture of 1024 px takes the memory of four of 512",
    }
    assert "batch_size = 1" in made["toml"]


@pytest.mark.parametrize(("name", "expected"), [("run.toml", "there already"), ("new.txt", ".toml")])
def test_no_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str) -> None:
    file = write(tmp_path, SD15_RUN)
    with pytest.raises(SystemExit) as ended:
        main(["migrate", str(file), "--out", str(tmp_path / name)])
    assert ended.value.code == 1
    assert expected in capsys.readouterr().err
    assert file.read_text() == SD15_RUN


def test_control_characters_in_values_leave_the_file_readable(tmp_path: Path) -> None:
    made = migrate(
        [write(tmp_path, 'name = "luca_1"\n[data]\ncaption_prefix = "luca\\u0001\\n\\u0007 x"\n')], character="mia"
    )
    assert read_toml(write(tmp_path, made.text, "mia.toml")).data.caption_prefix == "mia\x01\n\x07 x"
