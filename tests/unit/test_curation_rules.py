"""Reasons: what the measures of a frame say against it, and from where on."""

import re
from typing import Any

import pytest
from PIL import Image

from brushwork.config.load import resolve
from brushwork.config.schema import CurationConfig
from brushwork.curation.rules import CODES, judge, usual_edge_width, widest_edge
from brushwork.film.shots import draw_film_frame, shoot
from brushwork.vision.measures import Measured
from brushwork.vision.quality import Quality, measure

GOOD = Quality(
    width=768,
    height=512,
    edge_width=1.5,
    edge_width_worst=2.0,
    brightness=0.5,
    shadows=0.15,
    highlights=0.9,
    dark=0.0,
    clipped=0.01,
    contrast=0.2,
    step=0.25,
    noise=0.002,
    blockiness=1.05,
    repeats=0.0,
    lettering=0.02,
    bar_left=0,
    bar_top=0,
    bar_right=0,
    bar_bottom=0,
)

EDGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # setting: (reason, measures just short of it, measures just beyond)
    "min_side": ("too_small", {"height": 256}, {"height": 255}),
    "dark_highlights": ("dark", {"highlights": 0.3}, {"highlights": 0.2999}),
    "bright_clipped": ("over_bright", {"clipped": 0.2499, "shadows": 0.5}, {"clipped": 0.25, "shadows": 0.5}),
    "bright_shadows": ("over_bright", {"clipped": 0.5, "shadows": 0.3799}, {"clipped": 0.5, "shadows": 0.38}),
    "min_contrast": ("low_contrast", {"contrast": 0.05}, {"contrast": 0.0499}),
    "flat_step": ("flat", {"step": 0.0121}, {"step": 0.012}),
    "blur_times": ("blurred", {"edge_width": 3.0, "edge_width_worst": 3.0}, {"edge_width": 3.01}),
    "motion_times": ("motion_blur", {"edge_width_worst": 3.59, "edge_width": 2}, {"edge_width_worst": 3.61}),
    "max_noise": ("noisy", {"noise": 0.07}, {"noise": 0.0701}),
    "max_blockiness": ("compressed", {"blockiness": 1.5}, {"blockiness": 1.501}),
    "max_repeats": ("upscaled", {"repeats": 0.45}, {"repeats": 0.5}),
    "max_bars": ("bars", {"bar_top": 10, "bar_bottom": 50}, {"bar_top": 11, "bar_bottom": 50}),
    "max_lettering": ("subtitles", {"lettering": 0.27}, {"lettering": 0.271}),
}


def codes(quality: Quality, *, usual: float | None = 1.5, **settings: Any) -> list[str]:
    return [reason.code for reason in judge(quality, CurationConfig(**settings), usual_edge=usual)]


def changed(*changes: dict[str, Any]) -> Quality:
    values = GOOD.record()
    for change in changes:
        values |= change
    return Quality(**values)


def test_nothing_speaks_against_a_good_frame() -> None:
    assert codes(GOOD) == []


@pytest.mark.parametrize("setting", EDGES)
def test_a_frame_is_refused_just_beyond_the_threshold_and_not_before(setting: str) -> None:
    code, before, beyond = EDGES[setting]

    assert codes(changed(before)) == []
    assert codes(changed(before, beyond)) == [code]


@pytest.mark.parametrize("setting", EDGES)
def test_the_setting_moves_the_threshold(setting: str) -> None:
    _, before, beyond = EDGES[setting]
    bad = changed(before, beyond)
    kinder = {
        "min_side": 100,
        "dark_highlights": 0,
        "min_contrast": 0,
        "flat_step": 0,
        "blur_times": 4,
        "motion_times": 9,
        "max_blockiness": 9,
    }

    assert codes(bad, **{setting: kinder.get(setting, 1)}) == []


@pytest.mark.parametrize("setting", EDGES)
def test_the_sentence_names_the_setting_and_both_numbers(setting: str) -> None:
    _, before, beyond = EDGES[setting]

    [reason] = judge(changed(before, beyond), CurationConfig(), usual_edge=1.5)

    assert f"curation.{setting}" in reason.why
    assert len(re.findall(r"\d[\d.]*", reason.why)) >= 2
    assert not reason.why.endswith(".")


def test_black_is_darker_than_dark() -> None:
    assert codes(changed({"highlights": 0.06})) == ["dark"]
    assert codes(changed({"highlights": 0.0599})) == ["black"]
    assert codes(changed({"highlights": 0.0599}), black_highlights=0.01) == ["dark"]


def test_the_sets_own_sharpness_is_the_yardstick_between_two_limits() -> None:
    settings = CurationConfig()

    assert widest_edge(settings, 1.1) == 2.5  # a drawing: sharp as can be, but 2.4 pixels are no blur
    assert widest_edge(settings, 1.7) == pytest.approx(3.4)
    assert widest_edge(settings, 6.0) == 4.0  # a set of which most is blurred
    assert widest_edge(settings, None) == 2.5
    assert widest_edge(CurationConfig(blur_least=3.5), 1.1) == 3.5
    assert widest_edge(CurationConfig(blur_most=9), 3.0) == 6.0


def test_the_usual_edge_is_the_median_of_the_frames_that_have_edges() -> None:
    widths = [1.0, None, 1.4, 9.0]
    frames = [Measured("", changed({"edge_width": width})) for width in widths]

    assert usual_edge_width([*frames, Measured("", problem="the file is empty")]) == 1.4
    assert usual_edge_width([]) is None


def test_one_fault_is_not_told_three_times() -> None:
    nothing = measure(Image.new("RGB", (512, 512)))

    assert codes(nothing) == ["black"]
    assert codes(measure(Image.new("RGB", (512, 512), (90, 90, 200)))) == ["flat"]
    assert codes(measure(Image.new("RGB", (512, 512), "white"))) == ["flat"]


def test_several_faults_are_all_told_the_gravest_first() -> None:
    found = codes(changed({"height": 100, "noise": 0.2, "highlights": 0.2}))

    assert found == ["too_small", "dark", "noisy"]
    assert found == sorted(found, key=lambda code: CODES.index(code))  # type: ignore[arg-type]


FAULTS = {
    "motion blur": {"motion_blur"},
    "defocus": {"blurred"},
    "black": {"black"},
    "dark": {"dark"},
    "over-bright": {"over_bright"},
    "flat": {"flat"},
    "low resolution": {"blurred", "upscaled"},
    "compression": {"compressed"},
    "noise": {"noisy"},
    "letterbox": {"bars"},
    "subtitles": {"subtitles"},
}


def test_on_a_film_what_was_spoiled_is_refused_for_its_reason_and_nothing_else_is() -> None:
    """Each 5th frame, spoiled or not. What hides somebody and what dissolves cannot be told from the pixels."""
    measured = {}
    for frame in list(shoot(3, 480))[::5]:
        image, _ = draw_film_frame(frame, 128)
        measured[frame] = measure(image)
    usual = usual_edge_width(Measured("", quality) for quality in measured.values())

    missed, wrong = [], []
    for frame, quality in measured.items():
        found = set(codes(quality, usual=usual, min_side=64))
        faults = [FAULTS[kind] for kind in frame.spoils if kind in FAULTS]
        missed += [frame.spoils for fault in faults[-1:] if not fault & found]
        wrong += [(frame.number, found) for _ in [0] if found and not frame.spoils]

    assert wrong == []
    assert sum(bool(frame.spoils) for frame in measured) > 20
    assert len(missed) <= 1


def test_the_settings_are_reached_from_the_command_line() -> None:
    assert resolve(overrides=["curation.min_side=99"]).settings.curation.min_side == 99
