"""docs/settings.md, written from the schema: `python -m brushwork.config.document > docs/settings.md`."""

import sys
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from brushwork.config.describe import expected, fields, literal, repeated_tables, sections
from brushwork.config.load import read_recipe, recipe_names
from brushwork.config.schema import Section

INTRODUCTION = """\
# Settings

Written from `src/brushwork/config/schema.py` by `make docs`; change it there.

Values come from the defaults below, then the recipe (`--recipe`), then a file (`--config run.toml`), then
`--set key=value`; the later wins. A run keeps all of them, with where each came from, in `settings.toml`.

In a file the sections are TOML tables. On the command line the section stands before the key:

```text
[lora]                      brushwork train pictures --set lora.rank=8 --set train.max_steps=400
rank = 8
```

Dashes and underscores are the same. A value that may be off is unset by `off` (in a file, `"off"`).
An unknown key is an error that names the nearest one.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_recipes(), *_tables()])


def _recipes() -> Iterator[str]:
    yield "## Recipes\n"
    yield "A recipe holds only what differs from the defaults. `brushwork recipes NAME` shows it.\n"
    yield "| recipe | what it is for |"
    yield "| --- | --- |"
    for name in recipe_names():
        yield f"| `{name}` | {read_recipe(name).header[0]} |"
    yield ""


def _tables() -> Iterator[str]:
    yield from _table("## Above all sections", "")
    for name, section in sections().items():
        yield from _table(f"## `[{name}]` {_about(section)}", f"{name}.")
        for key, table in repeated_tables().items():
            if key.startswith(f"{name}."):
                yield f"## `[[{key}]]` {_about(table)}\n"
                yield from _rows(table.model_fields)


def _table(title: str, prefix: str) -> Iterator[str]:
    yield f"{title}\n"
    own = [key for key in fields() if key.startswith(prefix) and ("." in key) == bool(prefix)]
    yield from _rows({key.removeprefix(prefix): fields()[key] for key in own})


def _about(section: type[Section]) -> str:
    return (section.__doc__ or "").partition(":")[0].partition(".")[0]


def _rows(own: Mapping[str, FieldInfo]) -> Iterator[str]:
    yield "| key | default | may be | what it does |"
    yield "| --- | --- | --- | --- |"
    for key, field in own.items():
        about = " ".join((field.description or "").split())
        default = "needed" if field.is_required() else f"`{literal(field.default)}`"
        cells = [f"`{key}`", default, expected(field), about]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())
