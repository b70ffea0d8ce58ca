"""What an adapter's file tells about its training, under the keys of kohya's trainer (`ss_*`) and of ModelSpec.

Programs read the rank, the base, the resolution and the trigger word from here. All values are strings. No path of
the machine goes into a file, and no value grows without end: one data set once made a header too long to open
(kohya-ss/sd-scripts#1380).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from torch import Tensor

from brushwork import __version__
from brushwork.config.schema import DataConfig, LossConfig
from brushwork.lora.diffusers_layout import METADATA_KEY, adapter_metadata
from brushwork.lora.state import AdapterState
from brushwork.models.spec import Family, UNetSpec
from brushwork.tensor_file import data_hash, legacy_hash

SHAPE_KEYS = ("ss_network_dim", "ss_network_alpha")
"""What an adapter's own tensors tell."""

MAX_VALUE = 32_768
"""Most characters of a value that grows with the data."""

BASE_VERSIONS: dict[tuple[Family, str], str] = {
    ("sd15", "epsilon"): "sd_v1",
    ("sd15", "v"): "sd_v1_v",
    ("sdxl", "epsilon"): "sdxl_base_v1-0",
    ("sdxl", "v"): "sdxl_base_v1-0",
}
_ARCHITECTURES: dict[Family, str] = {"sd15": "stable-diffusion-v1/lora", "sdxl": "stable-diffusion-xl-v1-base/lora"}
_IMPLEMENTATIONS: dict[Family, str] = {
    "sd15": "diffusers",
    "sdxl": "https://github.com/Stability-AI/generative-models",
}
_COMPUTED = {"format", METADATA_KEY, "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"}
"""Follow from the tensors and the layout, so that a file that is read and written again never keeps old ones."""


@dataclass(frozen=True)
class Folder:
    """A folder of the training data.

    Args:
        name: as shown to others; of a path only the last part is kept.
        captions: of its pictures.
    """

    name: str
    num_images: int
    repeats: int = 1
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What is worth telling about a run, in plain values; rates are None for what did not train.

    Args:
        base, vae: name, path or hub id; of a path only the last part is kept.
        base_hash, vae_hash: SHA-256 of the file, where it is known.
        started_at, finished_at: seconds since 1970.
        buckets: how often pictures are seen in each width and height in an epoch; None where all are one square.
        network_args: further arguments of the network as kohya names them, e.g. conv_dim.
    """

    name: str
    family: Family
    resolution: tuple[int, int]
    rank: int
    alpha: float
    learning_rate: float
    started_at: float
    finished_at: float
    steps: int
    epoch: int
    num_train_images: int
    num_batches_per_epoch: int
    num_epochs: int
    max_steps: int
    base: str
    folders: tuple[Folder, ...] = ()
    base_hash: str | None = None
    vae: str | None = None
    vae_hash: str | None = None
    prediction: Literal["epsilon", "v"] = "epsilon"
    zero_terminal_snr: bool = False
    dropout: float = 0.0
    network_args: Mapping[str, str] = field(default_factory=dict)
    scale_weight_norms: float | None = None
    unet_learning_rate: float | None = None
    text_encoder_learning_rates: tuple[float, ...] = ()
    reg_folders: tuple[Folder, ...] = ()
    num_reg_images: int = 0
    num_validation_images: int = 0
    buckets: Mapping[tuple[int, int], int] | None = None
    batch_size: int = 1
    accumulation: int = 1
    checkpointing: bool = False
    schedule: str = "constant"
    warmup_steps: int = 0
    optimizer: str = "adamw"
    max_grad_norm: float | None = None
    precision: str = "fp32"
    quantize: str = "off"
    clip_skip: int | None = None
    max_tokens: int = 75
    cache_latents: bool = True
    cache_text: bool = False
    seed: int = 0
    session_id: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trigger: str = ""
    comment: str = ""
    title: str | None = None
    """Unset is the name."""
    author: str | None = None
    description: str | None = None
    license: str | None = None
    tags: str | None = None


def training_metadata(facts: TrainingFacts) -> dict[str, str]:
    """The whole `ss_*` and `modelspec.*` dictionary of a run; hashes are added when the file is written."""
    told = {**_run(facts), **_network(facts), **_noise_and_loss(facts), **_data(facts), **_models(facts)}
    metadata = {f"ss_{key}": _text(value) for key, value in told.items()}
    return metadata | _modelspec(facts)


def metadata_for_layout(
    layout: str, tensors: Mapping[str, Tensor], state: AdapterState, spec: UNetSpec, metadata: Mapping[str, str]
) -> dict[str, str]:
    """The metadata of one file: what was told, the least that others need, and what follows from the tensors."""
    least = minimum_metadata(state, spec)
    told = least | {key: value for key, value in metadata.items() if key not in _COMPUTED}
    # Where all modules share one, it is the true one: folding alpha away, or cutting the rank, changes it.
    told |= {key: least[key] for key in SHAPE_KEYS if least[key] != "Dynamic" and not _same(least[key], told[key])}
    if layout != "kohya":
        return told | {"format": "pt", METADATA_KEY: adapter_metadata(state)}
    # As kohya does it: only the metadata of the training goes into the older of the two hashes.
    training = {key: value for key, value in told.items() if key.startswith("ss_")}
    digest = data_hash(tensors)
    return told | {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy_hash(tensors, training),
        "modelspec.hash_sha256": f"0x{digest}",
    }


def _same(number: str, told: str) -> bool:
    """Whether two texts are the same number: kohya writes an alpha of 8 as 8 or as 8.0."""
    try:
        return float(number) == float(told)
    except ValueError:
        return False


def minimum_metadata(state: AdapterState, spec: UNetSpec) -> dict[str, str]:
    """The keys that kohya keeps even under `--no_metadata`, from the adapter itself."""
    ranks = {weights.rank for weights in state.values()}
    alphas = {weights.alpha for weights in state.values()}
    return {
        "ss_v2": "False",
        "ss_base_model_version": BASE_VERSIONS[spec.family, "epsilon"],
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _ARCHITECTURES[spec.family],
        "modelspec.implementation": _IMPLEMENTATIONS[spec.family],
    }


def tag_frequency(folders: Iterable[Folder]) -> dict[str, dict[str, int]]:
    """How often each comma-separated tag stands in the captions of each folder; the rarest go where it gets long."""
    counts = {
        last_part(folder.name): Counter(
            tag.strip() for caption in folder.captions for tag in caption.split(",") if tag.strip()
        )
        for folder in folders
    }
    room = MAX_VALUE // max(len(counts), 1)
    shortened = {name: _most_frequent(count, room - len(json.dumps({name: {}}))) for name, count in counts.items()}
    return _within(shortened, MAX_VALUE)


def last_part(name: str) -> str:
    """What may be told of a path: its last part. The id of a hub repository (`owner/name`) is told whole."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not re.search(r"^\.|\.(safetensors|ckpt|pt)$", name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _run(facts: TrainingFacts) -> dict[str, Any]:
    return {
        "session_id": facts.session_id,
        "training_started_at": facts.started_at,
        "training_finished_at": facts.finished_at,
        "output_name": facts.name,
        "learning_rate": facts.learning_rate,
        "unet_lr": facts.unet_learning_rate,
        "text_encoder_lr": _one_or_all(facts.text_encoder_learning_rates),
        "num_train_images": facts.num_train_images,
        "num_validation_images": facts.num_validation_images,
        "num_reg_images": facts.num_reg_images,
        "num_batches_per_epoch": facts.num_batches_per_epoch,
        "num_epochs": facts.num_epochs,
        "gradient_checkpointing": facts.checkpointing,
        "gradient_accumulation_steps": facts.accumulation,
        "max_train_steps": facts.max_steps,
        "lr_warmup_steps": facts.warmup_steps,
        "lr_scheduler": facts.schedule,
        "optimizer": facts.optimizer,
        "max_grad_norm": facts.max_grad_norm,
        "mixed_precision": "no" if facts.precision == "fp32" else facts.precision,
        "full_fp16": False,
        "fp8_base": facts.quantize == "fp8",
        **({} if facts.quantize == "off" else {"base_quantize": facts.quantize}),  # not kohya's: it has fp8 alone
        "lowram": False,
        "seed": facts.seed,
        "steps": facts.steps,
        "epoch": facts.epoch,
        "training_comment": facts.comment,
        "sd_scripts_commit_hash": f"brushwork {__version__}",
    }


def _network(facts: TrainingFacts) -> dict[str, Any]:
    network_args = {"network_args": json.dumps(dict(facts.network_args))} if facts.network_args else {}
    return network_args | {
        "network_module": "networks.lora",
        "network_dim": facts.rank,
        "network_alpha": facts.alpha,
        "network_dropout": facts.dropout or None,
        "scale_weight_norms": facts.scale_weight_norms,
    }


def _noise_and_loss(facts: TrainingFacts) -> dict[str, Any]:
    loss = facts.loss
    is_huber = loss.kind in ("huber", "smooth_l1")
    return {
        "noise_offset": loss.noise_offset or None,
        "noise_offset_random_strength": loss.noise_offset_random,
        "adaptive_noise_scale": loss.adaptive_noise_scale,
        "multires_noise_iterations": loss.multires_iterations,
        "multires_noise_discount": None if loss.multires_iterations is None else loss.multires_discount,
        "ip_noise_gamma": loss.input_perturbation or None,
        "ip_noise_gamma_random_strength": loss.input_perturbation_random,
        "zero_terminal_snr": facts.zero_terminal_snr,
        "min_snr_gamma": loss.min_snr_gamma,
        "debiased_estimation": loss.debiased,
        "loss_type": "l2" if loss.kind == "mse" else loss.kind,
        "huber_schedule": loss.huber_schedule if is_huber else None,
        "huber_c": loss.huber_c if is_huber else None,
        "prior_loss_weight": facts.loss.prior_weight,
    }


def _data(facts: TrainingFacts) -> dict[str, Any]:
    width, height = facts.resolution
    datasets = {
        "is_dreambooth": True,
        "batch_size_per_device": facts.batch_size,
        "num_train_images": facts.num_train_images,
        "resolution": [width, height],
        "enable_bucket": facts.buckets is not None,
    }
    return {
        "datasets": json.dumps([datasets]),
        "dataset_dirs": json.dumps(_directories(facts.folders)),
        "reg_dataset_dirs": json.dumps(_directories(facts.reg_folders)),
        "tag_frequency": json.dumps(tag_frequency(facts.folders), ensure_ascii=False),
        "bucket_info": json.dumps(_bucket_info(facts.buckets)),
        "resolution": f"({width}, {height})",
        "batch_size_per_device": facts.batch_size,
        "total_batch_size": facts.batch_size,
        "enable_bucket": facts.buckets is not None,
        "min_bucket_reso": min(map(min, facts.buckets)) if facts.buckets else None,
        "max_bucket_reso": max(map(max, facts.buckets)) if facts.buckets else None,
        "cache_latents": facts.cache_latents,
        "cache_text_encoder_outputs": facts.cache_text,
        "shuffle_caption": facts.data.shuffle_captions,
        "keep_tokens": facts.data.keep_tokens,
        "caption_dropout_rate": facts.data.caption_dropout,
        "caption_dropout_every_n_epochs": facts.data.caption_dropout_every_epochs or 0,
        "caption_tag_dropout_rate": facts.data.tag_dropout,
        "face_crop_aug_range": None,
    }


def _directories(folders: Iterable[Folder]) -> dict[str, Any]:
    told = {
        last_part(folder.name): {"n_repeats": folder.repeats, "img_count": folder.num_images} for folder in folders
    }
    return _within(told, MAX_VALUE)


def _bucket_info(buckets: Mapping[tuple[int, int], int] | None) -> dict[str, Any] | None:
    """The buckets as kohya writes them; they are as many as there are shapes, so they need no limit."""
    if buckets is None:
        return None
    rows = {
        str(number): {"resolution": list(size), "count": buckets[size]} for number, size in enumerate(sorted(buckets))
    }
    return {"buckets": rows}


def _models(facts: TrainingFacts) -> dict[str, Any]:
    models = {
        "v2": False,
        "base_model_version": BASE_VERSIONS[facts.family, facts.prediction],
        "clip_skip": facts.clip_skip,
        "max_token_length": None if facts.max_tokens == 75 else facts.max_tokens,
        "sd_model_name": last_part(facts.base),
    }
    if facts.base_hash is not None:
        models |= {"sd_model_hash": facts.base_hash[:8], "new_sd_model_hash": facts.base_hash}
    if facts.vae is not None:
        models["vae_name"] = last_part(facts.vae)
    if facts.vae_hash is not None:
        models |= {"vae_hash": facts.vae_hash[:8], "new_vae_hash": facts.vae_hash}
    return models


def _modelspec(facts: TrainingFacts) -> dict[str, str]:
    width, height = facts.resolution
    span = (facts.loss.min_timestep, facts.loss.max_timestep)
    fields = {
        "sai_model_spec": "1.0.1",
        "architecture": _ARCHITECTURES[facts.family],
        "implementation": _IMPLEMENTATIONS[facts.family],
        "implementation_version": f"brushwork/{__version__}",
        "title": facts.title or facts.name,
        "resolution": f"{width}x{height}",
        "date": datetime.fromtimestamp(int(facts.finished_at), tz=UTC).replace(tzinfo=None).isoformat(),
        "prediction_type": facts.prediction,
        "timestep_range": f"{span[0]},{span[1]}" if span != (0, 1000) else None,
        "author": facts.author,
        "description": facts.description,
        "license": facts.license,
        "tags": facts.tags,
        "trigger_phrase": facts.trigger or None,
        "encoder_layer": None if facts.clip_skip is None else str(facts.clip_skip),
    }
    return {f"modelspec.{key}": value for key, value in fields.items() if value is not None}


def _one_or_all(rates: tuple[float, ...]) -> float | list[float] | None:
    """As kohya writes the rates of the text encoders: one number where they are equal, else a list."""
    return None if not rates else rates[0] if len(set(rates)) == 1 else list(rates)


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _most_frequent(count: Counter[str], room: int) -> dict[str, int]:
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return _within(dict(ordered), room)


def _within(entries: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The first entries whose JSON takes no more than `room` characters."""
    kept = {}
    for name, value in entries.items():
        room -= len(json.dumps({name: value}, ensure_ascii=False))
        if room < 0:
            break
        kept[name] = value
    return kept
