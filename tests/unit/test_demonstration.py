"""The demo: what it asks for was never shown, its counts are counts, and its page needs nothing but itself."""

import re
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from brushwork.demonstration import judgement
from brushwork.demonstration.judgement import QUESTIONS, answers, count
from brushwork.demonstration.report import Shown, Story, render
from brushwork.demonstration.scenes import (
    ASKED,
    CAMERAS,
    HEADWEAR,
    NUM_FRAMES,
    OTHERS,
    OUTFITS,
    PLACES,
    TRIGGER,
    learned_scenes,
)
from brushwork.film.captions import caption
from brushwork.film.held_out import is_held_out
from brushwork.film.scene import LEAD, cast_without_lead, is_possible
from brushwork.film.scorer import Scorer

YES = dict.fromkeys(QUESTIONS, True)


def story(**changes: Any) -> Story:
    """A report of one prompt, one other character and two frames."""
    plain = Image.new("RGB", (8, 8), "red")
    asked = Shown(
        "a fox <on> a beach",
        {0.0: plain, 1.0: plain},
        {0.0: {**YES, "character": False}, 1.0: {**YES, "place": False}},
    )
    other = Shown("a bear", {0.0: plain, 1.0: plain}, {0.0: YES, 1.0: YES})
    counts = {"character": 3, "place": 14, "camera": 13, "clothes": 12, "all": 2, "of": 16}
    figures = {
        "the film's own frames": counts,
        "asked": {"0": counts, "1": {**counts, "character": 15}},
        "others": {"0": {**counts, "of": 8}, "1": {**counts, "of": 8}},
    }
    told: dict[str, Any] = {
        "learned": [("a fox", plain), ("a fox again", plain)],
        "asked": [asked],
        "others": [other],
        "figures": figures,
        "curve": plain,
        "num_steps": 7,
    }
    return Story(**{**told, **changes})


def test_what_is_asked_for_was_never_shown() -> None:
    learned = learned_scenes()

    assert len(learned) == NUM_FRAMES
    for name, values in (("place", PLACES), ("outfit", OUTFITS), ("headwear", HEADWEAR), ("camera", CAMERAS)):
        assert {getattr(scene, name) for scene in learned} == set(values)  # the report says that they are seen
    assert {scene.character for scene in (*learned, *ASKED)} == {LEAD}
    assert {scene.place for scene in learned}.isdisjoint(scene.place for scene in ASKED)
    worn = {getattr(scene, part) for scene in learned for part in ("outfit", "headwear")} - {None}
    wanted = {getattr(scene, part) for scene in ASKED for part in ("outfit", "headwear")} - {None}
    assert worn
    assert worn.isdisjoint(wanted)
    assert not any(is_held_out(scene) for scene in learned)


def test_every_caption_and_prompt_holds_the_trigger_and_can_be_drawn() -> None:
    for scene in (*learned_scenes(), *ASKED):
        assert TRIGGER in caption(scene)
        assert is_possible(scene), scene
    assert [scene.character for scene in OTHERS] == list(cast_without_lead())
    assert not any(is_held_out(scene) for scene in OTHERS)
    assert all(is_possible(scene) for scene in OTHERS)


def test_a_yes_is_counted_where_all_that_was_asked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [replace(scene, camera="full body", pose="stands") for scene in ASKED[:3]]
    seen = [scene.truth() for scene in scenes]
    seen[1] = {**seen[1], "character": "bear", "headwear": None}
    seen[2] = {**seen[2], "place": "meadow"}
    monkeypatch.setattr(judgement, "judge", lambda scorer, pictures: seen)

    found = answers(Scorer(), scenes, [Image.new("RGB", (128, 128))] * 3)

    assert found == [YES, {**YES, "character": False, "clothes": False}, {**YES, "place": False}]
    assert count(found) == {"character": 2, "place": 2, "camera": 3, "clothes": 2, "all": 1, "of": 3}


def test_the_report_needs_no_server_no_script_and_no_other_file() -> None:
    page = render(story())

    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)\s]+)""", page)
    assert len(sources) == 2 + 2 + 2 + 2 + 1  # the two on top, frames, the prompt's, the other's, the curve
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "<script" not in page
    assert "http" not in page
    assert 'name="viewport"' in page


def test_the_report_tells_the_counts_and_each_answer() -> None:
    page = render(story())

    assert "found in 3 of 16 pictures before, in 15 of 16" in page
    assert "<td>15/16</td>" in page
    assert page.count('no">&#10007; fox') == 1
    assert page.count('yes">&#10003; fox') == 1
    assert page.count('no">&#10007; place') == 1
    assert "each of the 7 steps" in " ".join(page.split())
    assert "a fox &lt;on&gt; a beach" in page


def test_the_same_story_is_the_same_page() -> None:
    assert render(story()) == render(story())
