"""Captioning a folder: what has words keeps them, what has none gets some, and nothing is lost by a kill."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.caption_server import CaptionServer, Says
from brushwork.captioning.captioner import Asked, NoAnswerError, Reply
from brushwork.captioning.edits import undo_last_edit
from brushwork.captioning.history import RUNNING
from brushwork.captioning.profile import Profile, Template
from brushwork.captioning.run import Captioned, caption
from brushwork.config.schema import DataConfig
from brushwork.errors import UserError
from brushwork.records import read_rows
from several_processes import together

PROFILE = Profile(
    trigger="luca",
    must_not=("anime",),
    template=Template(prefix="luca, a 3d animated character", rendering=("film quality",)),
    questions={"description": "What?", "pose": "Which pose?"},
)
Answer = Callable[[Asked, int], Reply | str]


class Teller:
    """Says what a function tells it to; counts how often it was asked about each picture and part."""

    name = "teller"
    num_workers = 1

    def __init__(self, answer: Answer | None = None, *, batch_size: int = 2, takes_questions: bool = True) -> None:
        self.answer = answer or (lambda asked, time: f"{asked.part} of {asked.name}")
        self.batch_size = batch_size
        self.takes_questions = takes_questions
        self.asked: list[Asked] = []

    def prepare(self, picture: Image.Image) -> Image.Image:
        return picture

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        replies = []
        for each in asked:
            before = sum((one.name, one.part) == (each.name, each.part) for one in self.asked)
            self.asked.append(each)
            said = self.answer(each, before)
            replies.append(Reply(said) if isinstance(said, str) else said)
        return replies

    def stop(self) -> None:
        pass


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures: two without a caption, one with an empty file, one with its own, one told in metadata.jsonl."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png", "e.png")):
        Image.new("RGB", (32 + number, 32), (number * 40, 0, 0)).save(folder / name)
    (folder / "c.txt").write_text("")
    (folder / "d.txt").write_text("a caption of mine\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "e.png", "text": "told elsewhere"}\n')
    return folder


def run(folder: Path, teller: Any = None, **given: Any) -> Captioned:
    return caption(folder, captioner=teller or Teller(), **{"profile": PROFILE, **given})


def texts(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in sorted(folder.rglob("*.txt"))}


def whole(name: str) -> str:
    return f"luca, a 3d animated character, film quality, description of {name}, pose of {name}\n"


def test_what_has_no_words_gets_some_and_what_has_keeps_its_own(photos: Path) -> None:
    done = run(photos)

    assert texts(photos) == {
        "a.txt": whole("a.png"),
        "c.txt": whole("c.png"),
        "d.txt": "a caption of mine\n",
        "sub/b.txt": whole("sub/b.png"),
    }
    assert (len(done.written), done.num_before, done.num_pictures, done.failed) == (3, 2, 5, {})
    assert not (photos / RUNNING).exists()
    row = next(row for row in read_rows(photos / "captions.jsonl") if row["picture"] == "c.png")
    assert (row["file"], row["before"], row["after"]) == ("c.txt", "", whole("c.png"))
    assert row["answers"] == {"description": "description of c.png", "pose": "pose of c.png"}
    assert run(photos, Teller(lambda asked, time: pytest.fail("nothing is left to ask"))).written == {}


def test_all_is_written_anew_where_it_is_asked_for_and_can_be_taken_back_byte_for_byte(photos: Path) -> None:
    before = texts(photos)

    run(photos, redo=True)
    assert texts(photos) == {
        f"{name[:-4]}.txt": whole(name) for name in ("a.png", "c.png", "d.png", "e.png", "sub/b.png")
    }
    again = run(photos, Teller(lambda asked, time: "another"), redo=True)  # a new run, not the end of the old one
    assert len(again.written) == 5

    undo_last_edit(photos, data=DataConfig())
    undo_last_edit(photos, data=DataConfig())
    assert texts(photos) == before


def test_refused_pictures_are_not_asked_about_and_unreadable_ones_are_told(photos: Path) -> None:
    (photos / "review.jsonl").write_text('{"file": "a.png", "decision": "refuse", "reason": "", "time": ""}\n')
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")

    done = run(photos)

    assert set(done.written) == {"c.png", "sub/b.png"}
    assert "a.png" in next(note for note in done.notes if "refused" in note)
    assert set(done.failed) == {"broken.png"}
    assert "damaged" in done.failed["broken.png"] or "not a picture" in done.failed["broken.png"]
    assert not (photos / "broken.txt").exists()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("", "an empty answer"),
        ("...", "an empty answer"),
        ("I'm sorry, I cannot assist with that.", "refused: I'm sorry"),
        (Reply("no", refused=True), "refused: no"),
        ("\u4e00\u53ea\u72d0\u72f8\u5728\u8349\u5730\u4e0a", "in another script"),
        ("a f\ufffdx", "characters that no text holds"),
        ("a hat, a hat, a hat, a hat, a hat, a hat", "round in circles"),
        (Reply("one fox on a mea", cut=True), "cut off before anything was said"),
    ],
)
def test_what_is_no_description_is_asked_again_and_never_becomes_a_caption(
    bad: Reply | str, told: str, photos: Path
) -> None:
    later = run(photos, Teller(lambda asked, time: bad if time < 2 and asked.part == "pose" else "a good answer"))
    assert later.failed == {}
    assert {row["tries"] for row in read_rows(photos / "captions.jsonl")} == {4}
    undo_last_edit(photos, data=DataConfig())

    teller = Teller(lambda asked, time: bad if (asked.name, asked.part) == ("a.png", "pose") else "a good answer")
    never = run(photos, teller)

    assert list(never.failed) == ["a.png"]
    assert told in never.failed["a.png"]
    assert never.failed["a.png"].startswith("pose: ")
    assert never.failed["a.png"].endswith("(3 times)")
    assert not (photos / "a.txt").exists()
    assert (photos / "c.txt").read_text().strip()
    temperatures = [each.temperature for each in teller.asked if (each.name, each.part) == ("a.png", "pose")]
    seeds = {each.seed for each in teller.asked}
    assert temperatures == [0.0, 0.7, 0.7]
    assert len(seeds) == len(teller.asked)
    assert run(photos).written == {"a.png": whole("a.png").strip()}  # the next run asks again


def test_a_word_that_must_not_appear_is_asked_away_and_else_left_for_the_checks(photos: Path) -> None:
    often = run(photos, Teller(lambda asked, time: "an anime boy" if time == 0 else "a boy"), dry_run=True)
    always = run(photos, Teller(lambda asked, time: "an anime boy"), dry_run=True)

    assert "anime" not in often.written["a.png"]
    assert "anime" in always.written["a.png"]


def test_a_cut_answer_loses_its_unfinished_phrase_and_one_with_none_gets_more_room(photos: Path) -> None:
    teller = Teller(lambda asked, time: Reply("A boy runs. He is on a", cut=True))
    assert "A boy runs, A boy runs" in run(photos, teller, dry_run=True).written["a.png"]

    teller = Teller(lambda asked, time: Reply("a boy run", cut=True) if time == 0 else "a boy runs")
    run(photos, teller, dry_run=True)
    assert [each.max_tokens for each in teller.asked if each.name == "a.png" and each.part == "pose"] == [160, 320]


def test_an_answer_that_says_nothing_leaves_its_part_out_and_a_description_may_not(photos: Path) -> None:
    none = run(photos, Teller(lambda asked, time: "None." if asked.part == "pose" else "a boy"), dry_run=True)
    never = run(photos, Teller(lambda asked, time: "none" if asked.part == "description" else "a boy"), dry_run=True)

    assert none.written["a.png"] == "luca, a 3d animated character, film quality, a boy"
    assert "nothing to say" in never.failed["a.png"]


def test_the_temperature_and_whether_long_captions_are_shortened_are_settings(photos: Path) -> None:
    warm = Teller()
    run(photos, warm, dry_run=True, overrides=["captioning.temperature=0.9", "train.seed=5"])
    assert {each.temperature for each in warm.asked} == {0.9}
    assert {each.seed for each in warm.asked}.isdisjoint(each.seed for each in _asked_by_default(photos))

    long = Teller(lambda asked, time: ", ".join(f"{asked.part} {number}" for number in range(40)))
    short = run(photos, long, dry_run=True)
    whole = run(photos, long, dry_run=True, overrides=["captioning.shorten=false"])
    assert "description 39" in whole.written["a.png"]
    assert "description 39" not in short.written["a.png"]
    assert "description 39" in short.shortened["a.png"]
    assert whole.shortened == {}


def _asked_by_default(photos: Path) -> list[Asked]:
    teller = Teller()
    run(photos, teller, dry_run=True)
    return teller.asked


def test_a_dry_run_shows_captions_and_writes_nothing(photos: Path) -> None:
    before = texts(photos)

    done = run(photos, dry_run=True, limit=2)

    assert list(done.written) == ["a.png", "c.png"]
    assert texts(photos) == before
    assert not (photos / "captions.jsonl").exists()
    assert not (photos / RUNNING).exists()


def test_a_model_that_only_describes_is_asked_once_and_that_is_told(photos: Path) -> None:
    teller = Teller(takes_questions=False)

    done = run(photos, teller)

    assert {each.part for each in teller.asked} == {"description"}
    assert done.written["a.png"] == "luca, a 3d animated character, film quality, description of a.png"
    assert "was not asked about: pose" in done.notes[-1]


def test_two_pictures_that_share_a_caption_file_get_one_caption(photos: Path) -> None:
    Image.new("RGB", (32, 32)).save(photos / "a.webp")

    done = run(photos)

    assert len({"a.png", "a.webp"} & set(done.written)) == 1


class KilledError(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("between", [False, True], ids=["in an answer", "between the row and the file"])
def test_a_killed_run_goes_on_where_it_was_and_is_taken_back_as_one(
    redo: bool, between: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = texts(photos)

    def kill(*given: Any) -> str:
        if between or given[0].name != "sub/b.png":
            return f"{given[0].part} of {given[0].name}"
        raise KilledError

    if between:
        from brushwork.captioning import run as module

        write, count = module.write_text, 0

        def write_two(path: Path, text: str) -> None:
            nonlocal count
            count += 1
            if count > 2:
                raise KilledError
            write(path, text)

        monkeypatch.setattr(module, "write_text", write_two)
    with pytest.raises(KilledError):
        run(photos, Teller(kill, batch_size=1), redo=redo)
    monkeypatch.undo()
    with (photos / "captions.jsonl").open("a") as history:
        history.write('{"file": "half a ro')  # what a kill in the middle of a write leaves
    num_done = len(read_rows(photos / "captions.jsonl"))
    assert num_done >= 2

    teller = Teller()
    run(photos, teller, redo=redo)

    wanted = {"a.png", "c.png", "sub/b.png"} | ({"d.png", "e.png"} if redo else set())
    assert {each.name for each in teller.asked} == wanted - {
        row["picture"] for row in read_rows(photos / "captions.jsonl")[:num_done]
    }
    assert texts(photos) == {**before, **{f"{name[:-4]}.txt": whole(name) for name in wanted}}
    undo_last_edit(photos, data=DataConfig())
    assert texts(photos) == before


def test_another_profile_is_another_run_and_not_the_end_of_the_killed_one(photos: Path) -> None:
    def kill(asked: Asked, time: int) -> str:
        if asked.name == "c.png":
            raise KilledError
        return "old"

    with pytest.raises(KilledError):
        run(photos, Teller(kill, batch_size=1), redo=True)

    done = run(photos, redo=True, profile=Profile(questions={"description": "What?"}))

    assert len(done.written) == 5


def test_a_server_captions_a_folder_with_many_requests_at_once(photos: Path) -> None:
    three = threading.Barrier(3, timeout=60)  # nobody gets an answer before three have asked

    def answer(number: int, body: dict[str, Any]) -> Says:
        three.wait()
        return Says(f"answer {number}")

    with CaptionServer(answer) as fake:
        done = caption(photos, profile=PROFILE, endpoints=[fake.url])

    assert set(done.written) == {"a.png", "c.png", "sub/b.png"}
    assert fake.most_at_once == 3
    assert done.by.startswith("a-model at http://127.0.0.1")
    assert len(fake.requests) == 6


def test_a_server_that_dies_ends_the_run_early_and_the_same_command_goes_on(tmp_path: Path) -> None:
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:02}.png")

    def answer(number: int, body: dict[str, Any]) -> Says:
        return Says("A fox") if number < 10 else Says("CUDA error", status=500)

    one = Profile(questions={"description": "What?"})
    quick = ["captioning.retries=1", "captioning.wait=0", "captioning.requests=2"]
    with CaptionServer(answer) as fake:
        with pytest.raises(UserError, match=r"6 pictures in a row got no answer.*CUDA error") as error:
            caption(tmp_path, profile=one, endpoints=[fake.url], overrides=quick)
        assert len(fake.requests) < 40
    assert "goes on with the pictures that have none" in str(error.value)
    num_written = len(texts(tmp_path))
    assert num_written == 10
    with CaptionServer(Says("A fox")) as fake:
        assert len(caption(tmp_path, profile=one, endpoints=[fake.url], overrides=quick).written) == 30
    assert set(texts(tmp_path).values()) == {"A fox\n"}


def test_single_failures_of_a_server_do_not_end_the_run(tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(tmp_path / f"{number:02}.png")
    with CaptionServer(lambda number, body: Says("too large", status=400) if number % 2 else Says("A fox")) as fake:
        done = caption(
            tmp_path,
            profile=Profile(questions={"description": "What?"}),
            endpoints=[fake.url],
            overrides=["captioning.requests=1"],
        )

    assert (len(done.written), len(done.failed)) == (6, 6)
    assert all("400 Bad Request: too large" in reason for reason in done.failed.values())


def test_a_wrong_key_ends_the_run_at_once_and_leaving_does_not_wait_for_the_server(photos: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Says:
        return Says("bad key", status=401) if number == 0 else Says(delay=5)

    with CaptionServer(answer) as fake:
        began = time.monotonic()
        with pytest.raises(UserError, match="refused no key"):
            caption(photos, profile=PROFILE, endpoints=[fake.url])
        assert time.monotonic() - began < 3


def test_a_captioner_that_knows_nothing_about_one_picture_does_not_stop_the_others(photos: Path) -> None:
    def answer(asked: Asked, time: int) -> str:
        if asked.name == "a.png":
            raise NoAnswerError("cannot be looked at")
        return "fine"

    done = run(photos, Teller(answer, batch_size=1))

    assert done.failed == {"a.png": "cannot be looked at"}
    assert len(done.written) == 2


def test_containers_cannot_be_captioned_and_an_empty_folder_is_told(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty").num_pictures == 0


def share_of(rank: int, folder: Path) -> dict[str, Any]:
    """One of two processes."""
    return json.loads(json.dumps(run(folder, Teller(batch_size=1)).record()))


def test_two_processes_share_the_pictures_and_their_rows_come_together(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(folder / f"{number:02}.png")

    first, second = together(share_of, folder)

    assert first["written"] == second["written"]
    assert texts(folder) == {f"{number:02}.txt": whole(f"{number:02}.png") for number in range(7)}
    assert sorted(row["picture"] for row in read_rows(folder / "captions.jsonl")) == [f"{n:02}.png" for n in range(7)]
    assert sorted(file.name for file in folder.glob("*.jsonl")) == ["captions.jsonl"]
    undo_last_edit(folder, data=DataConfig())
    assert texts(folder) == {}


def test_rows_that_a_killed_process_left_are_taken_over_once(photos: Path) -> None:
    run(photos)
    rows = read_rows(photos / "captions.jsonl")
    left = photos / "captions.rank1.jsonl"
    left.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], {**rows[1], "file": "d.txt", "before": "x"}]))
    Image.new("RGB", (8, 8)).save(photos / "z.png")
    with (photos / "captions.jsonl").open("a") as history:
        history.write('{"file": "half a ro')

    run(photos)

    files = [row["file"] for row in read_rows(photos / "captions.jsonl")]
    assert sorted(files) == sorted([*(row["file"] for row in rows), "d.txt", "z.txt"])
    assert not left.exists()


def test_a_picture_that_was_cropped_in_a_review_is_shown_to_the_model_as_it_is_trained_on(photos: Path) -> None:
    row = {"file": "a.png", "decision": "keep", "reason": "", "crop": [4, 2, 20, 30], "time": ""}
    (photos / "review.jsonl").write_text(json.dumps(row) + "\n")
    teller = Teller()

    run(photos, teller)

    sizes = {each.name: each.picture.size for each in teller.asked}
    assert (sizes["a.png"], sizes["c.png"]) == ((16, 28), (34, 32))
    (photos / "review.jsonl").write_text(json.dumps({**row, "crop": [0, 0, 500, 500]}) + "\n")
    with pytest.raises(UserError, match=r"review\.jsonl, line 1: the crop"):
        run(photos, redo=True)
