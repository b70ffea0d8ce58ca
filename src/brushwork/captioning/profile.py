"""What the captions of a character should say: the profile, a YAML file of the user's own.

    name: Luca
    trigger: luca
    template:
      prefix: "luca, a 3d animated character"

`NEW_PROFILE` is a whole one with comments.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from brushwork.atomic import write_text
from brushwork.data.captions import decode_text
from brushwork.errors import UserError, listed, nearest

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
FIXED = ("prefix", "rendering", "suffix")
"""The parts of a caption that are the same for every picture."""

BEST = {"sd15": (40, 75), "sdxl": (75, 225)}
"""How many tokens of CLIP a caption should have, by the base it is for."""

LANGUAGES = {
    "ar": ("Arabic", ("ARABIC",)),
    "de": ("German", ("LATIN",)),
    "el": ("Greek", ("GREEK",)),
    "en": ("English", ("LATIN",)),
    "es": ("Spanish", ("LATIN",)),
    "fr": ("French", ("LATIN",)),
    "he": ("Hebrew", ("HEBREW",)),
    "hi": ("Hindi", ("DEVANAGARI",)),
    "it": ("Italian", ("LATIN",)),
    "ja": ("Japanese", ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")),
    "ko": ("Korean", ("HANGUL",)),
    "nl": ("Dutch", ("LATIN",)),
    "pl": ("Polish", ("LATIN",)),
    "pt": ("Portuguese", ("LATIN",)),
    "ru": ("Russian", ("CYRILLIC",)),
    "sv": ("Swedish", ("LATIN",)),
    "th": ("Thai", ("THAI",)),
    "tr": ("Turkish", ("LATIN",)),
    "uk": ("Ukrainian", ("CYRILLIC",)),
    "vi": ("Vietnamese", ("LATIN",)),
    "zh": ("Chinese", ("CJK",)),
}
"""What a language is called when a model is asked for it, and in which scripts of Unicode it is written."""

QUESTIONS = {
    "description": "Describe what {name} does and what else is to be seen: the action, clothes, things and the "
    "place. One or two sentences of at most {words} words.",
    "pose": "Name the pose and the facial expression of {name} in at most {words} words, as a phrase such as: "
    "sitting on the floor, smiling.",
    "lighting": "Name the light and the view of the camera in at most {words} words, as a phrase such as: "
    "soft evening light, close-up.",
}
"""What is asked about every picture where the profile asks nothing else."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Template(_Table):
    """The parts of a caption, and in which order they stand."""

    prefix: Text = "{trigger}"
    """What a caption begins with. `{trigger}` and `{name}` are filled in."""

    rendering: tuple[Text, ...] = ()
    """How the pictures are made, e.g. `film quality`, `smooth shading`: the same in every caption."""

    suffix: Text = ""
    """What a caption ends with."""

    order: tuple[str, ...] = ()
    """The parts, each once. Unset means prefix, rendering, the answers in the order of the questions, suffix."""

    separator: str = ", "
    """What stands between the parts."""


class Profile(_Table):
    """Who is shown, what is known, and what captions should and should not say."""

    name: Text = ""
    """What the model calls the character."""

    trigger: Text = ""
    """The word that is to call the character later; it stands in every caption."""

    facts: dict[str, Text | tuple[Text, ...]] = {}
    """What is true in every picture, e.g. `appearance: brown curls`. The model is told, so that it does not guess."""

    must: tuple[Text, ...] = ()
    """Words that every caption should hold."""

    must_not: tuple[Text, ...] = ()
    """Words that no caption should hold, such as those of a wrong guess."""

    template: Template = Template()
    """The parts of a caption."""

    questions: dict[str, Text] = Field(default=QUESTIONS, min_length=1)
    """What is asked about every picture: the part's name, and the words. `{name}` and `{words}` are filled in."""

    languages: tuple[str, ...] = Field(("en",), min_length=1)
    """Codes such as `en`. Answers are asked for in the first; letters of scripts of none of them are a fault."""

    max_tokens: int = Field(160, ge=8, le=4096)
    """How long an answer of the model may become, in its own tokens."""

    base: Literal["sd15", "sdxl"] = "sd15"
    """What the captions are for: 40 to 75 tokens are best for SD 1.5, 75 to 225 for SDXL."""

    @property
    def best(self) -> tuple[int, int]:
        """Least and most tokens that a caption should have."""
        return BEST[self.base]

    @property
    def order(self) -> tuple[str, ...]:
        """The parts of a caption as they follow each other."""
        return self.template.order or ("prefix", "rendering", *self.questions, "suffix")

    @property
    def scripts(self) -> frozenset[str]:
        """The scripts that letters may be of."""
        return frozenset(script for code in self.languages for script in LANGUAGES[code][1])

    def fixed(self, part: str) -> str:
        """A part that is the same for every picture; empty where there is none."""
        template = self.template
        text = {"prefix": template.prefix, "rendering": ", ".join(template.rendering), "suffix": template.suffix}[
            part
        ]
        return self.filled(text)

    def filled(self, text: str, *, words: int | None = None) -> str:
        """`{trigger}`, `{name}` and `{words}` become what they stand for; other braces stay."""
        text = text.replace("{trigger}", self.trigger).replace("{name}", self.name or "the character")
        return text if words is None else text.replace("{words}", str(words))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self


def _contradictions(profile: Profile) -> Iterator[str]:
    """What cannot all be meant at once."""
    parts = {*FIXED, *profile.questions}
    for name in (name for name in profile.questions if name in FIXED):
        yield f"questions: {name!r} is the name of a part that is not asked for; call the question something else"
    for name in (name for name in profile.template.order if name not in parts):
        near = nearest(name, parts)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(parts))}"
        yield f"template.order: {name!r} is neither a question nor prefix, rendering or suffix; {hint}"
    if doubled := [name for name in profile.order if profile.order.count(name) > 1]:
        yield f"template.order: {doubled[0]!r} stands there twice"
    if unused := [name for name in profile.questions if name not in profile.order]:
        yield f"template.order: the answer to the question {unused[0]!r} is not in it, so it would be asked in vain"
    for code in (code for code in profile.languages if code not in LANGUAGES):
        yield f"languages: {code!r} is not known; there are {', '.join(sorted(LANGUAGES))}"
    told = " ".join(profile.fixed(part) for part in FIXED if part in profile.order)
    if profile.trigger and not holds(told, profile.trigger):
        yield (
            f"template: the trigger {profile.trigger!r} stands in neither prefix, rendering nor suffix, so captions "
            f'would be without it; write prefix: "{profile.trigger}, ..."'
        )
    for word in profile.must_not:
        if any(word.casefold() == other.casefold() for other in profile.must):
            yield f"must_not: {word!r} stands under must as well"
        if holds(told, word):
            yield f"must_not: {word!r} stands in the template itself"


def holds(text: str, words: str) -> bool:
    """Whether words stand in a text, whatever their case, and not only inside other words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def read_profile(path: Path) -> Profile:
    """The profile in a YAML file.

    Raises:
        UserError: names the file, the key and what was expected.
    """
    try:
        text = decode_text(path.read_bytes(), path)
    except FileNotFoundError as error:
        near = (
            nearest(path.name, [found.name for found in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else None
        )
        fix = f"did you mean {path.parent / near}?" if near else f"brushwork caption --new-profile {path}"
        raise UserError(f"the profile {path} is not there.", fix=fix) from error
    except OSError as error:
        raise UserError(f"the profile {path} cannot be read: {error.strerror}.") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(
            f"{path}{line}: not YAML ({problem}).", fix='put texts with a colon or a brace into quotes: "..."'
        ) from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise UserError(
            f"{path}: expected keys and values, found {found}.", fix=f"brushwork caption --new-profile {path}"
        )
    return _validated(_lists(values), path)


def _lists(values: dict[Any, Any]) -> dict[Any, Any]:
    """One word where a list may stand is a list of one; nothing after a key (`must:`) means nothing is asked."""
    values = {key: value for key, value in values.items() if value is not None}
    template = values.get("template")
    if isinstance(template, dict):
        template = {key: value for key, value in template.items() if value is not None}
        values["template"] = template
    places = [(values, key) for key in ("must", "must_not", "languages")]
    places += [(template, key) for key in ("rendering", "order")] if isinstance(template, dict) else []
    for table, key in places:
        if isinstance(table.get(key), str):
            table[key] = [table[key]]
    return values


def _validated(values: dict[Any, Any], path: Path) -> Profile:
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        details = error.errors()[0]
        place = [str(part) for part in details["loc"]]
        key = ".".join(place)
        if details["type"] == "extra_forbidden":
            known = Template.model_fields if place[0] == "template" else Profile.model_fields
            near = nearest(place[-1], known)
            raise UserError(
                f"{path}: {key} is unknown; known here: {listed(list(known), limit=len(known))}.",
                fix=f"did you mean {near}?" if near else "remove it, or see brushwork caption --new-profile",
            ) from error
        problem = str(details["ctx"]["error"]) if details["type"] == "value_error" else details["msg"]
        raise UserError(f"{path}: {key + ': ' if key else ''}{problem}.", fix=f"mend it in {path}") from error


def write_new_profile(path: Path) -> None:
    """Write a profile to start from; one that is there already is left alone."""
    if path.exists():
        raise UserError(f"{path} is there already.", fix="name another file, or edit that one")
    write_text(path, NEW_PROFILE)


NEW_PROFILE = """\
# What the captions of a character should say. Used by: brushwork caption SET --profile FILE.yaml
# Lines that begin with # are comments; what is left out has its default.

name: Luca                        # what the model calls the character
trigger: luca                     # the word that is to call the character later; it stands in every caption
base: sd15                        # sd15: 40 to 75 tokens are best; sdxl: 75 to 225

facts:                            # true in every picture; the model is told, so that it does not guess
  appearance: short curly brown hair, large brown eyes, freckles
  clothes: [white shirt, blue shorts]

must: []                          # words that every caption should hold
must_not: [appears to be, possibly, video game, anime]   # words that no caption should hold

template:                         # a caption is: prefix, rendering, the answers to the questions, suffix
  prefix: "{trigger}, a 3d animated character"
  rendering: [film quality, smooth shading]
  suffix: ""

# Asked about every picture, each on its own. {name} is the character's, {words} is what there is room for.
questions:
  description: "Describe what {name} does and what else is to be seen: the action, clothes, things and the place.
    One or two sentences of at most {words} words."
  pose: "Name the pose and the facial expression of {name} in at most {words} words, as a phrase such as:
    sitting on the floor, smiling."
  lighting: "Name the light and the view of the camera in at most {words} words, as a phrase such as:
    soft evening light, close-up."

languages: [en]                   # the first is asked for; letters of other scripts are a fault
max_tokens: 160                   # how long an answer may become, in the model's own tokens
"""
"""What `--new-profile` writes."""
