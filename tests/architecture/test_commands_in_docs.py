"""What the pages tell a reader to type is there: commands, their options, settings, and files of the source."""

import re
from pathlib import Path

import pytest
import typer.main

from brushwork.cli.app import app
from brushwork.config.describe import fields

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
COMMAND = re.compile(r"\bbrushwork ([a-z][a-z|-]*)((?: [^`\n]*)?)")


def commands() -> dict[str, set[str]]:
    """Every command with its options; `cache` holds those of all its parts."""
    found: dict[str, set[str]] = {}
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts = [command, *getattr(command, "commands", {}).values()]
        found[name] = {option for part in parts for each in part.params for option in each.opts} | {
            "--help",
            "--debug",
        }
    return found


def typed(page: Path) -> list[tuple[str, str]]:
    """Command and the rest of what is typed, wherever a page shows code."""
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    code += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    calls = [match.groups() for piece in code for match in COMMAND.finditer(piece)]
    return [(name, rest.split("   ")[0]) for names, rest in calls for name in names.split("|")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_tells_to_type_is_there(page: Path) -> None:
    known, keys = commands(), set(fields())
    for name, rest in typed(page):
        assert name in known, f"there is no command `brushwork {name}`"
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert option in known[name], f"`brushwork {name}` has no {option}"
        for key in re.findall(r"--set ([a-z_0-9.]+)=", rest):
            assert key in keys or key.rsplit(".", 1)[0] == "optimizer.arguments", f"there is no setting {key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_benchmarks_that_a_page_runs_are_there_with_their_options(page: Path) -> None:
    for name, rest in re.findall(r"python -m (benchmarks\.[a-z_.]+)([^`\n]*)", page.read_text(encoding="utf-8")):
        file = REPOSITORY / (name.rstrip(".").replace(".", "/") + ".py")
        assert file.is_file(), f"there is no {name}"
        known = file.read_text(encoding="utf-8")
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert f'"{option}"' in known, f"{name} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_and_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    sources = re.findall(r"`([a-z_]+/[a-z_0-9/]+\.py)`", text)

    assert [link for link in links if not (page.parent / link).exists()] == []
    roots = (REPOSITORY, REPOSITORY / "src" / "brushwork")
    assert [file for file in sources if not any((root / file).exists() for root in roots)] == []


def test_every_command_is_told_of_where_a_reader_begins() -> None:
    first = [REPOSITORY / "README.md", REPOSITORY / "docs" / "files.md", REPOSITORY / "docs" / "tour.md"]
    told = {name for page in first for name, _ in typed(page)}

    assert sorted(set(commands()) - told) == []
