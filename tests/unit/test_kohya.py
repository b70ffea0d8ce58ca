"""Settings files of kohya's trainer: what each key comes to, what is said about the rest, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from brushwork.config.describe import fields
from brushwork.config.kohya.read import is_kohya
from brushwork.config.kohya.table import GROUPS, TABLE
from brushwork.config.load import Resolved, flatten, read_recipe, recipe_names, resolve, to_toml
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from tests.kohya_files import DATA_SETS, LUCA, SDXL_16GB

KEYS = [
    "pretrained_model_name_or_path", "vae", "train_data_dir", "reg_data_dir", "dataset_config", "in_json",
    "output_dir", "output_name", "save_model_as", "save_precision", "save_every_n_epochs", "save_every_n_steps",
    "save_n_epoch_ratio", "save_last_n_epochs", "save_last_n_steps", "save_state", "save_state_on_train_end",
    "resume", "initial_epoch", "initial_step", "skip_until_initial_step", "network_module", "network_dim",
    "network_alpha", "network_args", "network_dropout", "network_weights", "dim_from_weights",
    "network_train_unet_only", "network_train_text_encoder_only", "scale_weight_norms", "base_weights",
    "learning_rate", "unet_lr", "text_encoder_lr", "optimizer_type", "optimizer_args", "lr_scheduler",
    "lr_scheduler_type", "lr_scheduler_args", "lr_warmup_steps", "lr_decay_steps", "lr_scheduler_num_cycles",
    "lr_scheduler_power", "max_train_epochs", "max_train_steps", "train_batch_size",
    "gradient_accumulation_steps", "gradient_checkpointing", "mixed_precision", "full_fp16", "full_bf16",
    "no_half_vae", "max_grad_norm", "seed", "sdpa", "xformers", "resolution", "enable_bucket",
    "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale", "cache_latents",
    "cache_latents_to_disk", "vae_batch_size", "cache_text_encoder_outputs",
    "cache_text_encoder_outputs_to_disk", "caption_extension", "shuffle_caption", "keep_tokens",
    "keep_tokens_separator", "secondary_separator", "caption_prefix", "caption_suffix", "caption_dropout_rate",
    "caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "enable_wildcard", "token_warmup_min",
    "token_warmup_step", "weighted_captions", "clip_skip", "max_token_length", "flip_aug", "color_aug",
    "random_crop", "face_crop_aug_range", "prior_loss_weight", "masked_loss", "alpha_mask", "min_snr_gamma",
    "debiased_estimation_loss", "v_parameterization", "scale_v_pred_loss_like_noise_pred", "zero_terminal_snr",
    "noise_offset", "noise_offset_random_strength", "adaptive_noise_scale", "multires_noise_iterations",
    "multires_noise_discount", "ip_noise_gamma", "min_timestep", "max_timestep", "loss_type", "huber_schedule",
    "huber_c", "sample_prompts", "sample_sampler", "sample_every_n_epochs", "sample_every_n_steps",
    "sample_at_first", "validation_split", "validation_seed", "validate_every_n_steps",
    "validate_every_n_epochs", "log_with", "logging_dir", "log_prefix", "training_comment", "no_metadata",
    "metadata_title", "metadata_author", "metadata_license", "metadata_tags", "image_dir", "num_repeats",
    "class_tokens", "is_reg", "metadata_file", "conditioning_data_dir", "batch_size",
    "max_data_loader_n_workers", "persistent_data_loader_workers", "lowram", "fp8_base",
    "ip_noise_gamma_random_strength",
]  # fmt: skip
"""The keys of kohya's settings files and files for data sets."""


def read(tmp_path: Path, text: str, *overrides: str, data: Path | None = None) -> Resolved:
    file = tmp_path / "kohya.toml"
    file.write_text(text)
    return resolve(files=[file], overrides=overrides, data=data)


def settings(tmp_path: Path, text: str) -> dict[str, Any]:
    """The settings of a file with the least that makes it kohya's, and those lines."""
    return flatten(read(tmp_path, f'network_module = "networks.lora"\noutput_name = "x"\n{text}').settings)


def refusal(tmp_path: Path, text: str, *overrides: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, *overrides)
    return caught.value


def said(resolved: Resolved) -> str:
    return "\n".join(str(note) for note in resolved.notes)


def test_every_key_has_a_row_and_a_reason() -> None:
    assert sorted(set(KEYS) - TABLE.keys()) == []
    assert sum(len(rows) for rows in GROUPS.values()) == len(TABLE)
    silent = [key.name for key in TABLE.values() if key.convert is None and not key.about]
    assert silent == []


def test_the_recipe_of_one_character_on_sd15_is_understood_whole(tmp_path: Path) -> None:
    resolved = read(tmp_path, LUCA)
    values = flatten(resolved.settings)
    expected = {
        "name": "luca_final_v1_pure",
        "model.base": "/models/v1-5-pruned-emaonly.safetensors",
        "model.clip_skip": 2,
        "lora.rank": 64,
        "lora.alpha": 32.0,
        "lora.dropout": 0.1,
        "lora.targets": "kohya",
        "lora.text_encoder": True,
        "optimizer.name": "adamw8bit",
        "data.resolution": 512,
        "data.caption_extension": ".txt",
        "data.caption_prefix": "a 3d animated character, luca,",
        "optimizer.learning_rate": 8e-5,
        "optimizer.text_encoder_learning_rate": 4e-5,
        "optimizer.betas": (0.9, 0.99),
        "optimizer.weight_decay": 0.01,
        "optimizer.max_grad_norm": 1.0,
        "schedule.name": "cosine_with_restarts",
        "schedule.cycles": 2,
        "schedule.warmup_steps": 100,
        "loss.min_snr_gamma": 5.0,
        "loss.noise_offset": 0.05,
        "train.epochs": 20,
        "train.max_steps": None,
        "train.batch_size": 4,
        "train.accumulation": 2,
        "train.precision": "fp16",
        "train.checkpointing": True,
        "train.seed": 42,
        "save.every_epochs": 2,
        "save.precision": "fp16",
        "sample.prompts": "/data/luca/prompts.txt",
        "sample.every_epochs": 2,
        "sample.sampler": "euler_ancestral",
        "sample.steps": 30,
        "sample.guidance": 7.5,
    }
    assert {key: values[key] for key in expected} == expected
    assert resolved.settings.data.path == "/data/luca/train"
    assert resolved.out == "/output/luca/luca_final_v1_pure"
    assert resolved.origins["lora.rank"] == f"kohya file {tmp_path / 'kohya.toml'}, key network_dim"
    assert "xformers = true: attention is torch's own" in said(resolved)


def test_the_recipe_for_sdxl_on_16_gb_is_understood_whole(tmp_path: Path) -> None:
    values = flatten(read(tmp_path, SDXL_16GB).settings)
    expected = {
        "model.base": "stabilityai/stable-diffusion-xl-base-1.0",
        "model.vae": "madebyollin/sdxl-vae-fp16-fix",
        "model.max_tokens": 225,
        "lora.rank": 128,
        "lora.alpha": 96.0,
        "lora.targets": "kohya",
        "lora.text_encoder": True,
        "data.resolution": 1024,
        "buckets.enabled": True,
        "buckets.min_side": 640,
        "buckets.max_side": 1536,
        "buckets.step": 64,
        "buckets.no_upscale": True,
        "optimizer.name": "adamw8bit",
        "optimizer.learning_rate": 1e-4,
        "optimizer.text_encoder_learning_rate": 6e-5,
        "optimizer.weight_decay": 0.01,
        "schedule.cycles": 3,
        "train.batch_size": 1,
        "train.accumulation": 8,
        "train.precision": "bf16",
        "train.checkpointing": True,
        "train.epochs": 20,
        "save.precision": "bf16",
        "sample.prompts": None,
        "sample.every_epochs": 2,
        "cache.vae_batch_size": 1,
    }
    assert {key: values[key] for key in expected} == expected


def test_what_a_file_leaves_out_has_kohyas_defaults_and_those_that_surprise_are_told(tmp_path: Path) -> None:
    resolved = read(
        tmp_path, 'pretrained_model_name_or_path = "base.safetensors"\nnetwork_module = "networks.lora"\n'
    )
    values = flatten(resolved.settings)
    expected = {
        "name": "last",
        "lora.rank": 4,
        "lora.alpha": 1.0,
        "lora.targets": "kohya",
        "lora.text_encoder": True,
        "optimizer.learning_rate": 2e-6,
        "schedule.name": "constant",
        "train.max_steps": 1600,
        "train.epochs": None,
        "train.precision": "fp32",
        "train.checkpointing": False,
        "save.every_epochs": None,
        "save.precision": "fp32",
    }
    assert {key: values[key] for key in expected} == expected
    told = said(resolved)
    for key in (
        "network_dim", "network_alpha", "learning_rate", "max_train_steps", "mixed_precision", "lr_scheduler",
        "network_train_unet_only", "caption_extension", "seed",
    ):  # fmt: skip
        assert f"kohya's default: {key}: " in told
    assert resolved.origins["lora.alpha"] == "kohya's default of network_alpha"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_train_epochs = 8\nmax_train_steps = 500", {"train.epochs": 8, "train.max_steps": None}),
        ("max_train_steps = 500", {"train.epochs": None, "train.max_steps": 500}),
        ("network_alpha = 0", {"lora.alpha": None}),
        ("network_train_unet_only = true", {"lora.text_encoder": False}),
        ("train_text_encoder = false", {"lora.text_encoder": False}),
        ("text_encoder_lr = 0", {"lora.text_encoder": False}),
        ("text_encoder_lr = [0.0, 0.0]", {"lora.text_encoder": False}),
        ("cache_text_encoder_outputs = true", {"lora.text_encoder": False}),
        ("text_encoder_lr = []", {"lora.text_encoder": True, "optimizer.text_encoder_learning_rate": None}),
        (
            "learning_rate = 3e-5\nunet_lr = 1e-4",
            {"optimizer.learning_rate": 1e-4, "optimizer.text_encoder_learning_rate": 3e-5},
        ),
        ('network_args = ["conv_dim=8", "conv_alpha=4"]', {"lora.conv_rank": 8, "lora.conv_alpha": 4.0}),
        ('network_args = ["conv_dim=8"]', {"lora.targets": "kohya_conv", "lora.conv_alpha": 1.0}),
        ('network_args = "conv_dim=8 conv_alpha=2"', {"lora.conv_rank": 8, "lora.conv_alpha": 2.0}),
        ('optimizer_type = "ADAMW"', {"optimizer.name": "adamw"}),
        (
            'optimizer_args = ["weight_decay=1e-1", "eps=1e-6"]',
            {"optimizer.weight_decay": 0.1, "optimizer.eps": 1e-6},
        ),
        ('optimizer_args = ["betas=(0.9,0.95)"]', {"optimizer.betas": (0.9, 0.95)}),
        ('lr_scheduler = "cosine"\nlr_scheduler_num_cycles = 3', {"schedule.cycles": 1}),
        ("max_grad_norm = 0", {"optimizer.max_grad_norm": None}),
        ('lr_scheduler = "constant_with_warmup"\nlr_warmup_steps = 50', {"schedule.warmup_steps": 50}),
        ("resolution = 768", {"data.resolution": 768}),
        ('resolution = "768"', {"data.resolution": 768}),
        ("resolution = [640, 640]", {"data.resolution": 640}),
        ('learning_rate = "1e-4"', {"optimizer.learning_rate": 1e-4}),
        ("v_parameterization = true\nzero_terminal_snr = true", {"model.prediction": "v"}),
        ("zero_terminal_snr = true", {"model.zero_terminal_snr": "on"}),
        ("full_fp16 = true", {"train.precision": "fp16", "save.precision": "fp16"}),
        ('mixed_precision = "bf16"', {"train.precision": "bf16", "save.precision": "fp32"}),
        ('save_precision = "float"', {"save.precision": "fp32"}),
        ("save_every_n_epochs = 1\nsave_last_n_epochs = 3", {"save.keep_last": 3}),
        ("save_every_n_steps = 100\nsave_last_n_steps = 300", {"save.keep_last": 4, "save.every_steps": 100}),
        ("save_n_epoch_ratio = 5\nmax_train_epochs = 20", {"save.every_epochs": 4}),
        ("sample_every_n_steps = 200\nsample_every_n_epochs = 2", {"sample.every_steps": None}),
        ("sample_every_n_steps = 200", {"sample.every_steps": 200, "sample.every_epochs": None}),
        ("validation_split = 0.1", {"validation.data": "0.1"}),
        ("min_snr_gamma = 0", {"loss.min_snr_gamma": None}),
        ('output_name = "my lora (v2)"', {"name": "my-lora-v2"}),
        ('caption_extension = "txt"', {"data.caption_extension": ".txt"}),
        (
            'shuffle_caption = true\nkeep_tokens = 2\nkeep_tokens_separator = "|||"\nsecondary_separator = ";;;"',
            {
                "data.shuffle_captions": True,
                "data.keep_tokens": 2,
                "data.keep_tokens_separator": "|||",
                "data.secondary_separator": ";;;",
            },
        ),
        (
            "caption_dropout_rate = 0.1\ncaption_dropout_every_n_epochs = 3\ncaption_tag_dropout_rate = 0.2",
            {"data.caption_dropout": 0.1, "data.caption_dropout_every_epochs": 3, "data.tag_dropout": 0.2},
        ),
        ("caption_dropout_every_n_epochs = 0", {"data.caption_dropout_every_epochs": None}),
        (
            "token_warmup_min = 2\ntoken_warmup_step = 0.5\nenable_wildcard = true",
            {"data.token_warmup_min": 2, "data.token_warmup_steps": 0.5, "data.wildcards": True},
        ),
        (
            'loss_type = "l2"\nhuber_c = 0.2\nhuber_schedule = "constant"',
            {"loss.kind": "mse", "loss.huber_c": 0.2, "loss.huber_schedule": "constant"},
        ),
        ('loss_type = "smooth_l1"', {"loss.kind": "smooth_l1"}),
        (
            "noise_offset = 0.05\nnoise_offset_random_strength = true\nadaptive_noise_scale = 0.01",
            {"loss.noise_offset": 0.05, "loss.noise_offset_random": True, "loss.adaptive_noise_scale": 0.01},
        ),
        (
            "multires_noise_iterations = 6\nmultires_noise_discount = 0.2",
            {"loss.multires_iterations": 6, "loss.multires_discount": 0.2},
        ),
        (
            "ip_noise_gamma = 0.1\nip_noise_gamma_random_strength = true",
            {"loss.input_perturbation": 0.1, "loss.input_perturbation_random": True},
        ),
        ("min_timestep = 100\nmax_timestep = 900", {"loss.min_timestep": 100, "loss.max_timestep": 900}),
        ("debiased_estimation_loss = true", {"loss.debiased": True}),
        (
            "enable_bucket = true\nresolution = 512",
            {
                "buckets.enabled": True,
                "buckets.sizes": "grid",
                "buckets.min_side": 256,
                "buckets.max_side": 1024,
                "buckets.step": 64,
            },
        ),
        ("min_bucket_reso = 320", {"buckets.enabled": False, "buckets.min_side": None}),
        ("enable_bucket = true\nbucket_no_upscale = true", {"buckets.no_upscale": True}),
        ("validation_split = 0.1\nvalidate_every_n_steps = 50", {"validation.every_steps": 50}),
        ('log_with = "tensorboard"\nlogging_dir = "logs"', {"log.tensorboard": True, "log.wandb": None}),
        ('logging_dir = "logs"', {"log.tensorboard": True}),
        ('log_with = "all"\nlog_tracker_name = "mia"', {"log.tensorboard": True, "log.wandb": "mia"}),
        ("use_8bit_adam = true", {"optimizer.name": "adamw8bit", "optimizer.weight_decay": 0.01}),
        ('optimizer_type = "PagedAdamW32bit"', {"optimizer.name": "paged_adamw"}),
        ('optimizer_type = "Lion"', {"optimizer.name": "lion", "optimizer.weight_decay": 0.0}),
        (
            'optimizer_type = "prodigy"\noptimizer_args = ["decouple=True", "weight_decay=0.1", "d_coef=2"]',
            {
                "optimizer.name": "prodigy",
                "optimizer.weight_decay": 0.1,
                "optimizer.arguments": {"decouple": True, "d_coef": 2},
            },
        ),
        (
            'optimizer_type = "AdaFactor"\noptimizer_args = ["relative_step=False", "scale_parameter=False"]',
            {"optimizer.name": "adafactor", "optimizer.arguments": {"scale_parameter": False}},
        ),
        (
            'optimizer_type = "AdamWScheduleFree"\nlr_scheduler = "cosine"\noptimizer_args = ["warmup_steps=10"]',
            {"optimizer.name": "schedulefree", "schedule.name": "constant", "schedule.warmup_steps": 10},
        ),
        ("lr_warmup_steps = 0.1", {"schedule.warmup_steps": 0.1}),
        (
            'lr_scheduler = "polynomial"\nlr_scheduler_power = 2',
            {"schedule.name": "polynomial", "schedule.power": 2.0},
        ),
        (
            'lr_scheduler = "warmup_stable_decay"\nlr_decay_steps = 0.2\nlr_scheduler_min_lr_ratio = 0.1',
            {"schedule.name": "cosine", "schedule.decay_steps": 0.2, "schedule.min_factor": 0.1},
        ),
        ("lr_decay_steps = 100\nlr_scheduler_power = 3", {"schedule.decay_steps": None, "schedule.power": 1.0}),
        (
            'network_args = ["rank_dropout=0.1", "module_dropout=0.2", "loraplus_lr_ratio=16"]',
            {"lora.rank_dropout": 0.1, "lora.module_dropout": 0.2, "optimizer.lora_plus_ratio": 16.0},
        ),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=lora", "rs_lora=True"]', {"lora.rslora": True}),
        ('network_weights = "a.safetensors"', {"lora.begin_with": "a.safetensors", "lora.as_in_file": False}),
        ('network_weights = "a.safetensors"\ndim_from_weights = true', {"lora.as_in_file": True}),
        ("scale_weight_norms = 1", {"lora.scale_weight_norms": 1.0}),
        (
            "text_encoder_lr = [1e-5, 2e-5]",
            {"optimizer.text_encoder_learning_rate": 1e-5, "optimizer.text_encoder_2_learning_rate": 2e-5},
        ),
        ("network_train_text_encoder_only = true", {"lora.text_encoder": "only"}),
        (
            "unet_lr = 0\ntext_encoder_lr = 1e-5",
            {"lora.text_encoder": "only", "optimizer.text_encoder_learning_rate": 1e-5},
        ),
        ("stop_text_encoder_training = 100", {"train.stop_text_encoder_after": "100 steps"}),
        ("flip_aug = true\nrandom_crop = true", {"data.flip": True, "data.random_crop": True}),
        ('masked_loss = true\nconditioning_data_dir = "masks"', {"data.masks": "masks"}),
        ("alpha_mask = true", {"data.masks": "alpha"}),
        ("sample_at_first = true", {"sample.at_first": True}),
        ("", {"sample.at_first": False, "data.masks": None, "optimizer.name": "adamw"}),
        ('metadata_author = "mia"', {"about.author": "mia", "about.title": None}),
        ('training_comment = "third try"', {"about.comment": "third try"}),
    ],
)
def test_a_key_comes_to_what_kohyas_program_does_with_it(tmp_path: Path, line: str, expected: dict[str, Any]) -> None:
    given = {text.partition(" ")[0] for text in line.splitlines()}
    usual = {"network_module": "networks.lora", "output_name": "x"}
    first = "".join(f'{key} = "{value}"\n' for key, value in usual.items() if key not in given)
    values = flatten(read(tmp_path, first + line).settings)
    assert {key: values[key] for key in expected} == expected


def test_sections_are_cosmetic(tmp_path: Path) -> None:
    lines = [line for line in LUCA.splitlines() if not line.startswith("[")]
    flat = read(tmp_path, "\n".join(lines))
    assert flat.settings == read(tmp_path, LUCA).settings
    assert flat.notes == read(tmp_path, LUCA).notes


def test_empty_texts_and_lists_say_nothing(tmp_path: Path) -> None:
    text = 'vae = ""\nnetwork_args = []\noptimizer_args = []\ntext_encoder_lr = []\nsample_prompts = ""\n'
    assert settings(tmp_path, text) == settings(tmp_path, "")


def test_flags_and_set_go_before_the_file(tmp_path: Path) -> None:
    resolved = read(tmp_path, LUCA, "lora.rank=8", "name=other")
    assert resolved.settings.lora.rank == 8
    assert resolved.settings.name == "other"
    assert resolved.origins["lora.rank"] == "--set"
    ours = tmp_path / "ours.toml"
    ours.write_text("[lora]\nrank = 12\n")
    both = resolve(files=[ours, tmp_path / "kohya.toml"])
    assert both.settings.lora.rank == 12
    assert both.settings.lora.alpha == 32


def test_the_settings_that_a_run_keeps_tell_the_file_and_the_key(tmp_path: Path) -> None:
    resolved = read(tmp_path, LUCA)
    kept = to_toml(resolved.settings, resolved.origins)
    file = tmp_path / "kohya.toml"
    assert f"rank = 64  # kohya file {file}, key network_dim" in kept
    again = tmp_path / "settings.toml"
    again.write_text(kept)
    assert resolve(files=[again]).settings == resolved.settings


def test_an_unknown_key_leads_to_the_nearest_and_all_are_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, LUCA + "\nnetwork_dimm = 8\nlearning_rat = 1e-4\n")
    assert "2 keys" in error.problem
    assert "did you mean network_dim?" in error.problem
    assert "did you mean learning_rate?" in error.problem
    assert "kohya.toml" in error.problem


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('network_dim = "big"', "expected a whole number"),
        ("network_dim = 1.5", "expected a whole number"),
        ("seed = true", "expected a whole number"),
        ('xformers = "yes"', "expected true or false"),
        ("gradient_checkpointing = 1", "expected true or false"),
        ("learning_rate = nan", "expected a number"),
        ('learning_rate = "fast"', "expected a number"),
        ('resolution = "wide"', "expected a size"),
        ('resolution = "1,2,3"', "expected a size"),
        ("network_args = [8]", "expected a list of texts"),
        ('network_args = ["conv_dim"]', "not of the form name=value"),
        ('network_args = ["conv_dims=8"]', "did you mean conv_dim?"),
        ('network_args = ["conv_dim=x"]', "conv_dim=x is not a whole number"),
        ("output_dir = 2024-01-01T00:00:00", "output_dir"),
        ("v2 = true", "Stable Diffusion 2"),
        ('network_module = "networks.oft"', "another kind of adapter"),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=lokr"]', "another kind of adapter"),
        ('loss_type = "cosine"', "a loss is one of"),
        ("network_dim = 100000", "lora.rank = 100000"),
        ('mixed_precision = "fp8"', "train.precision"),
        ("max_token_length = 300", "model.max_tokens"),
    ],
)
def test_a_wrong_value_is_refused_with_its_file_and_key(tmp_path: Path, line: str, expected: str) -> None:
    module = "" if line.startswith("network_module") else 'network_module = "networks.lora"\n'
    error = refusal(tmp_path, f'{module}output_name = "x"\n{line}')
    assert expected in error.problem
    assert error.fix
    assert "pydantic" not in str(error)


@pytest.mark.parametrize(
    ("line", "override", "setting"),
    [
        ('optimizer_type = "DAdaptAdam"', "optimizer.name=adamw", "optimizer.name"),
        ('lr_scheduler = "inverse_sqrt"', "schedule.name=cosine", "schedule.name"),
        ('lr_scheduler_type = "torch.optim.lr_scheduler.StepLR"', "schedule.name=cosine", "schedule.name"),
    ],
)
def test_a_value_that_cannot_be_had_asks_for_a_choice_and_takes_it(
    tmp_path: Path, line: str, override: str, setting: str
) -> None:
    text = f'network_module = "networks.lora"\noutput_name = "x"\n{line}'
    error = refusal(tmp_path, text)
    assert error.fix is not None
    assert f"--set {setting}=" in error.fix
    assert flatten(read(tmp_path, text, override).settings)[setting] == override.partition("=")[2]


def test_a_recipe_beside_a_kohya_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kohya.toml"
    file.write_text(LUCA)
    with pytest.raises(UserError) as caught:
        resolve(recipe="sdxl-standard", files=[file])
    assert "kohya's own defaults" in caught.value.problem
    assert "brushwork migrate" in (caught.value.fix or "")


# Which program a file was written for


def test_files_of_ours_are_never_taken_for_kohyas(tmp_path: Path) -> None:
    import tomllib

    everything = tomllib.loads(to_toml(Settings()))
    assert not is_kohya(everything)
    for name in recipe_names():
        assert not is_kohya(tomllib.loads(read_recipe(name).text))
    assert not is_kohya({})
    assert not is_kohya({"name": "mia", "train": {"seed": 3}})


def test_a_slip_in_a_file_of_ours_is_still_answered_by_our_key(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[lora]\nrank = 8\nnetwork_alpha = 4\n")
    with pytest.raises(UserError) as caught:
        resolve(files=[file])
    assert "lora.alpha" in str(caught.value)


# Pictures and captions


def draw(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("files", "line", "ending"),
    [
        (["1.png", "1.txt"], "", ".txt"),
        (["1.png", "1.caption"], "", ".caption"),
        (["1.png", "1.caption", "1.txt"], "", ".caption"),
        (["1.png", "1.txt"], 'caption_extension = ".caption"', ".txt"),
        (["1.png", "1.caption"], 'caption_extension = ".caption"', ".caption"),
        (["1.png", "1.cap"], 'caption_extension = ".cap"', ".cap"),
    ],
)
def test_where_kohyas_ending_finds_nothing_txt_is_read_and_told(
    tmp_path: Path, files: list[str], line: str, ending: str
) -> None:
    folder = draw(tmp_path / "set" / "10_mia", *files).parent
    resolved = read(tmp_path, f"train_data_dir = '{folder}'\n{line}\n")
    assert resolved.settings.data.caption_extension == ending
    fell_back = ending == ".txt"
    assert (".txt is read" in said(resolved)) == fell_back


def test_the_folder_of_the_command_decides_which_captions_are_read(tmp_path: Path) -> None:
    folder = draw(tmp_path / "other", "1.png", "1.caption")
    resolved = read(tmp_path, "train_data_dir = '/nowhere'\n", data=folder)
    assert resolved.settings.data.caption_extension == ".caption"


def test_pictures_that_lie_flat_count_once_and_it_is_told(tmp_path: Path) -> None:
    flat = draw(tmp_path / "flat", "1.png", "1.txt")
    resolved = read(tmp_path, f"train_data_dir = '{flat}'\n")
    assert resolved.settings.data.repeats == 1
    assert "count once" in said(resolved)
    numbered = draw(tmp_path / "numbered" / "10_mia", "1.png").parent
    assert "count once" not in said(read(tmp_path, f"train_data_dir = '{numbered}'\n"))


# Files for data sets


def test_a_file_for_data_sets_is_read_with_the_settings_file_or_through_it(tmp_path: Path) -> None:
    sets, file = tmp_path / "sets.toml", tmp_path / "kohya.toml"
    sets.write_text(DATA_SETS)
    plain = 'pretrained_model_name_or_path = "b"\nmax_train_epochs = 3\ntrain_batch_size = 9\nresolution = 512\n'
    file.write_text(plain)
    beside = resolve(files=[file, sets])
    before = resolve(files=[sets, file])
    file.write_text(plain + f"dataset_config = '{sets}'\n")
    through = resolve(files=[file])

    assert beside.settings == before.settings == through.settings
    found = through.settings
    assert (found.data.resolution, found.data.repeats, found.train.batch_size) == (768, 7, 3)
    assert found.data.caption_prefix == "mia,"
    assert found.data.path == "/data/mia"
    assert through.origins["data.repeats"] == f"kohya file {sets}, key num_repeats"


def test_what_is_said_nearer_to_a_folder_wins(tmp_path: Path) -> None:
    sets = tmp_path / "sets.toml"
    sets.write_text(
        "[general]\nresolution = 512\nnum_repeats = 2\ncaption_suffix = 'a'\n[[datasets]]\nnum_repeats = 3\n"
        "caption_suffix = 'b'\n[[datasets.subsets]]\nimage_dir = 'x'\ncaption_suffix = 'c'\n"
    )
    data = resolve(files=[sets]).settings.data
    assert (data.resolution, data.repeats, data.caption_suffix) == (512, 3, "c")


TWO_FOLDERS = """\
[general]
caption_extension = ".txt"
[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = "/data/dogs"
  is_reg = true
  class_tokens = "a dog"
  [[datasets.subsets]]
  image_dir = "/data/mia"
  num_repeats = 7
  caption_prefix = "mia,"
  class_tokens = "mia"
  [[datasets.subsets]]
  image_dir = "/data/mia_old"
  caption_extension = ".cap"
"""


def test_several_folders_keep_what_each_has_of_its_own(tmp_path: Path) -> None:
    resolved = read(tmp_path, TWO_FOLDERS)
    data = resolved.settings.data
    dogs, old = data.folders
    assert resolved.settings.data.path == "/data/mia"
    assert (data.repeats, data.caption_prefix, data.class_prompt) == (7, "mia,", "mia")
    assert (dogs.path, dogs.regularisation, dogs.class_prompt, dogs.repeats) == ("/data/dogs", True, "a dog", 1)
    assert (old.path, old.regularisation, old.repeats, old.caption_extension) == ("/data/mia_old", False, 1, ".cap")
    assert (old.caption_prefix, old.class_prompt) == ("", "")  # the first folder's are its own


def test_a_folder_of_regularisation_pictures_is_one_more_folder(tmp_path: Path) -> None:
    found = read(tmp_path, 'train_data_dir = "/data/mia"\nreg_data_dir = "/data/dogs"\nprior_loss_weight = 0.5\n')
    (dogs,) = found.settings.data.folders
    assert (dogs.path, dogs.regularisation) == ("/data/dogs", True)
    assert found.settings.loss.prior_weight == 0.5
    assert found.origins["data.folders"].endswith("key reg_data_dir")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO_FOLDERS + "random_crop = true\n", "random_crop differs between the folders"),
        (
            TWO_FOLDERS + "[[datasets]]\nresolution = 768\n[[datasets.subsets]]\nimage_dir = 'x'\n",
            "resolution differs",
        ),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nis_reg = true\n", "all folders are regularisation"),
        ("[[datasets]]\nresolution = 512\n", "no folder of pictures"),
        ("datasets = []\n", "no folder of pictures"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 3\n", "names no image_dir"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nnum_repeat = 3\n", "did you mean num_repeats?"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\nnum_repeats = 'many'\n", "expected a whole number"),
        ("[[datasets]]\nnetwork_dim = 3\n[[datasets.subsets]]\nimage_dir = 'x'\n", "does not belong in [[datasets]]"),
        ("[generel]\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\n", "generel"),
        ("[[datasets]]\nsubsets = 3\n", "subsets is not a list"),
        ("datasets = [3]\n", "is not a table"),
        ("general = 3\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'x'\n", "is not a table"),
    ],
)
def test_a_wrong_file_for_data_sets_is_refused_in_words(tmp_path: Path, text: str, expected: str) -> None:
    error = refusal(tmp_path, text)
    assert expected in error.problem
    assert "kohya.toml" in error.problem


def test_a_missing_file_for_data_sets_is_told(tmp_path: Path) -> None:
    assert "sets.toml" in refusal(tmp_path, "dataset_config = 'sets.toml'\n").problem


def test_every_setting_that_the_table_leads_to_is_there() -> None:
    led_to = {setting for key in TABLE.values() for setting in key.settings}
    assert sorted(led_to - fields().keys()) == []
    assert len(led_to) > 90


def test_what_has_no_way_to_a_setting_says_why(tmp_path: Path) -> None:
    told = said(
        read(
            tmp_path,
            'network_module = "lycoris.kohya"\noutput_name = "x"\ncolor_aug = true\nweighted_captions = true\n'
            'resume = "state"\nnetwork_args = ["algo=lora", "dora_wd=True"]\noptimizer_type = "Adafactor"\n'
            'sample_sampler = "heun"\nresolution = "512,768"\n',
        )
    )
    for reason in (
        "not honoured: color_aug = true: colours are never changed",
        "not honoured: weighted_captions = true: ",
        'not honoured: resume = "state": ',
        "dora_wd: no DoRA is trained here",
        "relative_step, by which kohya's Adafactor finds its own rate",
        'not honoured: sample_sampler = "heun": this sampler is not here; euler is taken',
        "a square of as many pixels is taken (624 x 624)",
    ):
        assert reason in told
