"""Which pictures are shown, and in which order."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from brushwork.studio.decisions import Decisions
from brushwork.studio.frames import Frame, score_of

State = Literal["all", "undecided", "keep", "refuse", "otherwise"]
STATES: tuple[State, ...] = get_args(State)
"""`otherwise`: decided against what curation proposes."""

BY_NAME, BY_UNCERTAINTY, BY_GROUP, BY_TIME = "name", "uncertain first", "near-duplicates together", "last decided"


@dataclass(frozen=True)
class Choice:
    """What the person wants to see."""

    state: State = "all"
    reason: str = ""
    """A person's or, where there is none, curation's; empty for any."""
    words: str = ""
    """Of the name or the caption, all of them."""
    score: str = ""
    low: float | None = None
    high: float | None = None
    order: str = BY_NAME
    """One of the above, or the name of a score."""
    falling: bool = False
    """Whether the highest score comes first."""


def chosen(decisions: Decisions, choice: Choice) -> list[int]:
    """The numbers of the pictures that are shown, in order."""
    frames = decisions.set.frames
    words = choice.words.casefold().split()
    found = [frame for frame in frames if _fits(decisions, frame, choice, words)]
    return [frame.number for frame in _ordered(decisions, found, choice)]


def reason_of(decisions: Decisions, frame: Frame) -> str:
    """Why a picture is refused: what the person said counts before what curation says."""
    review = decisions.of(frame.number)
    if review.decision == "undecided":
        return frame.code
    return review.reason


def reasons(decisions: Decisions) -> list[tuple[str, int]]:
    """Every reason that occurs, with its number of pictures, the most frequent first."""
    counts = Counter(reason for frame in decisions.set.frames if (reason := reason_of(decisions, frame)))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def orders(decisions: Decisions) -> list[str]:
    """In which ways this set can be ordered."""
    reviewed = decisions.set
    found = [BY_NAME]
    if reviewed.threshold is not None:
        found.append(BY_UNCERTAINTY)
    if any(frame.group is not None for frame in reviewed.frames):
        found.append(BY_GROUP)
    return [*found, BY_TIME, *reviewed.score_names]


def next_uncertain(decisions: Decisions, order: list[int], current: int) -> int | None:
    """The undecided picture nearest to the line between kept and refused, other than the current one; where nothing
    was measured, the next undecided one.
    """
    frames = decisions.set.frames
    place = order.index(current) if current in order else -1
    after = [*order[place + 1 :], *order[: max(place, 0)]]
    waiting = [number for number in after if decisions.of(number).decision == "undecided"]
    return min(waiting, key=lambda number: decisions.set.uncertainty(frames[number]), default=None)


def twins(decisions: Decisions, number: int) -> list[int]:
    """The near-duplicates of a picture, itself among them; empty where there are none."""
    frames = decisions.set.frames
    group = frames[number].group
    if group is None:
        return []
    found = [frame.number for frame in frames if frame.group == group]
    return found if len(found) > 1 else []


def _fits(decisions: Decisions, frame: Frame, choice: Choice, words: list[str]) -> bool:
    decision = decisions.of(frame.number).decision
    if choice.state == "otherwise":
        if decision == "undecided" or not frame.proposal or decision == frame.proposal:
            return False
    elif choice.state not in ("all", decision):
        return False
    if choice.reason and reason_of(decisions, frame) != choice.reason:
        return False
    if words and not all(word in f"{frame.name} {frame.caption}".casefold() for word in words):
        return False
    if not choice.score or (choice.low is None and choice.high is None):
        return True
    value = score_of(frame, choice.score)
    return (
        value is not None
        and (choice.low is None or value >= choice.low)
        and (choice.high is None or value <= choice.high)
    )


def _ordered(decisions: Decisions, frames: list[Frame], choice: Choice) -> list[Frame]:
    order = choice.order
    if order == BY_NAME:
        return frames[::-1] if choice.falling else frames
    if order == BY_UNCERTAINTY:
        return sorted(frames, key=decisions.set.uncertainty, reverse=choice.falling)
    if order == BY_GROUP:
        return sorted(frames, key=lambda frame: (frame.group is None, frame.group or 0, -(frame.similarity or 0)))
    if order == BY_TIME:
        return sorted(frames, key=lambda frame: decisions.of(frame.number).time, reverse=not choice.falling)
    known = [(value, frame) for frame in frames if (value := score_of(frame, order)) is not None]
    without = [frame for frame in frames if score_of(frame, order) is None]
    ranked = sorted(known, key=lambda pair: pair[0], reverse=choice.falling)
    return [frame for _, frame in ranked] + without
