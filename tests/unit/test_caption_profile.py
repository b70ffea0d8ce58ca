"""The profile of a character: what is in the file counts, what cannot be meant is named with a way out."""

from pathlib import Path

import pytest

from brushwork.captioning.profile import NEW_PROFILE, Profile, Template, read_profile, write_new_profile
from brushwork.captioning.template import compose, fitted, prompt, room
from brushwork.errors import UserError


def words(text: str) -> int:
    return len(text.split())


def written(folder: Path, text: str) -> Path:
    file = folder / "luca.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_new_profile_is_a_whole_one_and_is_never_written_over_another(tmp_path: Path) -> None:
    file = tmp_path / "luca.yaml"
    write_new_profile(file)

    profile = read_profile(file)

    assert file.read_text() == NEW_PROFILE
    assert profile.fixed("prefix") == "luca, a 3d animated character"
    assert profile.order == ("prefix", "rendering", "description", "pose", "lighting", "suffix")
    assert set(profile.questions) == set(Profile().questions)
    assert {**profile.questions} == {**Profile().questions}
    with pytest.raises(UserError, match="is there already"):
        write_new_profile(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("triger: mia", r"triger is unknown.*\n.*did you mean trigger\?"),
        ("template: {prefx: mia}", r"template\.prefx is unknown.*\n.*did you mean prefix\?"),
        ("trigger: mia\ntemplate: {prefix: a girl}", "trigger 'mia' stands in neither prefix, rendering nor suffix"),
        ("template: {order: [prefix, descripton]}", "'descripton' is neither a question.*did you mean 'description'"),
        ("template: {order: [prefix, prefix, description, pose, lighting]}", "'prefix' stands there twice"),
        ("template: {order: [description]}", "answer to the question 'pose' is not in it"),
        ("questions: {suffix: what}", "'suffix' is the name of a part"),
        ("questions: {}", "questions: "),
        ("languages: [english]", "'english' is not known; there are ar, de"),
        ("must: [cat]\nmust_not: [Cat]", "'Cat' stands under must as well"),
        ("template: {prefix: an anime girl}\nmust_not: [anime]", "'anime' stands in the template itself"),
        ("base: sd3", r"base: Input should be 'sd15' or 'sdxl'"),
        ("max_tokens: many", r"max_tokens: .*integer"),
        ("prefix: a: b: c", r"line 1: not YAML"),
        ("- a\n- b", "expected keys and values, found list"),
        ("", "expected keys and values, found nothing"),
    ],
)
def test_what_cannot_be_meant_is_named_with_the_file_and_the_key(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told) as error:
        read_profile(written(tmp_path, text))
    assert "luca.yaml" in str(error.value)


def test_a_profile_that_is_not_there_or_not_utf8_is_told_with_what_to_type(tmp_path: Path) -> None:
    written(tmp_path, "name: Luca")
    with pytest.raises(UserError, match=r"did you mean .*luca\.yaml"):
        read_profile(tmp_path / "lucas.yaml")
    (tmp_path / "luca.yaml").write_bytes("name: L\u00fcca".encode("cp1252"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_profile(tmp_path / "luca.yaml")


def test_one_word_may_stand_where_a_list_may_and_nothing_after_a_key_means_nothing(tmp_path: Path) -> None:
    profile = read_profile(written(tmp_path, "must_not: anime\nlanguages: de\nmust:\ntemplate: {rendering: film}\n"))

    assert (profile.must_not, profile.languages, profile.must) == (("anime",), ("de",), ())
    assert profile.fixed("rendering") == "film"


def test_a_question_tells_the_facts_the_words_to_avoid_and_how_much_room_there_is() -> None:
    profile = Profile(
        name="Luca",
        trigger="luca",
        facts={"hair_colour": "brown", "clothes": ("white shirt", "blue shorts")},
        must=("boy",),
        must_not=("anime",),
        languages=("de",),
    )

    asked = prompt(profile, "description", count=words)

    assert "what Luca does" in asked
    assert "- hair colour: brown\n- clothes: white shirt, blue shorts" in asked
    assert "Use these words: boy." in asked
    assert "Do not use these words: anime." in asked
    assert "Answer in German" in asked
    assert "{" not in asked
    assert "Use these words" not in prompt(profile, "pose", count=words)


def test_the_room_of_all_answers_fills_what_is_best_for_the_base() -> None:
    small, large = Profile(base="sd15"), Profile(base="sdxl")
    total = sum(room(small, part, count=words) for part in small.questions)

    assert total * 1.4 == pytest.approx(75, abs=5)
    assert room(small, "description", count=words) == pytest.approx(3 * room(small, "pose", count=words), abs=2)
    assert sum(room(large, part, count=words) for part in large.questions) * 1.4 == pytest.approx(225, abs=5)


def test_a_caption_is_its_parts_in_the_order_of_the_template() -> None:
    profile = Profile(
        trigger="luca",
        template=Template(
            prefix="{trigger}, a boy",
            rendering=("film", "soft"),
            suffix="4k.",
            order=("prefix", "pose", "rendering", "suffix", "description", "lighting"),
        ),
    )

    told = compose(profile, {"description": "He runs. It rains.", "pose": "running,", "lighting": " "})

    assert told.text == "luca, a boy, running, film, soft, 4k, He runs. It rains"


def test_a_caption_that_is_too_long_loses_the_last_phrases_of_its_longest_answers_and_never_the_template() -> None:
    profile = Profile(trigger="luca", template=Template(prefix="luca", suffix="the end"))
    answers = {
        "description": "one " * 40 + "here, " + "two " * 30 + "there. " + "three " * 30,
        "pose": "standing, smiling",
        "lighting": "soft light",
    }

    told = fitted(profile, answers, count=words)

    assert words(told.text) <= 75
    assert told.text.startswith("luca, one")
    assert told.text.endswith("here, standing, smiling, soft light, the end")
    assert [phrase.split()[0] for phrase in told.left_out] == ["three", "two"]
    short = {"description": "a fox", "pose": "standing", "lighting": "day"}
    assert fitted(profile, short, count=words).left_out == ()
    endless = {"description": "word " * 90, "pose": "", "lighting": ""}
    assert fitted(profile, endless, count=words).text == compose(profile, endless).text  # half a phrase lies
