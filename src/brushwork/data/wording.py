"""What is said about a picture each time that it is shown: wildcards, kept tags, warm-up, shuffling, dropped tags.

The order is that of kohya's trainer, draw by draw, so that the same settings mean the same there and here:

    prefix and suffix -> (the whole caption dropped) -> one line and one of each {a|b} -> kept tags are set apart
    -> warm-up shortens the others -> shuffle -> single tags dropped -> joined by ", " -> second separator

Dropping the whole caption is left to the caller: it needs no caption.
"""

import math
import re
from random import Random

from brushwork.config.schema import DataConfig

JOINT = ", "
"""Between tags that were taken apart, whatever they were parted by: kohya writes it so too."""


def full_text(caption: str, data: DataConfig) -> str:
    """Prefix, caption and suffix, joined by blanks; what is empty is left out. Every line of a caption has them."""
    lines = [line for line in caption.split("\n") if line.strip()] or [""]
    before, after = data.caption_prefix.strip(), data.caption_suffix.strip()
    whole = [" ".join(part for part in (before, line.strip(), after) if part) for line in lines]
    return "\n".join(whole if data.wildcards else whole[:1])


def is_varied(text: str, data: DataConfig) -> bool:
    """Whether a caption is not the same each time that it is shown, warm-up apart."""
    drawn = data.wildcards and ("\n" in text or "{" in text)
    return drawn or data.shuffle_captions or data.tag_dropout > 0


def worded(
    text: str, data: DataConfig, draws: Random | None, *, step: int | None = None, warmup_steps: float = 0.0
) -> str:
    """What is said this time.

    Args:
        text: from `full_text`.
        draws: what chance decides with. None says it plainly: the first line, the first of each choice, all tags in
            their order.
        step: the optimizer step, counted from 0, while tags are being warmed up; None once all of them are shown.
        warmup_steps: how many steps the warm-up takes.
    """
    caption = _one_wording(text, draws) if data.wildcards else text.split("\n")[0]
    if data.shuffle_captions or data.token_warmup_steps > 0 or data.tag_dropout > 0:
        before, tags, after = _parted(caption, data)
        if step is not None:
            tags = tags[: num_warm(len(tags), step=step, steps=warmup_steps, least=data.token_warmup_min)]
        if draws is not None:
            tags = _shuffled_and_thinned(tags, data, draws)
        caption = JOINT.join([*before, *tags, *after])
    if data.secondary_separator:
        caption = caption.replace(data.secondary_separator, data.caption_separator)
    return caption


def shuffled(caption: str, data: DataConfig, draws: Random) -> str:
    """A caption with its tags in another order, as it can be written back: marks that hold tags stay."""
    before, tags, after = _parted(caption, data)
    if len(tags) < 2:
        return caption
    draws.shuffle(tags)
    mark = data.keep_tokens_separator
    if not mark or mark not in caption:
        return JOINT.join([*before, *tags])
    parts = [JOINT.join(part) for part in (before, tags, after)]
    return f" {mark} ".join(parts if caption.count(mark) > 1 else parts[:2]).strip()


def num_warm(count: int, *, step: int, steps: float, least: int) -> int:
    """How many of `count` tags are shown at `step` of a warm-up: `least` at first, all at the end."""
    return math.floor(step * ((count - least) / steps)) + least


def _one_wording(text: str, draws: Random | None) -> str:
    """One of the lines, one of the choices of each `{a|b|c}`; `{{` and `}}` are braces."""

    def chosen(choices: list[str]) -> str:
        return choices[0] if draws is None else draws.choice(choices)

    line = chosen(text.split("\n")) if "\n" in text else text
    # Control characters, which no caption holds, stand for the doubled braces meanwhile.
    line = line.replace("{{", "\0").replace("}}", "\1")
    line = re.sub(r"\{([^}]+)\}", lambda found: chosen(found[1].split("|")), line)
    return line.replace("\0", "{").replace("\1", "}")


def _parted(caption: str, data: DataConfig) -> tuple[list[str], list[str], list[str]]:
    """The tags that keep their place in front, those that may move, and those that keep their place at the end."""
    mark = data.keep_tokens_separator
    if not mark or mark not in caption:
        tags = [tag.strip() for tag in caption.strip().split(data.caption_separator)]
        return tags[: data.keep_tokens], tags[data.keep_tokens :], []
    before, _, rest = caption.partition(mark)
    between, _, after = rest.partition(mark)
    return _tags(before, data), _tags(between, data), _tags(after, data)


def _tags(text: str, data: DataConfig) -> list[str]:
    return [tag.strip() for tag in text.split(data.caption_separator) if tag.strip()]


def _shuffled_and_thinned(tags: list[str], data: DataConfig, draws: Random) -> list[str]:
    tags = list(tags)
    if data.shuffle_captions:
        draws.shuffle(tags)
    if data.tag_dropout > 0:
        tags = [tag for tag in tags if draws.random() >= data.tag_dropout]
    return tags
