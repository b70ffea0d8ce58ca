"""What is measured of pictures: vectors of an encoder, edges, colours, small copies, sharpness and light.

What cannot be measured (a model that is not here, an encoder that reads no texts) is told and left out; it never ends
an evaluation.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from brushwork.config.schema import EvaluationConfig
from brushwork.data.source import Source
from brushwork.errors import UserError
from brushwork.evaluation.copying import all_small
from brushwork.evaluation.parts import Learned, Seen
from brushwork.evaluation.style import all_statistics
from brushwork.evaluation.subjects import Shown
from brushwork.evaluation.variety import layouts
from brushwork.models.weights import BUNDLED
from brushwork.places import user_cache_folder
from brushwork.progress import progress_bar
from brushwork.vision.detector import Detector, load_detector
from brushwork.vision.embeddings import embed_files
from brushwork.vision.encoder import Encoder, load_encoder
from brushwork.vision.quality import measure

T = TypeVar("T")

USUAL = "openai/clip-vit-large-patch14"
"""The encoder that the guide compares with, and that the field knows best."""

AT_ONCE = 16


@dataclass
class Eyes:
    """Everything that looks at pictures.

    Args:
        encoder: tells what is shown; None where it could not be loaded.
        reader: the encoder that reads prompts too; often the same.
        detector: finds the faces that identity is measured on; None measures it on whole pictures.
        notes: what is left out, and why.
    """

    encoder: Encoder | None
    reader: Encoder | None
    console: Console
    detector: Detector | None = None
    notes: list[str] = field(default_factory=list)

    def texts(self, plain: Sequence[str]) -> Tensor | None:
        """(P, D) of the prompts without the trigger"""
        reader = self.reader
        if reader is None:
            return None
        return self.tried("adherence", lambda: reader.embed_texts(plain))

    def see(self, what: str, shown: Sequence[Shown]) -> Seen:
        """All that can be measured of some pictures."""
        images = [each.image for each in shown]
        content = self._embedded(self.encoder, shown, what) if self.encoder is not None else None
        read = content
        if self.reader is not self.encoder:
            read = self._embedded(self.reader, shown, what) if self.reader is not None else None
        return Seen(
            content=content,
            subject=content if self.detector is None else self._faces(what, images),
            read=read,
            layout=layouts(images),
            style=all_statistics(images),
            small=all_small(images),
            quality=self.tried("quality", lambda: _qualities(images)),
        )

    def see_learned(self, shown: Sequence[Shown]) -> Learned:
        """What of the training pictures copies are searched with."""
        content = self._embedded(self.encoder, shown, "training pictures")
        return Learned(content, all_small([each.image for each in shown]))

    def _faces(self, what: str, images: Sequence[Image.Image]) -> Tensor | None:
        """(N, D) of the largest face of each picture, no numbers where there is none"""
        detector, encoder = self.detector, self.encoder
        if detector is None or encoder is None:
            return None

        def ask() -> Tensor:
            faces = [detector.face(image) for image in images]
            found = [place for place, face in enumerate(faces) if face is not None]
            self.console.print(
                f"{what}: faces in {len(found)} of {len(images)} pictures", highlight=False, markup=False
            )
            vectors = encoder.embed_pictures([face for face in faces if face is not None])
            if not found:
                raise UserError(f"no face was found in {what}")
            subject = torch.full((len(images), vectors.shape[1]), torch.nan)
            subject[found] = vectors
            return subject

        return self.tried(f"the likeness of faces in {what}", ask)

    def tried(self, what: str, ask: Callable[[], T]) -> T | None:
        """What comes of asking, or nothing, with the reason told once."""
        try:
            return ask()
        except (UserError, OSError, RuntimeError, ValueError) as error:
            said = error.problem if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            note = f"{what} is left out: {said}"
            if note not in self.notes:
                self.notes.append(note)
            return None

    def _embedded(self, encoder: Encoder | None, shown: Sequence[Shown], what: str) -> Tensor | None:
        if encoder is None or not shown:
            return None
        paths: list[Source] = [each.source for each in shown]
        digests = [each.digest for each in shown]

        def ask() -> Tensor:
            with progress_bar(self.console, f"looking at {what}", len(shown), lines=False) as advance:
                return embed_files(
                    encoder,
                    paths,
                    cache_folder=user_cache_folder(),
                    batch_size=AT_ONCE,
                    digests=digests,
                    on_progress=advance,
                )

        return self.tried("what the encoder sees", ask)


def open_eyes(
    settings: EvaluationConfig, *, base: str | None, device: torch.device, offline: bool, console: Console
) -> Eyes:
    """Load the encoders; one that is not here is told and left out."""
    eyes = Eyes(None, None, console)
    usual = BUNDLED if base == BUNDLED else USUAL
    name = usual if settings.encoder == "auto" else settings.encoder

    def load(which: str) -> Encoder:
        return load_encoder(which, device=device, dtype=torch.float32, offline=offline)

    eyes.encoder = eyes.tried("identity", lambda: load(name))
    if settings.text_encoder != "auto":
        eyes.reader = eyes.tried("adherence", lambda: load(settings.text_encoder))
    elif eyes.encoder is not None and eyes.encoder.has_text:
        eyes.reader = eyes.encoder
    elif name != usual:
        eyes.reader = eyes.tried("adherence", lambda: load(usual))
    if settings.face_detector is not None:
        detector = settings.face_detector
        eyes.detector = eyes.tried(
            "the detector of faces, so that identity is measured on whole pictures,",
            lambda: load_detector(detector, device=device, offline=offline),
        )
    return eyes


def shown_file(file: Path) -> Shown:
    """A drawn picture."""
    content = file.read_bytes()
    with Image.open(file) as image:
        return Shown(file.name, file, hashlib.sha256(content).hexdigest(), image.convert("RGB"))


def _qualities(images: Sequence[Image.Image]) -> Tensor:
    return torch.tensor([measure(image).score() for image in images], dtype=torch.float64)
