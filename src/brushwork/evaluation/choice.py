"""Which candidate is named, and what is said of the run.

A difference counts where its interval, over the same prompts and seeds for both, leaves out 0; anything else is a
tie. Who copies training pictures cannot win, as long as somebody does not. Among those that tie with the highest
score the earliest is taken: it has learned as much with less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from brushwork.evaluation.candidates import Candidate
from brushwork.evaluation.resampling import Figure, figure, is_tie

LEANS = 0.55
"""From where on pictures lean to what was trained on: a half is what pictures do that were learned from neither."""

Kind = Literal["stop", "train on", "overtrained", "none"]


@dataclass(frozen=True, eq=False)
class Result:
    """A candidate with what was made of it.

    Args:
        drawn: (W,) its score in every draw.
        parts: each part in every draw.
        copies: (W,) its share of copies; None where the training pictures are not known.
        chance: the share of copies that pictures like the references have by chance.
        leaning: (W,) how likely a picture of it is nearer to a training picture than to a reference.
        leaning_of_base: the same of the base, which has seen neither.
    """

    candidate: Candidate
    drawn: Tensor
    parts: Mapping[str, Tensor]
    copies: Tensor | None
    chance: float
    confidence: float
    leaning: Tensor | None = None
    leaning_of_base: Tensor | None = None

    @property
    def score(self) -> Figure:
        return figure(self.drawn, confidence=self.confidence)

    def part(self, name: str) -> Figure:
        return figure(self.parts[name], confidence=self.confidence)

    @property
    def copying(self) -> Figure | None:
        return None if self.copies is None else figure(self.copies, confidence=self.confidence)

    @property
    def leans(self) -> Figure | None:
        return None if self.leaning is None else figure(self.leaning, confidence=self.confidence)

    @property
    def copies_too_much(self) -> bool:
        """Whether it draws what it was trained on, beyond what the prompts and seeds leave open: more of its pictures
        are copies than chance allows, or they lie nearer to the training pictures than to the references, and more so
        than those of the base do. Too few copies worry nobody, so the bounds are one-sided."""
        return self.copying_beyond > 0

    @property
    def copying_beyond(self) -> float:
        """How far beyond what may be: the share of copies above chance, or the leaning above its limit, whichever is
        more; 0 where it does not copy too much."""
        beyond = 0.0 if self.copies is None else self._at_least(self.copies) - self.chance
        if self.leaning is not None and self._leans_more_than_base:
            beyond = max(beyond, self._at_least(self.leaning) - LEANS)
        return max(0.0, beyond)

    @property
    def _leans_more_than_base(self) -> bool:
        if self.leaning is None or self.leaning_of_base is None:
            return self.leaning is not None
        return self._at_least(self.leaning - self.leaning_of_base) > 0

    def _at_least(self, drawn: Tensor) -> float:
        """What a figure is at least, with the confidence that was asked for."""
        return figure(drawn, confidence=2 * self.confidence - 1).low

    def against(self, other: "Result") -> Figure:
        """How much higher its score is, over the same prompts and seeds."""
        return figure(self.drawn - other.drawn, confidence=self.confidence)


@dataclass(frozen=True)
class Choice:
    """What is named, and why.

    Args:
        ties: who cannot be told from the best.
        pareto: who is beaten by nobody in identity, variety and copying at once.
    """

    best: Result | None
    reason: str
    ties: tuple[Result, ...] = ()
    pareto: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What to do with the run."""

    kind: Kind
    text: str
    since: int | None = None
    """The step from which it is overtrained."""


def choose(results: Sequence[Result], base: Result | None) -> Choice:
    """Name the best of what was trained.

    Args:
        results: from the earliest to the latest, without the base.
    """
    if not results:
        return Choice(None, "there is nothing to choose from")
    sound = [each for each in results if not each.copies_too_much]
    among = sound or list(results)
    top = max(among, key=lambda each: float(each.drawn[0]))
    ties = [each for each in among if each is top or is_tie(top.against(each))]
    best = min(ties, key=lambda each: _order(each, results))
    reason = _reason(best, top, ties, results, base, all_copy=not sound)
    return Choice(best, reason, tuple(each for each in ties if each is not best), tuple(pareto(results)))


def pareto(results: Sequence[Result]) -> list[Result]:
    """Who is at least as good as everybody else in identity, variety or (less) copying."""
    return [each for each in results if not any(_beats(other, each) for other in results)]


def judge(results: Sequence[Result], best: Result | None) -> Verdict:
    """What the steps of a run say: stop here, train on, or overtrained since one of them.

    Args:
        results: from the earliest to the latest step, at one strength.
    """
    stepped = [each for each in results if each.candidate.place is not None]
    if best is None or best not in stepped or len(stepped) < 2:
        return Verdict("none", "one file alone says nothing about where to stop: evaluate several of a run")
    later = stepped[stepped.index(best) + 1 :]
    worse = [each for each in later if _is_worse(each, best)]
    since = _since(later, worse)
    if since is not None:
        why = "copies training pictures" if later[-1].copies_too_much else "draws worse"
        text = f"overtrained since {where(since)}: from there on it {why}; take {where(best)}"
        return Verdict("overtrained", text, since.candidate.step)
    if not later and _still_rises(stepped):
        return Verdict("train on", "train on: the last file is the best, and by more than the noise")
    what = "later files are no better" if later else "the last file is no better than those before"
    return Verdict("stop", f"stop here: {what} by more than the noise; take {where(best)}")


def where(result: Result) -> str:
    """`step 1,200`"""
    place = result.candidate.place
    return result.candidate.name if place is None else f"{place[0]} {place[1]:,}"


def _since(later: Sequence[Result], worse: Sequence[Result]) -> Result | None:
    """The first from which all that follow are worse; None where the last is not."""
    since = None
    for each in reversed(later):
        if each not in worse:
            break
        since = each
    return since


def _is_worse(each: Result, best: Result) -> bool:
    return each.against(best).high < 0 or (each.copies_too_much and not best.copies_too_much)


def _still_rises(stepped: Sequence[Result]) -> bool:
    """Whether the last is better than the one before, or than the two before it together."""
    last, before = stepped[-1], stepped[-2]
    if last.against(before).low > 0:
        return True
    if len(stepped) < 3:
        return False
    two = replace(before, drawn=(before.drawn + stepped[-3].drawn) / 2)
    return last.against(two).low > 0 and float(last.drawn[0]) > float(before.drawn[0]) > float(stepped[-3].drawn[0])


def _order(each: Result, results: Sequence[Result]) -> tuple[float, int]:
    """Early before late; where nothing tells steps, in the order given."""
    place = each.candidate.place
    return (float("inf") if place is None else float(place[1])), results.index(each)


def _beats(one: Result, other: Result) -> bool:
    mine, theirs = _axes(one), _axes(other)
    return all(a >= b for a, b in zip(mine, theirs, strict=True)) and any(
        a > b for a, b in zip(mine, theirs, strict=True)
    )


def _axes(result: Result) -> list[float]:
    """Identity, variety, and how little it leans to what was trained on: more is better."""
    found = [float(result.parts[part][0]) for part in ("identity", "variety") if part in result.parts]
    return found if result.leaning is None else [*found, -float(result.leaning[0])]


def _reason(
    best: Result,
    top: Result,
    ties: Sequence[Result],
    results: Sequence[Result],
    base: Result | None,
    *,
    all_copy: bool,
) -> str:
    """Why it is named, in words."""
    name, score = best.candidate.name, best.score
    told = f"{name} has {score.value:.2f} ({score.low:.2f} to {score.high:.2f})"
    sentences = []
    if best is top:
        sentences.append(f"{told}, the highest score" + (" of those that do not copy" if _some_copy(results) else ""))
    else:
        difference = top.against(best)
        sentences.append(
            f"{told}; {top.candidate.name} has {float(top.drawn[0]):.2f}, but the difference "
            f"({difference.low:+.2f} to {difference.high:+.2f}) is within the noise, and {name} is earlier"
        )
    if len(ties) > 1 and best is top:
        others = [each.candidate.name for each in ties if each is not best]
        sentences.append(f"{', '.join(others[:3])}{' and others' if len(others) > 3 else ''} cannot be told from it")
    if all_copy:
        sentences.append("every file copies training pictures, this one too: look at the pairs before using it")
    elif refused := [
        each.candidate.name
        for each in results
        if each.copies_too_much and float(each.drawn[0]) > float(best.drawn[0])
    ]:
        sentences.append(f"{', '.join(refused)} scored higher and cannot win, for they copy training pictures")
    if base is not None and best.against(base).low <= 0:
        sentences.append("it is no better than the base without a LoRA by more than the noise")
    return "; ".join(sentences) + "."


def _some_copy(results: Sequence[Result]) -> bool:
    return any(each.copies_too_much for each in results)
