"""The command line: what it answers to right and wrong words, and its exit codes."""

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import brushwork as package
from brushwork import __version__
from brushwork.cache.store import Store
from brushwork.cli import errors
from brushwork.cli.app import app, main
from brushwork.cli.train import describe, next_command
from brushwork.config.load import recipe_names, resolve, to_toml
from brushwork.errors import UserError
from brushwork.lora.files import read_adapter, write_adapter
from brushwork.lora.layers import LoRAWeights
from brushwork.lora.names import unet_layers
from brushwork.lora.state import AdapterState
from brushwork.machine import EXTRAS, GIB, _card, examine, runs_on, suited_recipe
from brushwork.models.spec import TINY
from brushwork.training.checkpoint import Position, State, write_state
from brushwork.training.run import RunResult

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


def test_the_verbs_can_be_called_from_python() -> None:
    for name in set(package.__all__) - {"__version__"}:
        assert callable(getattr(package, name))
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        package.trian  # noqa: B018


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


def test_an_option_without_its_value_leads_to_the_help_of_the_command(brushwork: Any) -> None:
    code, _, err = brushwork("train", "photos", "--recipe")
    assert code == 2
    assert "fix: brushwork train --help" in err


def test_underscores_are_taken_for_dashes(brushwork: Any, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert brushwork("train", missing, "--accept_changes") == brushwork("train", missing, "--accept-changes")
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
    assert capfd.readouterr().err == "error: interrupted; what was saved before is unharmed.\n"


def test_an_interruption_that_typer_swallowed_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert errors.exit_code(lambda: 130, debug=False) == 130
    assert "interrupted" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "place", "words"),
    [
        (errno.EACCES, "photos/[x]/a.txt", ["photos/[x]/a.txt: Permission denied", "fix: choose another place"]),
        (errno.ENOSPC, None, ["No space left on device", "fix: make room"]),
        (errno.ENOENT, "Z:/runs", ["Z:/runs: No such file or directory", "fix: look whether the place"]),
    ],
)
def test_what_the_system_refuses_is_told_with_its_place_and_no_traceback(
    number: int, place: str | None, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise OSError(number, "whatever", place)

    assert errors.exit_code(command, debug=False) == 1
    err = capfd.readouterr().err
    assert all(word in err for word in words)
    assert "fault of Brushwork" not in err


def test_a_run_without_a_step_is_json_that_every_program_reads(tmp_path: Path) -> None:
    stopped = replace(ended(tmp_path), step=0, smoothed_loss=float("nan"), adapter=None)

    text = json.dumps(describe(stopped), allow_nan=False)

    assert json.loads(text)["smoothed_loss"] is None
    assert json.loads(text)["curve"] is None


def ended(run: Path) -> RunResult:
    """A run with all its steps done."""
    return RunResult(
        run,
        step=60,
        total_steps=60,
        smoothed_loss=0.1,
        ended=None,
        adapter=run / "fox.safetensors",
        curve=run / "loss.png",
        samples=None,
        mode="lora",
        num_held_out=3,
    )


def test_a_run_that_has_ended_names_what_finds_its_best_file(tmp_path: Path) -> None:
    result = ended(tmp_path)

    assert str(next_command(result)).startswith(f"brushwork evaluate {tmp_path}, ")
    few = str(next_command(replace(result, num_held_out=2)))  # evaluate would refuse so few
    assert few.startswith(f"brushwork evaluate {tmp_path} --references DIR, ")
    whole = f"brushwork generate --base {result.adapter} --prompt TEXT --out DIR"
    assert next_command(replace(result, mode="full")) == whole
    report = tmp_path / "evaluation" / "report.json"
    report.parent.mkdir()
    report.write_text('{"candidates": [{"name": "fox", "also": []}]}')
    assert next_command(result) is None


def test_a_reader_that_goes_away_is_no_fault() -> None:
    done = subprocess.run(
        f"{sys.executable} -m brushwork recipes --settings | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stdout == 'name = "lora"\n'
    assert done.stderr == ""


def test_recipes_are_listed_and_shown(brushwork: Any) -> None:
    _, out, _ = brushwork("recipes")
    assert all(name in out for name in recipe_names())
    assert re.search(r"sdxl-standard +16 GB +13-14 GB +4-6 hours \* +One subject", out)
    assert "* not measured" in out
    _, out, _ = brushwork("recipes", "tiny")
    assert tomllib.loads(out)["lora"]["targets"] == "kohya"
    assert re.search(r"optimizer.learning_rate +0.0001 -> 0.002", out)
    _, out, _ = brushwork("recipes", "sdxl-low-memory")
    assert re.search(r"loss.noise_offset +0.0 -> 0.1  \(so that dark and bright are learned\)", out)


def test_a_recipe_without_words_of_its_own_is_shown_too(brushwork: Any, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("[lora]\nrank = 3\n")
    code, out, _ = brushwork("recipes", str(own))
    assert code == 0
    assert "16 -> 3" in out
    code, out, _ = brushwork("recipes", "sdxl-16gb", "--json")
    assert json.loads(out)["lora.rank"] == {"default": 16, "recipe": 128, "why": None}


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
    ("card", "verdict", "words"),
    [
        (None, "note", "tiny: without a card"),
        ((23.6, (8, 9)), "ok", "24 GiB: sdxl-standard: "),
        ((11.8, (8, 6)), "note", "it just fits"),
        ((7.8, (8, 6)), "note", "8 GiB: sdxl-512-tiny-vram: "),
        ((5.8, (7, 5)), "note", "6 GiB: none: less than 8 GB is not recommended"),
    ],
)
def test_doctor_says_which_recipe_and_why(
    card: tuple[float, tuple[int, int]] | None, verdict: str, words: str
) -> None:
    found = suited_recipe(card)
    assert words in found.found
    assert found.verdict == verdict
    assert card is None or "not measured" in found.found
    assert card is None or "brushwork plan DATA --recipe sdxl-" in found.fix
    assert card is None or f"--vram {card[0]:.0f} has the last word" in found.fix


@pytest.mark.parametrize(("free", "verdict"), [(7.9, "ok"), (7.0, "ok"), (6.0, "note")])
def test_doctor_notes_a_card_that_other_programs_use(free: float, verdict: str) -> None:
    assert _card("card 0", "a card", int(free * GIB), 8 * GIB).verdict == verdict


# Commands on files


def adapter(seed: int) -> AdapterState:
    """Rank 2 on every to_q of the bundled model."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: LoRAWeights(
            down=torch.randn(2, shape[1], generator=draw), up=torch.randn(shape[0], 2, generator=draw), alpha=1.0
        )
        for name, shape in unet_layers(TINY).items()
        if name.endswith("to_q")
    }


def tensors(state: AdapterState) -> dict[str, torch.Tensor]:
    found = {f"{name}.down": each.down for name, each in state.items()}
    return found | {f"{name}.up": each.up for name, each in state.items()}


def assert_same(found: AdapterState, expected: AdapterState) -> None:
    assert {name: each.alpha for name, each in found.items()} == {name: each.alpha for name, each in expected.items()}
    torch.testing.assert_close(tensors(found), tensors(expected), rtol=0, atol=0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that stands at step 7 of 9, with a running mean and one adapter file, of step 5."""
    folder = tmp_path / "run"
    folder.mkdir()
    description = {"total_steps": 9, "data": "photos", "num_pictures": 3, "num_held_out": 0}
    description |= {"base": "bundled", "family": "sdxl", "resolution": 128}
    (folder / "run.json").write_text(json.dumps(description))
    (folder / "settings.toml").write_text(to_toml(resolve(overrides=["name=mia", "lora.rank=2"]).settings))
    (folder / "metrics.jsonl").write_text('{"step": 8, "smoothed_loss": 0.5}\n{"step": 9, "smoo')
    write_adapter(
        folder / "mia-000001.safetensors", adapter(0), spec=TINY, metadata={"ss_steps": "5", "ss_seed": "3"}
    )
    alphas = {name: each.alpha for name, each in adapter(1).items()}
    state = State(Position(step=7), tensors(adapter(1)), {}, tensors(adapter(2)), alphas, "sdxl")
    write_state(folder / "state" / "state.safetensors", state)
    return folder


@pytest.mark.parametrize("place", [".", "state", "state/state.safetensors"])
def test_extract_writes_what_the_state_holds(run: Path, place: str, tmp_path: Path, brushwork: Any) -> None:
    out = tmp_path / "out.safetensors"
    code, said, _ = brushwork("extract", str(run / place), str(out), "--precision", "fp32")
    assert (code, said) == (0, f"{out}: {len(adapter(1))} modules as of step 7\n")
    read = read_adapter(out)
    assert_same(read.state, adapter(1))
    assert read.metadata["ss_steps"] == "7"
    assert read.metadata["ss_seed"] == "3", "told by the file that the run wrote last"


def test_extract_takes_the_running_mean_if_told(run: Path, tmp_path: Path, brushwork: Any) -> None:
    out = tmp_path / "out.safetensors"
    assert brushwork("extract", str(run), str(out), "--precision", "fp32", "--ema", "--layout", "peft")[0] == 0
    assert_same(read_adapter(out).state, adapter(2))


def test_extract_refuses_what_is_no_state(tmp_path: Path, brushwork: Any) -> None:
    code, _, err = brushwork("extract", str(tmp_path), str(tmp_path / "out.safetensors"))
    assert code == 1
    assert "holds no state of a run" in err


def test_an_adapter_converted_there_and_back_is_the_same(run: Path, tmp_path: Path, brushwork: Any) -> None:
    source = tmp_path / "source.safetensors"
    write_adapter(source, adapter(0), spec=TINY, dtype=torch.float32)
    files = [source]
    for layout in ("peft", "diffusers", "kohya"):
        files.append(tmp_path / f"{layout}.safetensors")
        assert brushwork("convert", str(files[-2]), str(files[-1]), "--to", layout)[0] == 0
        assert read_adapter(files[-1]).layout == layout
    updates = [
        {name: each.up @ each.down * (each.alpha / each.rank) for name, each in read_adapter(file).state.items()}
        for file in files
    ]
    for update in updates[1:]:
        torch.testing.assert_close(update, updates[0], rtol=1e-6, atol=0)


def test_a_command_replaces_no_file(run: Path, brushwork: Any) -> None:
    there = run / "mia-000001.safetensors"
    before = there.read_bytes()
    for words in (["convert", str(there), str(there), "--to", "peft"], ["extract", str(run), str(there)]):
        code, _, err = brushwork(*words)
        assert code == 1
        assert "there already" in err
    assert there.read_bytes() == before


def test_a_layout_that_is_none_is_misuse(run: Path, brushwork: Any) -> None:
    code, _, err = brushwork("convert", str(run), "x.safetensors", "--to", "comfy")
    assert code == 2
    assert "kohya" in err


@pytest.mark.parametrize("place", ["run", ".", "run/state", "run/state/state.safetensors"])
def test_inspect_tells_where_a_run_stands(run: Path, place: str, brushwork: Any) -> None:
    code, out, _ = brushwork("inspect", str(run.parent / place), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["step"], found["total_steps"], found["finished"]) == ("run", 7, 9, False)
    assert (found["logged_step"], found["smoothed_loss"]) == (8, 0.5)
    assert found["changed"] == {"name": "mia", "lora.rank": 2}
    assert found["adapters"] == ["mia-000001.safetensors"]


def test_inspect_tells_what_a_lora_is(run: Path, brushwork: Any) -> None:
    code, out, _ = brushwork("inspect", str(run / "mia-000001.safetensors"))
    assert code == 0
    for line in (r"family +sdxl", r"layout +kohya", r"unet = \d+", r"rank 2, alpha 1 = \d+", r"steps = 5"):
        assert re.search(line, out), line


def test_inspect_names_what_it_cannot_read(tmp_path: Path, brushwork: Any) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 20)
    for name in ("broken.safetensors", "missing"):
        code, _, err = brushwork("inspect", str(tmp_path / name))
        assert code == 1
        assert name in err
        assert "fix:" in err


def test_cache_verify_names_a_damaged_entry_and_prune_removes_it(tmp_path: Path, brushwork: Any) -> None:
    store = Store(tmp_path)
    keys = ["0" * 64, "1" * 64]
    for key in keys:
        store.write(key, {"mean": torch.zeros(3)}, about={})
    where = ("--folder", str(tmp_path))
    assert brushwork("cache", "verify", *where) == (0, f"{store.folder}: 2 entries, 0 damaged\n", "")
    file = store.path(keys[1])
    file.write_bytes(file.read_bytes()[:-1])
    code, out, _ = brushwork("cache", "verify", *where)
    assert code == 1
    assert f"{file}: " in out
    assert json.loads(brushwork("cache", "prune", *where, "--json")[1])["removed"] == 0
    assert json.loads(brushwork("cache", "prune", *where, "--days", "0", "--json")[1])["removed"] == 2
    assert list(store.keys()) == []


def test_pruning_takes_what_pictures_were_remembered_by_and_nothing_of_another_name(
    tmp_path: Path, brushwork: Any
) -> None:
    name = "ab" * 16
    remembered = [
        f"embeddings/{name}/{name}.safetensors",
        f"measures/{name}.jsonl",
        f"thumbnails/ab/{name}{name}.jpg",
        f"datasets/{name}.jsonl",
    ]
    others = [
        f"datasets/hub-{name}.json",
        f"fingerprints/{name}{name}",
        "datasets/photos/fox.jpg",
        "thumbnails/ab/fox.jpg.partial",
        f"embeddings/{name}/{'cd' * 16}.safetensors",  # used today
    ]
    for file in (*remembered, *others):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"12345")
    for file in (*remembered, *others[:-1]):
        os.utime(tmp_path / file, (0, 0))

    code, told, _ = brushwork("cache", "prune", "--folder", str(tmp_path))

    counts = "1 of embeddings, 1 of measures, 1 of thumbnails, 1 of datasets"
    assert (code, told) == (0, f"{tmp_path}: removed {counts}; 20 bytes\n")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(others)
    assert brushwork("cache", "prune", "--folder", str(tmp_path))[1] == f"{tmp_path}: removed nothing; 0 bytes\n"
