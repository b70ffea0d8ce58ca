"""What an evaluation reads: prompts, references, training pictures, pictures that are already drawn."""

import json
from pathlib import Path

import pytest
from PIL import Image

from brushwork.config.load import resolve
from brushwork.config.schema import EvaluationConfig
from brushwork.errors import UserError
from brushwork.evaluation.candidates import Folder
from brushwork.evaluation.prompts import cells, read_asked, without_trigger
from brushwork.evaluation.samples import common, read_samples
from brushwork.evaluation.subjects import read_subjects
from brushwork.film.frames import draw_folder, draw_frame
from brushwork.generation.prompts import Request

DEFAULTS = Request(prompt="", width=64, height=64, seed=500)


def test_thirty_prompts_of_nine_kinds_come_with_brushwork() -> None:
    asked = read_asked(None, trigger="luca")
    kinds = [each.kind for each in asked]
    assert len(asked) == 30
    assert len({each.text for each in asked}) == 30
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **dict.fromkeys(
            ("portrait", "full body", "angle", "place", "expression", "action", "clothes", "light", "composition"), 3
        ),
        "and more": 3,
    }
    assert all("luca" in each.text and "{trigger}" not in each.text for each in asked)
    assert not any("luca" in each.plain or "{trigger}" in each.plain for each in asked)


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("close-up portrait of {trigger}, smiling", "close-up portrait, smiling"),
        ("{trigger} at sunset", "at sunset"),
        ("portrait of sun at sunset, Sun", "portrait at sunset"),
        ("{trigger}", "{trigger}"),
    ],
)
def test_the_trigger_is_taken_out_of_what_is_asked_about(prompt: str, plain: str) -> None:
    assert without_trigger(prompt, "sun") == plain


def test_prompts_with_a_mark_need_a_trigger(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing says which word calls the subject"):
        read_asked(None, trigger="")
    (tmp_path / "own.txt").write_text("a red fox --w 96\n")
    assert [each.text for each in read_asked(tmp_path / "own.txt", trigger="")] == ["a red fox"]


def test_every_candidate_draws_the_same_seeds_and_flags_are_kept(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("# portrait\n{trigger} smiling --w 96 --n blurry\n# light\n{trigger} --d 7\n")
    asked = read_asked(tmp_path / "own.txt", trigger="luca")
    found = cells(asked, DEFAULTS, EvaluationConfig(seeds=3))
    assert [each.kind for each in asked] == ["portrait", "light"]
    assert [(cell.prompt, cell.request.seed) for cell in found] == [
        (0, 500),
        (0, 501),
        (0, 502),
        (1, 7),
        (1, 8),
        (1, 9),
    ]
    assert (found[0].request.width, found[0].request.negative, found[0].request.prompt) == (
        96,
        "blurry",
        "luca smiling",
    )


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film") / "training"
    draw_folder(folder, count=5, size=64, seed=1)
    return folder


def test_references_that_were_trained_on_are_refused(training: Path, tmp_path: Path) -> None:
    draw_folder(tmp_path / "references", count=3, size=64, seed=50)
    held_out = read_subjects(None, references=tmp_path / "references", training=training)
    assert (len(held_out.references), len(held_out.training)) == (3, 5)

    (tmp_path / "references" / "twin.png").write_bytes((training / "00002.png").read_bytes())
    with pytest.raises(UserError, match=r"1 of 4 references were trained on \(twin\.png is 00002\.png\)"):
        read_subjects(None, references=tmp_path / "references", training=training)


def test_held_out_pictures_that_a_run_also_learned_from_are_refused_as_references(
    training: Path, tmp_path: Path
) -> None:
    (tmp_path / "heldout").mkdir()
    for name in ("00001.png", "00002.png", "00003.png"):
        (tmp_path / "heldout" / name).write_bytes((training / name).read_bytes())

    def run(held_out: str) -> Folder:
        settings = resolve(overrides=[f"validation.data={held_out!r}"]).settings
        return Folder(tmp_path, settings, {"data": str(training)})

    shared = read_subjects(run("0.6"), references=None, training=None)
    assert (len(shared.references), len(shared.training)) == (3, 2)
    with pytest.raises(UserError, match="3 of 3 references were trained on"):
        read_subjects(run(str(tmp_path / "heldout")), references=None, training=None)


def test_a_training_picture_that_was_saved_anew_and_mirrored_is_found(training: Path, tmp_path: Path) -> None:
    draw_folder(tmp_path / "references", count=3, size=64, seed=50)
    with Image.open(training / "00003.png") as image:
        small = image.convert("RGB").resize((80, 80)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    small.save(tmp_path / "references" / "hidden.jpg", quality=80)
    with pytest.raises(UserError, match=r"hidden\.jpg is nearly 00003\.png") as error:
        read_subjects(None, references=tmp_path / "references", training=training)
    assert "learned its pictures by heart would win" in error.value.problem


def test_without_references_and_without_held_out_pictures_it_is_said_what_to_name(training: Path) -> None:
    with pytest.raises(UserError, match="there are no references") as error:
        read_subjects(None, references=None, training=training)
    assert error.value.fix is not None
    assert error.value.fix.startswith("--references DIR")


def test_two_references_are_too_few(training: Path, tmp_path: Path) -> None:
    draw_folder(tmp_path / "references", count=2, size=64, seed=50)
    with pytest.raises(UserError, match="with fewer than 3 nothing can be said"):
        read_subjects(None, references=tmp_path / "references", training=training)


def sample(file: Path, seed: int, prompt: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draw_frame(seed, 64)[0].save(file)
    if prompt is not None:
        file.with_suffix(".txt").write_text(prompt + "\n")


def test_samples_of_a_run_are_candidates_by_folder(tmp_path: Path) -> None:
    for occasion in ("base", "000010-epoch", "000002-epoch"):
        for number in range(2):
            sample(
                tmp_path / occasion / f"0000{number + 1}-seed{7 + number}-prompt{number + 1}.png",
                number,
                f"p {number}",
            )
    sample(tmp_path / "000010-epoch" / "00003-seed9-prompt3.png", 3, "p 3")
    sample(tmp_path / "sheet.png", 1)
    found = read_samples(tmp_path)
    assert [(each.name, each.epoch) for each in found] == [("base", None), ("000002-epoch", 2), ("000010-epoch", 10)]
    keys, notes = common(found)
    assert keys == [("p 0", 7), ("p 1", 8)]
    assert notes == ["2 of 3 prompts and seeds were drawn by all; the others are left out"]


def test_samples_of_kohyas_trainer_are_candidates_by_epoch(tmp_path: Path) -> None:
    for epoch in (1, 2):
        for number in range(2):
            sample(
                tmp_path / f"luca_e{epoch:06d}_{number:02d}_2026010112{epoch:02d}{number:02d}_{42 + number}.png",
                number,
            )
    found = read_samples(tmp_path)
    assert [each.epoch for each in found] == [1, 2]
    keys, _ = common(found)
    assert keys == [("prompt 1", 42), ("prompt 2", 43)]
    assert not any(each.known for samples in found.values() for each in samples)


def test_seed_and_words_are_read_from_what_brushwork_writes_beside_a_picture(tmp_path: Path) -> None:
    sample(tmp_path / "00000.png", 1)
    (tmp_path / "00000.json").write_text(json.dumps({"prompt": "a fox", "seed": 12}))
    (only,) = next(iter(read_samples(tmp_path).values()))
    assert (only.prompt, only.seed, only.known) == ("a fox", 12, True)


def test_samples_that_share_no_prompt_cannot_be_compared(tmp_path: Path) -> None:
    sample(tmp_path / "one" / "a.png", 1, "a fox")
    sample(tmp_path / "two" / "a.png", 1, "a bear")
    with pytest.raises(UserError, match="no prompt and seed was drawn by all of one, two"):
        common(read_samples(tmp_path))
