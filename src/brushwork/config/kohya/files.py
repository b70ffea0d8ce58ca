"""Rows of the table: places, what is saved and when, pictures on the way, measuring, logs and metadata."""

import math
import re
from typing import Any

from brushwork.config.kohya.key import NOTHING, Given, Meaning, aside, needless, same, turned, unmet

# What is saved

LAST = "last"
"""What kohya's program calls a file that has no name."""


def file_name(given: Given) -> str:
    """`output_name`, in letters that a run of ours may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", given["output_name"] or LAST).strip("-._") or LAST


def _name(value: Any, given: Given) -> Meaning:
    name = file_name(given)
    remark = f"the files are called {name}, in letters, digits, dot, dash and underscore" if value else ""
    remark = remark if name != value else ""
    return Meaning({"name": name}, remark)


def _every_epochs(value: Any, given: Given) -> Meaning:
    if given["save_n_epoch_ratio"] and given["max_train_epochs"]:
        return NOTHING
    return Meaning({"save.every_epochs": value or None})


def _ratio(value: Any, given: Given) -> Meaning:
    if not value:
        return NOTHING
    if not given["max_train_epochs"]:
        return Meaning(
            instead="the number of epochs is not in the file (max_train_epochs); save_every_n_epochs says it"
        )
    return Meaning({"save.every_epochs": max(1, given["max_train_epochs"] // value)})


def _last_epochs(value: Any, given: Given) -> Meaning:
    by_steps = _last_step_files(given)
    if value is None or (by_steps or 0) > value:
        return NOTHING
    return Meaning({"save.keep_last": value}, "of the files by step as many are kept" if by_steps else "")


def _last_steps(value: Any, given: Given) -> Meaning:
    number = _last_step_files(given)
    if number is None or number <= (given["save_last_n_epochs"] or 0):
        return NOTHING
    return Meaning({"save.keep_last": number}, f"{value} steps back are {number} files")


def _last_step_files(given: Given) -> int | None:
    """kohya counts steps back from the last; the file that is written counts too."""
    back, every = given["save_last_n_steps"], given["save_every_n_steps"]
    return None if not back or not every else math.floor(back / every) + 1


def _save_precision(value: Any, given: Given) -> Meaning:
    unsaid = "fp16" if given["full_fp16"] else "bf16" if given["full_bf16"] else "fp32"
    return Meaning({"save.precision": {"float": "fp32", None: unsaid}.get(value, value)})


def _model_format(value: Any, given: Given) -> Meaning:
    if value in (None, "safetensors"):
        return NOTHING
    return Meaning(instead=f"{value} files can carry programs; safetensors is written, which everything reads")


STATE = "the state is always kept, and `brushwork resume RUN` goes on from it"

SAVING = [
    aside("output_dir", "text", None, "the run's folder is output_dir/output_name, unless --out says another"),
    turned("output_name", "text", None, ("name",), _name, "letters, digits, dot, dash and underscore; else `last`"),
    turned("save_model_as", "text", "safetensors", (), _model_format, "always safetensors"),
    needless("use_safetensors", "flag", False, "always so"),
    turned(
        "save_precision", "text", None, ("save.precision",), _save_precision,
        "`float` is fp32; left out is fp32, or the type of full_bf16 and full_fp16",
    ),
    turned("save_every_n_epochs", "whole", None, ("save.every_epochs",), _every_epochs, "left out is off"),
    same("save_every_n_steps", "whole", None, "save.every_steps"),
    turned("save_n_epoch_ratio", "whole", None, ("save.every_epochs",), _ratio, "so many files in all"),
    turned("save_last_n_epochs", "whole", None, ("save.keep_last",), _last_epochs, "one number for both kinds"),
    turned("save_last_n_steps", "whole", None, ("save.keep_last",), _last_steps, "steps back, turned into files"),
    needless("save_last_n_epochs_state", "whole", None, "one state is kept, the last"),
    needless("save_last_n_steps_state", "whole", None, "one state is kept, the last"),
    needless("save_state", "flag", False, STATE),
    needless("save_state_on_train_end", "flag", False, STATE),
    unmet(
        "resume", "text", None,
        "kohya's states cannot be read; network_weights begins with an adapter, and runs of ours go on by themselves",
    ),
    aside("config_file", "text", None, "the file itself"),
    needless("output_config", "flag", False, "every run keeps its settings in settings.toml"),
    unmet("huggingface_repo_id", "text", None, "nothing is uploaded"),
    unmet("huggingface_repo_type", "text", None, "nothing is uploaded"),
    unmet("huggingface_path_in_repo", "text", None, "nothing is uploaded"),
    unmet("huggingface_token", "text", None, "nothing is uploaded"),
    unmet("huggingface_repo_visibility", "text", None, "nothing is uploaded"),
    unmet("save_state_to_huggingface", "flag", False, "nothing is uploaded"),
    unmet("resume_from_huggingface", "flag", False, "nothing is uploaded"),
    needless("async_upload", "flag", False, "nothing is uploaded"),
]  # fmt: skip


# Pictures on the way

SAMPLERS = {
    "ddim": "ddim",
    "ddpm": "ddpm",
    "euler": "euler",
    "k_euler": "euler",
    "euler_a": "euler_ancestral",
    "k_euler_a": "euler_ancestral",
    "dpmsolver++": "dpmpp_2m",
}
NEAREST_SAMPLERS = {"dpm_2_a": "euler_ancestral", "k_dpm_2_a": "euler_ancestral", "dpmsolver": "dpmpp_2m"}


def _prompts(value: Any, given: Given) -> Meaning:
    if not value:
        return Meaning({"sample.prompts": None})
    return Meaning(
        {"sample.prompts": value, "sample.steps": 30, "sample.guidance": 7.5},
        "lines that do not say their own have kohya's 30 steps and guidance 7.5; their size is that of training",
    )


def _sampler(value: Any, given: Given) -> Meaning:
    name = str(value).lower()
    if name in SAMPLERS:
        return Meaning({"sample.sampler": SAMPLERS[name]})
    ours = NEAREST_SAMPLERS.get(name, "euler")
    return Meaning({"sample.sampler": ours}, instead=f"this sampler is not here; {ours} is taken")


def _sample_steps(value: Any, given: Given) -> Meaning:
    off = value is None or value <= 0 or (given["sample_every_n_epochs"] or 0) > 0  # as kohya has it
    return Meaning({"sample.every_steps": None if off else value})


def _sample_epochs(value: Any, given: Given) -> Meaning:
    return Meaning({"sample.every_epochs": value if value and value > 0 else None})


SAMPLES = [
    turned(
        "sample_prompts", "text", None, ("sample.prompts", "sample.steps", "sample.guidance"), _prompts,
        "the file is read as it is, with kohya's 30 steps and guidance 7.5 for lines that say none",
    ),
    turned("sample_sampler", "text", "ddim", ("sample.sampler",), _sampler, "`euler_a` is `euler_ancestral`"),
    turned("sample_every_n_epochs", "whole", None, ("sample.every_epochs",), _sample_epochs, "left out is off"),
    turned("sample_every_n_steps", "whole", None, ("sample.every_steps",), _sample_steps, "epochs go before it"),
    same("sample_at_first", "flag", False, "sample.at_first"),
]  # fmt: skip


# Measuring


def _split(value: Any, given: Given) -> Meaning:
    return Meaning({"validation.data": f"{value:g}" if value else None})


def _validate_epochs(value: Any, given: Given) -> Meaning:
    return Meaning({"validation.every_epochs": value or 1})


def _validate_steps(value: Any, given: Given) -> Meaning:
    return Meaning({"validation.every_steps": value or None})


VALIDATION = [
    turned("validation_split", "number", 0.0, ("validation.data",), _split, "0 is off"),
    unmet("validation_seed", "whole", None, "what is held out follows from the seed of the run"),
    turned("validate_every_n_epochs", "whole", None, ("validation.every_epochs",), _validate_epochs, "left out is 1"),
    turned("validate_every_n_steps", "whole", None, ("validation.every_steps",), _validate_steps, "left out is off"),
    needless("max_validation_steps", "whole", None, "every picture that is held out is measured"),
]


# Logs and metadata


def _tracker(value: Any, given: Given) -> Meaning:
    value = value or ("tensorboard" if given["logging_dir"] else None)
    settings: dict[str, Any] = {"log.tensorboard": value in ("tensorboard", "all")}
    if value in ("wandb", "all"):
        settings["log.wandb"] = given["log_tracker_name"] or "network_train"
    return Meaning(settings)


HAS_METADATA = "programs read rank and base from it; no path of this machine stands there"

LOGS = [
    turned(
        "log_with",
        "text",
        None,
        ("log.tensorboard", "log.wandb"),
        _tracker,
        "tensorboard, wandb or all; metrics.jsonl is always written",
    ),
    aside("logging_dir", "text", None, "logs lie in the run's folder"),
    needless("log_prefix", "text", None, "logs lie in the run's folder"),
    aside("log_tracker_name", "text", None, "the project of W&B"),
    unmet("log_tracker_config", "text", None, "metrics.jsonl and the log in the run's folder are always written"),
    aside("wandb_run_name", "text", None, "a run has the name of its files"),
    unmet("wandb_api_key", "text", None, "secrets do not belong into files: `wandb login`"),
    needless("log_config", "flag", False, "every run keeps its settings in settings.toml"),
    same("training_comment", "text", None, "about.comment", unset=""),
    unmet("no_metadata", "flag", False, HAS_METADATA),
    same("metadata_title", "text", None, "about.title"),
    same("metadata_author", "text", None, "about.author"),
    same("metadata_description", "text", None, "about.description"),
    same("metadata_license", "text", None, "about.license"),
    same("metadata_tags", "text", None, "about.tags"),
]
