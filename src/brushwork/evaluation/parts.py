"""The parts of the score: what is measured of each picture, and the share of what could be had that it comes to.

Every part lies between 0 and 1, and its scale is told: 1 is what the held-out references are among themselves, 0 what
the base draws without a LoRA, or nothing at all.

Shapes in this file:  N cells   R references   T training pictures   D width of a vector   W draws
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from brushwork.config.schema import EvaluationConfig
from brushwork.evaluation import copying, likeness, style, variety
from brushwork.evaluation.resampling import mean

PARTS = ("identity", "variety", "style", "adherence", "quality")
"""In the order of their weights in the guide: 40, 20, 20, 10, 10."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What was measured of some pictures; what could not be measured is None.

    Args:
        content: (N, D) vectors of the encoder.
        subject: (N, D) vectors of the faces, no numbers where none was found; or the same as `content`.
        read: (N, D) vectors of the encoder that reads texts, often the same as `content`.
        layout: (N, L) where edges run.
        style: (N, S)
        small: (N, 3, 32, 32)
        quality: (N,) in [0, 1]
    """

    content: Tensor | None
    subject: Tensor | None
    read: Tensor | None
    layout: Tensor
    style: Tensor
    small: Tensor
    quality: Tensor | None

    def at(self, places: Sequence[int]) -> "Seen":
        """What was measured of some of the pictures."""
        which = torch.tensor(list(places), dtype=torch.long)

        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[which]

        return Seen(
            content=some(self.content),
            subject=some(self.subject),
            read=some(self.read),
            layout=self.layout[which],
            style=self.style[which],
            small=self.small[which],
            quality=some(self.quality),
        )


@dataclass(frozen=True, eq=False)
class Learned:
    """What is measured of the training pictures: (T, D) vectors where there is an encoder, (T, 3, 32, 32)"""

    content: Tensor | None
    small: Tensor


@dataclass(frozen=True, eq=False)
class Scale:
    """What the parts are measured against.

    Args:
        prompts: (N,) position of each cell's prompt.
        texts: (P, D) vectors of the prompts without the trigger; None where nothing reads them.
    """

    references: Seen
    training: Learned | None
    prompts: Tensor
    texts: Tensor | None


@dataclass(frozen=True, eq=False)
class Copying:
    """How near each picture is to the training pictures, and how near is too near."""

    content: copying.Nearest | None
    pixels: copying.Nearest
    content_limit: float | None
    pixels_limit: float
    leaning: Tensor
    """(N,): how likely each is nearer to a training picture than to a reference."""

    @property
    def is_copy(self) -> Tensor:
        """(N,) bool: nearer than the limit, by what it shows or pixel by pixel"""
        found = self.pixels.similarity > self.pixels_limit
        if self.content is not None and self.content_limit is not None:
            found = found | (self.content.similarity > self.content_limit)
        return found

    @property
    def nearness(self) -> Tensor:
        """(N,): how near to the limit, 1 being at it; the larger of both"""
        ratios = [_share(self.pixels.similarity, self.pixels_limit)]
        if self.content is not None and self.content_limit is not None:
            ratios.append(_share(self.content.similarity, self.content_limit))
        return torch.stack(ratios).amax(dim=0)

    @property
    def which(self) -> Tensor:
        """(N,): the training picture that the larger of both is about"""
        if self.content is None or self.content_limit is None:
            return self.pixels.which
        by_content = _share(self.content.similarity, self.content_limit)
        by_pixels = _share(self.pixels.similarity, self.pixels_limit)
        return torch.where(by_content > by_pixels, self.content.which, self.pixels.which)


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate in numbers.

    Args:
        per_picture: for each part, a value of each picture: what the best and the worst are chosen by.
        drawn: for each part, (W,): the share of it in every draw; the first is that of all cells.
        raw: figures that are shown beside the parts, unscaled.
    """

    per_picture: Mapping[str, Tensor]
    drawn: Mapping[str, Tensor]
    raw: Mapping[str, float] = field(default_factory=dict)
    copying: Copying | None = None
    copies: Tensor | None = None
    """(W,): the share of copies in every draw."""
    leaning: Tensor | None = None
    """(W,): how likely a picture is nearer to a training picture than to a reference, in every draw."""


def measure(seen: Seen, bases: Sequence[Seen], scale: Scale, counts: Tensor, settings: EvaluationConfig) -> Measured:
    """All parts of a candidate that can be measured.

    Args:
        bases: what the base drew; of runs of several bases what each drew, and the scale is the mean of theirs.
    """
    per_picture: dict[str, Tensor] = {}
    drawn: dict[str, Tensor] = {}
    raw: dict[str, float] = {}
    _identity(seen, bases, scale, counts, per_picture, drawn, raw)
    _variety(seen, bases, scale, counts, per_picture, drawn, raw)
    _style(seen, scale, counts, per_picture, drawn, raw)
    _adherence(seen, bases, scale, counts, per_picture, drawn, raw)
    _quality(seen, scale, counts, per_picture, drawn, raw)
    found = None if scale.training is None else copied(seen, scale, quantile=settings.copying_quantile)
    copies = None if found is None else mean(found.is_copy.double(), counts)
    leaning = None if found is None else mean(found.leaning, counts)
    return Measured(per_picture, drawn, raw, found, copies, leaning)


def weights(settings: EvaluationConfig, parts: Sequence[str]) -> dict[str, float]:
    """Each part's share of the score; those that are left out leave theirs to the others."""
    given = {
        "identity": settings.identity_weight,
        "variety": settings.variety_weight,
        "style": settings.style_weight,
        "adherence": settings.adherence_weight,
        "quality": settings.quality_weight,
    }
    total = sum(given[part] for part in parts)
    return {part: given[part] / total if total else 1 / len(parts) for part in parts}


def score(measured: Measured, shares: Mapping[str, float]) -> Tensor:
    """(W,): the weighted sum of the parts in every draw"""
    return torch.stack([share * measured.drawn[part].nan_to_num() for part, share in shares.items()]).sum(dim=0)


def copies_by_chance(scale: Scale, settings: EvaluationConfig) -> float:
    """The share of copies that pictures of the subject have that copy nothing.

    Each limit is passed by the share that it leaves out; with few references it is their largest value, which one new
    picture of theirs in n + 1 passes. Where two limits are watched, either may be.
    """
    limits = 1 if scale.references.content is None else 2
    return min(0.5, limits * max(1 - settings.copying_quantile, 1 / (len(scale.references.small) + 1)))


def copied(seen: Seen, scale: Scale, *, quantile: float) -> Copying:
    """The nearest training picture of each picture; the limits are those of the held-out references."""
    training, references = scale.training, scale.references
    assert training is not None
    known = copying.nearest(copying.by_pixels(references.small, training.small))
    pixels = copying.by_pixels(seen.small, training.small)
    leanings = [copying.leaning(pixels, copying.by_pixels(seen.small, references.small))]
    content, content_limit = None, None
    if seen.content is not None and training.content is not None and references.content is not None:
        cosines = copying.by_content(seen.content, training.content)
        content = copying.nearest(cosines)
        of_references = copying.nearest(copying.by_content(references.content, training.content))
        content_limit = copying.limit(of_references.similarity, quantile=quantile)
        leanings.append(copying.leaning(cosines, copying.by_content(seen.content, references.content)))
    return Copying(
        content=content,
        pixels=copying.nearest(pixels),
        content_limit=content_limit,
        pixels_limit=copying.limit(known.similarity, quantile=quantile),
        leaning=torch.stack(leanings).mean(dim=0),
    )


def _identity(
    seen: Seen,
    bases: Sequence[Seen],
    scale: Scale,
    counts: Tensor,
    per_picture: dict[str, Tensor],
    drawn: dict[str, Tensor],
    raw: dict[str, float],
) -> None:
    references = _there(scale.references.subject)
    if seen.subject is None or references is None or len(references) < 2:
        return
    near = likeness.likeness(seen.subject, references)
    raw["similarity to the references"] = float(near.nanmean().nan_to_num())
    raw["similarity among the references"] = likeness.ceiling(references)
    began = [base.subject for base in bases if base.subject is not None]
    start = _there(torch.cat(began)) if began else None
    if start is None:
        per_picture["identity"] = near
        drawn["identity"] = likeness.scaled(mean(near, counts), floor=0.0, ceiling=likeness.ceiling(references))
    else:
        values = likeness.way(seen.subject, references, start=start)
        per_picture["identity"] = values
        # The base's own mean moves with the prompts that are drawn, so it is taken from each draw.
        floors = [mean(likeness.way(subject, references, start=start), counts) for subject in began]
        gone = mean(values, counts) - torch.stack(floors).nanmean(dim=0)
        full = likeness.way_among_references(references, start=start)
        drawn["identity"] = likeness.scaled(gone, floor=0.0, ceiling=full)
    drawn["identity"] = drawn["identity"].nan_to_num()  # who draws no face at all has no likeness


def _there(vectors: Tensor | None) -> Tensor | None:
    """The rows of pictures in which the subject was found; None where it was in none."""
    if vectors is None:
        return None
    found = vectors[~vectors.isnan().any(dim=1)]
    return found if len(found) else None


def _variety(
    seen: Seen,
    bases: Sequence[Seen],
    scale: Scale,
    counts: Tensor,
    per_picture: dict[str, Tensor],
    drawn: dict[str, Tensor],
    raw: dict[str, float],
) -> None:
    """Three shares in equal parts: how much what is shown differs from prompt to prompt, and how much the composition
    does, both against the references; and how much it does from seed to seed of one prompt, against the base."""
    shares = []
    composed = variety.distances(seen.layout)
    alike = scale.prompts[:, None] == scale.prompts[None, :]
    pairs = [(seen.layout, scale.references.layout, "composition")]
    if seen.content is not None and scale.references.content is not None:
        pairs.append((seen.content, scale.references.content, "content"))
    for vectors, references, name in pairs:
        between = variety.distances(vectors)
        found = variety.mean_distance(between.double(), counts, alike=~alike if len(alike) > 1 else None)
        raw[f"distance of {name} between prompts"] = float(found[0])
        if len(references) > 1:
            full = variety.mean_distance(variety.distances(references).double(), _once(references))
            shares.append((found / full.clamp(min=1e-6)).clamp(max=1))
    if seen.content is not None:
        raw["Vendi score"] = variety.vendi(seen.content)
    off_diagonal = alike & ~torch.eye(len(alike), dtype=torch.bool)
    if bases and bool(off_diagonal.any()):
        within = variety.mean_distance(composed.double(), counts, alike=alike)
        each = [
            variety.mean_distance(variety.distances(base.layout).double(), counts[:1], alike=alike) for base in bases
        ]
        full = torch.stack(each).mean(dim=0)
        raw["distance of composition between seeds"] = float(within[0])
        shares.append((within / full.clamp(min=1e-6)).clamp(max=1))
    if shares:
        drawn["variety"] = torch.stack(shares).mean(dim=0)
        per_picture["variety"] = composed.sum(dim=1) / max(1, len(composed) - 1)


def _style(
    seen: Seen,
    scale: Scale,
    counts: Tensor,
    per_picture: dict[str, Tensor],
    drawn: dict[str, Tensor],
    raw: dict[str, float],
) -> None:
    references = scale.references.style
    if len(references) < 3:
        return
    away = style.distance(seen.style, references)
    usual = style.among_references(references)
    per_picture["style"] = -away
    drawn["style"] = (usual / mean(away, counts).clamp(min=1e-6)).clamp(max=1)
    raw["deviations from the references' style"] = float(away.mean())


def _adherence(
    seen: Seen,
    bases: Sequence[Seen],
    scale: Scale,
    counts: Tensor,
    per_picture: dict[str, Tensor],
    drawn: dict[str, Tensor],
    raw: dict[str, float],
) -> None:
    """Against the base, which follows a prompt as well as it can; without it there is no scale."""
    followed = [base.read for base in bases if base.read is not None]
    if scale.texts is None or seen.read is None or not followed:
        return
    texts = scale.texts
    values = likeness.adherence(seen.read, texts, scale.prompts)
    each = [mean(likeness.adherence(read, texts, scale.prompts), counts) for read in followed]
    full = torch.stack(each).mean(dim=0)
    if float(full[0]) <= 1e-4:  # the base itself does not follow them, so nothing can be said
        return
    per_picture["adherence"] = values
    drawn["adherence"] = (mean(values, counts) / full.clamp(min=1e-4)).clamp(0, 1)
    raw["CLIP score"] = float((seen.read * scale.texts[scale.prompts]).sum(dim=1).mean())


def _quality(
    seen: Seen,
    scale: Scale,
    counts: Tensor,
    per_picture: dict[str, Tensor],
    drawn: dict[str, Tensor],
    raw: dict[str, float],
) -> None:
    """Against the references: what is as sharp, as well lit and as clean as they are cannot be faulted."""
    if seen.quality is None or scale.references.quality is None:
        return
    per_picture["quality"] = seen.quality
    drawn["quality"] = (mean(seen.quality, counts) / scale.references.quality.mean().clamp(min=1e-3)).clamp(max=1)
    raw["technical quality"] = float(seen.quality.mean())


def _once(references: Tensor) -> Tensor:
    return torch.ones(1, len(references), dtype=torch.float64)


def _share(similarity: Tensor, limit: float) -> Tensor:
    """How near to the limit a similarity is, 1 being at it: by distances, for cosines crowd near 1."""
    return (1 - limit) / (1 - similarity).clamp(min=1e-3) if limit < 1 else similarity
