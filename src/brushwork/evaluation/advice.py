"""Which run to take for what, in words: by what was measured, else by what is known of the bases."""

from collections.abc import Sequence
from dataclasses import dataclass

from brushwork.amounts import duration
from brushwork.evaluation.contest import SCORE, Contest, Entry

LARGE = 1024
"""Pictures of this side and more are what SDXL is for."""

WEIGHT = {"sd15": 1, "sdxl": 2}
"""The larger network draws slower and needs a larger card: 0.86 and 2.57 thousand million numbers."""

CHEAPER = 0.9
"""What costs less than this share of another is called cheaper."""


@dataclass(frozen=True)
class Advice:
    """What to take for one use.

    Args:
        take: the runs that are good for it; several are ties; none where nothing can be said.
    """

    use: str
    take: tuple[str, ...]
    why: str


def advise(contest: Contest) -> list[Advice]:
    """Advice for each use that the runs differ in."""
    sound = contest.sound
    if not sound:
        why = "all of them copy training pictures: train on more pictures, or for fewer steps"
        return [Advice("pictures as good as can be had", (), why)]
    found = [_best(contest, sound, SCORE, "pictures as good as can be had", "the highest score")]
    found += [
        _best(contest, sound, part, use, f"most {part}")
        for part, use in (("identity", "the subject above all"), ("variety", "many different pictures"))
        if part in contest.shares
    ]
    found += [_large(contest, sound), _quick(sound), _cheap(contest), _production(contest, sound)]
    return [each for each in found if each.why]


def _best(contest: Contest, sound: Sequence[Entry], what: str, use: str, words: str) -> Advice:
    top, *others = contest.leaders(what, sound)
    value = top.value if what == SCORE else top.result.part(what).value
    told = f"{top.name} has {words} ({value:.2f})"
    if copying := [each.name for each in contest.entries if each not in sound]:
        told += f" of those that do not copy ({', '.join(copying)} cannot be recommended)"
    if others:
        told += f", but the difference to {_and([each.name for each in others])} is within the noise: a tie"
    return Advice(use, tuple(each.name for each in (top, *others)), told)


def _large(contest: Contest, sound: Sequence[Entry]) -> Advice:
    """The guide: for 1024 px, SDXL."""
    sides = {each.name: max(each.size or (0, 0)) for each in sound}
    use = f"pictures of {LARGE} pixels"
    if len(set(sides.values())) < 2:
        return Advice(use, (), "")
    large = [each for each in sound if sides[each.name] >= LARGE]
    if not large:
        largest = max(sound, key=lambda each: sides[each.name])
        why = f"none was drawn so large; {largest.name} draws the largest, {sides[largest.name]} pixels"
        return Advice(use, (), why)
    leaders = contest.leaders(SCORE, large)
    names = tuple(each.name for each in leaders)
    return Advice(use, names, f"{_and(list(names))} was measured at that size")


def _quick(sound: Sequence[Entry]) -> Advice:
    """The guide: for fast drawing and a small card, SD 1.5."""
    use = "fast drawing, or a small card"
    sizes = [each.size for each in sound]
    if any(size is None for size in sizes) or any(each.family not in WEIGHT for each in sound):
        return Advice(use, (), "")
    work = {
        each.name: (WEIGHT[each.family], size[0] * size[1]) for each, size in zip(sound, sizes, strict=True) if size
    }
    if len(set(work.values())) < 2:
        return Advice(use, (), "")
    least = min(work.values())
    names = [name for name, each in work.items() if each == least]
    family, pixels = least
    rest = max(each[1] for each in work.values())
    told = "the smaller network" if family < max(each[0] for each in work.values()) else "the same network"
    told += f", {rest / pixels:.3g} times fewer pixels" if rest > pixels else ""
    return Advice(use, tuple(names), f"{_and(names)}: {told}")


def _cheap(contest: Contest) -> Advice:
    """By what the runs took themselves."""
    use = "training again at little cost"
    known = [(each, each.cost) for each in contest.entries if each.cost is not None]
    if len(known) < 2:
        return Advice(use, (), "")
    told, names = [], []
    (quick, least), *others = sorted(known, key=lambda each: each[1].seconds)
    if least.seconds < CHEAPER * others[0][1].seconds:
        told.append(f"{quick.name} took {duration(least.seconds)}, the next {duration(others[0][1].seconds)}")
        names.append(quick.name)
    filled = sorted((cost.memory_gib, each.name) for each, cost in known if cost.memory_gib)
    if len(filled) > 1 and filled[0][0] < CHEAPER * filled[1][0]:
        told.append(f"{filled[0][1]} took {filled[0][0]:.1f} GiB of memory, the next {filled[1][0]:.1f}")
        names.append(filled[0][1])
    return Advice(use, tuple(dict.fromkeys(names)), "; ".join(told))


def _production(contest: Contest, sound: Sequence[Entry]) -> Advice:
    """The guide: test both, for the prompts here are not those of the work."""
    leaders = contest.leaders(SCORE, sound)
    names = tuple(each.name for each in leaders)
    if len({each.family for each in sound}) > 1:
        names = tuple(each.name for each in sound)
    if len(names) < 2:
        return Advice("", (), "")
    own = "let each draw prompts of that work: brushwork evaluate RUN --prompts FILE, then compare again"
    return Advice("work that depends on it", names, f"try {_and(list(names))}: {own}")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
