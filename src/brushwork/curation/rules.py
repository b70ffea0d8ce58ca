"""Measures become reasons: for each frame the codes of what speaks against it, each with a sentence for the person.

A sentence names what was measured, the threshold, and the setting that moves it. Thresholds are settings, never
numbers here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from brushwork.config.schema import CurationConfig
from brushwork.vision.dissolves import mixtures
from brushwork.vision.measures import Measured
from brushwork.vision.quality import Quality

Code = Literal[
    "unreadable",
    "too_small",
    "black",
    "flat",
    "dark",
    "over_bright",
    "low_contrast",
    "bars",
    "subtitles",
    "noisy",
    "upscaled",
    "compressed",
    "motion_blur",
    "blurred",
    "dissolve",
    "occluded",
    "cut_off",
    "exact_duplicate",
    "unlike_references",
    "like_others",
    "near_duplicate",
    "not_chosen",
]
CODES: tuple[Code, ...] = get_args(Code)
"""In the order in which they are asked; the first that holds is a frame's reason."""


@dataclass(frozen=True)
class Reason:
    """What speaks against a frame."""

    code: Code
    why: str


def unreadable(problem: str) -> Reason:
    """The file gave no picture."""
    return Reason("unreadable", f"cannot be read: {problem}")


def exact_duplicate(of: str, *, same_bytes: bool) -> Reason:
    """Another file holds the same picture."""
    return Reason("exact_duplicate", f"the same {'file' if same_bytes else 'pixels'} as {of}")


def near_duplicate(of: str, *, score: float, best: float) -> Reason:
    """Another frame that is better shows nearly the same."""
    is_equal = f"{best:.2f}" == f"{score:.2f}"
    told = f"which is as good ({best:.2f})" if is_equal else f"which is better ({best:.2f} against {score:.2f})"
    return Reason("near_duplicate", f"shows nearly the same as {of}, {told}")


def dissolves(measured: Mapping[str, Measured], curation: CurationConfig) -> dict[str, Reason]:
    """What speaks against frames that go over from one shot into the next, by the frames around them."""
    found = mixtures({name: each.small for name, each in measured.items() if each.small})
    return {
        name: Reason(
            "dissolve",
            f"dissolves: {before} and {after} over one another, {weight:.0%} and {1 - weight:.0%}, explain "
            f"{explained:.0%} of what differs from the frames beside it (curation.max_dissolve "
            f"{_share(curation.max_dissolve)})",
        )
        for name, (explained, weight, before, after) in found.items()
        if explained > curation.max_dissolve
    }


def usual_edge_width(measured: Iterable[Measured]) -> float | None:
    """The set's own yardstick for sharpness: the median width of edges over all frames that have some."""
    widths = [each.quality.edge_width for each in measured if each.quality and each.quality.edge_width]
    return median(widths) if widths else None


def widest_edge(curation: CurationConfig, usual: float | None) -> float:
    """From how many pixels on an edge is blurred, in a set whose edges are usually `usual` pixels wide.

    The set's own median is the yardstick, so that a soft film is not refused as a whole; two limits keep it sensible
    where most frames of a set are blurred, or all are as sharp as drawings.
    """
    own = curation.blur_times * usual if usual is not None else curation.blur_least
    return min(max(own, curation.blur_least), max(curation.blur_most, curation.blur_least))


def judge(quality: Quality, curation: CurationConfig, *, usual_edge: float | None) -> list[Reason]:
    """Everything that the measures of one frame say against it, the gravest first."""
    widest = widest_edge(curation, usual_edge)
    found: dict[Code, str] = {}
    for code, rule, hidden_by in _RULES:
        if hidden_by.isdisjoint(found) and (why := rule(quality, curation, widest)):
            found[code] = why
    return [Reason(code, why) for code, why in found.items()]


Rule = Callable[[Quality, CurationConfig, float], str | None]


def _too_small(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if min(q.width, q.height) >= curation.min_side:
        return None
    return f"{q.width} x {q.height} pixels: the shorter side is below {curation.min_side} (curation.min_side)"


def _black(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.highlights >= curation.black_highlights:
        return None
    limit = _share(curation.black_highlights)
    return f"black: even its light parts reach only {q.highlights:.0%} (curation.black_highlights {limit})"


def _flat(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.step > curation.flat_step:
        return None
    return (
        f"flat: neighbouring pixels differ by at most {q.step:.1%} (curation.flat_step {_share(curation.flat_step)})"
    )


def _dark(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.highlights >= curation.dark_highlights:
        return None
    limit = _share(curation.dark_highlights)
    return f"dark: even its light parts reach only {q.highlights:.0%} (curation.dark_highlights {limit})"


def _over_bright(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.clipped < curation.bright_clipped or q.shadows < curation.bright_shadows:
        return None
    return (
        f"over-bright: {q.clipped:.0%} of the pixels are at the end of the scale (curation.bright_clipped "
        f"{_share(curation.bright_clipped)}) and hardly any is darker than {q.shadows:.0%} (curation.bright_shadows "
        f"{_share(curation.bright_shadows)})"
    )


def _low_contrast(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.contrast >= curation.min_contrast:
        return None
    return (
        f"low in contrast: light deviates by {q.contrast:.1%} (curation.min_contrast {_share(curation.min_contrast)})"
    )


def _bars(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.bars <= curation.max_bars:
        return None
    level = min(q.bar_top, q.bar_bottom) / q.height >= min(q.bar_left, q.bar_right) / q.width
    first, second = (q.bar_top, q.bar_bottom) if level else (q.bar_left, q.bar_right)
    sides = "above and below" if level else "at the left and right"
    return f"bars of {first} and {second} pixels {sides} (curation.max_bars {_share(curation.max_bars)} of the side)"


def _subtitles(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.lettering <= curation.max_lettering:
        return None
    limit = _share(curation.max_lettering)
    return f"subtitles: strokes fill {q.lettering:.0%} of a line (curation.max_lettering {limit})"


def _noisy(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.noise <= curation.max_noise:
        return None
    return f"noisy: grain of {q.noise:.1%} (curation.max_noise {_share(curation.max_noise)})"


def _compressed(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.blockiness <= curation.max_blockiness:
        return None
    return (
        f"compressed: steps between blocks are {q.blockiness:.1f} times those inside (curation.max_blockiness "
        f"{curation.max_blockiness:g})"
    )


def _upscaled(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.repeats <= curation.max_repeats:
        return None
    return (
        f"enlarged: {q.repeats:.0%} of rows and columns repeat the one before (curation.max_repeats "
        f"{_share(curation.max_repeats)})"
    )


def _motion_blur(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.edge_width_worst is None or q.edge_width_worst <= widest or q.direction < curation.motion_times:
        return None
    return (
        f"blurred by movement: edges {q.edge_width_worst:.1f} pixels wide in one direction (limit {widest:.1f}), "
        f"{q.direction:.1f} times as wide as in another (curation.motion_times {curation.motion_times:g})"
    )


def _blurred(q: Quality, curation: CurationConfig, widest: float) -> str | None:
    if q.edge_width is None or q.edge_width <= widest:
        return None
    return (
        f"blurred or enlarged: the sharpest edges are {q.edge_width:.1f} pixels wide, the limit of this set is "
        f"{widest:.1f} (curation.blur_times, blur_least, blur_most)"
    )


def _share(value: float) -> str:
    return f"{100 * value:g}%"


_NO_LIGHT: frozenset[Code] = frozenset({"black", "flat", "dark"})
_RULES: tuple[tuple[Code, Rule, frozenset[Code]], ...] = (
    ("too_small", _too_small, frozenset()),
    ("black", _black, frozenset()),
    ("flat", _flat, frozenset({"black"})),
    ("dark", _dark, frozenset({"black", "flat"})),
    ("over_bright", _over_bright, frozenset({"flat"})),
    ("low_contrast", _low_contrast, _NO_LIGHT | {"over_bright"}),
    ("bars", _bars, frozenset({"black", "flat"})),
    ("subtitles", _subtitles, frozenset()),
    ("noisy", _noisy, frozenset()),
    ("upscaled", _upscaled, frozenset({"black", "flat"})),
    ("compressed", _compressed, frozenset({"black", "flat", "upscaled"})),
    ("motion_blur", _motion_blur, frozenset()),
    ("blurred", _blurred, frozenset({"motion_blur"})),
)
"""Each rule, and the reasons that explain what it would see: a black frame is not also called dark and flat."""
