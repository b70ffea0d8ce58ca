"""The shape of the house: who may import whom, what the command line may load, what may stand in a file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from brushwork.cli.app import app
from brushwork.config.describe import fields, sections
from brushwork.config.document import page
from brushwork.config.kohya.document import page as kohya_page
from brushwork.config.load import differences, read_recipe, recipe_names, resolve
from brushwork.config.schema import Settings

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "brushwork"

FLOORS = [
    {"errors"},
    {"amounts", "atomic", "pages", "places", "progress", "run_files"},
    {"distributed"},
    {"config", "detached", "hub", "records", "runtime", "tensor_file"},
    {"models", "diffusion", "cache", "data", "machine"},
    {"lora", "vision"},
    {"lean"},
    {"memory"},
    {"generation"},
    {"training", "captioning", "curation", "evaluation", "film"},
    {"demonstration"},  # joins three stages into the first five minutes; no stage knows of it
    {"hpo"},  # above the stages: a search is made of whole runs
    {"studio"},
    {"cli"},
]
"""From the bottom up. A module imports from the floors below it and from its own folder, nothing else."""

EXCEPTIONS = {
    ("cache/build.py", "data"): "the cache of pictures is filled from samples",
    ("cache/build.py", "models"): "and by encoders",
}

ONLY_IN = {
    "diffusers": {"models/vae.py"},
    "transformers": {
        "captioning/local.py",
        "models/text.py",
        "vision/detector.py",
        "vision/encoder.py",
        "vision/quiet.py",
    },
    "huggingface_hub": {"hub.py", "models/hub.py", "data/huggingface.py", "machine.py"},
    "bitsandbytes": set(),
    "jinja2": {"pages.py"},
    "optuna": {"hpo/study.py"},
    "psycopg": {"hpo/storage.py"},
    "sqlalchemy": {"hpo/storage.py"},
    "pyarrow": {"data/parquet.py"},
    "webdataset": set(),
    "datasets": set(),
    "nicegui": {"studio/page.py"},
    "onnxruntime": {"captioning/tagger.py"},
    "uvicorn": {"studio/server.py"},
    "fastapi": {"studio/page.py", "studio/serving.py"},
    "flash_attn": {"lean/flash_attention.py"},
    "triton": {"lean/triton_kernels.py"},
    "tensorboard": {"training/trackers.py"},
    "wandb": {"training/trackers.py"},
    "peft": set(),
    "accelerate": set(),
    "torchvision": set(),
}
"""Where a library may be imported: what is optional or a reference has one place, or none yet."""

HEAVY = {"torch", "numpy", "transformers", "diffusers", "safetensors", "PIL", "matplotlib", "huggingface_hub"}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """`brushwork.models.unet` -> `models`; None outside the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "brushwork" and len(parts) > 1 else None


def floor(name: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if name in rooms), -1)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_only_point_down(file: Path) -> None:
    own = Path(name_of(file)).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return  # the front door: it leads to every floor, and opens each only when asked
    assert floor(own) >= 0, f"{name_of(file)} is on no floor; name it in FLOORS"
    for module in imported(ast.parse(file.read_text(encoding="utf-8"))):
        other = room(module)
        if other is None or other == own or floor(other) < 0 or (name_of(file), other) in EXCEPTIONS:
            continue
        assert floor(other) < floor(own), f"{name_of(file)} imports {module}, which is not below it"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_library_is_imported_where_it_belongs(file: Path) -> None:
    for module in imported(ast.parse(file.read_text(encoding="utf-8"))):
        places = ONLY_IN.get(module.split(".")[0])
        assert places is None or name_of(file) in places, f"{name_of(file)} imports {module}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=name_of)
def test_a_command_imports_nothing_heavy_at_its_top(file: Path) -> None:
    light = {"typer", "brushwork.cli", "brushwork.errors", "brushwork"}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for module in [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]:
            standard = module.split(".")[0] in sys.stdlib_module_names
            ours = module in light or module.startswith("brushwork.cli.")
            assert standard or ours, f"{name_of(file)} imports {module} at its top"


COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
LIGHT = [["--help"], ["--version"], ["recipes"], ["recipes", "tiny"], *([name, "--help"] for name in COMMANDS)]


def test_help_and_recipes_load_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from brushwork.cli.app import main\n"
        f"for words in {LIGHT!r}:\n"
        "    try:\n        main(words)\n"
        "    except SystemExit as end:\n        code = end.code\n"
        f"    print(words, code, sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"{words} 0 []" for words in LIGHT]


def test_importing_the_package_loads_nothing_but_itself() -> None:
    program = "import sys, brushwork; print(sorted(name for name in sys.modules if name.startswith('brushwork')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['brushwork']"


def written_files() -> list[Path]:
    """What a person wrote and may read."""
    folders = ["src", "tests", "docs", "bundled", "benchmarks", "experiments", ".ci"]
    found = [file for folder in folders for file in (REPOSITORY / folder).rglob("*") if file.is_file()]
    found += [file for file in REPOSITORY.iterdir() if file.is_file() and not file.name.startswith(".")]
    kinds = {".py", ".toml", ".md", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".sh", ".cfg", ""}
    made = {"__pycache__", "brushwork.egg-info"}
    return sorted(file for file in found if file.suffix in kinds and not made & set(file.parts))


FOREIGN = re.compile(
    r"""
      (?<![\w.~:/-])/(?:root|work|tmp|workspace)/[\w.]     # a folder of the machine it was written on
    | \b(?:10\.\d|192\.168|172\.16)(?:\.\d{1,3}){2}\b(?!\.)  # an address inside somebody's network
    | --(?:extra-)?index-url                              # where somebody gets packages from
    | ^(?:<{7}|={7}|>{7})(?:\s|$)                         # a merge left half done
    """,
    re.VERBOSE | re.MULTILINE,
)
SOMEBODYS = re.compile(r"(?<![\w.~:/-])/(?:home|Users|mnt)/[\w.]")
"""A folder of some person. Tests invent such folders, to see that they are not given away."""


def test_no_file_tells_of_the_machine_it_was_written_on() -> None:
    found = []
    for file in written_files():
        name = file.relative_to(REPOSITORY)
        text = file.read_text(encoding="utf-8")
        if file != Path(__file__):
            found += [f"{name}: {match.group()}" for match in FOREIGN.finditer(text)]
        if name.parts[0] != "tests":
            found += [f"{name}: {match.group()}" for match in SOMEBODYS.finditer(text)]
    assert found == []


def test_our_words_are_ascii() -> None:
    found = []
    for file in written_files():
        if file.suffix in {".py", ".toml", ".md"} and "tests" not in file.parts:  # tests hold other people's words
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                if not line.isascii():
                    found.append(f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()[:60]}")
    assert found == []


def test_a_thing_to_do_names_its_issue() -> None:
    found = []
    for file in written_files():
        if file.suffix == ".py" and file != Path(__file__):
            text = file.read_text(encoding="utf-8")
            found += [f"{file.name}: {match}" for match in re.findall(r"\b(?:TODO|FIXME|XXX)\b(?!.*#\d).*", text)]
    assert found == []


RECIPES = recipe_names()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_what_to_expect(name: str) -> None:
    header = " ".join(read_recipe(name).header)
    assert "What to expect:" in header
    assert re.search(r"\bcard\b", header), "which card"
    assert re.search(r"\bGB\b", header), "how much memory"
    assert re.search(r"\b(?:hours?|minutes?|seconds?)\b", header), "how long"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_only_what_differs_from_the_defaults(name: str) -> None:
    resolved = resolve(recipe=name)
    written = {key for key, origin in resolved.origins.items() if origin != "default"}
    assert written == {key for key, _, _ in differences(Settings(), resolved.settings)}


def test_every_setting_has_a_sentence() -> None:
    for key, field in fields().items():
        assert re.search(r"[.]$", (field.description or "").strip()), f"{key} has no sentence below it"
    for name, section in sections().items():
        assert section.__doc__, f"[{name}] has no sentence"


def test_the_settings_page_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs`"


def test_the_table_of_kohyas_keys_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "coming-from.md").read_text(encoding="utf-8")
    assert written == kohya_page(written), "run `make docs`"


PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")])


def test_a_file_that_the_documentation_names_is_there() -> None:
    missing = []
    for written in PAGES:
        for named in re.findall(r"`((?:src/brushwork/)?[a-z_]+/[a-z_/]+\.py)`", written.read_text(encoding="utf-8")):
            places = (REPOSITORY / named, PACKAGE / named)
            missing += [] if any(place.is_file() for place in places) else [f"{written.name}: {named}"]
    assert missing == []


def test_a_setting_that_a_message_or_a_page_names_exists() -> None:
    """`--set lora.rank=8` anywhere, and `lora.rank` in what an error says."""
    named: set[tuple[str, str]] = set()
    for file in [*FILES, *PAGES]:
        text = file.read_text(encoding="utf-8")
        named |= {(file.name, key) for key in re.findall(r"--set ([a-z_]+(?:\.[a-z_]+)?)=", text)}
        if file.suffix == ".py":
            named |= {(file.name, key) for key in in_errors(ast.parse(text))}
    assert {(file, key) for file, key in named if key not in {*fields(), "key"}} == set()


def in_errors(tree: ast.AST) -> Iterator[str]:
    """What looks like the key of a setting in the texts of every `UserError(...)`."""
    known = "|".join([*sections(), "base"])
    files = r"(?!safetensors|json|py\b)"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from re.findall(rf"(?<![\w./])((?:{known})\.{files}[a-z_]+)\b(?![.(])", part.value)
