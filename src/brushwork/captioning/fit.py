"""How well captions and pictures are found by one another, as a CLIP sees it.

Shapes in this file:  N pictures, each with its caption   D width of a vector
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from brushwork.cache.store import cache_folder
from brushwork.captioning.captioner import opened
from brushwork.captioning.checks import Fit
from brushwork.config.schema import Settings
from brushwork.data.folder import index_file
from brushwork.data.layout import Layout
from brushwork.data.scan import Facts, scan
from brushwork.errors import UserError
from brushwork.progress import Progress, progress_bar
from brushwork.runtime import pick_device, pick_dtype
from brushwork.vision.embeddings import embed_files
from brushwork.vision.encoder import Encoder, load_encoder

ROWS = 1024
"""Pictures that are compared with all captions at once."""


def fit_of(name: str, *, settings: Settings, console: Console | None = None) -> Fit:
    """Who compares captions with pictures by an encoder; it is loaded now, so that a wrong name is told at once."""
    device = pick_device(settings.train.device)
    encoder = load_encoder(
        name, device=device, dtype=pick_dtype(settings.train.precision, device), offline=settings.model.offline
    )
    if not encoder.has_text:
        raise UserError(
            f"{name} reads no words, so it cannot tell whether a caption fits its picture.",
            fix="--encoder openai/clip-vit-large-patch14, or another CLIP or SigLIP",
        )

    def fit(layout: Layout, captions: Mapping[str, str]) -> dict[str, float]:
        sources = {name: layout.pictures[name].path for name in captions}
        facts = scan(sources, max_pixels=settings.data.max_pixels, index=index_file(layout.root))
        names = [name for name in captions if facts[name].problem is None]
        if len(names) < 2:
            return {}
        with progress_bar(console or Console(stderr=True), "comparing", len(names)) as advance:
            pictures = _seen(encoder, layout, names, facts, settings, advance)
        texts = encoder.embed_texts([captions[name] for name in names])
        return dict(zip(names, shares_beaten(pictures, texts).tolist(), strict=True))

    return fit


def _seen(
    encoder: Encoder,
    layout: Layout,
    names: Sequence[str],
    facts: Mapping[str, Facts],
    settings: Settings,
    advance: Progress,
) -> Tensor:
    """-> (N, D); files that the cache may know, and the rest: parts that a review chose, members of archives."""
    files = {
        name: picture.path
        for name in names
        if (picture := layout.pictures[name]).crop is None and isinstance(picture.path, Path)
    }
    vectors = embed_files(
        encoder,
        list(files.values()),
        cache_folder=cache_folder(settings.cache.folder),
        batch_size=settings.captioning.batch_size,
        digests=[facts[name].digest for name in files],
        data=settings.data,
        on_progress=advance,
    )
    found = dict(zip(files, vectors, strict=True))
    for name in names:
        if name not in found:
            found[name] = encoder.embed_pictures([opened(layout, name, settings.data)])[0]
    return torch.stack([found[name] for name in names])


def shares_beaten(pictures: Tensor, texts: Tensor) -> Tensor:
    """Of each pair, the share of other captions that are less like the picture, or of other pictures that are less
    like the caption, whichever is smaller: (N, D), (N, D) -> (N,)

    A caption that is there twice, word for word, does not beat itself.
    """
    own = (pictures * texts).sum(dim=-1)  # (N,)
    captions_beaten, pictures_beaten = torch.zeros(len(own)), torch.zeros(len(own))
    for start in range(0, len(own), ROWS):
        alike = pictures[start : start + ROWS] @ texts.T  # (ROWS, N)
        mine = own[start : start + ROWS, None]
        close = torch.isclose(alike, mine, rtol=0, atol=1e-6)
        captions_beaten[start : start + ROWS] = ((alike < mine) | close).sum(dim=1) - 1
        close = torch.isclose(alike, own, rtol=0, atol=1e-6)
        pictures_beaten += ((alike < own) | close).sum(dim=0)
    return torch.minimum(captions_beaten, pictures_beaten - 1) / max(1, len(own) - 1)
