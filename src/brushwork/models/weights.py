"""A base model: what is known of it from headers and configurations, and how its networks are loaded.

A base is the bundled model, a folder in the diffusers layout, a single file, or a hub id. Opening one reads headers
and checks that every tensor is there with its shape; numbers are read when a network is loaded, one tensor at
a time onto a network built without memory, so that the peak stays near the size of what is loaded.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brushwork.config.schema import ModelConfig, Quantize
from brushwork.errors import UserError
from brushwork.models import configs
from brushwork.models.assembly import Renamed, assemble
from brushwork.models.bundled import bundled_folder
from brushwork.models.folder import Prediction, read_folder, read_json, read_part, read_prediction
from brushwork.models.hub import What, locate
from brushwork.models.part import Part
from brushwork.models.rounded import Rounded, can_round, refuse_not_finite, room, store
from brushwork.models.single_file import (
    marked_prediction,
    marked_zero_terminal_snr,
    read_single_file,
    read_single_vae,
)
from brushwork.models.spec import Family, UNetSpec
from brushwork.models.streaming import stream_blocks
from brushwork.models.text import (
    TextEncoders,
    build_text_encoder,
    canonical_name,
    check_reading,
    empty_text_encoder,
)
from brushwork.models.unet import UNet
from brushwork.models.vae import VAE, build_vae, empty_autoencoder
from brushwork.models.vocabulary import END, PAD_OF_BIG_G, Vocabulary, packaged_vocabulary, read_vocabulary

BUNDLED = "bundled"

Layout = Literal["bundled", "folder", "single file"]
Group = Literal["unet", "vae", "text"]

_TOKENIZERS = {"text_encoder": ("tokenizer", END), "text_encoder_2": ("tokenizer_2", PAD_OF_BIG_G)}
"""Each encoder's tokenizer folder, and what it fills up a short prompt with."""


@dataclass(frozen=True)
class Base:
    """A base model that was opened and checked; its networks are loaded when asked for.

    Args:
        source: as the user named it.
        folder: the diffusers folder, None for a single file.
        prediction_told_by: where the kind of prediction is known from, for people.
        vae_source: where the VAE comes from; the same as `source` where it is the base's own.
        vae_stands_fp16: whether the VAE may be computed in fp16.
        parts: "unet", "vae", "text_encoder", for SDXL "text_encoder_2".
        quantize: in how many bits the weights of the UNet's blocks are kept once they are loaded.
    """

    source: str
    layout: Layout
    folder: Path | None
    spec: UNetSpec
    prediction: Prediction
    prediction_told_by: str
    zero_terminal_snr: bool
    vae_source: str
    vae_stands_fp16: bool
    parts: Mapping[str, Part]
    quantize: Quantize = "off"

    @property
    def family(self) -> Family:
        return self.spec.family

    def load_unet(self, *, dtype: torch.dtype, device: torch.device | str, ahead: int | None = None) -> UNet:
        """The UNet, frozen and in eval mode; where `quantize` says so, each weight is rounded as it is read.

        Args:
            ahead: the weights of the blocks stay in the host's memory and come to the device so many blocks ahead of
                their use. None: all of them are on the device.
        """
        with torch.device("meta"):
            unet = UNet(self.spec)
        part, there = self.parts["unet"], dict(unet.named_modules())
        rest: Mapping[str, Tensor] = part.cast(dtype)
        if self.quantize != "off" or ahead is not None:
            names = [path for path, module in there.items() if can_round(path, module)]
            place = "cpu" if ahead is not None else device
            rooms = {path: room(_shape(there[path]), self.quantize, dtype=dtype, device=place) for path in names}
            for path, stored in rooms.items():  # all the room was made before: see Rounded.fill
                self._fill(stored, f"{path}.weight")
                store(there[path], stored)
            done = {f"{path}.weight" for path in names}
            rest = Renamed(rest, {name: name for name in rest if name not in done})
        assemble(unet, rest, dtype=dtype, device=device, what=part.place)
        if ahead is not None:
            stream_blocks(unet, device=torch.device(device), ahead=ahead)
        return unet

    def _fill(self, stored: Rounded, name: str) -> None:
        """Read a weight of the UNet's blocks into what it is kept in, and let go of it."""
        part = self.parts["unet"]
        weight = part[name].to(stored.device)
        refuse_not_finite(weight, f"{part.place}: {name}")
        stored.fill(weight)

    def load_vae(self, *, dtype: torch.dtype, device: torch.device | str) -> VAE:
        """The VAE, in `vae_dtype(dtype)`."""
        part = self.parts["vae"]
        dtype = self.vae_dtype(dtype)
        return build_vae(part.config, part.cast(dtype), dtype=dtype, device=device, what=part.place)

    def vae_dtype(self, wanted: torch.dtype) -> torch.dtype:
        """The type that the VAE is computed in: what is wanted, but fp32 for fp16 where its activations overflow.

        SDXL's own VAE leaves fp16's range and draws black pictures. A VAE that was mended says so: its config.json
        has `"force_upcast": false`, or its file's name holds "fp16" and "fix".
        """
        return torch.float32 if wanted == torch.float16 and not self.vae_stands_fp16 else wanted

    def load_text(
        self, *, dtype: torch.dtype, device: torch.device | str, clip_skip: int = 1, max_tokens: int = 75
    ) -> TextEncoders:
        """The text encoders with their tokenizers."""
        modules = {
            name: build_text_encoder(
                part.config,
                part.cast(dtype),
                with_projection=name == "text_encoder_2",
                dtype=dtype,
                device=device,
                what=part.place,
            )
            for name, part in self.text_parts.items()
        }
        return TextEncoders(modules, self.vocabularies(), clip_skip=clip_skip, max_tokens=max_tokens)

    @property
    def text_parts(self) -> dict[str, Part]:
        return {name: part for name, part in self.parts.items() if name in _TOKENIZERS}

    def vocabularies(self) -> dict[str, Vocabulary]:
        """Each text encoder's vocabulary: the folder's own, or for a single file that of the package."""
        if self.folder is not None:
            return {name: read_vocabulary(self.folder / _TOKENIZERS[name][0]) for name in self.text_parts}
        return {
            name: packaged_vocabulary(
                padding=_TOKENIZERS[name][1], num_merges=part.config["vocab_size"] - 2 * 256 - 2
            )
            for name, part in self.text_parts.items()
        }

    def fingerprint(self, group: Group) -> str:
        """SHA-256 of the weights' numbers and of what else decides the results: the same for the same model in a
        folder and in a single file of the same precision.

        For "text" the tokenizers count too; how prompts are cut up (clip_skip, max_tokens) does not.
        """
        if group == "unet":
            spec = {key: value for key, value in asdict(self.spec).items() if key != "sample_size"}
            return self.parts["unet"].fingerprint(settings=spec)
        if group == "vae":
            return self.parts["vae"].fingerprint(settings=_chosen(self.parts["vae"], _VAE_SETTINGS))
        digests = []
        for name, vocabulary in self.vocabularies().items():
            part = self.parts[name]
            digests.append(part.fingerprint(settings=_chosen(part, _TEXT_SETTINGS)) + _digest(vocabulary))
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def describe(self) -> dict[str, str | int | bool]:
        """What `brushwork inspect` shows, from headers and configurations alone."""
        text = list(self.text_parts.values())
        return {
            "source": self.source,
            "family": self.family,
            "layout": self.layout,
            "native_resolution": self.spec.native_resolution,
            "prediction": self.prediction,
            "prediction_told_by": self.prediction_told_by,
            "zero_terminal_snr": self.zero_terminal_snr,
            "unet_parameters": self.parts["unet"].num_parameters(),
            "unet_precision": self.parts["unet"].precision(),
            "text_encoders": len(text),
            "text_parameters": sum(part.num_parameters() for part in text),
            "text_precision": " and ".join(sorted({part.precision() for part in text})),
            "vae_source": self.vae_source,
            "vae_parameters": self.parts["vae"].num_parameters(),
            "vae_precision": self.parts["vae"].precision(),
            "vae_stands_fp16": self.vae_stands_fp16,
        }


def _shape(layer: nn.Module) -> torch.Size:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.shape


def open_base(
    base: str,
    *,
    vae: str | None = None,
    variant: str | None = None,
    offline: bool = False,
    prediction: Literal["auto", "epsilon", "v"] = "auto",
    zero_terminal_snr: Literal["auto", "on", "off"] = "auto",
) -> Base:
    """Find a base model, say what it is, and check that all of it is there; no weights are read yet.

    Args:
        base: "bundled", a diffusers folder, a single file, or a hub id (`owner/name`, `owner/name/FILE.safetensors`).
        vae: another VAE than the base's own: a folder, a file, a hub id or "bundled".
        variant: "fp16" for the `*.fp16.safetensors` of a folder; None takes the plain files where there are any.
        offline: never ask the hub.
        prediction: what the network predicts; "auto" is what the base says of itself.
        zero_terminal_snr: whether the noise schedule ends in pure noise; "auto" is what the base says of itself.
    """
    path = _located(base, "base", variant=variant, offline=offline)
    opened = (_open_folder if path.is_dir() else _open_file)(base, path, with_vae=vae is None, variant=variant)
    if vae is not None:
        opened = _with_vae(opened, vae, variant=variant, offline=offline)
    if prediction != "auto":
        opened = replace(opened, prediction=prediction, prediction_told_by="the settings")
    if zero_terminal_snr != "auto":
        opened = replace(opened, zero_terminal_snr=zero_terminal_snr == "on")
    for part in opened.parts.values():
        part.check(_expected_shapes(part, opened.spec))
    return opened


def open_configured(model: ModelConfig) -> Base:
    """The base that the settings name, opened as they say; one that cannot read prompts so is refused here."""
    base = open_base(
        model.base,
        vae=model.vae,
        offline=model.offline,
        prediction=model.prediction,
        zero_terminal_snr=model.zero_terminal_snr,
    )
    check_reading(
        num_layers=base.parts["text_encoder"].config["num_hidden_layers"],
        is_sdxl=base.family == "sdxl",
        clip_skip=model.clip_skip,
        max_tokens=model.max_tokens,
    )
    return replace(base, quantize=model.quantize)


def _located(name: str, what: What, *, variant: str | None, offline: bool) -> Path:
    return bundled_folder() if name == BUNDLED else locate(name, what, variant=variant, offline=offline)


def _open_folder(source: str, folder: Path, *, with_vae: bool, variant: str | None) -> Base:
    spec, parts = read_folder(folder, with_vae=with_vae, variant=variant)
    prediction, zero_terminal_snr = read_prediction(folder)
    has_scheduler = (folder / "scheduler" / "scheduler_config.json").is_file()
    return Base(
        source=source,
        layout="bundled" if source == BUNDLED else "folder",
        folder=folder,
        spec=spec,
        prediction=prediction,
        prediction_told_by="scheduler_config.json" if has_scheduler else "nothing says otherwise",
        zero_terminal_snr=zero_terminal_snr,
        vae_source=source,
        vae_stands_fp16=with_vae and _stands_fp16(parts["vae"], spec.family),
        parts=parts,
    )


def _open_file(source: str, path: Path, *, with_vae: bool, variant: str | None) -> Base:
    if variant is not None:
        raise UserError(f"{path} is a single file and has no variant {variant!r}.", fix="leave the variant away")
    spec, parts, file = read_single_file(path, with_vae=with_vae)
    prediction, told_by = marked_prediction(file)
    return Base(
        source=source,
        layout="single file",
        folder=None,
        spec=spec,
        prediction=prediction,
        prediction_told_by=told_by,
        zero_terminal_snr=marked_zero_terminal_snr(file),
        vae_source=source,
        vae_stands_fp16=spec.family == "sd15",
        parts=parts,
    )


def _with_vae(base: Base, vae: str, *, variant: str | None, offline: bool) -> Base:
    path = _located(vae, "vae", variant=variant, offline=offline)
    if path.is_dir():
        folder = path if (path / "config.json").is_file() else path / "vae"
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{vae} is no VAE: there is no config.json in it, nor in a folder `vae` below it.",
                fix="give the folder of an AutoencoderKL as diffusers writes it, or a .safetensors file",
            )
        part = read_part(folder, "vae", variant=variant)
    else:
        part = read_single_vae(path, base.family)
    own = configs.VAE[base.family] if base.folder is None else read_json(base.folder / "vae" / "config.json")
    expected, found = (float(config.get("scaling_factor", 0.18215)) for config in (own or part.config, part.config))
    if expected != found:
        raise UserError(
            f"{vae} scales its latents by {found}, the VAE of {base.source} by {expected}: it is another family's.",
            fix="give a VAE of the base's own family, or none",
        )
    stands_fp16 = _stands_fp16(part, base.family) or all(word in path.name.lower() for word in ("fp16", "fix"))
    return replace(base, vae_source=vae, vae_stands_fp16=stands_fp16, parts={**base.parts, "vae": part})


def _stands_fp16(vae: Part, family: Family) -> bool:
    return family == "sd15" or vae.config.get("force_upcast") is False


def _expected_shapes(part: Part, spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the network that a part is meant for."""
    if part.name == "unet":
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in UNet(spec).state_dict().items()}
    if part.name == "vae":
        module = empty_autoencoder(part.config)
        return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    module = empty_text_encoder(part.config, with_projection=part.name == "text_encoder_2")
    return {canonical_name(module, name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}


_VAE_SETTINGS = {"norm_num_groups": 32, "act_fn": "silu"}
_TEXT_SETTINGS = {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
"""What decides results and cannot be told from the weights, with the libraries' own defaults."""


def _chosen(part: Part, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part.config.get(key, default) for key, default in settings.items()}


def _digest(vocabulary: Vocabulary) -> str:
    content = json.dumps([vocabulary.ids, vocabulary.merges, vocabulary.padding], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
