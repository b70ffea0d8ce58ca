"""Image encoders of transformers: pictures, and for some texts, become vectors that lie near where they are alike.

CLIP, SigLIP, SigLIP 2 and DINOv2 in the layout that they are published in. The way from a picture to numbers is the
one that the folder's `preprocessor_config.json` tells, by transformers' image processors for Pillow.

Shapes in this file:  N pictures or texts   D width of a vector   T places of the network   W width within it
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer

from brushwork.errors import UserError, listed
from brushwork.models.checkpoint_file import Shards, open_tensors
from brushwork.models.folder import choose_weights, read_json
from brushwork.models.hub import locate
from brushwork.models.naming import Origin
from brushwork.models.part import Part
from brushwork.runtime import precision_name
from brushwork.vision.quiet import quiet_transformers

BUNDLED = "bundled"
SCHEMA = 1
"""Raised when the way from a picture to its vector changes: vectors in the cache go unused."""

LONGEST = 16
"""A picture this many times longer than wide is cut to its middle before it is scaled, where the encoder sees only
the middle square anyway: a strip of 1 x 100,000 pixels would become 16 GB."""

AT_ONCE = 16
"""Pictures or texts that go through the network together, where nobody says."""

_TWO_TOWERS = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
_ONE_TOWER = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
_WAYS = {
    **dict.fromkeys(("clip", "clip_vision_model"), "CLIPImageProcessor"),
    **dict.fromkeys(("siglip", "siglip_vision_model"), "SiglipImageProcessor"),
    **dict.fromkeys(("siglip2", "siglip2_vision_model"), "Siglip2ImageProcessor"),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), "BitImageProcessor"),
}
"""How each was published to take its pictures, where the folder does not say."""

_WITHOUT_CLASS = ("siglip", "siglip2")
"""Their networks have no place of their own for the whole picture: its mean over all places stands for it."""

_OF_TEXTS = frozenset({"clip_text_model", "siglip_text_model", "siglip2_text_model"})
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json")

Prepared = Mapping[str, Tensor]
"""A picture as the network takes it."""


@final
class Encoder:
    """An image encoder, ready to be asked.

    Args:
        name: what the person called it.
        fingerprint: what its vectors follow from: weights, preparation and precision.
    """

    def __init__(
        self, name: str, folder: Path, model: nn.Module, processor: Callable[..., Any], *, fingerprint: str
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.folder = folder
        self.has_text = _model_type(folder) in _TWO_TOWERS
        self._model = model
        self._processor = processor
        self._tokenizer: Any = None
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype

    @property
    def layer_width(self) -> int:
        """W: the numbers that `layer` adds to a vector."""
        config: Any = self._model.config
        return int(config.vision_config.hidden_size if self.has_text else config.hidden_size)

    def embed_pictures(self, pictures: Sequence[Image.Image], *, batch_size: int = AT_ONCE) -> Tensor:
        """N pictures -> (N, D) float32 of length 1, on the CPU"""
        found = []
        for start in range(0, len(pictures), batch_size):
            found.append(self.embed_prepared([self.prepare(each) for each in pictures[start : start + batch_size]]))
        return torch.cat(found) if found else torch.empty(0, 0)

    def prepare(self, picture: Image.Image) -> Prepared:
        """A picture as the network takes it; many threads may ask at once."""
        picture = picture.convert("RGB")
        if getattr(self._processor, "do_center_crop", None):
            picture = _middle(picture)
        numbers = self._processor([picture], return_tensors="pt")
        return {name: tensor[0] for name, tensor in numbers.items()}

    @torch.no_grad()
    def embed_prepared(self, prepared: Sequence[Prepared], *, layer: bool = False) -> Tensor:
        """N pictures that `prepare` made -> (N, D) float32 of length 1, on the CPU

        With `layer`, (N, D + W): beside it, of length 1 too, what the network saw one layer before its end. The last
        layer and the projection are made for telling captions apart; before them, more is left of who it is.
        """
        batch = {name: self._placed(torch.stack([each[name] for each in prepared])) for name in prepared[0]}
        ask: Any = self._model.get_image_features if self.has_text else self._model
        seen = ask(**batch, output_hidden_states=layer)
        vectors = self._unit(_vectors(seen))
        if not layer:
            return vectors
        state = seen.hidden_states[-2].float()  # (N, T, W)
        if _model_type(self.folder).startswith(_WITHOUT_CLASS):
            there = batch.get("pixel_attention_mask", torch.ones_like(state[..., 0])).float()[..., None]  # (N, T, 1)
            return torch.cat([vectors, self._unit((state * there).sum(dim=1) / there.sum(dim=1))], dim=1)
        return torch.cat([vectors, self._unit(state[:, 0])], dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], *, batch_size: int = AT_ONCE) -> Tensor:
        """N texts -> (N, D) float32 of length 1, on the CPU; what is longer than the encoder reads is cut off"""
        if not self.has_text:
            raise UserError(
                f"{self.name} sees pictures and reads no texts.",
                fix="name a CLIP or SigLIP, such as openai/clip-vit-large-patch14",
            )
        found = []
        for start in range(0, len(texts), batch_size):
            batch = {name: self._placed(tensor) for name, tensor in self._tokens(texts[start : start + batch_size])}
            found.append(self._unit(_vectors(self._model.get_text_features(**batch))))  # type: ignore[operator]
        return torch.cat(found) if found else torch.empty(0, 0)

    def _tokens(self, texts: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """CLIP ignores what it masks; SigLIP was trained on texts that are always filled up, and has no mask."""
        if self._tokenizer is None:
            self._tokenizer = _tokenizer(self.name, self.folder)
        config: Any = self._model.config
        is_clip = config.model_type == "clip"
        tokens = self._tokenizer(
            list(texts),
            padding=True if is_clip else "max_length",
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_attention_mask=is_clip,
            return_tensors="pt",
        )
        return (entry for entry in tokens.items() if entry[0] in ("input_ids", "attention_mask"))

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)

    def _unit(self, vectors: Tensor) -> Tensor:
        vectors = vectors.float().cpu()
        if not vectors.isfinite().all():
            raise UserError(
                f"{self.name} gives numbers that are not finite in {precision_name(self._dtype)}.",
                fix="ask for fp32; if it is that already, its weights are damaged: fetch them again",
            )
        return F.normalize(vectors, dim=-1)


def load_encoder(name: str, *, device: torch.device, dtype: torch.dtype, offline: bool = False) -> Encoder:
    """An encoder by its name.

    Args:
        name: a folder in the layout of transformers, a hub id such as `openai/clip-vit-large-patch14`, or `bundled`.
        offline: do not ask the hub.
    """
    folder = bundled_encoder() if name == BUNDLED else locate(name, "transformers", offline=offline)
    kind = _checked_kind(folder)
    processor = _processor(folder)
    part = _weights(folder)
    settings = {
        "schema": SCHEMA,
        "precision": precision_name(dtype),
        **{beside: dict(read_json(folder / beside)) for beside in _BESIDE},
    }
    model = _read_model(folder, kind, dtype).to(device).eval().requires_grad_(False)
    return Encoder(name, folder, model, processor, fingerprint=part.fingerprint(settings=settings))


def bundled_encoder() -> Path:
    """The tiny CLIP that comes with the package: it knows the drawn film."""
    return Path(str(files("brushwork") / "assets" / "tiny-clip"))


def _checked_kind(folder: Path) -> str:
    """The class of the model in a folder, or a sentence about why it cannot be used."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file: an image encoder is a folder of config.json, preprocessor_config.json and weights.",
            fix="name the folder, or a hub id such as openai/clip-vit-large-patch14",
        )
    if (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} is a base model in the layout of diffusers, and no image encoder.",
            fix="name a CLIP, SigLIP or DINOv2, such as openai/clip-vit-large-patch14",
        )
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} has no config.json: it is no image encoder in the layout of transformers.",
            fix="name the folder that holds config.json, preprocessor_config.json and model.safetensors",
        )
    model_type = _model_type(folder)
    if model_type in _OF_TEXTS:
        raise UserError(
            f"{folder} is a {model_type}: it reads texts and sees no pictures.",
            fix="name the whole CLIP or SigLIP that it was taken from",
        )
    kinds = _TWO_TOWERS | _ONE_TOWER
    if model_type not in kinds:
        raise UserError(
            f"{folder} is a {model_type or 'model of no named type'}; image encoders that are known: "
            f"{listed(sorted(kinds), limit=len(kinds))}.",
            fix="name a CLIP, SigLIP or DINOv2",
        )
    return kinds[model_type]


def _model_type(folder: Path) -> str:
    return str(read_json(folder / "config.json").get("model_type", ""))


def _processor(folder: Path) -> Callable[..., Any]:
    """The way from a picture to numbers, as the folder tells it; nothing here needs torchvision."""
    if not any((folder / name).is_file() for name in _BESIDE[1:]):
        raise UserError(
            f"{folder} has no preprocessor_config.json: how it wants its pictures is not known.",
            fix="copy preprocessor_config.json from where the model was published into that folder",
        )
    joint = read_json(folder / _BESIDE[2]).get("image_processor")
    told: dict[str, Any] = dict(joint if isinstance(joint, dict) else read_json(folder / _BESIDE[1]))
    # Older files have only `feature_extractor_type`; the oldest name no class, and are of the model's own.
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or _WAYS[_model_type(folder)])
    kind = kind.removesuffix("Pil").removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    try:
        with quiet_transformers():
            known = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
            processor: Callable[..., Any] = known.from_dict(told)
            processor([Image.new("RGB", (40, 30))], return_tensors="pt")
    except (AttributeError, ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder}: the way of its pictures, {kind}, cannot be followed: {_first_line(error)}",
            fix="copy preprocessor_config.json again from where the model was published",
        ) from error
    return processor


def _weights(folder: Path) -> Part:
    """The weights as they lie in the folder: a file that is cut off is found here, by name."""
    names = [path.name for path in folder.iterdir()]
    try:
        chosen = choose_weights(names, "text_encoder", variant=None, where=str(folder))
    except UserError as error:
        raise UserError(error.problem, fix="fetch the encoder again, as a whole") from error
    file = Shards(folder / chosen) if chosen.endswith(".json") else open_tensors(folder / chosen)
    return Part("encoder", file, {key: Origin(key) for key in file.headers}, read_json(folder / "config.json"))


def _read_model(folder: Path, kind: str, dtype: torch.dtype) -> nn.Module:
    """The network with every weight from the folder: transformers would draw one that is missing at random."""
    if kind == "CLIPVisionModelWithProjection" and "visual_projection.weight" not in _weights(folder).origins:
        kind = "CLIPVisionModel"
    try:
        with quiet_transformers():
            model, told = getattr(transformers, kind).from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder} cannot be read as a {kind}: {_first_line(error)}", fix="fetch the encoder again, as a whole"
        ) from error
    wrong = [f"{name} (missing)" for name in sorted(told["missing_keys"])]
    wrong += [f"{entry[0]} (of another shape)" for entry in sorted(told["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} weights of the {kind} that config.json describes are not in its file: "
            f"{listed(wrong, limit=3)}.",
            fix="fetch config.json and the weights again, from the same place",
        )
    network: nn.Module = model
    return network


def _tokenizer(name: str, folder: Path) -> Any:
    """What cuts texts up. Where the files are missing, transformers would give one that knows no word."""
    if not any((folder / file).is_file() for file in _VOCABULARIES):
        raise UserError(
            f"{folder} holds no vocabulary ({listed(_VOCABULARIES)}), so {name} reads no texts.",
            fix="copy the files of its tokenizer from where the model was published into that folder",
        )
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except ImportError as error:
        raise UserError(
            f"the vocabulary of {name} needs a package that is not here: {_first_line(error)}",
            fix="pip install sentencepiece",
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"the vocabulary in {folder} cannot be read: {_first_line(error)}",
            fix="copy the files of its tokenizer again from where the model was published",
        ) from error


def _vectors(output: Any) -> Tensor:
    """(N, D) of what a tower gives: the projected state, or the pooled one where nothing is projected."""
    if isinstance(output, Tensor):
        return output
    projected = getattr(output, "image_embeds", None)
    vectors: Tensor = output.pooler_output if projected is None else projected
    return vectors


def _middle(picture: Image.Image) -> Image.Image:
    """A strip cut to its middle; any other picture as it is."""
    width, height = picture.size
    longest = LONGEST * min(width, height)
    if max(width, height) <= longest:
        return picture
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return picture.crop((left, top, min(width, left + longest), min(height, top + longest)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
