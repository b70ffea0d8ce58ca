"""`brushwork recipes`: what there is to start from, and every setting."""

import json
from typing import Annotated

import typer

from brushwork.cli.overrides import AsJson


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME|FILE.toml", help="Show this one.")] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting and its default.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the recipes, or show one and what it changes.

    Example: brushwork recipes sdxl-standard
    """
    if settings:
        _show_settings(as_json)
    elif name is None:
        _show_all(as_json)
    else:
        _show_one(name, as_json)


def _show_all(as_json: bool) -> None:
    from dataclasses import asdict

    from brushwork.config.comments import expectation
    from brushwork.config.load import read_recipe, recipe_names

    found = [read_recipe(name) for name in recipe_names()]
    told = {recipe.name: expectation(recipe.header) for recipe in found}
    if as_json:
        rows = {
            recipe.name: {"about": recipe.about, "expect": asdict(each) if (each := told[recipe.name]) else None}
            for recipe in found
        }
        typer.echo(json.dumps(rows, indent=2))
        return
    table = [("recipe", "card", "memory", "time", "for")]
    for recipe in found:
        each = told[recipe.name]
        mark = "" if each and each.measured else " *"
        takes = (each.card, each.memory, each.time + mark) if each else ("", "", "")
        table.append((recipe.name, *takes, recipe.about))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        typer.echo("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    typer.echo("\n* not measured: what the guide behind the recipe says.")
    typer.echo(
        "Show one: brushwork recipes NAME. Use one: brushwork train DATA --recipe NAME. Yours: brushwork doctor."
    )


def _show_one(name: str, as_json: bool) -> None:
    from brushwork.config.comments import reasons
    from brushwork.config.describe import literal
    from brushwork.config.load import differences, read_recipe, resolve
    from brushwork.config.schema import Settings

    recipe = read_recipe(name)
    changed = differences(Settings(), resolve(recipe=name).settings)
    why = reasons(recipe.text)
    if as_json:
        rows = {key: {"default": old, "recipe": new, "why": why.get(key)} for key, old, new in changed}
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(recipe.text.rstrip())
    typer.echo("\n# What it changes:")
    width = max((len(key) for key, _, _ in changed), default=0)
    for key, old, new in changed:
        reason = f"  ({why[key]})" if key in why else ""
        typer.echo(f"#   {key:{width}}  {literal(old)} -> {literal(new)}{reason}")


def _show_settings(as_json: bool) -> None:
    from brushwork.config.describe import expected, fields, literal

    if as_json:
        rows = {
            key: {
                "default": field.default,
                "expected": expected(field),
                "about": " ".join((field.description or "").split()),
            }
            for key, field in fields().items()
        }
        typer.echo(json.dumps(rows, indent=2))
        return
    for key, field in fields().items():
        typer.echo(f"{key} = {literal(field.default)}")
        typer.echo(f"    {' '.join((field.description or '').split())}")
        typer.echo(f"    Expected: {expected(field)}.")
