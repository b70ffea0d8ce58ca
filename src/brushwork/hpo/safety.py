"""Proposals of the search that are refused before they train: rules as data, each with a sentence (`rules.toml`)."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brushwork.config.describe import fields, literal
from brushwork.config.load import nearest_keys
from brushwork.errors import UserError, nearest
from brushwork.hpo.space import RATIO, Parameter, Proposal, Space, packaged, read_text, tables
from brushwork.runtime import derive_seed

COMPARISONS = ("above", "at_least", "below", "at_most", "nearer_than")
WORDS = ("why", "where", "unless")
BLIND = 200
"""Draws that are looked at before a search begins."""
NAMES = f"lora.alpha{RATIO}"
"""What a rule may look at besides the settings."""


@dataclass(frozen=True)
class Condition:
    """What must hold for one value.

    Args:
        name: a setting, or `lora.alpha_ratio`.
        one_of: the value is among these; None where it is compared.
        bounds: comparison -> number, all of which must hold.
        to: the setting that `nearer_than` measures from.
    """

    name: str
    one_of: tuple[Any, ...] | None = None
    bounds: tuple[tuple[str, float], ...] = ()
    to: str | None = None

    def holds(self, everything: Mapping[str, Any]) -> bool:
        """Whether it holds; never for what is not set."""
        value = everything.get(self.name, "off")
        if self.one_of is not None:
            return value in self.one_of
        value = _judged(self.name, value)
        return value is not None and all(
            self._compared(word, value, limit, everything) for word, limit in self.bounds
        )

    def _compared(self, word: str, value: float, limit: float, everything: Mapping[str, Any]) -> bool:
        if word == "nearer_than":
            other = _judged(str(self.to), everything.get(str(self.to), "off"))
            return other is not None and abs(value - other) < limit
        return {
            "above": value > limit,
            "at_least": value >= limit,
            "below": value < limit,
            "at_most": value <= limit,
        }[word]


@dataclass(frozen=True)
class Rule:
    """Refuses where all of `where` hold, unless all of `unless` do."""

    number: int
    why: str
    where: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()

    def refuses(self, proposal: Proposal) -> bool:
        """Whether this rule speaks against the proposal; never because of what nobody drew."""
        if not self.names & proposal.drawn:
            return False
        if not all(condition.holds(proposal.everything) for condition in self.where):
            return False
        return not self.unless or not all(condition.holds(proposal.everything) for condition in self.unless)

    @property
    def names(self) -> set[str]:
        """All that it looks at."""
        conditions = (*self.where, *self.unless)
        return {condition.name for condition in conditions} | {each.to for each in conditions if each.to is not None}


def refusal(rules: tuple[Rule, ...], proposal: Proposal) -> tuple[int, str] | None:
    """The first rule that refuses, and the sentence that is told: `refused by rule 4: ...`."""
    for rule in rules:
        if rule.refuses(proposal):
            seen = ", ".join(
                f"{name} = {_told(proposal.everything[name])}"
                for name in sorted(rule.names)
                if name in proposal.everything
            )
            return rule.number, f"refused by rule {rule.number}: {rule.why} ({seen})"
    return None


def refuse_rules_that_refuse_all(space: Space, rules: tuple[Rule, ...], fixed: Mapping[str, Any]) -> float:
    """Draw blindly, before anything trains; -> the share that the rules refuse.

    Raises:
        UserError: they refuse every draw, and so would refuse every trial.
    """
    draws = [_Blind(number) for number in range(BLIND)]
    found = [refusal(rules, space.propose(draw, fixed)) for draw in draws]
    refused = Counter(each[0] for each in found if each is not None)
    if refused.total() == BLIND:
        number, count = refused.most_common(1)[0]
        why = next(rule.why for rule in rules if rule.number == number)
        raise UserError(
            f"the rules refuse all of {BLIND} blind draws of the space, {count} of them by rule {number}: {why}.",
            fix="--rules FILE with rules that fit this base (an empty file refuses nothing), or another --space",
        )
    return refused.total() / BLIND


class _Blind:
    """Values that follow from a number."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(derive_seed(0, "blind", number))
        self._drawn: dict[str, Any] = {}

    def draw(self, parameter: Parameter) -> Any:
        if parameter.name not in self._drawn:
            self._drawn[parameter.name] = self._one(parameter)
        return self._drawn[parameter.name]

    def _one(self, parameter: Parameter) -> Any:
        if parameter.choices:
            return self._random.choice(parameter.choices)
        low, high = parameter.low, parameter.high
        if parameter.step is not None:
            value = low + parameter.step * self._random.randint(0, int((high - low) / parameter.step + 1e-9))
        elif parameter.log:
            value = math.exp(self._random.uniform(math.log(low), math.log(high)))
        else:
            value = self._random.uniform(low, high)
        return round(value) if parameter.whole else value


def default_rules() -> tuple[Rule, ...]:
    """The seven rules that come with the program."""
    return parse_rules(packaged("rules.toml"), "the default rules")


def read_rules(file: Path) -> tuple[Rule, ...]:
    """The rules that a file holds."""
    return parse_rules(read_text(file), str(file))


def parse_rules(text: str, origin: str) -> tuple[Rule, ...]:
    """The rules of a TOML text; a file without any refuses nothing."""
    found = tables(text, origin)
    if set(found) - {"rule"}:
        raise UserError(f"{origin} has no {min(set(found) - {'rule'})}; rules stand under [[rule]].", fix="[[rule]]")
    rows = found.get("rule", [])
    if not isinstance(rows, list):
        raise UserError(f"{origin}: [rule] is one table, not a list of them.", fix="[[rule]]")
    return tuple(_rule(number, row, f"{origin}, rule {number}") for number, row in enumerate(rows, start=1))


def describe(rules: tuple[Rule, ...]) -> str:
    """All rules, a line each."""
    return "\n".join(f"{rule.number}. {rule.why}" for rule in rules) or "no rules"


def _rule(number: int, row: Mapping[str, Any], where: str) -> Rule:
    for word in row:
        if word not in WORDS:
            close = nearest(word, WORDS)
            hint = f"; did you mean {close}?" if close else "."
            raise UserError(f"{where} has no {word}{hint}", fix=f"the words are {', '.join(WORDS)}")
    if not isinstance(row.get("why"), str) or not row["why"].strip():
        raise UserError(f"{where} does not say why.", fix='why = "a sentence, which is told with each refusal"')
    if not isinstance(row.get("where"), dict) or not row["where"]:
        raise UserError(f"{where} has no conditions.", fix='where = { "lora.rank" = { at_least = 256 } }')
    unless = row.get("unless", {})
    if not isinstance(unless, dict):
        raise UserError(f"{where}: unless is no table.", fix='unless = { "train.epochs" = { at_least = 16 } }')
    return Rule(
        number,
        row["why"].strip().rstrip("."),
        tuple(_condition(name, given, where) for name, given in row["where"].items()),
        tuple(_condition(name, given, where) for name, given in unless.items()),
    )


def _condition(written: str, given: Any, where: str) -> Condition:
    name = _known(written, where)
    if isinstance(given, list):
        return Condition(name, one_of=tuple(given))
    example = f'"{name}" = {{ above = 1 }}, or a list of values'
    if not isinstance(given, dict) or not given:
        raise UserError(f"{where}: {name} = {literal(given)}: expected a comparison.", fix=example)
    to = given.get("to")
    bounds = {word: limit for word, limit in given.items() if word != "to"}
    for word, limit in bounds.items():
        if word not in COMPARISONS:
            close = nearest(word, COMPARISONS)
            hint = f"; did you mean {close}?" if close else "."
            raise UserError(f"{where}: {name} cannot be compared by {word}{hint}", fix=", ".join(COMPARISONS))
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise UserError(f"{where}: {name}: {word} = {literal(limit)}: expected a number.", fix=example)
    if ("nearer_than" in bounds) != (to is not None):
        fix = f'"{name}" = {{ nearer_than = 1, to = "lora.rank" }}'
        raise UserError(f"{where}: {name}: nearer_than and to go together.", fix=fix)
    return Condition(name, bounds=tuple(bounds.items()), to=None if to is None else _known(str(to), where))


def _known(written: str, where: str) -> str:
    name = written.replace("-", "_")
    if name in fields() or name == NAMES:
        return name
    close = nearest_keys(name)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    raise UserError(
        f"{where}: no setting is called {name}{hint}", fix=f'"{close[0]}" = ...' if close else "a setting's name"
    )


def _judged(name: str, value: Any) -> float | None:
    """The number that a rule compares; none where there is no number, or a warm-up that is a share of all steps."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if name == "schedule.warmup_steps" and 0 < value < 1:
        return None
    return float(value)


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
