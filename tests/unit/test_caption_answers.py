"""What a model answered: chatter is taken off, and what is no description is told from what is one."""

import pytest

from brushwork.captioning import answers

LATIN = {"LATIN"}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("The image shows a boy on a beach.", "a boy on a beach."),
        ("In this image, a boy runs.", "a boy runs."),
        ("This is a picture of a fox", "a fox"),
        ("Sure! Here is the caption: A fox runs.", "A fox runs."),
        ("Description: **A fox**\n\nIt runs.", "A fox It runs."),
        ("<think>a fox? yes</think>\nA fox", "A fox"),
        ("A fox<|im_end|>", "A fox"),
        ('"A fox, running."', "A fox, running."),
        ("```text\nA fox\n```", "A fox"),
        ("Here is a boy, running", "Here is a boy, running"),
        ("The picture on the wall shows a cat", "The picture on the wall shows a cat"),
        ("The scene is bright", "The scene is bright"),
        ("The fox\u2019s hat", "The fox's hat"),
    ],
)
def test_chatter_is_taken_off_and_nothing_else(answer: str, text: str) -> None:
    assert answers.cleaned(answer) == text


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I cannot help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "Sorry, no.",
        "I am unable to identify people.",
        "As an AI, I do not see pictures.",
        "I can't see any image.",
        "There was no image provided.",
        "Please upload the image.",
        "Unfortunately, this cannot be described.",
        "I cannot provide a description of this person",
    ],
)
def test_a_refusal_is_told(answer: str) -> None:
    assert answers.is_refusal(answers.cleaned(answer))


@pytest.mark.parametrize(
    "answer",
    [
        "A sad fox who cannot reach the apple",
        "A boy holds a sign that says sorry",
        "A girl, unable to stop laughing, sits on a bench",
        "An AI robot in a forest",
        "A provided image of nothing",
        "Ice cream in the hand of a fox",
    ],
)
def test_a_description_that_sounds_like_one_is_no_refusal(answer: str) -> None:
    assert not answers.is_refusal(answer)


def test_an_answer_that_was_cut_keeps_its_whole_sentences_else_its_whole_phrases() -> None:
    assert answers.whole_part("A fox runs. It is ni") == "A fox runs."
    assert answers.whole_part("a fox, in a red coat, on a mea") == "a fox, in a red coat"
    assert answers.whole_part("a fox on a mea") == ""


def test_letters_of_another_script_are_told_and_a_single_one_on_a_sign_is_not() -> None:
    assert answers.foreign_letters("A caf\u00e9 in Krak\u00f3w", LATIN) == ""
    assert answers.foreign_letters("a door with \u798f on it", LATIN) == ""
    assert answers.foreign_letters("\u4e00\u53ea\u72d0\u72f8", LATIN) == "\u4e00\u53ea\u72d0\u72f8"
    assert answers.foreign_letters("\u043b\u0438\u0441\u0430", {"CYRILLIC"}) == ""


def test_a_model_that_goes_round_in_circles_is_told() -> None:
    assert answers.circles("a fox with a hat with a hat with a hat") == "with a hat"
    assert answers.circles("very very very very red") == "very"
    assert answers.circles("smiling, full body, smiling, full body, smiling, full body") == "smiling full body"
    assert answers.circles("very very very red") is None
    assert answers.circles("a red fox with a hat, a red fox with a smile, a red fox with soft light") is None
    assert answers.circles("a fox in a red coat, on a meadow, in the rain, in the evening") is None
    assert answers.said_twice("a red fox, on a meadow, a red fox") == ["a red fox"]
    assert answers.said_twice("red, blue, red") == []


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("A fox sits on a", "A fox sits on a"),
        ("luca, He holds his, film quality", "He holds his"),
        ("a fox wearing", "a fox wearing"),
        ("a fox, in the rain,", "in the rain"),
        ("a fox (small", "a fox (small"),
        ("A fox sits on a bench. It looks at the", "It looks at the"),
        ("a fox on a meadow, smiling, portrait", None),
        ("a fox to look at", "a fox to look at"),
        ("an apple that he is fond of", "an apple that he is fond of"),
        ("A fox. It rains.", None),
        ("The bench that it sits on.", None),
        ("The bench that it sits on", "The bench that it sits on"),
        ("", None),
        ("the", None),
    ],
)
def test_a_sentence_that_breaks_off_is_told(text: str, phrase: str | None) -> None:
    assert answers.cut_off(text) == phrase


def test_marks_of_a_conversation_are_told() -> None:
    assert answers.has_remains("a fox<|im_end|>")
    assert answers.has_remains('{"caption": "a fox"}')
    assert answers.has_remains("assistant: a fox")
    assert not answers.has_remains("a fox, 5 < 6, {a|b}")
