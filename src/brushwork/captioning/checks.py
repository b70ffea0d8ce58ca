"""What is wrong with the captions of a set: looked at after they were written, or at any time.

Each rule is of a kind, and says in words what it found. Nothing is changed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brushwork.captioning.answers import (
    circles,
    cut_off,
    foreign_letters,
    has_odd_characters,
    has_remains,
    is_empty,
    is_refusal,
    said_twice,
)
from brushwork.captioning.profile import BEST, Profile, holds
from brushwork.captioning.statistics import LIMITS
from brushwork.captioning.template import token_counter
from brushwork.config.schema import Settings
from brushwork.data.forms import find_pictures
from brushwork.data.layout import Layout
from brushwork.data.wording import full_text, worded
from brushwork.errors import UserError, listed

KINDS = {
    "refused": (10, "the model refused, and its words became the caption"),
    "missing": (9, "there is no caption"),
    "empty": (9, "the caption's file holds no word"),
    "unreadable": (9, "the caption's file is not UTF-8"),
    "circles": (8, "the model repeated itself without end"),
    "markup": (7, "marks of a conversation, of Markdown or JSON are in it"),
    "language": (7, "letters of another script are in it"),
    "cut off": (6, "a sentence breaks off"),
    "same": (6, "several pictures have the very same caption"),
    "picture": (6, "it fits other pictures of the set better than its own"),
    "trigger": (5, "the word that is to call the character is not in it"),
    "forbidden": (5, "it holds a word that must not appear"),
    "too long": (4, "its end is not read by the base"),
    "required": (3, "a word is not in it that every caption should hold"),
    "odd characters": (3, "characters are in it that a wrong encoding leaves"),
    "said twice": (2, "a phrase stands in it twice"),
    "long": (1, "it is longer than is best for the base"),
    "short": (1, "it is shorter than is best for the base"),
}
"""Every kind of fault: how much it weighs when the worst are sought, and what it means."""

MANY = 3
"""So many pictures of the same caption are a fault; two may be two moments of one shot."""

SHOWN = 10
"""How many of the worst a report shows."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one caption."""

    kind: str
    why: str

    @property
    def weight(self) -> int:
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Checked:
    """The faults of a set, by picture; a picture without any has no entry."""

    root: Path
    captions: dict[str, str]
    faults: dict[str, tuple[Fault, ...]]
    tokens: dict[str, int]
    best: tuple[int, int]
    limit: int
    """How many tokens the base reads."""
    fit: dict[str, float] = field(default_factory=dict)
    """How well caption and picture are found by one another among the others, from 0 to 1."""
    notes: tuple[str, ...] = ()
    layout: Layout | None = None
    """Where the pictures are."""

    @property
    def counts(self) -> dict[str, int]:
        """How many captions have each fault, the heaviest kind first."""
        found = Counter(fault.kind for faults in self.faults.values() for fault in faults)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def num_good(self) -> int:
        """How many captions have no fault; a length that is not the best is none by itself."""
        return len(self.captions) - len(self.worst)

    @property
    def worst(self) -> list[str]:
        """The pictures whose captions have more than a length that is not the best, the heaviest faults first."""
        weights = {name: [fault.weight for fault in faults] for name, faults in self.faults.items()}
        found = [name for name in self.faults if max(weights[name]) > 1]
        return sorted(found, key=lambda name: (-max(weights[name]), -sum(weights[name]), name))

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": str(self.root),
            "pictures": len(self.captions),
            "without_fault": self.num_good,
            "tokens": self.tokens,
            "best_tokens": list(self.best),
            "read_tokens": self.limit,
            "counts": self.counts,
            "worst": self.worst[:SHOWN],
            "faults": {
                name: [{"kind": fault.kind, "why": fault.why} for fault in faults]
                for name, faults in self.faults.items()
            },
            "fit": {name: round(value, 4) for name, value in self.fit.items()},
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The result for a person."""
        lines = [f"{len(self.captions)} captions, {self.num_good} without a fault"]
        if self.tokens:
            counts = sorted(self.tokens.values())
            inside = sum(self.best[0] <= count <= self.best[1] for count in counts)
            lines.append(
                f"tokens: {counts[0]} to {counts[-1]}, half up to {counts[len(counts) // 2]}; "
                f"{inside} of {len(counts)} are {self.best[0]} to {self.best[1]}, which is best"
            )
        lines += [f"{kind:<15}{count:>5}  {KINDS[kind][1]}" for kind, count in self.counts.items()]
        worst = self.worst[:SHOWN]
        lines += [f"the worst {len(worst)}:"] if worst else []
        for name in worst:
            lines.append(f"  {name}: {'; '.join(fault.why for fault in self.faults[name])}")
        return lines + [f"note: {note}" for note in self.notes]


Fit = Callable[[Layout, Mapping[str, str]], Mapping[str, float]]
"""Told of a set and the captions in it: how well picture and caption are found by one another, from 0 to 1."""


def check_captions(
    place: Path, *, settings: Settings, profile: Profile | None = None, fit: Fit | None = None
) -> Checked:
    """Look for faults in the captions of a data set.

    Captions are looked at as they are trained on, with `data.caption_prefix` and what else belongs to them.

    Args:
        profile: which words they should and should not hold, and for which base they are. Without one, `trigger` and
            `model.max_tokens` of the settings say it.
        fit: who compares captions with pictures.
    """
    layout = find_pictures(place, data=settings.data, offline=settings.model.offline, tolerant=True)
    if not layout.pictures:
        raise UserError(f"{layout.root}: no picture in this folder.", fix="name the folder of the captioned pictures")
    profile = profile or _profile_of(settings)
    unreadable = layout.unreadable or {}
    files = {name: picture.caption_file for name, picture in layout.pictures.items()}
    broken = {
        name: unreadable[layout.name(file)]
        for name, file in files.items()
        if file and layout.name(file) in unreadable
    }
    captions = {name: picture.caption for name, picture in layout.pictures.items()}
    data = settings.data
    texts = {name: worded(full_text(text, data), data, None) if text else text for name, text in captions.items()}
    told = {name: text for name, text in texts.items() if text and not is_empty(text)}
    count = token_counter()
    tokens = {name: count(text) for name, text in told.items()}
    limit = max(settings.model.max_tokens, profile.best[1])
    fits = dict(fit(layout, told)) if fit else {}
    faults: dict[str, list[Fault]] = defaultdict(list)
    for name, text in texts.items():
        if name in broken:
            faults[name].append(Fault("unreadable", broken[name].problem.removeprefix(f"{layout.root}/")))
        elif text is None:
            faults[name].append(Fault("missing", "no caption"))
        elif name not in told:
            faults[name].append(Fault("empty", "no word in it"))
        else:
            faults[name] += _of_text(text, profile) + _of_length(tokens[name], profile.best, limit)
    for name, fault in [*_same(told), *_unfit(fits, settings.captioning.least_fit)]:
        faults[name].append(fault)
    return Checked(
        root=layout.root,
        captions={name: text or "" for name, text in texts.items()},
        faults={name: tuple(found) for name, found in faults.items() if found},
        tokens=tokens,
        best=profile.best,
        limit=limit,
        fit=fits,
        notes=(*layout.notes, *_reading(tokens, settings)),
        layout=layout,
    )


def _reading(tokens: Mapping[str, int], settings: Settings) -> list[str]:
    """What a training with these settings would cut off."""
    longest, read = max(tokens.values(), default=0), settings.model.max_tokens
    if longest <= read:
        return []
    cut = sum(count > read for count in tokens.values())
    wanted = next((each for each in LIMITS if each >= longest), LIMITS[-1])
    return [
        f"a training reads {read} tokens and would cut captions: {cut}; to read all: --set model.max_tokens={wanted}"
    ]


def _profile_of(settings: Settings) -> Profile:
    """What the settings alone say: the trigger, and how much is read."""
    base: Literal["sd15", "sdxl"] = "sd15" if settings.model.max_tokens <= BEST["sd15"][1] else "sdxl"
    return Profile.model_construct(trigger=settings.trigger, base=base, must=(), must_not=(), languages=("en",))


def _of_text(text: str, profile: Profile) -> list[Fault]:
    """The faults that one caption shows by itself."""
    found = []
    if is_refusal(text) or any(is_refusal(part.strip()) for part in re.split(r"[,.;] ", text)):
        found.append(Fault("refused", "the model refused"))
    if (words := circles(text)) is not None:
        found.append(Fault("circles", f"goes round in circles: {words!r}"))
    elif twice := said_twice(text):
        found.append(Fault("said twice", f"says twice: {listed(twice, limit=2)}"))
    if has_remains(text):
        found.append(Fault("markup", "holds marks of a conversation, of Markdown or JSON"))
    if foreign := foreign_letters(text, profile.scripts):
        found.append(Fault("language", f"another script: {foreign[:12]}"))
    if (phrase := cut_off(text)) is not None:
        found.append(Fault("cut off", f"breaks off: {phrase[-40:]!r}"))
    if profile.trigger and not holds(text, profile.trigger):
        found.append(Fault("trigger", f"without {profile.trigger!r}"))
    if forbidden := [word for word in profile.must_not if holds(text, word)]:
        found.append(Fault("forbidden", f"says {listed(forbidden)}"))
    if absent := [word for word in profile.must if not holds(text, word)]:
        found.append(Fault("required", f"does not say {listed(absent)}"))
    if has_odd_characters(text):
        found.append(Fault("odd characters", "characters of a wrong encoding"))
    return found


def _of_length(tokens: int, best: tuple[int, int], limit: int) -> list[Fault]:
    if tokens > limit:
        return [Fault("too long", f"{tokens} tokens, of which the base reads {limit}")]
    if tokens > best[1]:
        return [Fault("long", f"{tokens} tokens; up to {best[1]} are best")]
    return [Fault("short", f"{tokens} tokens; from {best[0]} are best")] if tokens < best[0] else []


def _same(captions: Mapping[str, str]) -> list[tuple[str, Fault]]:
    """Pictures that share their caption with others, whatever its case and stops."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, text in captions.items():
        groups[" ".join(re.findall(r"\w+", text.casefold()))].append(name)
    return [
        (
            name,
            Fault(
                "same", f"the same caption as {len(names) - 1} others: {listed([n for n in names if n != name], 2)}"
            ),
        )
        for names in groups.values()
        if len(names) >= MANY
        for name in names
    ]


def _unfit(fits: Mapping[str, float], least: float) -> list[tuple[str, Fault]]:
    """Pictures that are told by their captions not much better than by any other caption of the set."""
    return [
        (name, Fault("picture", f"no better than {1 - value:.0%} of the other captions, by the encoder"))
        for name, value in fits.items()
        if value < least
    ]
