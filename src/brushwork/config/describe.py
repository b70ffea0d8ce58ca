"""What each setting may be, in words: for error messages, for the settings page and for `brushwork recipes`."""

import shlex
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import tomli_w
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from brushwork.config.schema import Section, Settings


def sections() -> dict[str, type[Section]]:
    """The tables of a settings file: name -> its model, in the order of the schema."""
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Section)}


def fields() -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the schema."""
    tables = sections()
    found: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if name in tables:
            found |= {f"{name}.{inner}": inner_field for inner, inner_field in tables[name].model_fields.items()}
        else:
            found[name] = field
    return found


def repeated_tables() -> dict[str, type[Section]]:
    """The tables of which a settings file may have several: `[[data.folders]]`."""
    found = {}
    for key, field in fields().items():
        inner = get_args(field.annotation)
        if get_origin(field.annotation) is tuple and isinstance(inner[0], type) and issubclass(inner[0], Section):
            found[key] = inner[0]
    return found


def literal(value: Any) -> str:
    """A value as TOML writes it; what is unset is written `"off"`, since TOML has no null."""
    if value is None:
        return '"off"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, Section):
        value = {name: item for name, item in value if item != type(value).model_fields[name].default}
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {literal(item)}" for key, item in value.items()) + " }"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def shell_word(value: Any) -> str:
    """A value as it is typed after `--set key=`."""
    if value is None:
        return "off"
    return shlex.quote(value if isinstance(value, str) else literal(value))


def expected(field: FieldInfo) -> str:
    """What may stand there, e.g. `a whole number from 1 to 1024, or off`."""
    parts = list(_parts(field.annotation, list(field.metadata)))
    if optional := "off" in parts:
        parts.remove("off")
    return " or ".join(parts) + (", or off" if optional else "")


def is_table(field: FieldInfo) -> bool:
    """Whether the setting holds names and values of its own."""
    return get_origin(field.annotation) is dict


def accepts_text(field: FieldInfo) -> bool:
    """Whether any text may stand there, so that what looks like a number or a date is a text too."""
    return any(member is str for member in _members(field.annotation))


def accepts_bool(field: FieldInfo) -> bool:
    """Whether true and false may stand there."""
    return any(member is bool for member in _members(field.annotation))


def text_choices(field: FieldInfo) -> tuple[str, ...]:
    """The words among which one must be chosen; empty where the value is free."""
    literals = [member for member in _members(field.annotation) if get_origin(member) is Literal]
    return tuple(choice for member in literals for choice in get_args(member) if isinstance(choice, str))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _parts(annotation: Any, rules: list[Any]) -> Iterator[str]:
    for member in _members(annotation):
        if member is type(None):
            yield "off"
        elif get_origin(member) is Annotated:
            yield from _parts(get_args(member)[0], [*rules, *_unfolded(get_args(member)[1:])])
        elif get_origin(member) is Literal:
            words = [str(choice) for choice in get_args(member)]
            yield ("one of " if len(words) > 1 else "") + ", ".join(words)
        elif get_origin(member) is dict:
            yield "a table of names and values"
        elif get_origin(member) is tuple:
            inner = get_args(member)
            choices = get_args(inner[0]) if get_origin(inner[0]) is Literal else ()
            kinds = {str: "texts", float: "numbers", int: "whole numbers"}
            kind = ", ".join(choices) or kinds.get(inner[0], "tables")
            yield f"a list of {kind}" if inner[-1] is Ellipsis else f"a list of {len(inner)} {kind}"
        else:
            kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[member]
            yield kind + _bounds(rules) + _shape(rules)


def _unfolded(rules: tuple[Any, ...]) -> Iterator[Any]:
    for rule in rules:
        yield from rule.metadata if isinstance(rule, FieldInfo) else (rule,)


def _bounds(rules: list[Any]) -> str:
    low = next((rule for rule in rules if isinstance(rule, (annotated_types.Ge, annotated_types.Gt))), None)
    high = next((rule for rule in rules if isinstance(rule, (annotated_types.Le, annotated_types.Lt))), None)
    if isinstance(low, annotated_types.Ge) and isinstance(high, annotated_types.Le):
        return f" from {_number(low.ge)} to {_number(high.le)}"
    words = []
    if low is not None:
        words.append(
            f"of {_number(low.ge)} or more" if isinstance(low, annotated_types.Ge) else f"above {_number(low.gt)}"
        )
    if high is not None:
        words.append(
            f"up to {_number(high.le)}" if isinstance(high, annotated_types.Le) else f"below {_number(high.lt)}"
        )
    return f" {' and '.join(words)}" if words else ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shape(rules: list[Any]) -> str:
    text = ""
    for rule in rules:
        if isinstance(rule, AfterValidator):  # the schema names these for what they ask, e.g. `_multiple_of_8`
            text += ", a " + rule.func.__name__.strip("_").replace("_", " ")
        elif pattern := getattr(rule, "pattern", None):
            text += f" of the form `{pattern}`"
    return text
