"""What came of each frame, as rows and as counts.

Shapes in this file:  N readable frames   R references   O counter-examples
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from brushwork.config.schema import CurationConfig
from brushwork.curation.examples import Examples
from brushwork.curation.framing import Framing
from brushwork.curation.likeness import Threshold
from brushwork.curation.rules import CODES, Code, Reason
from brushwork.data.layout import PictureFile
from brushwork.records import Row
from brushwork.vision.measures import Measured


@dataclass(frozen=True)
class Likeness:
    """The readable frames beside the references and the counter-examples."""

    scores: Tensor
    """(N,) similarity to the references."""
    nearest: Sequence[str]
    """N names of references."""
    threshold: Threshold
    references: Tensor
    """(R,) each reference beside the others; empty where there is one."""
    others: Tensor | None = None
    """(O,) the counter-examples beside the references."""
    confidence: Tensor | None = None
    """(N,) how likely it is the subject and none of the counter-examples."""
    held_out: tuple[Tensor, Tensor] | None = None
    """(R,), (O,) the same of the examples, each left out of what judged it."""
    notes: tuple[str, ...] = ()

    def beside(self, *, confidence: Tensor, others: Tensor, held_out: tuple[Tensor, Tensor]) -> "Likeness":
        """With what the counter-examples tell."""
        return replace(self, confidence=confidence, others=others, held_out=held_out)

    def noting(self, notes: Sequence[str]) -> "Likeness":
        """With sentences for the person."""
        return replace(self, notes=(*self.notes, *notes))

    def against(self, place: int, curation: CurationConfig) -> list[Reason]:
        """What speaks against the frame at a place."""
        found = []
        score, limit = float(self.scores[place]), self.threshold.value
        if score < limit:
            why = f"unlike the references: similarity {score:.3f}, below {limit:.3f} (curation.min_similarity)"
            found.append(Reason("unlike_references", why))
        if self.confidence is not None and (sure := float(self.confidence[place])) < curation.min_confidence:
            why = (
                f"like the counter-examples: {sure:.0%} sure that it is the subject, below "
                f"{curation.min_confidence:.0%} (curation.min_confidence)"
            )
            found.append(Reason("like_others", why))
        return found


@dataclass(frozen=True)
class Decision:
    """What was decided of one frame."""

    reasons: tuple[Reason, ...]
    """What speaks against it, the first counts; none where it is kept."""
    group: int | None
    """Frames that show nearly the same have the same number."""

    @property
    def is_kept(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Found:
    """All that is known of a folder of frames."""

    frames: Path
    pictures: Mapping[str, PictureFile]
    measured: Mapping[str, Measured]
    readable: Sequence[str]
    likeness: Likeness
    encoder: str
    references: Examples
    others: Examples | None
    kinds: Mapping[str, str]
    """Of the words of `curation.quotas`, those that each frame is."""
    notes: tuple[str, ...]
    framings: Mapping[str, Framing] = field(default_factory=dict)
    """What a detector found of the subject."""
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    coverage: float | None = None
    """Where a set was chosen: how like the nearest chosen frame one that passed is, in the mean."""

    def decided(self, decisions: Mapping[str, Decision], *, coverage: float | None, notes: Sequence[str]) -> "Found":
        """With a decision for each frame."""
        return replace(self, decisions=decisions, coverage=coverage, notes=(*self.notes, *notes))

    def worth(self, name: str) -> float:
        """How good a readable frame is in itself, from 0 to 1."""
        quality = self.measured[name].quality
        assert quality is not None
        return quality.score()

    @property
    def kept(self) -> list[str]:
        """The names of the frames of the set."""
        return [name for name, decision in self.decisions.items() if decision.is_kept]

    def counts(self) -> dict[Code, int]:
        """How many frames each reason refused, in the order of the reasons; those that refused none are left out."""
        found = Counter(decision.reasons[0].code for decision in self.decisions.values() if decision.reasons)
        return {code: found[code] for code in CODES if found[code]}

    def refused(self, code: Code) -> list[str]:
        """The frames whose reason this is."""
        return [name for name, each in self.decisions.items() if each.reasons and each.reasons[0].code == code]

    def rows(self) -> list[Row]:
        """`curation.jsonl`: every frame, in the order of their names."""
        places = {name: place for place, name in enumerate(self.readable)}
        return [self._row(name, places.get(name)) for name in self.measured]

    def _row(self, name: str, place: int | None) -> Row:
        measured, decision = self.measured[name], self.decisions[name]
        scores = (
            {} if measured.quality is None else {"worth": round(self.worth(name), 4), **measured.quality.record()}
        )
        width, height = scores.pop("width", None), scores.pop("height", None)
        likeness = self.likeness
        if place is not None and likeness.confidence is not None:
            scores["confidence"] = round(float(likeness.confidence[place]), 4)
        if (framed := self.framings.get(name)) is not None:
            scores |= {"subject": round(framed.share, 4), "hidden": round(framed.hidden, 4)}
        return {
            "file": name,
            "sha256": measured.digest,
            "width": width,
            "height": height,
            "scores": scores,
            "similarity": None if place is None else round(float(likeness.scores[place]), 4),
            "nearest_reference": None if place is None else likeness.nearest[place],
            **({"kind": self.kinds[name]} if name in self.kinds else {}),
            **({"shot": framed.shot} if framed is not None else {}),
            "group": decision.group,
            "decision": "keep" if decision.is_kept else "refuse",
            "reason": None if decision.is_kept else decision.reasons[0].code,
            "why": "; ".join(reason.why for reason in decision.reasons) or "nothing speaks against it",
        }
