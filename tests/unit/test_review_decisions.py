"""Deciding about pictures: saved before it is shown, taken back step by step, also after a kill."""

import json
from pathlib import Path

import pytest
from PIL import Image

from brushwork.captioning.edits import undo_last_edit
from brushwork.config.schema import DataConfig
from brushwork.data.reviews import Review, append_reviews, read_reviews
from brushwork.errors import UserError
from brushwork.studio.choosing import (
    BY_GROUP,
    BY_NAME,
    BY_TIME,
    BY_UNCERTAINTY,
    Choice,
    chosen,
    next_uncertain,
    orders,
    reasons,
    twins,
)
from brushwork.studio.decisions import Decisions
from brushwork.studio.frames import read_review_set

CURATED = [
    # similarity, group, decision, reason
    (0.90, None, "keep", None),
    (0.76, 1, "keep", None),
    (0.75, 1, "refuse", "duplicate"),
    (0.70, None, "refuse", "unlike_references"),
    (0.30, None, "refuse", "unlike_references"),
    (None, None, "refuse", "black"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures, and what curation says of them; the threshold lies at 0.73."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number, (similarity, group, decision, reason) in enumerate(CURATED):
        Image.new("RGB", (32, 24), (40 * number, 90, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"fox {number}\n")
        scores = {"sharpness": 100.0 - number} if number < 4 else {}
        rows.append({"file": f"{number}.png", "similarity": similarity, "group": group, "scores": scores})
        rows[-1] |= {"decision": decision, "reason": reason, "why": "because"}
    rows.append({"file": "elsewhere.png", "similarity": 0.1, "decision": "refuse", "reason": "black"})
    (folder / "curation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def opened(folder: Path) -> Decisions:
    return Decisions(read_review_set(folder, data=DataConfig()))


def words(decisions: Decisions) -> list[str]:
    return [decisions.of(number).decision for number in range(decisions.total)]


def test_a_decision_is_in_the_file_when_it_is_shown_and_there_after_a_kill(photos: Path) -> None:
    decisions = opened(photos)
    heard: list[dict[str, Review]] = []
    decisions.listeners.append(lambda numbers: heard.append(read_reviews(photos)))

    decisions.decide([0], "keep")
    decisions.decide([2, 3], "refuse", reason="duplicate", duplicate_of="1.png")

    assert [reviews["2.png"].duplicate_of for reviews in heard[1:]] == ["1.png"]
    assert heard[0]["0.png"].decision == "keep"
    again = opened(photos)  # nothing was closed or said goodbye to
    assert words(again) == ["keep", "undecided", "refuse", "refuse", "undecided", "undecided"]
    assert (again.done, again.total) == (3, 6)
    assert again.summary() == decisions.summary() == "1 kept, 2 refused, 3 left of 6"


def test_undo_takes_back_one_step_after_another_also_those_of_before_a_kill(photos: Path) -> None:
    first = opened(photos)
    first.decide([0], "keep")
    first.crop(0, (0, 0, 8, 8))
    first.decide([1, 2, 3], "refuse", reason="blurred")
    second = opened(photos)
    second.decide([0], "refuse")

    assert second.of(0).crop == (0, 0, 8, 8)
    assert second.undo() == [0]
    assert (second.of(0).decision, second.of(0).crop) == ("keep", (0, 0, 8, 8))
    third = opened(photos)  # an undo is itself no step that an undo takes back
    assert third.undo() == [1, 2, 3]
    assert words(third)[1:4] == ["undecided"] * 3
    assert third.undo() == [0]
    assert (third.of(0).decision, third.of(0).crop) == ("keep", None)
    assert third.undo() == [0]
    assert words(third) == ["undecided"] * 6
    assert third.undo() == []
    assert words(opened(photos)) == ["undecided"] * 6
    assert sum(third.counts.values()) == 6


def test_a_caption_is_written_to_its_file_and_the_old_one_is_kept(photos: Path) -> None:
    decisions = opened(photos)

    decisions.write_caption(0, "  a red fox\nsitting  ")

    assert (photos / "0.txt").read_text() == "a red fox\nsitting\n"
    row = json.loads((photos / "captions.jsonl").read_text())
    assert (row["file"], row["before"], row["after"]) == ("0.txt", "fox 0\n", "a red fox\nsitting\n")
    assert read_reviews(photos)["0.png"].caption == "a red fox\nsitting"
    assert opened(photos).caption_now(0) == "a red fox\nsitting"
    opened(photos).undo()
    assert (photos / "0.txt").read_text() == "fox 0\n"
    assert decisions.of(0).decision == "undecided"


def test_captions_of_a_review_can_be_had_back_like_those_of_any_edit(photos: Path) -> None:
    decisions = opened(photos)
    decisions.write_caption(0, "one")
    decisions.write_caption(0, "two")
    (photos / "5.txt").unlink()
    decisions = opened(photos)
    decisions.write_caption(5, "new")

    for expected in ("two\n", "one\n", "fox 0\n"):
        undo_last_edit(photos, data=DataConfig())
        assert (photos / "0.txt").read_text() == expected
    assert not (photos / "5.txt").exists()


def test_half_a_row_that_a_kill_left_in_the_old_captions_spoils_no_later_one(photos: Path) -> None:
    opened(photos).write_caption(0, "one")
    with (photos / "captions.jsonl").open("a") as file:
        file.write('{"file": "1.txt", "bef')

    opened(photos).write_caption(1, "two")

    rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()]
    assert [(row["file"], row["before"]) for row in rows] == [("0.txt", "fox 0\n"), ("1.txt", "fox 1\n")]


def test_a_caption_that_another_program_wrote_since_is_what_is_edited_and_kept(photos: Path) -> None:
    decisions = opened(photos)
    (photos / "0.txt").write_text("by another program")

    assert decisions.caption_now(0) == "by another program"
    decisions.write_caption(0, "mine")

    assert json.loads((photos / "captions.jsonl").read_text())["before"] == "by another program"


def test_a_caption_that_is_saved_as_it_was_changes_nothing(photos: Path) -> None:
    opened(photos).write_caption(0, "fox 0")

    assert not (photos / "captions.jsonl").exists()
    assert not (photos / "review.jsonl").exists()


def test_what_others_write_is_taken_over_before_anything_is_added(photos: Path) -> None:
    one, two = opened(photos), opened(photos)
    one.decide([0], "keep")
    two.decide([1], "refuse")
    append_reviews(photos, [Review("3.png", "keep", time="9")])

    one.follow()

    assert words(one)[:4] == ["keep", "refuse", "undecided", "keep"]
    assert one.counts["keep"] == 2
    one.decide([4], "keep")
    assert len((photos / "review.jsonl").read_text().splitlines()) == 4


def test_a_file_that_gets_broken_meanwhile_is_told_and_nothing_is_forgotten(photos: Path) -> None:
    decisions = opened(photos)
    decisions.decide([0], "keep")
    whole = (photos / "review.jsonl").read_text()
    (photos / "review.jsonl").write_text(whole + "garbage\n")

    with pytest.raises(UserError, match=r"review\.jsonl, line 2"):
        decisions.decide([1], "keep")

    assert words(decisions)[:2] == ["keep", "undecided"]
    (photos / "review.jsonl").write_text(whole)
    decisions.decide([1], "keep")
    assert read_reviews(photos).keys() == {"0.png", "1.png"}


def test_on_a_full_disk_nothing_is_shown_as_decided(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = opened(photos)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space"):
        decisions.decide([0], "keep")

    assert words(decisions)[0] == "undecided"


def test_a_set_is_shown_by_state_reason_words_and_score(photos: Path) -> None:
    decisions = opened(photos)
    decisions.decide([0, 3], "keep")
    decisions.decide([1], "refuse", reason="blurred")

    assert chosen(decisions, Choice(state="undecided")) == [2, 4, 5]
    assert chosen(decisions, Choice(state="keep")) == [0, 3]
    assert chosen(decisions, Choice(state="otherwise")) == [1, 3]  # not as curation proposes
    assert chosen(decisions, Choice(reason="blurred")) == [1]
    assert chosen(decisions, Choice(reason="unlike_references")) == [4]  # of 3 the person has another opinion
    assert reasons(decisions) == [("black", 1), ("blurred", 1), ("duplicate", 1), ("unlike_references", 1)]
    assert chosen(decisions, Choice(words="FOX 4")) == [4]
    assert chosen(decisions, Choice(score="sharpness", low=98)) == [0, 1, 2]
    assert chosen(decisions, Choice(score="similarity", low=0.3, high=0.75)) == [2, 3, 4]


def test_a_set_is_ordered_by_name_score_doubt_group_and_time(photos: Path) -> None:
    for name in ("10.png", "9.png"):
        Image.new("RGB", (32, 24)).save(photos / name)
    decisions = opened(photos)

    def names(**choice: object) -> list[str]:
        order = chosen(decisions, Choice(**choice))  # type: ignore[arg-type]
        return [decisions.set.frames[number].name.removesuffix(".png") for number in order]

    assert names() == ["0", "1", "2", "3", "4", "5", "9", "10"]
    assert names(order="similarity")[:5] == ["4", "3", "2", "1", "0"]
    assert names(order="similarity", falling=True)[:6] == ["0", "1", "2", "3", "4", "5"]  # what has none comes last
    doubtful = names(order=BY_UNCERTAINTY)
    assert (doubtful[0], set(doubtful[1:3]), doubtful[3]) == ("2", {"1", "3"}, "0")  # two define the threshold
    assert names(order=BY_GROUP)[:2] == ["1", "2"]
    decisions.decide([decisions.numbers["9.png"]], "keep")
    assert names(order=BY_TIME)[0] == "9"
    assert orders(decisions) == [BY_NAME, BY_UNCERTAINTY, BY_GROUP, BY_TIME, "similarity", "sharpness"]


def test_the_next_uncertain_one_is_the_undecided_nearest_to_the_threshold(photos: Path) -> None:
    decisions = opened(photos)
    order = chosen(decisions, Choice())
    assert decisions.set.threshold == pytest.approx(0.73)

    way, current = [], 0
    while (found := next_uncertain(decisions, order, current)) is not None:
        way.append(found)
        decisions.decide([found], "keep")
        current = found

    assert (way[0], set(way[1:3]), way[3:]) == (2, {1, 3}, [0, 4, 5])


def test_without_curation_the_next_undecided_one_comes(photos: Path) -> None:
    (photos / "curation.jsonl").unlink()
    decisions = opened(photos)
    decisions.decide([1], "keep")

    assert next_uncertain(decisions, chosen(decisions, Choice()), 0) == 2
    assert orders(decisions) == [BY_NAME, BY_TIME]


def test_near_duplicates_are_found_by_their_group(photos: Path) -> None:
    decisions = opened(photos)

    assert twins(decisions, 1) == twins(decisions, 2) == [1, 2]
    assert twins(decisions, 0) == []


def test_what_curation_says_of_frames_that_are_not_here_is_counted(photos: Path) -> None:
    (photos / "5.txt").write_bytes(b"\xff\xfe\x00broken")
    with (photos / "curation.jsonl").open("a") as file:
        file.write('{"file": "removed.png", "decision": "keep"}\n')
    notes = read_review_set(photos, data=DataConfig()).notes

    assert "refused by curation and therefore not in this set: 1 (curation.jsonl says why)" in notes
    assert "measured in curation.jsonl and not in this set: 1 (removed.png)" in notes
    assert "captions that cannot be read: 1 (5.txt)" in notes
    (photos / "curation.jsonl").write_text('{"name": "0.png"}\n')
    with pytest.raises(UserError, match=r"curation\.jsonl, row 1: `file`"):
        read_review_set(photos, data=DataConfig())
