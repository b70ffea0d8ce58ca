"""Prompts are read as people wrote them, for kohya's trainer or plainly, and nothing in them is ignored."""

from pathlib import Path

import pytest

from brushwork.diffusion.samplers import SAMPLERS
from brushwork.errors import UserError
from brushwork.generation.pictures import A1111_SAMPLERS
from brushwork.generation.prompts import (
    SAMPLER_NAMES,
    Request,
    choose,
    known_sampler,
    parse_line,
    parse_size,
    read_lines,
    read_prompts,
)

DEFAULTS = Request(prompt="", width=512, height=512, seed=100, negative="ugly")


def write(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_line_takes_everything_else_from_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "a corgi\n\n# a comment\n  two corgis  \n")
    first = Request(prompt="a corgi", width=512, height=512, seed=100, negative="ugly")
    second = Request(prompt="two corgis", width=512, height=512, seed=101, negative="ugly")
    assert read_prompts(path, DEFAULTS) == [first, second]


def test_every_flag_of_kohya_is_understood(tmp_path: Path) -> None:
    line = "a corgi, on the beach --n blurry, dark --w 768 --h 640 --d 7 --s 30 --l 6.5 --ss euler_a\n"
    assert read_prompts(write(tmp_path, line), DEFAULTS) == [
        Request("a corgi, on the beach", 768, 640, 7, "blurry, dark", 30, 6.5, "euler_ancestral")
    ]


def test_a_prompt_that_begins_like_a_flag_stays_a_prompt() -> None:
    line = parse_line("n 5 dogs -- and a cat, a sci-fi--like scene --d 3")
    assert line.prompt == "n 5 dogs -- and a cat, a sci-fi--like scene"
    assert dict(line.given) == {"seed": 3}


def test_a_negative_prompt_may_be_emptied_by_a_line() -> None:
    assert parse_line("a corgi --n --w 64").request(DEFAULTS).negative == ""


def test_every_unicode_prompt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffein Käfer, 犬\r\neine Biene\r\n".encode())
    assert [line.prompt for line in read_lines(path)] == ["ein Käfer, 犬", "eine Biene"]


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a corgi\na caf\xe9\n")
    with pytest.raises(UserError, match=r"prompts\.txt, line 2: not UTF-8"):
        read_lines(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a corgi --q 5", r"line 3: unknown flag --q"),
        ("a corgi --height 5", r"line 3: unknown flag --height; did you mean --h\?"),
        ("a corgi --cn pose.png", r"line 3: --cn is a ControlNet picture"),
        ("a corgi --w wide", r"line 3: --w 'wide' is not a whole number"),
        ("a corgi --w 64 --w 128", r"line 3: --w stands there twice"),
        ("--w 64", r"line 3: there are flags but no prompt"),
        ("a corgi --w 500", r"line 3: width 500 is no multiple of 8[^@]*width 496"),
        ("a corgi --h 99999", r"line 3: height 99999 is not between"),
        ("a corgi --s 0", r"line 3: 0 steps"),
        ("a corgi --l -1", r"line 3: guidance -1.0"),
        ("a corgi --d -5", r"line 3: seed -5"),
        ("a corgi --ss eular", r"line 3: there is no sampler 'eular'[^@]*did you mean euler"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f"a dog\n# a comment\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_prompts(path, DEFAULTS)
    assert caught.match(message)


def test_a_file_without_prompts_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prompt"):
        read_lines(write(tmp_path, "# nothing\n"))
    with pytest.raises(UserError, match="there is no prompt file"):
        read_lines(tmp_path / "missing.txt")


def test_the_toml_and_json_forms_of_kohya_are_read(tmp_path: Path) -> None:
    toml = """
    [prompt]
    width = 256
    negative_prompt = "blurry"
    [[prompt.subset]]
    prompt = "a corgi"
    seed = 5
    [[prompt.subset]]
    prompt = "a cat"
    scale = 3
    """
    json = """["a corgi --w 256 --d 5 --n blurry",
    {"prompt": "a cat", "width": 256, "scale": 3, "negative_prompt": "blurry"}]"""
    expected = [Request("a corgi", 256, 512, 5, "blurry"), Request("a cat", 256, 512, 101, "blurry", guidance=3.0)]
    assert read_prompts(write(tmp_path, toml, "p.toml"), DEFAULTS) == expected
    assert read_prompts(write(tmp_path, json, "p.json"), DEFAULTS) == expected
    with pytest.raises(UserError, match=r"prompt 1: unknown key 'widht'; did you mean 'width'"):
        read_lines(write(tmp_path, '[{"prompt": "a", "widht": 3}]', "q.json"))


def test_without_a_number_of_pictures_the_file_is_drawn_in_its_order() -> None:
    lines = [parse_line("a"), parse_line("b"), parse_line("c --d 7")]
    requests = choose(lines, DEFAULTS, num_images=None)
    assert [(request.prompt, request.seed) for request in requests] == [("a", 100), ("b", 101), ("c", 7)]


def test_prompts_are_shuffled_by_the_seed_and_each_is_used_once_a_round() -> None:
    lines = [parse_line(letter) for letter in "abcdefgh"]
    requests = choose(lines, DEFAULTS, num_images=20)
    prompts = [request.prompt for request in requests]
    assert len(prompts) == 20
    assert sorted(prompts[:8]) == sorted(prompts[8:16]) == list("abcdefgh")
    assert prompts[:8] not in (list("abcdefgh"), prompts[8:16])
    assert [request.seed for request in requests] == list(range(100, 120))
    assert choose(lines, DEFAULTS, num_images=20) == requests
    other = Request(prompt="", width=512, height=512, seed=101)
    assert [request.prompt for request in choose(lines, other, num_images=20)] != prompts


def test_a_line_with_its_own_seed_still_gives_different_pictures_when_repeated() -> None:
    requests = choose([parse_line("a --d 5")], DEFAULTS, num_images=3)
    assert [request.seed for request in requests] == [5, 6, 7]


def test_sizes_are_width_by_height() -> None:
    assert parse_size("768x512") == (768, 512)
    assert parse_size("512") == (512, 512)
    with pytest.raises(UserError, match="is not a size"):
        parse_size("768x")


def test_samplers_of_other_programs_are_known_by_their_names() -> None:
    assert known_sampler("euler_a") == "euler_ancestral"
    assert known_sampler("DPM++ 2M") == "dpmpp_2m"
    with pytest.raises(UserError, match="there is no sampler 'heun'"):
        known_sampler("heun")


def test_a_request_survives_its_json() -> None:
    request = Request("a", 64, 128, 5, "b", 3, 1.5, "ddim")
    assert Request.from_json({**request.to_json(), "more": 1}) == request


def test_the_settings_the_samplers_and_the_files_know_the_same_names() -> None:
    assert SAMPLER_NAMES == SAMPLERS == tuple(A1111_SAMPLERS)
