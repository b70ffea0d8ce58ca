"""Where a search looks: for each setting, which values may be drawn. A small TOML, told in `space.toml`."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from brushwork.config.describe import expected, fields, literal
from brushwork.config.load import nearest_keys, resolve
from brushwork.errors import UserError, nearest

RATIO = "_ratio"
"""Ends the name of what is drawn where a setting is another one times a ratio."""

MEASURING = ("validation.data", "validation.timesteps", "loss.min_timestep", "loss.max_timestep", "data.resolution")
"""Settings that change what the held-out loss measures: trials that differ in them cannot be compared."""

WORDS = ("choices", "low", "high", "step", "log", "ratio_of", "when")


@dataclass(frozen=True)
class Parameter:
    """One setting that is drawn.

    Args:
        key: of the setting, e.g. `lora.rank`.
        choices: one of these; empty where a number between `low` and `high` is drawn.
        whole: whether only whole numbers are.
        ratio_of: the setting that the number is multiplied with.
        when: drawn only where each of these settings is one of these values.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    ratio_of: str | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is drawn: the setting itself, or the ratio."""
        return self.key if self.ratio_of is None else self.key + RATIO

    @property
    def needs(self) -> list[str]:
        """The settings that must be known before this one can be drawn."""
        return [*self.when, *([] if self.ratio_of is None else [self.ratio_of])]


class Draws(Protocol):
    """Whoever proposes values; asked again for the same name, it gives the same value."""

    def draw(self, parameter: Parameter) -> Any: ...


@dataclass(frozen=True)
class Proposal:
    """What one trial would train with.

    Args:
        values: setting -> value, for what is drawn; what is unset is "off".
        everything: these, the recipe's own settings, and the ratios: what rules look at.
        drawn: the names among `everything` that are not fixed.
    """

    values: Mapping[str, Any]
    everything: Mapping[str, Any]
    drawn: frozenset[str]


@dataclass(frozen=True)
class Space:
    """All that is drawn, in an order in which each can be."""

    parameters: tuple[Parameter, ...]

    def propose(self, draws: Draws, fixed: Mapping[str, Any]) -> Proposal:
        """One point of the space.

        Args:
            fixed: every setting of the recipe, by its dotted key.
        """
        everything = {key: _plain(value) for key, value in fixed.items()}
        values: dict[str, Any] = {}
        drawn: set[str] = set()
        for parameter in self.parameters:
            if any(everything[key] not in allowed for key, allowed in parameter.when.items()):
                continue
            value = draws.draw(parameter)
            drawn |= {parameter.key, parameter.name}
            if parameter.ratio_of is not None:
                everything[parameter.name] = value
                value = scaled(everything[parameter.ratio_of], value)
            everything[parameter.key] = values[parameter.key] = value
        alpha, rank = everything.get("lora.alpha"), everything.get("lora.rank")
        ratio = f"lora.alpha{RATIO}"
        if ratio not in everything and isinstance(alpha, (int, float)) and isinstance(rank, (int, float)):
            everything[ratio] = alpha / rank
            if drawn & {"lora.alpha", "lora.rank"}:
                drawn.add(ratio)
        return Proposal(values, everything, frozenset(drawn))

    def without(self, keys: Sequence[str]) -> "Space":
        """The space where a person has set these settings: they are not drawn any more."""
        return Space(tuple(parameter for parameter in self.parameters if parameter.key not in keys))

    @property
    def is_conditional(self) -> bool:
        """Whether something is drawn in some trials only."""
        return any(parameter.when for parameter in self.parameters)


def scaled(whole: float, ratio: float) -> int:
    """`int(whole x ratio)`, where 0.55 of 100 is 55 although the product of the two is a little less."""
    return int(round(whole * ratio, 6))


def default_space() -> Space:
    """The space that comes with the program."""
    return parse_space(packaged("space.toml"), "the default space")


def packaged(name: str) -> str:
    """The text of a file that lies beside this one."""
    return resources.files("brushwork.hpo").joinpath(name).read_text(encoding="utf-8")


def read_space(file: Path) -> Space:
    """The space that a file describes."""
    return parse_space(read_text(file), str(file))


def read_text(file: Path) -> str:
    """A file of the user, as text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there.", fix="give the path of a TOML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8, as TOML wants it.", fix="save it as UTF-8") from error


def tables(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{origin} is not TOML: {error}.", fix='text stands in quotes: choices = ["adamw"]'
        ) from error


def parse_space(text: str, origin: str) -> Space:
    """The space that a TOML text describes; every value in it is one that the setting takes."""
    parameters = [_parameter(key, table, origin) for key, table in _by_setting(tables(text, origin), origin)]
    if not parameters:
        raise UserError(f"{origin} names no setting to draw.", fix="[lora.rank] and choices = [8, 16]")
    for parameter in parameters:
        _check_values(parameter, parameters, origin)
    return Space(tuple(_in_order(parameters, origin)))


def _by_setting(found: Mapping[str, Any], origin: str, above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in found.items():
        key = above + name.replace("-", "_")
        if key in fields():
            if not isinstance(value, dict):
                raise UserError(
                    f"{origin}: {key} = {literal(value)}: expected a table that says what is drawn.",
                    fix=f"[{key}] and choices = [{literal(value)}]; what is fixed is for --set or the recipe",
                )
            yield key, value
        elif isinstance(value, dict) and not (set(value) & set(WORDS)):
            yield from _by_setting(value, origin, f"{key}.")
        else:
            close = nearest_keys(key)
            told = f"{origin}: no setting is called {key}"
            if not close:
                raise UserError(f"{told}.", fix="brushwork recipes --settings lists them all")
            raise UserError(f"{told}; did you mean {' or '.join(close)}?", fix=f"[{close[0]}]")


def _parameter(key: str, table: Mapping[str, Any], origin: str) -> Parameter:
    where = f"{origin}: {key}"
    for word in table:
        if word not in WORDS:
            close = nearest(word, WORDS)
            hint = f"; did you mean {close}?" if close else "."
            raise UserError(f"{where} has no {word}{hint}", fix=f"the words are {', '.join(WORDS)}")
    if key in MEASURING:
        raise UserError(
            f"{where} changes what the held-out loss measures, so trials that differ in it cannot be compared.",
            fix=f"--set {key}=... for all trials",
        )
    if key == "train.seed":
        raise UserError(f"{where}: a lucky seed is no setting.", fix="--repeats measures what seeds do")
    when = {name.replace("-", "_"): value for name, value in _table(table.get("when", {}), where).items()}
    for name, allowed in when.items():
        if name not in fields():
            known = nearest_keys(name)
            fix = f'when = {{ "{known[0]}" = [...] }}' if known else None
            raise UserError(f"{where}: when names {name}, which is no setting.", fix=fix)
        if not isinstance(allowed, list) or not allowed:
            raise UserError(f'{where}: when = {{ "{name}" = ... }} wants a list of values.', fix="[true]")
    conditions = {name: tuple(map(_plain, allowed)) for name, allowed in when.items()}
    if "choices" in table:
        return Parameter(key, choices=_choices(table, where), when=conditions)
    return _number(key, table, where, conditions)


def _choices(table: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    others = sorted(set(table) - {"choices", "when"})
    if others:
        raise UserError(f"{where} has choices and {others[0]}.", fix="keep one of the two")
    choices = table["choices"]
    if not isinstance(choices, list) or not choices:
        raise UserError(f"{where}: choices = {literal(choices)}: expected a list of values.", fix="choices = [8, 16]")
    if any(isinstance(value, (list, dict)) for value in choices):
        raise UserError(f"{where}: a choice may be a text, a number, true or false.", fix="choices = [8, 16]")
    return tuple(choices)


def _number(key: str, table: Mapping[str, Any], where: str, when: Mapping[str, tuple[Any, ...]]) -> Parameter:
    example = "low = 1e-5, high = 1e-3, log = true; or choices = [...]"
    for word in ("low", "high"):
        if not _is_number(table.get(word)):
            raise UserError(f"{where} needs choices, or low and high as numbers.", fix=example)
    low, high, step, log = table["low"], table["high"], table.get("step"), table.get("log", False)
    if not low < high:
        raise UserError(f"{where}: low = {low} is not below high = {high}.", fix=example)
    if not isinstance(log, bool) or (step is not None and not (_is_number(step) and step > 0)):
        raise UserError(f"{where}: step is a number above 0, log is true or false.", fix=example)
    if log and (step is not None or low <= 0):
        raise UserError(f"{where}: log goes without step, and from a low above 0.", fix=example)
    ratio_of = table.get("ratio_of")
    if ratio_of is not None and ratio_of not in fields():
        known = nearest_keys(str(ratio_of))
        fix = f'ratio_of = "{known[0]}"' if known else 'ratio_of = "lora.rank"'
        raise UserError(f"{where}: ratio_of = {literal(ratio_of)} is no setting.", fix=fix)
    whole = ratio_of is None and all(isinstance(value, int) for value in (low, high, step or 1))
    return Parameter(key, low=low, high=high, step=step, log=log, whole=whole, ratio_of=ratio_of, when=when)


def _check_values(parameter: Parameter, parameters: Sequence[Parameter], origin: str) -> None:
    """The ends of what may be drawn must be values that the setting takes."""
    values = list(parameter.choices) or [parameter.low, parameter.high]
    if parameter.ratio_of is not None:
        bases = next((each for each in parameters if each.key == parameter.ratio_of), None)
        if bases is None:
            return  # the recipe's own value, which is looked at with the recipe
        wholes = list(bases.choices) or [bases.low, bases.high]
        if not all(_is_number(whole) for whole in wholes):
            raise UserError(
                f"{origin}: {parameter.key} is a ratio of {bases.key}, which is not always a number.",
                fix="a ratio goes with numbers, such as lora.rank",
            )
        values = [scaled(whole, ratio) for whole in wholes for ratio in values]
    for value in values:
        try:
            resolve(overrides=[override(parameter.key, value)])
        except UserError as error:
            raise UserError(
                f"{origin}: {parameter.key} may become {literal(value)}: expected "
                f"{expected(fields()[parameter.key])}.",
                fix="change choices, low or high",
            ) from error


def override(key: str, value: Any) -> str:
    """A value as `--set` takes it."""
    return f"{key}={literal(value)}"


def refuse_unfit_recipe(space: Space, fixed: Mapping[str, Any], origin: str) -> None:
    """A ratio of a setting that is not drawn needs a number in the recipe, and one that gives a fitting value."""
    drawn = {parameter.key for parameter in space.parameters}
    for parameter in space.parameters:
        if parameter.ratio_of is None or parameter.ratio_of in drawn:
            continue
        if not _is_number(fixed[parameter.ratio_of]):
            raise UserError(
                f"{origin}: {parameter.key} is a ratio of {parameter.ratio_of}, which is not set.",
                fix=f"--set {parameter.ratio_of}=...",
            )
        value = scaled(fixed[parameter.ratio_of], parameter.low)
        try:
            resolve(overrides=[override(parameter.key, value)])
        except UserError as error:
            raise UserError(
                f"{parameter.key} would become {value}, {parameter.low:g} of {parameter.ratio_of} = "
                f"{fixed[parameter.ratio_of]}.",
                fix=f"a larger {parameter.ratio_of}, or a --space with a larger low",
            ) from error


def _in_order(parameters: Sequence[Parameter], origin: str) -> list[Parameter]:
    """Each after those that it needs."""
    waiting, order = list(parameters), list[Parameter]()
    while waiting:
        open_keys = {parameter.key for parameter in waiting}
        ready = [each for each in waiting if not open_keys & (set(each.needs) - {each.key})]
        if not ready or any(each.key in each.needs for each in waiting):
            names = ", ".join(sorted(open_keys))
            raise UserError(f"{origin}: {names} wait for one another (when, ratio_of).", fix="remove one condition")
        order += ready
        waiting = [each for each in waiting if each not in ready]
    return order


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: when = {literal(value)}: expected a table.", fix='when = { "lora.text_encoder" = [true] }'
        )
    return value


def _plain(value: Any) -> Any:
    return "off" if value is None else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
