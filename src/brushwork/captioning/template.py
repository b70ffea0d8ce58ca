"""From a profile to what a model is asked, and from its answers to a caption.

prefix, rendering, description, pose, lighting, suffix
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from brushwork.captioning.answers import phrases
from brushwork.captioning.profile import FIXED, LANGUAGES, Profile
from brushwork.errors import listed
from brushwork.models.text import Tokenizer
from brushwork.models.vocabulary import packaged_vocabulary

TOKENS_PER_WORD = 1.4
"""Of CLIP's tokens, an English word with its share of commas; counted on the captions of the drawn film."""

MAIN = "description"
MAIN_SHARE = 3
"""The description gets three times the room of any other answer."""

FEWEST_WORDS = 5

Count = Callable[[str], int]
"""How many tokens of CLIP a text has."""


@dataclass(frozen=True)
class Composed:
    """A caption, and the phrases that were left out so that the base reads all of it."""

    text: str
    left_out: tuple[str, ...] = ()


def prompt(profile: Profile, part: str, *, count: Count) -> str:
    """What a model is told and asked for one part of the caption."""
    lines = [profile.filled(profile.questions[part], words=room(profile, part, count=count))]
    facts = [f"{key.replace('_', ' ')}: {_joined(value)}" for key, value in profile.facts.items()]
    if facts:
        lines.append(
            "What is known and true, so that you need not guess:\n" + "\n".join(f"- {fact}" for fact in facts)
        )
    if part != main_part(profile):
        lines.append("If nothing of it can be seen, answer: none.")
    if profile.name:
        lines.append(f"Call the character {profile.name}.")
    if profile.must and part == main_part(profile):
        lines.append(f"Use these words: {listed(profile.must, limit=len(profile.must))}.")
    if profile.must_not:
        lines.append(f"Do not use these words: {listed(profile.must_not, limit=len(profile.must_not))}.")
    language = LANGUAGES[profile.languages[0]][0]
    lines.append(f"Answer in {language}, with that alone: no introduction, no list, nothing that cannot be seen.")
    return "\n".join(lines)


def main_part(profile: Profile) -> str:
    """The question that the longest answer belongs to."""
    return MAIN if MAIN in profile.questions else next(iter(profile.questions))


def room(profile: Profile, part: str, *, count: Count) -> int:
    """How many words an answer may have, so that all of them together fill what is best for the base."""
    taken = count(compose(profile, {}).text)
    shares = {name: MAIN_SHARE if name == main_part(profile) else 1 for name in profile.questions}
    words = (profile.best[1] - taken) / TOKENS_PER_WORD * shares[part] / sum(shares.values())
    return max(FEWEST_WORDS, int(words))


def compose(profile: Profile, answers: Mapping[str, str]) -> Composed:
    """The caption that the parts make; a part that has nothing to say is left out."""
    parts = (profile.fixed(part) if part in FIXED else answers.get(part, "") for part in profile.order)
    told = [part.strip().rstrip(".;,").strip() for part in parts]
    return Composed(profile.template.separator.join(part for part in told if part))


def fitted(profile: Profile, answers: Mapping[str, str], *, count: Count) -> Composed:
    """The caption without the last phrases of the longest answers, until the base reads all of it.

    An answer that is a single phrase stays: half a phrase says something else.
    """
    rest, left_out = dict(answers), []
    composed = compose(profile, rest)
    while count(composed.text) > profile.best[1]:
        long = [part for part, text in rest.items() if len(phrases(text)) > 1]
        if not long:
            break
        part = max(long, key=lambda part: count(rest[part]))
        last = phrases(rest[part])[-1]
        rest[part] = rest[part][: rest[part].rindex(last)].rstrip(" ,;")
        left_out.append(last)
        composed = compose(profile, rest)
    return Composed(composed.text, tuple(left_out))


def _joined(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


@cache
def token_counter() -> Count:
    """Counts by CLIP's own vocabulary; made once, for that takes a moment."""
    tokenizer = Tokenizer(packaged_vocabulary())
    return lambda text: len(tokenizer.words(text))
