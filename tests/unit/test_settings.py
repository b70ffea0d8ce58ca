"""Settings: layers, where values come from, and what is said about wrong ones."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brushwork.config.describe import expected, fields, literal
from brushwork.config.load import (
    differences,
    flatten,
    nearest_keys,
    read_recipe,
    read_toml,
    recipe_names,
    resolve,
    to_toml,
)
from brushwork.config.schema import Settings
from brushwork.errors import UserError


def refusal(**layers: object) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve(**layers)  # type: ignore[arg-type]
    return caught.value


def test_later_layers_win_and_every_value_knows_its_origin(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text('name = "mia"\n[lora]\nrank = 32\n[train]\nmax-steps = 700\n')

    resolved = resolve(recipe="sdxl-standard", files=[run_file], overrides=["lora.rank=8", "lora.rank=4"])

    assert resolved.settings.lora.rank == 4
    assert resolved.settings.train.max_steps == 700
    assert resolved.settings.data.resolution == 1024
    assert resolved.origins["lora.rank"] == "--set"
    assert resolved.origins["train.max_steps"] == str(run_file)
    assert resolved.origins["data.resolution"] == "recipe sdxl-standard"
    assert resolved.origins["lora.dropout"] == "default"
    assert list(resolved.origins) == list(fields())


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lora.rank=8", "lora.rank", 8),
        ("optimizer.learning-rate=1e-3", "optimizer.learning_rate", 1e-3),
        ("schedule.name=cosine_with_restarts", "schedule.name", "cosine_with_restarts"),
        ("lora.text_encoder=true", "lora.text_encoder", True),
        ("train.epochs=off", "train.epochs", None),
        ("lora.targets=[to_q, mid_block.*]", "lora.targets", ("to_q", "mid_block.*")),
        ('lora.targets=["to_q", "to_k"]', "lora.targets", ("to_q", "to_k")),
        ("optimizer.betas=[0.9, 0.99]", "optimizer.betas", (0.9, 0.99)),
        ("validation.data=0.1", "validation.data", "0.1"),
        ("name=1e3", "name", "1e3"),
        ("model.max_tokens=150", "model.max_tokens", 150),
        ("data.caption_prefix=mia, ", "data.caption_prefix", "mia, "),
        ("data.caption_prefix='mia, '", "data.caption_prefix", "mia, "),
        ("data.caption_suffix=", "data.caption_suffix", ""),
        ("model.base=C:\\models\\new.safetensors", "model.base", "C:\\models\\new.safetensors"),
        ("model.base=a=b\nname=c", "model.base", "a=b\nname=c"),
    ],
)
def test_set_takes_toml_and_bare_words(text: str, key: str, value: object) -> None:
    assert flatten(resolve(overrides=[text]).settings)[key] == value


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("rank", ["lora.rank"]),
        ("lora.rnak", ["lora.rank"]),
        ("train.learning_rate", ["optimizer.learning_rate"]),
        ("lr", ["optimizer.learning_rate"]),
        ("network_dim", ["lora.rank"]),
        ("lroa.alpha", ["lora.alpha"]),
        ("precision", ["train.precision", "save.precision", "curation.precision"]),
        ("zzzz", []),
    ],
)
def test_an_unknown_key_leads_to_the_nearest_of_all_sections(key: str, meant: list[str]) -> None:
    assert nearest_keys(key) == meant


def test_an_unknown_key_on_the_command_line_is_answered_by_what_to_type() -> None:
    error = refusal(overrides=["rank=8"])
    assert "--set rank=8" in error.problem
    assert "lora.rank" in error.problem
    assert error.fix == "--set lora.rank=8"


def test_all_unknown_keys_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text("[lora]\nrnak = 3\n[lroa]\nalpha = 4\n")
    error = refusal(files=[run_file])
    assert error.problem.count(str(run_file)) == 2
    assert "lora.rnak; did you mean lora.rank?" in error.problem
    assert "alpha = 4 under [lora]" in error.problem


@pytest.mark.parametrize(
    ("text", "wanted", "fix"),
    [
        ("lora.rank=big", "a whole number from 1 to 1024", "--set lora.rank=16"),
        ("lora.rank=1.5", "a whole number from 1 to 1024", "--set lora.rank=16"),
        ("train.seed=true", "a whole number of 0 or more", "--set train.seed=0"),
        ("schedule.name=cosin", "one of constant, linear, cosine", "--set schedule.name=cosine"),
        ("data.resolution=500", "a multiple of 8, or off", "--set data.resolution=off"),
        ("optimizer.learning_rate=nan", "a number above 0", "--set optimizer.learning_rate=0.0001"),
        ("optimizer.learning_rate=inf", "a number above 0", "--set optimizer.learning_rate=0.0001"),
        ("train.ema_decay=1", "a number above 0 and below 1, or off", "--set train.ema_decay=off"),
        ("optimizer.betas=[0.9]", "a list of 2 numbers", "--set optimizer.betas=off"),
        ("lora=16", "lora is a section, with the keys rank, alpha", "--set lora.rank=16"),
        ("lora.rank", "expected key=value", "--set lora.rank=16"),
    ],
)
def test_a_wrong_value_is_answered_in_words(text: str, wanted: str, fix: str) -> None:
    error = refusal(overrides=[text])
    assert text.partition("=")[0] in error.problem
    assert wanted in error.problem
    assert error.fix == fix
    assert "pydantic" not in str(error)


def test_wrong_values_of_a_file_are_told_with_the_file(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text('[lora]\nrank = "big"\n')
    error = refusal(files=[run_file])
    assert error.problem.startswith(f'{run_file}: lora.rank = "big": expected a whole number from 1 to 1024.')


@pytest.mark.parametrize("text", ['[model]\nbase = "C:\\models"\n', "name = lora\n", "[lora\n"])
def test_a_file_that_is_not_toml_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(text)
    error = refusal(files=[run_file])
    assert str(run_file) in error.problem
    assert "line" in error.problem


def test_a_file_that_is_missing_or_unreadable_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"\n')
    (tmp_path / "run.toml").write_text("")
    assert "run.toml" in (refusal(files=[tmp_path / "rnu.toml"]).fix or "")
    assert "UTF-8" in refusal(files=[tmp_path / "latin.toml"]).problem
    assert "cannot be read" in refusal(files=[tmp_path]).problem


def test_the_same_key_with_a_dash_and_with_an_underscore_is_refused(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text("[train]\nmax-steps = 1\nmax_steps = 2\n")
    assert "given twice" in refusal(files=[run_file]).problem


def test_a_recipe_is_found_by_name_or_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("# Mine.\n[lora]\nrank = 3\n")
    assert resolve(recipe=str(own)).settings.lora.rank == 3
    assert read_recipe("sdxl_standard").name == "sdxl-standard"
    assert refusal(recipe="sdxl-standart").fix == "--recipe sdxl-standard"


def test_the_standard_recipe_is_the_one_it_is_named_after() -> None:
    settings = resolve(recipe="sdxl-standard").settings
    assert settings.data.resolution == 1024
    assert (settings.train.batch_size, settings.train.accumulation) == (1, 4)
    assert (settings.lora.rank, settings.lora.alpha or settings.lora.rank) == (16, 16)
    assert settings.lora.targets == "attention_out"
    assert (settings.train.epochs, settings.train.max_steps) == (10, 2000)
    assert settings.optimizer.learning_rate == 1e-4
    assert (settings.schedule.name, settings.schedule.warmup_steps) == ("cosine", 100)
    assert settings.train.precision == "auto"
    assert settings.train.checkpointing
    assert settings.cache.text == "off"
    assert settings.loss.min_snr_gamma is None
    assert settings.train.ema_decay is None


def test_the_character_recipe_is_the_one_it_is_named_after() -> None:
    settings = resolve(recipe="sd15-character").settings
    assert settings.data.resolution == 512
    assert (settings.train.batch_size, settings.train.accumulation, settings.train.epochs) == (4, 2, 20)
    assert settings.lora.text_encoder
    assert settings.lora.targets == "kohya"
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.dropout) == (64, 32, 0.1)
    assert settings.optimizer.learning_rate == 8e-5
    assert settings.optimizer.text_encoder_learning_rate == 4e-5
    assert settings.optimizer.weight_decay == 0.01
    assert (settings.schedule.name, settings.schedule.cycles) == ("cosine_with_restarts", 2)
    assert settings.schedule.warmup_steps == 100
    assert (settings.loss.min_snr_gamma, settings.loss.noise_offset) == (5.0, 0.05)
    assert (settings.save.every_epochs, settings.sample.every_epochs) == (2, 2)


@pytest.mark.parametrize("recipe", recipe_names())
def test_settings_written_and_read_are_the_same(recipe: str, tmp_path: Path) -> None:
    resolved = resolve(
        recipe=recipe, overrides=["lora.targets=[to_q]", 'trigger=a "quoted" \\ word', "train.epochs=3"]
    )
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(resolved.settings, resolved.origins))
    assert read_toml(path) == resolved.settings
    assert "epochs = 3  # --set" in path.read_text()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_being_written(text: str) -> None:
    settings = Settings(trigger=text)
    assert tomllib.loads(to_toml(settings))["trigger"] == text


def test_differences_name_key_old_and_new() -> None:
    old = resolve().settings
    new = resolve(overrides=["lora.rank=4", "name=mia"]).settings
    assert differences(old, new) == [("name", "lora", "mia"), ("lora.rank", 16, 4)]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora.rank", "a whole number from 1 to 1024"),
        ("lora.dropout", "a number of 0 or more and below 1"),
        ("lora.targets", "a text or a list of texts"),
        ("data.resolution", "a whole number from 64 to 4096, a multiple of 8, or off"),
        ("data.max_pixels", "a whole number from 1 to 178956970"),
        ("train.epochs", "a whole number of 1 or more, or off"),
        ("train.ema_decay", "a number above 0 and below 1, or off"),
        ("model.max_tokens", "one of 75, 150, 225"),
        ("lora.text_encoder", "true or false or only"),
        ("optimizer.betas", "a list of 2 numbers, or off"),
    ],
)
def test_what_is_expected_is_said_in_words(key: str, words: str) -> None:
    assert expected(fields()[key]) == words


def test_every_setting_can_be_described() -> None:
    for field in fields().values():
        assert expected(field)
        assert literal(field.default)


def test_what_is_left_out_on_purpose_is_told_with_its_reason() -> None:
    with pytest.raises(UserError, match="no DoRA is trained here, for no file of it means the same") as told:
        resolve(overrides=["lora.dora=true"])
    assert "lora.rslora" in (told.value.fix or "")
