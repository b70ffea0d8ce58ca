"""Rows of the table: pictures, captions, sizes, and what is cached."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brushwork.config.kohya.key import NOTHING, Given, Meaning, aside, needless, same, turned, unmet

# Where pictures are

CAPTIONS_BESIDE = "captions are read from files beside the pictures, or from a metadata.jsonl (file_name, text)"


def _pictures(value: Any, given: Given) -> Meaning:
    return Meaning({"data.path": value}) if value and not given["image_dir"] else NOTHING


def _classes(value: Any, given: Given) -> Meaning:
    return Meaning({"data.folders": [{"path": value, "regularisation": True}]}) if value else NOTHING


PLACES = [
    turned(
        "train_data_dir", "text", None, ("data.path",), _pictures,
        "its folders `10_name` say their repeats, and pictures that lie flat count once",
    ),
    aside("dataset_config", "text", None, "read too: [general], [[datasets]] and [[datasets.subsets]]"),
    turned(
        "reg_data_dir", "text", None, ("data.folders",),
        _classes,
        "a table of `[[data.folders]]` with `regularisation = true`",
    ),
    unmet(
        "in_json", "text", None,
        CAPTIONS_BESIDE,
    ),
    needless("dataset_class", "text", None, "programs of one's own are not called"),
    needless("debug_dataset", "flag", False, "the plan shows what is read before a run starts"),
    needless("cache_info", "flag", False, "what is known about pictures is kept in the cache"),
]  # fmt: skip


# Captions


def caption_ending(said: str | None, folder: Path | None) -> str:
    """The ending of captions in a folder: `.txt`, where kohya's own default finds nothing.

    Args:
        said: what the file says; None where it says nothing.
    """
    ending = "." + (said or ".caption").removeprefix(".")
    if ending != ".caption":
        return ending
    if folder is None or not folder.is_dir():
        return ".txt" if said is None else ending
    return ".txt" if next(folder.rglob("*.caption"), None) is None else ending


def _caption_extension(value: Any, given: Given) -> Meaning:
    said = given.said.get("caption_extension") or given.said.get("caption_extention")
    return Meaning({"data.caption_extension": caption_ending(said, given.pictures)})


def _none_is_empty(setting: str) -> Any:
    return lambda value, given: Meaning({setting: value or ""})


def _zero_is_off(setting: str) -> Any:
    return lambda value, given: Meaning({setting: value or None})


CAPTIONS = [
    turned(
        "caption_extension", "text", ".caption", ("data.caption_extension",), _caption_extension,
        "left out is .caption; where none is found, .txt is read, and told",
    ),
    aside("caption_extention", "text", None, "an old spelling of caption_extension, and understood"),
    turned(
        "caption_prefix", "text", None, ("data.caption_prefix",), _none_is_empty("data.caption_prefix"),
        "joined by a blank, as there",
    ),
    turned(
        "caption_suffix", "text", None, ("data.caption_suffix",), _none_is_empty("data.caption_suffix"),
        "joined by a blank, as there",
    ),
    same("shuffle_caption", "flag", False, "data.shuffle_captions"),
    same("caption_separator", "text", ",", "data.caption_separator"),
    same("keep_tokens", "whole", 0, "data.keep_tokens"),
    turned(
        "keep_tokens_separator", "text", "", ("data.keep_tokens_separator",),
        _none_is_empty("data.keep_tokens_separator"), "e.g. `|||`",
    ),
    turned(
        "secondary_separator", "text", None, ("data.secondary_separator",),
        _none_is_empty("data.secondary_separator"), "e.g. `;;;`",
    ),
    same("enable_wildcard", "flag", False, "data.wildcards"),
    same("caption_dropout_rate", "number", 0.0, "data.caption_dropout"),
    turned(
        "caption_dropout_every_n_epochs", "whole", 0, ("data.caption_dropout_every_epochs",),
        _zero_is_off("data.caption_dropout_every_epochs"), "0 is off",
    ),
    same("caption_tag_dropout_rate", "number", 0.0, "data.tag_dropout"),
    same("token_warmup_min", "whole", 1, "data.token_warmup_min"),
    same("token_warmup_step", "number", 0, "data.token_warmup_steps"),
    unmet(
        "weighted_captions", "flag", False,
        "weights such as (word:1.3) are not read in captions: they would be trained as letters",
    ),
]  # fmt: skip


# Sizes


def _resolution(value: Any, given: Given) -> Meaning:
    if value is None:
        return Meaning(remark="the file names no resolution: the base's own, 512 for SD 1.5 and 1024 for SDXL")
    width, height = value
    if width == height:
        return Meaning({"data.resolution": int(width)})
    side = round(math.sqrt(width * height) / 8) * 8
    return Meaning(
        {"data.resolution": side},
        instead=f"a square of as many pixels is taken ({side} x {side}); pictures of other shapes belong in buckets",
    )


def _longest(value: Any, given: Given) -> Meaning:
    if not given["enable_bucket"]:
        return NOTHING
    capped = "max_bucket_reso" not in given and given["resolution"] is not None and max(given["resolution"]) >= 1024
    remark = "kohya's default of 1024 leaves out SDXL's own wide frames (1152 x 896 and on); 2048 has them"
    return Meaning({"buckets.max_side": value}, remark if capped else "")


def _when_bucketed(setting: str) -> Any:
    return lambda value, given: Meaning({setting: value}) if given["enable_bucket"] else NOTHING


def _bucketed(value: Any, given: Given) -> Meaning:
    return Meaning({"buckets.enabled": value, "buckets.sizes": "grid"} if value else {"buckets.enabled": value})


def _mask_folder(given: Given) -> str | None:
    """Where masks lie, if they are asked for; those go before the pictures' own transparency."""
    folder: str | None = given["conditioning_data_dir"] if given["masked_loss"] else None
    return folder


def _masks(value: Any, given: Given) -> Meaning:
    folder = _mask_folder(given)
    if folder is not None:
        return Meaning({"data.masks": folder})
    without = value and not given["alpha_mask"]
    return Meaning(
        remark="the file names no masks (conditioning_data_dir), so all of each picture counts" if without else ""
    )


SIZES = [
    turned("resolution", "size", None, ("data.resolution",), _resolution, "one side; \"1024,1024\" is 1024"),
    turned(
        "enable_bucket", "flag", False, ("buckets.enabled", "buckets.sizes"), _bucketed, "with the same grid of sizes"
    ),
    turned(
        "min_bucket_reso", "whole", 256, ("buckets.min_side",), _when_bucketed("buckets.min_side"),
        "with enable_bucket; left out is 256",
    ),
    turned("max_bucket_reso", "whole", 1024, ("buckets.max_side",), _longest, "with enable_bucket; left out is 1024"),
    turned("bucket_reso_steps", "whole", 64, ("buckets.step",), _when_bucketed("buckets.step"), "with enable_bucket"),
    turned(
        "bucket_no_upscale", "flag", False, ("buckets.no_upscale",), _when_bucketed("buckets.no_upscale"),
        "with enable_bucket",
    ),
    unmet("resize_interpolation", "text", None, "pictures are made smaller by Pillow's Lanczos"),
    same("flip_aug", "flag", False, "data.flip"),
    same("random_crop", "flag", False, "data.random_crop"),
    unmet("color_aug", "flag", False, "colours are never changed"),
    unmet("face_crop_aug_range", "size", None, "crops do not look for faces"),
    turned(
        "masked_loss", "flag", False, ("data.masks",), _masks,
        "with the masks in conditioning_data_dir",
    ),
    aside("conditioning_data_dir", "text", None, "the masks of masked_loss"),
    turned(
        "alpha_mask", "flag", False, ("data.masks",),
        lambda value, given: Meaning({"data.masks": "alpha"}) if value and not _mask_folder(given) else NOTHING,
        "`data.masks = alpha`",
    ),
]  # fmt: skip


# What is cached


ALWAYS_CACHED = "always so: latents are computed once, kept on the disk, and follow the pictures"
CACHED_TEXT = "always so while the text encoders rest (cache.text = auto), shuffled captions included"

CACHING = [
    needless("cache_latents", "flag", False, ALWAYS_CACHED),
    needless("cache_latents_to_disk", "flag", False, ALWAYS_CACHED),
    turned(
        "vae_batch_size",
        "whole",
        1,
        ("cache.vae_batch_size",),
        lambda value, given: Meaning({"cache.vae_batch_size": max(1, value)}),
        "0 is 1",
    ),
    needless("cache_text_encoder_outputs", "flag", False, CACHED_TEXT),
    needless("cache_text_encoder_outputs_to_disk", "flag", False, CACHED_TEXT),
    needless("text_encoder_batch_size", "whole", None, "captions are encoded one by one"),
    needless("skip_cache_check", "flag", False, "the cache is named by what it holds, and needs no check"),
]


# Keys that only a file for data sets has

FOLDER_KEYS = {
    "num_repeats": "repeats",
    "class_tokens": "class_prompt",
    "caption_extension": "caption_extension",
    "caption_prefix": "caption_prefix",
    "caption_suffix": "caption_suffix",
    "shuffle_caption": "shuffle_captions",
    "keep_tokens": "keep_tokens",
    "keep_tokens_separator": "keep_tokens_separator",
    "caption_tag_dropout_rate": "tag_dropout",
    "caption_dropout_rate": "caption_dropout",
    "enable_wildcard": "wildcards",
    "flip_aug": "flip",
}
"""What a folder may have of its own, and what a table of `[[data.folders]]` calls it."""


def _further(value: Any, given: Given) -> Meaning:
    """The first folder, and those beside it, each with what differs from it."""
    if not value:
        return NOTHING
    tables = [_folder_table(subset, given) for subset in given.further]
    return Meaning({"data.path": value} | ({"data.folders": tables} if tables else {}))


def _folder_table(subset: Mapping[str, Any], given: Given) -> dict[str, Any]:
    table: dict[str, Any] = {"path": subset.get("image_dir", "")}
    inherited = set(FOLDER_KEYS)
    if subset.get("is_reg"):
        table["regularisation"] = True
        inherited -= {"class_tokens", "caption_prefix", "caption_suffix"}  # such folders take these over from nowhere
    for name, ours in FOLDER_KEYS.items():
        own, usual = subset.get(name, given.defaults[name]), given[name] if name in inherited else None
        if name == "caption_extension":
            own = caption_ending(subset.get(name), Path(table["path"]).expanduser())
            usual = caption_ending(given.said.get(name), given.pictures)
        if own != usual and not (own is None and usual == ""):
            table[ours] = "" if own is None else own
    if given["masked_loss"] and "conditioning_data_dir" in subset:
        table["masks"] = subset["conditioning_data_dir"]
    return table


SETS = [
    turned(
        "image_dir", "text", None, ("data.path", "data.folders"), _further,
        "of the first folder that is learned `data.path`, of others a table of `[[data.folders]]`",
    ),
    same("num_repeats", "whole", 1, "data.repeats"),
    turned(
        "batch_size", "whole", None, ("train.batch_size",),
        lambda value, given: Meaning({"train.batch_size": value}) if value else NOTHING,
        "goes before train_batch_size",
    ),
    turned(
        "class_tokens", "text", None, ("data.class_prompt",), _none_is_empty("data.class_prompt"),
        "the caption of pictures that have none",
    ),
    aside("is_reg", "flag", False, "`regularisation = true` of the folder's table"),
    unmet("metadata_file", "text", None, CAPTIONS_BESIDE),
    needless("network_multiplier", "number", 1.0, "the adapter learns at full strength"),
    needless("custom_attributes", "table", None, "other programs' notes"),
    needless("dataset_repeats", "whole", 1, "belongs to in_json"),
]  # fmt: skip

WINDOWS = [
    needless("sdxl", "flag", False, "the family is read from the base"),
    unmet("ae", "text", None, "belongs to other models"),
    unmet("clip_l", "text", None, "belongs to other models"),
    unmet("clip_g", "text", None, "belongs to other models"),
    unmet("t5xxl", "text", None, "belongs to other models"),
    needless("epoch", "whole", None, "a window's own key; max_train_epochs counts"),
    needless("num_cpu_threads_per_process", "whole", None, "belongs to accelerate, which is not used"),
    needless("num_processes", "whole", None, "belongs to accelerate, which is not used"),
    needless("num_machines", "whole", None, "belongs to accelerate, which is not used"),
    needless("multi_gpu", "flag", False, "belongs to accelerate, which is not used"),
    needless("extra_accelerate_launch_args", "text", None, "belongs to accelerate, which is not used"),
    needless("dynamo_mode", "text", None, "belongs to accelerate, which is not used"),
]
"""What the windows around kohya's program write into its files."""
