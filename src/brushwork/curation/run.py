"""`brushwork curate`: a folder of raw frames becomes a clean set, with a reason for every frame that is not in it.

    measure (vision/) -> compare with the references (likeness.py) -> reasons (rules.py, copies.py)
      -> choose a set (choice.py) -> write it (writing.py)

Nothing in the folder of frames is changed. What was measured and embedded is kept by content, so that a second run
with other thresholds takes seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from brushwork.cache.store import cache_folder
from brushwork.config.load import resolve
from brushwork.config.schema import CurationConfig, Settings
from brushwork.curation.choice import choose, coverage, shares
from brushwork.curation.copies import find_exact, find_near, judged_together
from brushwork.curation.decisions import Decision, Found, Likeness
from brushwork.curation.examples import Examples, read_examples, refuse_common, with_captions
from brushwork.curation.framing import Framing, framing
from brushwork.curation.kinds import kinds_of, need_text
from brushwork.curation.likeness import (
    Threshold,
    fit,
    held_out,
    leave_one_out,
    propose,
    similarity,
)
from brushwork.curation.rules import CODES, Reason, dissolves, judge, unreadable, usual_edge_width
from brushwork.curation.writing import check_out, check_place, write_set
from brushwork.data.layout import PictureFile
from brushwork.data.picture import READABLE
from brushwork.distributed import Group, joined, voice
from brushwork.errors import UserError
from brushwork.progress import progress_bar
from brushwork.runtime import pick_device, pick_dtype
from brushwork.vision.detections import detect_files
from brushwork.vision.detector import Detector, load_detector
from brushwork.vision.embeddings import embed_files
from brushwork.vision.encoder import Encoder, load_encoder
from brushwork.vision.measures import Measured, measure_files


@dataclass(frozen=True)
class Curated:
    """A set that was written."""

    folder: Path
    found: Found

    @property
    def num_kept(self) -> int:
        return len(self.found.kept)

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "frames": len(self.found.measured),
            "kept": self.num_kept,
            "refused": self.found.counts(),
            "threshold": self.found.likeness.threshold.value,
            "coverage": self.found.coverage,
            "notes": list(self.found.notes),
        }


def curate(
    frames: str | Path,
    *,
    references: str | Path,
    out: str | Path,
    others: str | Path | None = None,
    overrides: Sequence[str] = (),
    offline: bool = False,
    console: Console | None = None,
) -> Curated:
    """Choose the frames that make a training set, and write them with the reasons for all.

    Args:
        frames: the folder of raw frames, which is only read.
        references: a folder of pictures that show the subject.
        out: the folder to write, which is not there yet.
        others: a folder of counter-examples: others with whom the subject could be mixed up.
        overrides: changed settings as `key=value`, of the sections `curation`, `data`, `cache` and `train.device`.
        offline: do not ask the hub for the encoder.

    Raises:
        UserError: a folder holds no picture that can be used, the references tell no spread, or `out` is taken.
    """
    settings = resolve(overrides=list(overrides)).settings
    with joined() as group:
        console = voice(group, console)
        out = Path(out)
        check_out(out)
        check_place(Path(frames), out)
        found = look(
            Path(frames),
            references=Path(references),
            others=None if others is None else Path(others),
            settings=settings,
            offline=offline or settings.model.offline,
            group=group,
            console=console,
        )
        if group.is_first:
            write_set(found, out, console=console)
        return Curated(out, found)


def look(
    frames: Path,
    *,
    references: Path,
    others: Path | None,
    settings: Settings,
    offline: bool,
    group: Group,
    console: Console,
) -> Found:
    """Measure, compare and decide; nothing is written but the cache."""
    curation = settings.curation
    quotas = shares(curation.quotas)
    wanted = read_examples(references, what="references", data=settings.data)
    unwanted = None if others is None else read_examples(others, what="counter-examples", data=settings.data)
    if unwanted is not None:
        refuse_common(wanted, unwanted)
    pictures, notes = with_captions(frames, data=settings.data)
    if not pictures:
        raise UserError(
            f"{frames} holds no picture.", fix=f"name a folder that holds {', '.join(sorted(READABLE))} files"
        )
    encoder = _encoder(curation, settings.train.device, offline=offline)
    need_text(list(quotas), encoder, has_detector=curation.detector is not None)
    detector = _detector(curation, settings.train.device, offline=offline)
    measured = _measured(pictures, settings, group, console)
    readable = [name for name, each in measured.items() if each.problem is None]
    if not readable:
        problems = ", ".join(f"{name}: {each.problem}" for name, each in list(measured.items())[:5])
        raise UserError(f"{frames}: none of the {len(measured)} pictures can be read ({problems}).")
    embed = _Embedding(encoder, settings, group, console)
    seen = embed(
        "looking at frames", [pictures[name].path for name in readable], [measured[n].digest for n in readable]
    )
    likeness = _compare(seen, embed, wanted, unwanted, curation)
    vectors = embed.vectors(seen)
    framings = None if detector is None else _framed(detector, readable, pictures, measured, settings, group, console)
    return decide(
        Found(
            frames=frames,
            pictures=pictures,
            measured=measured,
            readable=readable,
            likeness=likeness,
            encoder=encoder.name,
            references=wanted,
            others=unwanted,
            kinds=kinds_of(list(quotas), pictures, readable, framings=framings, encoder=encoder, vectors=vectors),
            framings=framings or {},
            notes=(*notes, *wanted.notes, *(unwanted.notes if unwanted else ()), *likeness.notes),
        ),
        vectors,
        curation,
    )


def decide(found: Found, vectors: Tensor, curation: CurationConfig) -> Found:
    """Each frame's decision, from what was measured: no file is opened."""
    reasons: dict[str, list[Reason]] = {name: [] for name in found.measured}
    usual = usual_edge_width(found.measured.values())
    for name, each in found.measured.items():
        if each.quality is None:
            reasons[name].append(unreadable(each.problem or "no picture"))
        else:
            reasons[name] += judge(each.quality, curation, usual_edge=usual)
    for name, reason in (*dissolves(found.measured, curation).items(), *find_exact(found.measured).items()):
        reasons[name].append(reason)
    found = _judged_together(found, [name for name in found.readable if not reasons[name]], curation)
    for place, name in enumerate(found.readable):
        reasons[name] += found.likeness.against(place, curation)
    for name, framed in found.framings.items():
        reasons[name] += framed.against(curation)
    rows = {name: row for row, name in enumerate(found.readable)}
    passed = [name for name in found.readable if not reasons[name]]
    worth = {name: found.worth(name) for name in passed}
    twins = find_near(passed, found.measured, worth, curation, vectors=vectors[[rows[name] for name in passed]])
    for name, reason in twins.reasons.items():
        reasons[name].append(reason)
    left = [name for name in passed if not reasons[name]]
    chosen, score = _chosen(left, vectors[[rows[name] for name in left]], found, curation)
    for name in left:
        if name not in chosen:
            reasons[name].append(Reason("not_chosen", f"the {len(chosen)} that were chosen cover it"))
    order = {code: place for place, code in enumerate(CODES)}
    decisions = {
        name: Decision(tuple(sorted(against, key=lambda reason: order[reason.code])), twins.groups.get(name))
        for name, against in reasons.items()
    }
    return found.decided(decisions, coverage=score, notes=_shortfalls(left, found, curation))


def _judged_together(found: Found, sound: Sequence[str], curation: CurationConfig) -> Found:
    """With one confidence for frames that show nearly the same; a blurred or black one says nothing of the others."""
    confidence = found.likeness.confidence
    if confidence is None or not sound:
        return found
    wanted = set(sound)
    rows = [row for row, name in enumerate(found.readable) if name in wanted]
    together = confidence.clone()
    together[rows] = judged_together(confidence[rows], sound, found.measured, curation)
    return replace(found, likeness=replace(found.likeness, confidence=together))


def _chosen(
    left: list[str], vectors: Tensor, found: Found, curation: CurationConfig
) -> tuple[set[str], float | None]:
    """Who stays of those that passed, and how well they stand for all of these."""
    if curation.keep is None or curation.keep >= len(left):
        return set(left), None
    kinds = [found.kinds.get(name) for name in left]
    places = choose(vectors, curation.keep, way=curation.choose, kinds=kinds, quotas=shares(curation.quotas))
    return {left[place] for place in places}, coverage(vectors, places)


def _shortfalls(left: list[str], found: Found, curation: CurationConfig) -> tuple[str, ...]:
    """What could not be had, in sentences."""
    notes = []
    if curation.keep is not None and curation.keep > len(left):
        notes.append(f"{curation.keep} frames were wanted (curation.keep), {len(left)} passed: all of these are kept")
    for kind, share in shares(curation.quotas).items():
        there, wanted = sum(found.kinds.get(name) == kind for name in left), round(share * (curation.keep or 0))
        if there < wanted:
            notes.append(f"{wanted} frames of {kind!r} were wanted (curation.quotas), {there} passed")
    return tuple(notes)


def _encoder(curation: CurationConfig, device_name: str, *, offline: bool) -> Encoder:
    device = pick_device(device_name)
    return load_encoder(
        curation.encoder, device=device, dtype=pick_dtype(curation.precision, device), offline=offline
    )


def _detector(curation: CurationConfig, device_name: str, *, offline: bool) -> Detector | None:
    if curation.detector is None:
        return None
    return load_detector(
        curation.detector, device=pick_device(device_name), offline=offline, subject=curation.subject
    )


def _framed(
    detector: Detector,
    names: Sequence[str],
    pictures: Mapping[str, PictureFile],
    measured: Mapping[str, Measured],
    settings: Settings,
    group: Group,
    console: Console,
) -> dict[str, Framing]:
    """What the detector finds of the subject, in every frame in which it finds it."""
    with progress_bar(console, "finding the subject", len(names)) as advance:
        found = detect_files(
            detector,
            {name: Path(str(pictures[name].path)) for name in names},
            {name: measured[name].digest for name in names},
            cache_folder=cache_folder(settings.cache.folder),
            data=settings.data,
            group=group,
            on_progress=advance,
        )
    framings = {name: framing(detected, detector.subjects) for name, detected in found.items()}
    return {name: framed for name, framed in framings.items() if framed is not None}


def _measured(
    pictures: Mapping[str, PictureFile], settings: Settings, group: Group, console: Console
) -> dict[str, Measured]:
    """The first process measures, with all cores of its machine; the others wait for what it found."""
    found: dict[str, Measured] = {}
    if group.is_first:
        with progress_bar(console, "measuring frames", len(pictures)) as advance:
            found = measure_files(
                {name: Path(str(picture.path)) for name, picture in pictures.items()},
                background=settings.data.background,
                max_pixels=settings.data.max_pixels,
                cache_folder=cache_folder(settings.cache.folder),
                on_progress=advance,
            )
    return group.from_first(found)


@dataclass(frozen=True)
class _Embedding:
    """What the encoder sees of files, with a bar: vectors, and a layer's state beside them (`judge_layer`)."""

    encoder: Encoder
    settings: Settings
    group: Group
    console: Console

    def vectors(self, seen: Tensor) -> Tensor:
        """The vectors alone: (N, D + W) -> (N, D)"""
        return seen[:, : -self.encoder.layer_width] if self.settings.curation.judge_layer else seen

    def examples(self, what: str, examples: Examples, *, mirrored: bool = False) -> Tensor:
        """The same of examples."""
        return self(what, list(examples.files.values()), list(examples.digests.values()), mirrored=mirrored)

    def __call__(
        self, what: str, paths: Sequence[object], digests: Sequence[str], *, mirrored: bool = False
    ) -> Tensor:
        with progress_bar(self.console, what, len(paths)) as advance:
            return embed_files(
                self.encoder,
                [Path(str(path)) for path in paths],
                cache_folder=cache_folder(self.settings.cache.folder),
                batch_size=self.settings.curation.batch_size,
                digests=digests,
                data=self.settings.data,
                group=self.group,
                on_progress=advance,
                layer=self.settings.curation.judge_layer,
                mirrored=mirrored,
            )


def _compare(
    seen: Tensor, embed: _Embedding, wanted: Examples, unwanted: Examples | None, curation: CurationConfig
) -> Likeness:
    """The frames beside the references and the counter-examples."""
    shown = embed.examples("looking at references", wanted)
    references = embed.vectors(shown)
    scores, nearest = similarity(embed.vectors(seen), references, best_of=curation.best_of)
    threshold = (
        propose(references, best_of=curation.best_of, with_others=unwanted is not None)
        if curation.min_similarity == "proposed"
        else Threshold(curation.min_similarity, "named by curation.min_similarity")
    )
    notes = []
    if len(references) == 1:
        notes.append("there is one reference: what differs from it in pose, place or light is unlike it")
    names = list(wanted.files)
    likeness = Likeness(
        scores=scores,
        nearest=[names[row] for row in nearest.tolist()],
        threshold=threshold,
        references=leave_one_out(references, best_of=curation.best_of) if len(references) > 1 else torch.empty(0),
    )
    if unwanted is not None:
        against = embed.examples("looking at counter-examples", unwanted)
        # A mirror shows the same subject: each side has twice as many examples.
        mirrored = tuple(
            embed.examples(f"looking at {what} in a mirror", examples, mirrored=True)
            for what, examples in (("references", wanted), ("counter-examples", unwanted))
        )
        told = held_out(shown, against, mirrored=(mirrored[0], mirrored[1]))
        rights = [int((side > 0.5).sum()) for side in (told[0], 1 - told[1])]
        notes.append(
            f"told apart when left out themselves: {rights[0]} of {len(references)} references, {rights[1]} of "
            f"{len(against)} counter-examples"
        )
        likeness = likeness.beside(
            confidence=fit(torch.cat([shown, mirrored[0]]), torch.cat([against, mirrored[1]]))(seen),
            others=similarity(embed.vectors(against), references, best_of=curation.best_of)[0],
            held_out=told,
        )
    return likeness.noting(notes)
