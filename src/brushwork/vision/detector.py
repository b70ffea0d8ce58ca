"""Faces, persons and other things in pictures, found by a detector of transformers (YOLOS, DETR, RT-DETR and their
kin): a person is compared by the face and not by the clothes, and how much of somebody a frame shows is known.

Shapes in this file:  B boxes
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
import transformers
from PIL import Image
from torch import nn
from transformers import AutoModelForObjectDetection

from brushwork.errors import UserError, listed
from brushwork.models.folder import read_json
from brushwork.models.hub import locate
from brushwork.vision.quiet import quiet_transformers

SURE = 0.5
"""A box below this is nothing."""

MARGIN = 0.25
"""Hair and chin belong to a face: a box is cut out with so much of its size around it."""


class Box(NamedTuple):
    """Where something is, in pixels of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)


class Seen(NamedTuple):
    """One thing in a picture: what it is, how sure that is, and where."""

    label: str
    score: float
    box: Box


@final
class Detector:
    """A detector, ready to be asked.

    Args:
        labels: what its classes are called.
        subjects: those of them that are the subject: faces, unless another is asked for.
        fingerprint: what it finds follows from that: its weights, and how pictures are prepared.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        processor: Any,
        *,
        labels: Mapping[int, str],
        subjects: frozenset[str],
        fingerprint: str,
    ) -> None:
        self.name = name
        self.subjects = subjects
        self.fingerprint = fingerprint
        self._model = model
        self._processor = processor
        self._labels = labels

    @torch.no_grad()
    def detect(self, picture: Image.Image) -> list[Seen]:
        """Everything that is found in a picture, with boxes in its pixels."""
        picture = picture.convert("RGB")
        device = next(self._model.parameters()).device
        inputs = {key: value.to(device) for key, value in self._processor([picture], return_tensors="pt").items()}
        found = self._processor.post_process_object_detection(
            self._model(**inputs), threshold=SURE, target_sizes=[(picture.height, picture.width)]
        )[0]
        parts = (found[key].tolist() for key in ("labels", "scores", "boxes"))
        return [
            Seen(self._labels.get(label, str(label)), score, Box(*box))
            for label, score, box in zip(*parts, strict=True)
        ]

    def largest_face(self, picture: Image.Image) -> Box | None:
        """The largest face of a picture, where one is found."""
        boxes = [seen.box for seen in self.detect(picture) if seen.label in self.subjects]
        return max(boxes, key=lambda box: box.area, default=None)

    def face(self, picture: Image.Image) -> Image.Image | None:
        """The largest face of a picture, cut out; None where none is found."""
        box = self.largest_face(picture)
        return None if box is None or box.area < 1 else cut_out(picture, box)


def cut_out(picture: Image.Image, box: Box) -> Image.Image:
    """The square around a box with its margin, as much of it as the picture holds."""
    half = (0.5 + MARGIN) * max(box.right - box.left, box.bottom - box.top)
    across, down = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    left, top = max(0, round(across - half)), max(0, round(down - half))
    right, bottom = min(picture.width, round(across + half)), min(picture.height, round(down + half))
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def load_detector(name: str, *, device: torch.device, offline: bool = False, subject: str = "face") -> Detector:
    """A detector by its name: a folder in the layout of transformers, or a hub id.

    Args:
        subject: the classes that matter have this in their names.
    """
    folder = locate(name, "transformers", offline=offline)
    if not (folder / "config.json").is_file() or not (folder / "preprocessor_config.json").is_file():
        raise UserError(
            f"{folder} is no detector in the layout of transformers (config.json, preprocessor_config.json).",
            fix=f"name the folder of a detector of {subject}s, such as a YOLOS or DETR",
        )
    labels = {
        int(key): str(word) for key, word in dict(read_json(folder / "config.json").get("id2label", {})).items()
    }
    subjects = frozenset(word for word in labels.values() if subject.lower() in word.lower())
    if not subjects:
        raise UserError(
            f"{folder} finds {listed(sorted(labels.values())) or 'nothing that it names'}, and no {subject}s.",
            fix=f"name a detector one of whose classes is called {subject}",
        )
    with quiet_transformers():
        model = _read_model(folder).to(device).eval().requires_grad_(False)
        return Detector(
            name,
            model,
            _processor(folder),
            labels=labels,
            subjects=subjects,
            fingerprint=_fingerprint(folder, model),
        )


def _fingerprint(folder: Path, model: nn.Module) -> str:
    """A digest of every weight and of how pictures are prepared."""
    digest = hashlib.sha256((folder / "preprocessor_config.json").read_bytes())
    for key, weights in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_model(folder: Path) -> nn.Module:
    """The network, every weight of it from the folder."""
    try:
        model, told = AutoModelForObjectDetection.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
        raise UserError(
            f"{folder} cannot be read as a detector: {str(error).partition(chr(10))[0]}",
            fix="fetch the detector again, as a whole",
        ) from error
    if told["missing_keys"]:
        raise UserError(
            f"{folder}: weights of the detector are missing: {listed(sorted(told['missing_keys']), limit=3)}.",
            fix="fetch the detector again, as a whole",
        )
    network: nn.Module = model
    return network


def _processor(folder: Path) -> Callable[..., Any]:
    """The way from a picture to numbers, by the class for Pillow: torchvision is not needed."""
    told = dict(read_json(folder / "preprocessor_config.json"))
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Pil").removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    try:
        known = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
        processor: Callable[..., Any] = known.from_dict(told)
    except (AttributeError, ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder}: the way of its pictures, {kind or 'which it does not name'}, cannot be followed.",
            fix="copy preprocessor_config.json again from where the model was published",
        ) from error
    return processor
