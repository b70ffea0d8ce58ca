"""What the captions of a data set are like: how long, which tags, what is missing, odd or there twice."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from brushwork.config.schema import Settings
from brushwork.data.forms import find_pictures
from brushwork.data.wording import full_text, worded
from brushwork.errors import listed
from brushwork.models.text import Tokenizer
from brushwork.models.vocabulary import packaged_vocabulary
from brushwork.runtime import derive_seed

LIMITS = (75, 150, 225)
"""What `model.max_tokens` may be."""

_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd]")
"""What is left in a text that was read or written in a wrong encoding."""


@dataclass(frozen=True)
class CaptionStatistics:
    """What is worth knowing about captions before they are trained on; pictures by their names below the root."""

    root: Path
    num_pictures: int
    missing: tuple[str, ...]
    empty: tuple[str, ...]
    unreadable: dict[str, str]
    """Files that are not UTF-8, each with what is wrong and what mends it."""
    odd: tuple[str, ...]
    """Captions with characters that no text holds: their encoding was mistaken once."""
    tokens: dict[str, int]
    """How long each caption is, with prefix and suffix; the longest first."""
    tags: dict[str, int]
    """How many captions hold each tag; the most frequent first."""
    twins: tuple[tuple[str, ...], ...]
    """Pictures with the same caption."""
    trigger: str
    without_trigger: tuple[str, ...]
    examples: dict[str, str]
    """Some captions as they are first shown, all settings applied."""
    notes: tuple[str, ...]

    def longer_than(self, limit: int) -> dict[str, int]:
        """The captions that are cut at `limit` tokens, each with how many it loses."""
        return {name: count - limit for name, count in self.tokens.items() if count > limit}

    @property
    def everywhere(self) -> tuple[str, ...]:
        """Tags of every caption: the trigger word should be one, what all pictures show by chance should not."""
        return tuple(tag for tag, count in self.tags.items() if count == len(self.tokens))

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": str(self.root),
            "pictures": self.num_pictures,
            "captions": len(self.tokens),
            "missing": list(self.missing),
            "empty": list(self.empty),
            "not_utf8": self.unreadable,
            "odd_characters": list(self.odd),
            "tokens": self.tokens,
            "cut_at": {str(limit): self.longer_than(limit) for limit in LIMITS},
            "tags": self.tags,
            "in_every_caption": list(self.everywhere),
            "same_caption": [list(names) for names in self.twins],
            "trigger": self.trigger or None,
            "without_trigger": list(self.without_trigger),
            "examples": self.examples,
            "notes": list(self.notes),
        }

    def lines(self, *, top: int) -> list[tuple[str, str]]:
        """The result for a person, each line a name and a value."""
        lines = [("pictures", f"{self.num_pictures} in {self.root}"), ("captions", str(len(self.tokens)))]
        named = {"missing": self.missing, "empty": self.empty, "odd characters": self.odd}
        lines += [(name, f"{len(names)}: {listed(names)}") for name, names in named.items() if names]
        lines += [("not UTF-8", f"{name}: {problem}") for name, problem in list(self.unreadable.items())[:5]]
        if len(self.unreadable) > 5:
            lines.append(("", f"and {len(self.unreadable) - 5} more files"))
        lines += self._length_lines()
        if self.trigger:
            told = f"in all {len(self.tokens)} captions"
            if self.without_trigger:
                told = f"not in {len(self.without_trigger)}: {listed(self.without_trigger)}"
            lines.append((f"trigger {self.trigger}", told))
        lines.append(("in every caption", ", ".join(self.everywhere) or "no tag"))
        shown = [f"{textwrap.shorten(tag, 40)} {count}" for tag, count in list(self.tags.items())[:top]]
        lines.append((f"{len(self.tags)} tags", ", ".join(shown)))
        if self.twins:
            groups = "; ".join(listed(names, limit=3) for names in self.twins[:3])
            lines.append(("same caption", f"{sum(map(len, self.twins))} pictures share {len(self.twins)}: {groups}"))
        lines += [("as shown", text or "(empty)") for text in self.examples.values()]
        return lines + [("note", note) for note in self.notes]

    def _length_lines(self) -> list[tuple[str, str]]:
        if not self.tokens:
            return []
        counts = list(self.tokens.values())
        longest = next(iter(self.tokens))
        lines = [("tokens", f"{counts[-1]} to {counts[0]}, half up to {counts[len(counts) // 2]}; longest {longest}")]
        for limit in LIMITS:
            if cut := self.longer_than(limit):
                worst = next(iter(cut))
                told = (
                    f"{len(cut)} captions are cut, by {min(cut.values())} to {cut[worst]} tokens: {listed(list(cut))}"
                )
                lines.append((f"read {limit}", told))
            else:
                lines.append((f"read {limit}", "nothing is cut"))
                break
        return lines


def caption_statistics(place: Path, *, settings: Settings, num_examples: int = 3) -> CaptionStatistics:
    """Read the captions of a data set, and no picture.

    Args:
        settings: `data` says how captions are read and worded, `trigger` which word should be in all of them.
    """
    layout = find_pictures(place, data=settings.data, offline=settings.model.offline, tolerant=True)
    captions = {name: picture.caption for name, picture in layout.pictures.items()}
    unreadable = layout.unreadable or {}
    files = {name: picture.caption_file for name, picture in layout.pictures.items()}
    broken = {name for name, file in files.items() if file is not None and layout.name(file) in unreadable}
    data = settings.data
    texts = {name: full_text(caption, data) for name, caption in captions.items() if caption}
    plain = {name: worded(text, data, None) for name, text in texts.items()}
    tokenizer = Tokenizer(packaged_vocabulary())
    tokens = {name: len(tokenizer.words(text)) for name, text in plain.items()}
    return CaptionStatistics(
        root=layout.root,
        num_pictures=len(captions),
        missing=tuple(name for name, caption in captions.items() if caption is None and name not in broken),
        empty=tuple(name for name, caption in captions.items() if caption == ""),
        unreadable={name: str(error) for name, error in unreadable.items()},
        odd=tuple(name for name, text in plain.items() if _ODD.search(text)),
        tokens=dict(sorted(tokens.items(), key=lambda item: (-item[1], item[0]))),
        tags=_tags(list(plain.values()), data.caption_separator),
        twins=_twins(plain),
        trigger=settings.trigger,
        without_trigger=tuple(
            name for name, text in plain.items() if settings.trigger and not _holds(text, settings.trigger)
        ),
        examples={
            name: worded(text, data, Random(derive_seed(settings.train.seed, f"caption of {name}", 0)))
            for name, text in list(texts.items())[:num_examples]
        },
        notes=tuple(layout.notes),
    )


def find_captions(place: Path, words: str, *, settings: Settings) -> dict[str, str]:
    """The captions that hold some words, whatever their case and not only inside other words, by picture."""
    layout = find_pictures(place, data=settings.data, offline=settings.model.offline, tolerant=True)
    texts = {name: picture.caption for name, picture in layout.pictures.items() if picture.caption}
    return {name: text for name, text in texts.items() if _holds(text, words)}


def _tags(captions: Sequence[str], separator: str) -> dict[str, int]:
    """In how many captions each tag stands; one that stands twice in a caption counts once."""
    counts = Counter(
        tag for caption in captions for tag in {part.strip() for part in caption.split(separator) if part.strip()}
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _twins(captions: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, caption in captions.items():
        names[caption].append(name)
    return tuple(sorted((tuple(each) for each in names.values() if len(each) > 1), key=lambda each: -len(each)))


def _holds(text: str, word: str) -> bool:
    """Whether a word, or words, stand in a text, and not only inside another word."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
