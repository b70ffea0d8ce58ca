"""The command line: what it answers to right and wrong words, and its exit codes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from brushwork import __version__
from brushwork.cli import errors
from brushwork.cli.app import app, main
from brushwork.config.load import recipe_names
from brushwork.errors import UserError
from brushwork.machine import EXTRAS, GIB, examine, runs_on, suited_recipe

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def brushwork(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        out, err = capfd.readouterr()
        return int(str(end.value.code)), out, err

    return run


def test_no_words_print_the_help(brushwork: Any) -> None:
    code, out, _ = brushwork()
    assert code == 0
    assert all(command in out for command in COMMANDS)


def test_the_version_is_printed(brushwork: Any) -> None:
    assert brushwork("--version") == (0, f"brushwork {__version__}\n", "")


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brushwork", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"brushwork {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, brushwork: Any) -> None:
    code, out, _ = brushwork(command, "--help")
    assert code == 0
    assert "Example: brushwork" in " ".join(out.split()) or "Commands" in out


def test_a_mistyped_command_leads_to_the_right_one(brushwork: Any) -> None:
    code, _, err = brushwork("recpies")
    assert code == 2
    assert "recipes" in err
    assert "fix: brushwork --help" in err


def test_a_mistyped_option_exits_with_2(brushwork: Any) -> None:
    code, _, err = brushwork("recipes", "--jsno")
    assert code == 2
    assert err.startswith("error: ")
    assert "fix: brushwork recipes --help" in err


def test_underscores_are_taken_for_dashes(brushwork: Any) -> None:
    assert brushwork("recipes", "sdxl_standard") == brushwork("recipes", "sdxl-standard")


def test_a_user_error_exits_with_1_and_a_fix(brushwork: Any) -> None:
    code, out, err = brushwork("recipes", "sdxl-standart")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is no recipe 'sdxl-standart'")
    assert "  fix: --recipe sdxl-standard" in err
    assert "Traceback" not in err


def test_brackets_and_long_lines_of_an_error_come_out_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError(
            "[lora] of " + "a/long/path/" * 20 + " is [bold]wrong[/bold]\nsecond", fix="pip 'brushwork[x]'"
        )

    assert errors.exit_code(fail, debug=False) == 1
    err = capfd.readouterr().err
    assert (
        err
        == "error: [lora] of " + "a/long/path/" * 20 + " is [bold]wrong[/bold]\n  second\n  fix: pip 'brushwork[x]'\n"
    )


def test_an_unexpected_error_leaves_its_traceback_in_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    assert errors.exit_code(fail, debug=False) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: ZeroDivisionError: by zero")
    assert "Traceback" not in err
    file = Path(re.search(r"traceback is in (\S+)", err)[1])  # type: ignore[index]
    assert "raise ZeroDivisionError" in file.read_text()
    file.unlink()


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError("wrong")

    assert errors.exit_code(fail, debug=True) == 1
    assert "Traceback" in capfd.readouterr().err


def test_debug_may_stand_anywhere(brushwork: Any) -> None:
    code, _, err = brushwork("recipes", "nothing", "--debug")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interruption_exits_with_130(error: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert errors.exit_code(fail, debug=False) == 130
    assert capfd.readouterr().err == "error: interrupted.\n"


def test_a_reader_that_goes_away_is_no_fault() -> None:
    done = subprocess.run(
        f"{sys.executable} -m brushwork recipes --settings | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stdout == 'name = "lora"\n'
    assert done.stderr == ""


def test_recipes_are_listed_and_shown(brushwork: Any) -> None:
    _, out, _ = brushwork("recipes")
    assert all(name in out for name in recipe_names())
    _, out, _ = brushwork("recipes", "tiny")
    assert tomllib.loads(out)["lora"]["rank"] == 8
    assert re.search(r"lora.rank +16 -> 8", out)


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "tiny"], ["recipes", "--settings"], ["doctor"]])
def test_json_is_json_alone(words: list[str], brushwork: Any) -> None:
    code, out, err = brushwork(*words, "--json")
    assert code in (0, 1)  # doctor: 1 where something is wrong with this machine
    assert json.loads(out)
    assert err == ""


def test_doctor_looks_at_what_matters() -> None:
    about = [finding.about for finding in examine()]
    for name in ["Python", "torch", "attention", "memory", "disk", "transformers", "[quantize]", "hub", "recipe"]:
        assert name in about


def test_doctor_knows_every_extra_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev", "full"}


def test_doctor_asks_nothing_of_the_hub_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert any(finding.about == "hub" for finding in examine(online=False))


@pytest.mark.parametrize(
    ("capability", "compiled_for", "runs"),
    [
        ((8, 6), ["sm_80", "sm_90"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "sm_120"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((6, 1), ["sm_75", "compute_75"], False),
    ],
)
def test_code_for_an_architecture_runs_where_nvidia_says(
    capability: tuple[int, int], compiled_for: list[str], runs: bool
) -> None:
    assert runs_on(capability, compiled_for) is runs


@pytest.mark.parametrize(
    ("memory", "words"),
    [(None, "tiny"), (23.6, "sdxl-standard"), (11.8, "just"), (7.8, "512"), (5.8, "not recommended")],
)
def test_the_recipe_follows_from_the_card(memory: float | None, words: str) -> None:
    assert words in suited_recipe(None if memory is None else int(memory * GIB)).found
