"""From defaults, a recipe, run files and `--set key=value` to the settings of a run, each with where it came from.

Later layers win. Inside a layer, keys are dotted (`lora.rank`), and dashes and underscores are the same.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from brushwork.config.describe import (
    accepts_bool,
    accepts_text,
    expected,
    fields,
    is_table,
    literal,
    repeated_tables,
    sections,
    shell_word,
    text_choices,
)
from brushwork.config.kohya.gather import Gathered
from brushwork.config.kohya.read import is_kohya
from brushwork.config.kohya.translate import Choice, Note, Translation
from brushwork.config.schema import Settings
from brushwork.errors import UserError, nearest

DEFAULT = "default"
"""The origin of a value that nobody set."""

SET = "--set"
"""The origin of a value from the command line."""

ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "unet_lr": "optimizer.learning_rate",
    "text_encoder_lr": "optimizer.text_encoder_learning_rate",
    "max_grad_norm": "optimizer.max_grad_norm",
    "optimizer_type": "optimizer.name",
    "lr_scheduler": "schedule.name",
    "lr_warmup_steps": "schedule.warmup_steps",
    "lr_scheduler_num_cycles": "schedule.cycles",
    "dim": "lora.rank",
    "network_dim": "lora.rank",
    "network_alpha": "lora.alpha",
    "network_dropout": "lora.dropout",
    "conv_dim": "lora.conv_rank",
    "train_text_encoder": "lora.text_encoder",
    "pretrained_model_name_or_path": "model.base",
    "checkpoint": "model.base",
    "v_parameterization": "model.prediction",
    "max_token_length": "model.max_tokens",
    "size": "data.resolution",
    "num_repeats": "data.repeats",
    "enable_bucket": "buckets.enabled",
    "min_bucket_reso": "buckets.min_side",
    "max_bucket_reso": "buckets.max_side",
    "bucket_reso_steps": "buckets.step",
    "bucket_no_upscale": "buckets.no_upscale",
    "output_name": "name",
    "steps": "train.max_steps",
    "max_train_steps": "train.max_steps",
    "max_train_epochs": "train.epochs",
    "train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_checkpointing": "train.checkpointing",
    "mixed_precision": "train.precision",
    "save_every_n_epochs": "save.every_epochs",
    "save_every_n_steps": "save.every_steps",
    "sample_prompts": "sample.prompts",
    "sample_sampler": "sample.sampler",
    "cfg_scale": "sample.guidance",
}
"""What other programs call a setting, so that a key written from habit leads to ours."""


DORA = ("dora", "use_dora", "dora_wd")
NO_DORA = (
    "no DoRA is trained here, for no file of it means the same in every program: diffusers drops half of it without "
    "a word (docs/decisions/no-dora.md)"
)


@dataclass(frozen=True)
class Recipe:
    """A settings file that comes with the program, or one of the user's own."""

    name: str
    text: str
    origin: str

    @property
    def header(self) -> list[str]:
        """The comment lines that open the file: what to expect of it."""
        lines: list[str] = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        return lines

    @property
    def about(self) -> str:
        """The first line: what it is for."""
        return self.header[0] if self.header else ""


@dataclass(frozen=True)
class Resolved:
    """The settings of a run, and for each dotted key the layer that it came from."""

    settings: Settings
    origins: dict[str, str]
    notes: tuple[Note, ...] = ()
    """What a person should know about the settings of another program that were read."""
    out: str | None = None
    """The folder of the run that such a file names."""
    undecided: tuple[Choice, ...] = ()
    """What such a file asks for and cannot have, and nothing was said to take instead."""


@dataclass(frozen=True)
class Layer:
    """One source of settings: its values by dotted key, and what each is called in messages."""

    origins: dict[str, str]
    values: dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes that come with the program."""
    folder = resources.files("brushwork.config") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a file whose name ends in `.toml`."""
    if name.endswith(".toml"):
        return Recipe(Path(name).stem, _read_text(Path(name)), f"recipe {name}")
    known = recipe_names()
    plain = name.replace("_", "-")
    if plain not in known:
        close = nearest(plain, known)
        raise UserError(
            f"there is no recipe {name!r}; there are {', '.join(known)}.",
            fix=f"--recipe {close}" if close else "one of these, or a file that ends in .toml",
        )
    text = (resources.files("brushwork.config") / "recipes" / f"{plain}.toml").read_text(encoding="utf-8")
    return Recipe(plain, text, f"recipe {plain}")


def resolve(
    *,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    data: Path | None = None,
    undecided: bool = False,
) -> Resolved:
    """The settings that follow from defaults, then the recipe, then each file, then each `key=value`.

    Files may be those of kohya's trainer; they come before files of ours.

    Args:
        data: the folder of pictures, where it is known: kohya's files are understood by what lies there.
        undecided: pass over values of kohya's files for which a person has to choose, instead of refusing them.
    """
    layers: list[Layer] = []
    if recipe is not None:
        found = read_recipe(recipe)
        layers.append(_layer(found.origin, _tables(found.origin, found.text)))
    kohya = Translation()
    read = [(str(file), _tables(str(file), _read_text(file))) for file in map(Path, files)]
    if theirs := [(origin, tables) for origin, tables in read if is_kohya(tables)]:
        if recipe is not None:
            raise _two_beginnings(recipe, theirs[0][0])
        kohya = _translated(theirs, data)
        layers.append(Layer(kohya.origins, kohya.values))
    layers += [_layer(origin, tables) for origin, tables in read if not is_kohya(tables)]
    layers += [_override(text) for text in overrides]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields(), DEFAULT)
    for layer in layers:
        values |= {key: _joined(values.get(key), value) for key, value in layer.values.items()}
        origins |= layer.origins
    open_choices = [choice for choice in kohya.choices if origins.get(choice.setting, DEFAULT) == DEFAULT]
    if open_choices and not undecided:
        raise open_choices[0].error()
    settings = _checked(values, origins)
    return Resolved(settings, origins, kohya.notes, kohya.out, tuple(open_choices))


def _joined(before: Any, value: Any) -> Any:
    """A table keeps the names that a later layer does not set; anything else is replaced."""
    return {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def read_toml(path: Path) -> Settings:
    """The settings that a file holds; whatever it leaves out has its default."""
    return resolve(files=[path]).settings


def to_toml(settings: Settings, origins: Mapping[str, str] | None = None) -> str:
    """All settings as a file that `read_toml` reads back; with `origins`, each line says where it came from."""
    lines: list[str] = []
    section = ""
    for key, value in flatten(settings).items():
        table, _, name = key.rpartition(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        origin = (origins or {}).get(key, DEFAULT)
        lines.append(f"{name} = {literal(value)}" + (f"  # {origin}" if origin != DEFAULT else ""))
    return "\n".join(lines) + "\n"


def flatten(settings: Settings) -> dict[str, Any]:
    """Every value by its dotted key, in the order of the schema."""
    tables = sections()
    values: dict[str, Any] = {}
    for key in fields():
        table, _, name = key.rpartition(".")
        values[key] = getattr(getattr(settings, table) if table in tables else settings, name)
    return values


def differences(old: Settings, new: Settings) -> list[tuple[str, Any, Any]]:
    """What changed from one to the other: (key, old value, new value)."""
    before, after = flatten(old), flatten(new)
    return [(key, before[key], after[key]) for key in before if before[key] != after[key]]


# Reading one layer


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        close = nearest(path.name, [found.name for found in path.parent.glob("*.toml")])
        fix = f"did you mean {path.parent / close}?" if close else "give the path of a TOML file"
        raise UserError(f"the settings file {path} is not there.", fix=fix) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8, as TOML wants it.", fix="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _tables(origin: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        windows_path = "\\" in str(error) or "hex" in str(error)
        fix = (
            "write paths in single quotes: 'C:\\pictures'"
            if windows_path
            else 'text stands in quotes: base = "x.safetensors"'
        )
        raise UserError(f"{origin} is not TOML: {error}.", fix=fix) from error


def _layer(origin: str, tables: Mapping[str, Any]) -> Layer:
    values: dict[str, Any] = {}
    problems: list[UserError] = []
    for key, value in _dotted(tables):
        if (problem := _key_problem(key, value, origin)) is not None:
            problems.append(problem)
        elif key in values:
            problems.append(
                UserError(f"{origin}: {key} is given twice.", fix="keep one; dashes count as underscores")
            )
        values[key] = value
    _raise_if_any(problems)
    return Layer(dict.fromkeys(values, origin), values)


def _translated(files: Sequence[tuple[str, Mapping[str, Any]]], data: Path | None) -> Translation:
    """What kohya's files come to, with the data sets that they lead to."""
    gathered = Gathered()
    for origin, tables in files:
        gathered.add(origin, tables)
    if (further := gathered.further) is not None:
        origin = str(further)
        gathered.add(origin, _tables(origin, _read_text(further)))
    return gathered.translate(data)


def _two_beginnings(recipe: str, file: str) -> UserError:
    return UserError(
        f"{file} is a file of kohya's trainer: what it leaves out has kohya's own defaults, so that nothing would be "
        f"left of the recipe {recipe}.",
        fix=f"leave --recipe out, or take over what you want to keep: brushwork migrate {file} --out run.toml",
    )


def _dotted(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        key = above + name.replace("-", "_")
        if isinstance(value, dict) and not (key in fields() and is_table(fields()[key])):
            yield from _dotted(value, f"{key}.")
        elif isinstance(value, list):
            yield key, [_underscored(item) if isinstance(item, dict) else item for item in value]
        else:
            yield key, value


def _underscored(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in table.items()}


def _override(text: str) -> Layer:
    key, equals, value = text.partition("=")
    key = key.strip().replace("-", "_")
    if not equals or not key:
        example = key if key in fields() else "lora.rank"
        default = shell_word(fields()[example].default)
        raise UserError(f"{SET} {text}: expected key=value.", fix=f"{SET} {example}={default}")
    table, _, name = key.rpartition(".")
    if table in fields() and is_table(fields()[table]):
        return Layer({table: SET}, {table: {name: _parsed(value.strip())}})
    if (problem := _key_problem(key, value, SET)) is not None:
        raise problem
    return Layer({key: SET}, {key: _value(value, fields()[key])})


def _value(text: str, field: FieldInfo) -> Any:
    plain = text.strip()
    value = _parsed(plain)
    if isinstance(value, list) or plain.startswith(("'", '"')):
        return value
    if accepts_text(field):
        return text  # as typed: `name=1e3` is a name, and a prefix may end in a space
    return plain if text_choices(field) else value


def _parsed(text: str) -> Any:
    """A value as TOML, and where it is not TOML the bare text; `[to_q, to_k]` needs no quotes inside."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if text.startswith("[") and text.endswith("]"):
            return [_parsed(item.strip()) for item in text[1:-1].split(",") if item.strip()]
        return text
    return tables["value"] if len(tables) == 1 else text


# Checking, and saying what is wrong


def _checked(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    known, tables = fields(), sections()
    nested: dict[str, Any] = {}
    wrong: dict[str, None] = {}  # a dict for its order
    inside: list[UserError] = []
    for key, value in values.items():
        if isinstance(value, bool) and not accepts_bool(known[key]):
            wrong[key] = None  # Python takes true for 1; a person who wrote it did not mean 1
        table, _, name = key.rpartition(".")
        (nested.setdefault(table, {}) if table else nested)[name] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        paths = [detail["loc"] for detail in error.errors()]
        inside = [_wrong_in_table(path, values, origins) for path in paths if _is_in_table(path)]
        paths = [path for path in paths if not _is_in_table(path)]
        wrong |= {".".join(map(str, path[: 2 if path[0] in tables else 1])): None for path in paths}
    _raise_if_any([*(_wrong_value(key, values[key], origins[key]) for key in wrong), *inside])
    return settings


def _wrong_value(key: str, value: Any, origin: str) -> UserError:
    field = fields()[key]
    instead = nearest(str(value).lower(), text_choices(field))
    example = field.default if instead is None else instead
    if origin == SET:
        found, fix = f"{SET} {key}={shell_word(value)}", f"{SET} {key}={shell_word(example)}"
    else:
        found, fix = f"{origin}: {key} = {literal(value)}", f"{key} = {literal(example)}"
    sentence = " ".join((field.description or "").split())
    return UserError(f"{found}: expected {expected(field)}.\n{sentence}", fix=fix)


def _is_in_table(path: tuple[int | str, ...]) -> bool:
    """Whether a place in the settings is a key of one of several tables: (data, folders, 0, repeats)."""
    return len(path) > 3 and ".".join(map(str, path[:2])) in repeated_tables()


def _wrong_in_table(path: tuple[int | str, ...], values: Mapping[str, Any], origins: Mapping[str, str]) -> UserError:
    key, number, name = ".".join(map(str, path[:2])), int(path[2]), str(path[3])
    known, given = repeated_tables()[key].model_fields, values[key][number]
    where = f"{origins[key]}: table {number + 1} of {key}"
    if name not in known:
        close = nearest(name, known)
        fix = f"{close} = {literal(given[name])}" if close else f"the keys are {', '.join(known)}"
        return UserError(f"{where} has no key {name}" + (f"; did you mean {close}?" if close else "."), fix=fix)
    if name not in given:
        return UserError(f"{where} names no {name}.", fix=f'{name} = "..."')
    sentence = " ".join((known[name].description or "").split())
    return UserError(f"{where}: {name} = {literal(given[name])}: expected {expected(known[name])}.\n{sentence}")


def _key_problem(key: str, value: Any, origin: str) -> UserError | None:
    """None where the key is a setting; else what is wrong with it, and the nearest key of all sections."""
    if key in fields():
        return None
    where = f"{SET} {key}={shell_word(value)}" if origin == SET else origin
    if key.rpartition(".")[2] in DORA:
        return UserError(f"{where}: {NO_DORA}.", fix="lora.rslora = true, or optimizer.lora_plus_ratio = 16")
    if key in sections():
        inner = list(sections()[key].model_fields)
        fix = f"{SET} {key}.{inner[0]}={shell_word(value)}" if origin == SET else f"{inner[0]} = ... under [{key}]"
        return UserError(f"{where}: {key} is a section, with the keys {', '.join(inner)}.", fix=fix)
    close = nearest_keys(key)
    if not close:
        return UserError(f"{where}: no setting is called {key}.", fix="brushwork recipes --settings lists them all")
    problem = f"{where}: no setting is called {key}; did you mean {' or '.join(close)}?"
    if origin == SET:
        return UserError(problem, fix=f"{SET} {close[0]}={shell_word(value)}")
    table, _, name = close[0].rpartition(".")
    return UserError(
        problem, fix=f"{name} = {literal(value)}" + (f" under [{table}]" if table else " above all sections")
    )


def nearest_keys(key: str) -> list[str]:
    """The settings that an unknown key may have meant: the same name elsewhere, another program's, one alike."""
    known = list(fields())
    last = key.rpartition(".")[2]
    if same := [candidate for candidate in known if candidate.rpartition(".")[2] == last]:
        return same
    if last in ELSEWHERE:
        return [ELSEWHERE[last]]
    if close := nearest(key, known):
        return [close]
    names = [candidate.rpartition(".")[2] for candidate in known]
    name = nearest(last, names)
    return [candidate for candidate in known if candidate.rpartition(".")[2] == name]


def _raise_if_any(problems: Sequence[UserError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"- {problem.problem.splitlines()[0]}\n  write: {problem.fix}" for problem in problems]
        raise UserError(f"{len(problems)} settings are wrong:\n" + "\n".join(lines))
