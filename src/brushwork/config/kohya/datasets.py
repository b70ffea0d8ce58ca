"""kohya's files for data sets (`dataset_config`): `[general]`, `[[datasets]]` and `[[datasets.subsets]]`.

What a subset does not say, its data set says, then `[general]`, then the settings file.
"""

from collections.abc import Mapping
from typing import Any

from brushwork.config.kohya.pictures import FOLDER_KEYS
from brushwork.config.kohya.read import checked, raise_all, unknown_key
from brushwork.config.kohya.table import TABLE
from brushwork.errors import UserError

INHERITED = {
    "batch_size", "bucket_no_upscale", "bucket_reso_steps", "cache_info", "caption_dropout_every_n_epochs",
    "caption_dropout_rate", "caption_extension", "caption_prefix", "caption_separator", "caption_suffix",
    "caption_tag_dropout_rate", "class_tokens", "color_aug", "custom_attributes", "enable_bucket",
    "enable_wildcard", "face_crop_aug_range", "flip_aug", "keep_tokens", "keep_tokens_separator",
    "max_bucket_reso", "min_bucket_reso", "network_multiplier", "num_repeats", "random_crop",
    "resize_interpolation", "resolution", "secondary_separator", "shuffle_caption", "token_warmup_min",
    "token_warmup_step", "validation_seed", "validation_split",
}  # fmt: skip
"""What may stand at any level."""

OF_A_SUBSET = {"image_dir", "is_reg", "alpha_mask", "metadata_file", "conditioning_data_dir"}

OF_A_FOLDER = {"image_dir", "is_reg", "conditioning_data_dir", *FOLDER_KEYS}
"""What may differ between folders here; everything else holds for all."""


def read_subsets(tables: Mapping[str, Any], origin: str) -> list[dict[str, Any]]:
    """Every folder of pictures, with all that the file says about it, by kohya's keys."""
    others = [name for name in tables if name not in ("general", "datasets")]
    raise_all([unknown_key(name, tables[name], origin) for name in others], f"tables of {origin} are wrong")
    general = _level(tables.get("general", {}), origin, "[general]", INHERITED)
    subsets: list[dict[str, Any]] = []
    for dataset in tables["datasets"]:
        shared = general | _level(dataset, origin, "[[datasets]]", INHERITED | {"subsets"})
        for subset in shared.pop("subsets", None) or []:
            found = shared | _level(subset, origin, "[[datasets.subsets]]", INHERITED | OF_A_SUBSET)
            if "image_dir" not in found and "metadata_file" not in found:
                raise UserError(f"{origin}: a subset names no image_dir.", fix='image_dir = "/path/to/pictures"')
            subsets.append(found)
    if not subsets:
        raise UserError(
            f"{origin}: no folder of pictures is named.", fix='[[datasets.subsets]]\nimage_dir = "/path/to/pictures"'
        )
    return subsets


def first_and_further(
    subsets: list[dict[str, Any]], origin: str
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The first folder that is learned, whose values stand for the run, and the others.

    A key that here has one value for all folders, and has several in the file, is refused.
    """
    learned = [subset for subset in subsets if not subset.get("is_reg")]
    if not learned:
        raise UserError(f"{origin}: all folders are regularisation pictures (is_reg).", fix="name what is learned")
    first = learned[0]
    for name in dict.fromkeys(name for subset in subsets for name in subset if name not in OF_A_FOLDER):
        values = [subset.get(name, TABLE[name].default) for subset in subsets]
        if other := [value for value in values if value != values[0]]:
            raise UserError(
                f"{origin}: {name} differs between the folders ({values[0]} and {other[0]}); here one value holds "
                "for all.",
                fix=f"give them the same {name}, or train them in two runs",
            )
    return first, tuple(subset for subset in subsets if subset is not first)


def _level(values: Any, origin: str, table: str, allowed: set[str]) -> dict[str, Any]:
    """The values of one table, each known and of its kind."""
    if not isinstance(values, dict):
        raise UserError(f"{origin}: {table} is not a table.", fix=f'{table}\nimage_dir = "/path/to/pictures"')
    inner = values.get("subsets")
    if inner is not None and not isinstance(inner, list):
        raise UserError(f"{origin}: subsets is not a list of tables.", fix="[[datasets.subsets]]")
    plain = {name.replace("-", "_"): value for name, value in values.items() if name != "subsets"}
    problems = []
    for name, value in plain.items():
        if name not in TABLE:
            problems.append(unknown_key(name, value, origin))
        elif name not in allowed:
            problem = f"{origin}: {name} does not belong in {table}"
            where = "[[datasets.subsets]]" if name in OF_A_SUBSET else "the settings file"
            problems.append(UserError(f"{problem}.", fix=f"move it to {where}"))
    raise_all(problems, f"keys of {origin} are wrong")
    found = checked(plain, origin)
    return found if inner is None else found | {"subsets": inner}
