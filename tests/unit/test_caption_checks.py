"""Checking captions: each kind of fault is found by name, what is fine is left in peace, and the report shows it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from brushwork.captioning.checks import check_captions
from brushwork.captioning.fit import fit_of, shares_beaten
from brushwork.captioning.profile import Profile, Template
from brushwork.captioning.report import JSON, PAGE, bars, check_and_report
from brushwork.config.load import resolve
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.film.frames import draw_folder

PROFILE = Profile(
    trigger="mia",
    must=("fox",),
    must_not=("anime",),
    template=Template(prefix="mia, a fox"),
    questions={"description": "What?"},
)
FILLER = ", ".join(f"{number} {thing}" for number, thing in enumerate(["balls"] * 18))
GOOD = f"mia, a fox on a meadow, {FILLER}"


def folder_of(tmp_path: Path, captions: dict[str, str | bytes | None]) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, (name, text) in enumerate(captions.items()):
        Image.new("RGB", (32, 32), (number * 9, 0, 0)).save(folder / f"{name}.png")
        if text is not None:
            (folder / f"{name}.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", None),
        ("empty", "\n"),
        ("empty", "..."),
        ("unreadable", "mia, a f\u00fcchsin".encode("cp1252")),
        ("refused", "mia, a fox, I'm sorry, I cannot describe this person, film quality"),
        ("circles", "mia, a fox with a hat with a hat with a hat with a hat with a hat"),
        ("said twice", f"mia, a fox on a meadow, {FILLER}, a fox on a meadow"),
        ("markup", f"mia, a fox <|im_end|>, {FILLER}"),
        ("language", f"mia, a fox, \u4e00\u53ea\u72d0\u72f8, {FILLER}"),
        ("cut off", f"mia, a fox, {FILLER}, sitting on a"),
        ("trigger", f"miana, a fox, {FILLER}"),
        ("forbidden", f"mia, an Anime fox, {FILLER}"),
        ("required", f"mia, a bear, {FILLER}"),
        ("too long", f"mia, a fox, {FILLER}, {FILLER.replace('balls', 'cubes')}"),
        ("short", "mia, a fox"),
        ("odd characters", f"mia, a fox in a h\u00c3\u00bctte, {FILLER}"),
    ],
)
def test_a_fault_is_found_by_its_kind_and_a_good_caption_has_none(
    kind: str, text: str | bytes | None, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, {"bad": text, "good": GOOD})

    checked = check_captions(folder, settings=Settings(), profile=PROFILE)

    assert kind in {fault.kind for fault in checked.faults["bad.png"]}
    assert "good.png" not in checked.faults
    assert checked.counts[kind] == 1
    assert checked.worst == ([] if kind == "short" else ["bad.png"])
    assert checked.num_good == (2 if kind == "short" else 1)
    assert any(line.startswith(kind) for line in checked.lines())


def test_the_same_caption_for_many_pictures_is_a_fault_and_for_two_is_none(tmp_path: Path) -> None:
    captions = {f"a{number}": GOOD for number in range(3)} | {"b1": GOOD + " in rain", "b2": GOOD + " in rain"}
    captions["a3"] = GOOD.upper().replace(",", ";")  # the same words

    checked = check_captions(folder_of(tmp_path, captions), settings=Settings(), profile=PROFILE)

    same = {name for name, faults in checked.faults.items() if "same" in {fault.kind for fault in faults}}
    assert same == {"a0.png", "a1.png", "a2.png", "a3.png"}


def test_without_a_profile_the_settings_say_the_trigger_and_how_much_is_read(tmp_path: Path) -> None:
    long = f"{GOOD}, {FILLER.replace('balls', 'cubes')}"
    folder = folder_of(tmp_path, {"a": long, "b": f"nobody, {FILLER}"})

    small = check_captions(folder, settings=resolve(overrides=["trigger=mia"]).settings)
    large = check_captions(folder, settings=resolve(overrides=["trigger=mia", "model.max_tokens=225"]).settings)

    assert {fault.kind for fault in small.faults["a.png"]} == {"too long"}
    assert {fault.kind for fault in small.faults["b.png"]} == {"trigger"}
    assert "a.png" not in large.faults
    assert "--set model.max_tokens=150" in small.notes[-1]


def test_refused_pictures_are_not_checked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a": None, "b": GOOD})
    (folder / "review.jsonl").write_text('{"file": "a.png", "decision": "refuse", "reason": "", "time": ""}\n')

    assert check_captions(folder, settings=Settings(), profile=PROFILE).faults == {}


def test_the_report_holds_the_worst_with_their_pictures_and_nothing_of_a_caption_is_taken_for_html(
    tmp_path: Path,
) -> None:
    captions = {f"{number:02}": f"<script>alert({number})</script> mia, a bear" for number in range(14)}
    folder = folder_of(tmp_path, {**captions, "good": GOOD})
    (folder / "00.png").write_bytes(b"rubbish")

    checked = check_and_report(folder, settings=Settings(), profile=PROFILE)

    page = (folder / PAGE).read_text()
    assert page.count("data:image/webp;base64,") == 9
    assert page.count("cannot be opened") == 1
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(3)" in page
    assert "<h2>Further</h2>" in page
    told = json.loads((folder / JSON).read_text())
    assert told == json.loads(json.dumps(checked.record()))
    assert (told["without_fault"], len(told["worst"]), len(told["faults"])) == (1, 10, 14)
    again = check_captions(folder, settings=Settings(), profile=PROFILE)
    assert len(again.captions) == 15  # the report itself is no picture


def test_the_bars_hold_every_caption_once() -> None:
    counts = [1, 2, 40, 74, 75, 76, 300]
    found = bars(counts, (40, 75), 75)

    assert sum(int(str(bar["count"])) for bar in found) == len(counts)
    assert all(found[place]["last"] + 1 == found[place + 1]["first"] for place in range(len(found) - 1))  # type: ignore[operator]
    assert found[-1]["kind"] == "over"
    assert bars([], (40, 75), 75) == []


def test_a_share_of_beaten_captions_is_what_counting_them_one_by_one_gives() -> None:
    torch.manual_seed(0)
    pictures = torch.nn.functional.normalize(torch.randn(6, 4), dim=-1)
    texts = torch.nn.functional.normalize(pictures + 0.5 * torch.randn(6, 4), dim=-1)
    texts[5] = texts[4]  # the same words twice do not beat each other
    alike = pictures @ texts.T

    found = shares_beaten(pictures, texts)

    expected = []
    for own in range(6):
        captions = sum(bool(alike[own, other] <= alike[own, own] + 1e-6) for other in range(6) if other != own)
        images = sum(bool(alike[other, own] <= alike[own, own] + 1e-6) for other in range(6) if other != own)
        expected.append(min(captions, images) / 5)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_captions_that_belong_to_other_pictures_are_found_by_the_bundled_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "film"
    draw_folder(folder, 24, 64, seed=3)
    (folder / "00001.txt").write_text((folder / "00002.txt").read_text())
    (folder / "00007.png").write_bytes(b"rubbish")
    fit = fit_of("bundled", settings=Settings())

    checked = check_captions(folder, settings=Settings(), fit=fit)

    told = [name for name, faults in checked.faults.items() if "picture" in {fault.kind for fault in faults}]
    assert "00001.png" in told
    assert len(told) <= 3
    assert "00007.png" not in checked.fit  # it cannot be opened, and stops nobody


def test_an_encoder_without_words_cannot_compare_and_that_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from brushwork.captioning import fit

    class Blind:
        has_text = False

    monkeypatch.setattr(fit, "load_encoder", lambda *given, **more: Blind())
    with pytest.raises(UserError, match="reads no words"):
        fit.fit_of("facebook/dinov2-base", settings=Settings())
