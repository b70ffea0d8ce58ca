"""The seven safety rules: each at its edge, from both sides; rules of one's own; how many proposals they refuse."""

import itertools
import math
from typing import Any

import pytest

from brushwork.config.load import flatten, resolve
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.hpo.safety import (
    Rule,
    default_rules,
    describe,
    parse_rules,
    refusal,
    refuse_rules_that_refuse_all,
)
from brushwork.hpo.space import Parameter, Proposal, default_space, parse_space, scaled

RULES = default_rules()

SOUND: dict[str, Any] = {
    "lora.rank": 64,
    "lora.alpha": 32,
    "lora.alpha_ratio": 0.5,
    "optimizer.learning_rate": 8e-5,
    "optimizer.name": "adamw",
    "train.epochs": 16,
    "train.accumulation": 2,
    "schedule.warmup_steps": 150,
}


def proposal(drawn: set[str] | None = None, **changes: Any) -> Proposal:
    """A proposal that no rule is against, changed: `lora__rank=256` for `lora.rank`."""
    everything = SOUND | {key.replace("__", "."): value for key, value in changes.items()}
    return Proposal(everything, everything, frozenset(everything if drawn is None else drawn))


def refused_by(found: Proposal) -> set[int]:
    return {rule.number for rule in RULES if rule.refuses(found)}


EDGES: list[tuple[int, dict[str, Any], dict[str, Any]]] = [
    (
        1,
        {"optimizer__name": "adamw8bit", "optimizer__learning_rate": 1.2001e-4},
        {"optimizer__learning_rate": 1.2e-4},
    ),
    (1, {"optimizer__name": "adamw8bit", "optimizer__learning_rate": 1.3e-4}, {"optimizer__name": "adamw"}),
    (2, {"lora__alpha": 63.01}, {"lora__alpha": 63}),
    (2, {"lora__alpha": 64.99}, {"lora__alpha": 65}),
    (3, {"lora__rank": 256, "train__epochs": 15}, {"lora__rank": 255}),
    (3, {"lora__rank": 256, "train__epochs": 15}, {"train__epochs": 16}),
    (4, {"optimizer__learning_rate": 1.0001e-4, "schedule__warmup_steps": 99}, {"optimizer__learning_rate": 1e-4}),
    (4, {"optimizer__learning_rate": 1.0001e-4, "schedule__warmup_steps": 99}, {"schedule__warmup_steps": 100}),
    (5, {"train__accumulation": 1, "optimizer__learning_rate": 1.1001e-4}, {"optimizer__learning_rate": 1.1e-4}),
    (5, {"train__accumulation": 1, "optimizer__learning_rate": 1.1001e-4}, {"train__accumulation": 2}),
    (6, {"lora__alpha_ratio": 0.75, "train__epochs": 15}, {"lora__alpha_ratio": 0.7499}),
    (6, {"lora__alpha_ratio": 0.75, "train__epochs": 15}, {"train__epochs": 16}),
    (6, {"lora__alpha_ratio": 0.75, "train__accumulation": 1}, {"train__accumulation": 2}),
    (6, {"lora__alpha_ratio": 0.75, "optimizer__name": "adamw8bit"}, {"optimizer__name": "adamw"}),
    (6, {"lora__alpha_ratio": 0.75, "schedule__warmup_steps": 149}, {"schedule__warmup_steps": 150}),
    (7, {"lora__alpha_ratio": 0.85, "optimizer__learning_rate": 1.0001e-4}, {"lora__alpha_ratio": 0.8499}),
    (7, {"lora__alpha_ratio": 0.85, "optimizer__learning_rate": 1.0001e-4}, {"optimizer__learning_rate": 1e-4}),
]


@pytest.mark.parametrize(("number", "over", "back"), EDGES)
def test_a_rule_refuses_on_one_side_of_its_edge_only(number: int, over: dict[str, Any], back: dict[str, Any]) -> None:
    assert refused_by(proposal(**over)) == {number}
    assert number not in refused_by(proposal(**{**over, **back}))


def test_a_sound_proposal_is_refused_by_none() -> None:
    assert refusal(RULES, proposal()) is None


def test_a_refusal_names_the_rule_the_reason_and_the_values() -> None:
    found = refusal(RULES, proposal(optimizer__learning_rate=1.08e-4, schedule__warmup_steps=50))

    assert found is not None
    assert found[0] == 4
    assert found[1].startswith("refused by rule 4: a learning rate above 1e-4 needs a warm-up")
    assert "optimizer.learning_rate = 0.000108, schedule.warmup_steps = 50" in found[1]


def test_what_a_person_set_themselves_is_not_judged() -> None:
    asked = {"lora__rank": 256, "train__epochs": 12}

    assert refused_by(proposal(drawn={"optimizer.learning_rate"}, **asked)) == set()
    assert refused_by(proposal(drawn={"train.epochs"}, **asked)) == {3}


def test_a_warm_up_that_is_a_share_of_the_steps_is_no_number_of_steps() -> None:
    assert refused_by(proposal(optimizer__learning_rate=1.05e-4, schedule__warmup_steps=0.1)) == set()


class Points:
    """Draws the given values, by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def draw(self, parameter: Parameter) -> Any:
        return self.values[parameter.name]


def test_independent_draws_are_refused_in_38_percent_and_never_by_rules_1_and_2() -> None:
    """Every point of the grid, with its probability; the rate by the parts between the edges of the rules."""
    space = default_space()
    by_name = {parameter.name: parameter for parameter in space.parameters}
    edges = [6e-5, 1e-4, 1.1e-4, 1.2e-4]
    whole = math.log(edges[-1] / edges[0])
    rates = [(math.sqrt(low * high), math.log(high / low) / whole) for low, high in itertools.pairwise(edges)]
    ratio = by_name["lora.alpha_ratio"]
    assert ratio.step is not None
    ratios = [round(ratio.low + number * ratio.step, 10) for number in range(14)]
    assert ratios[-1] == ratio.high
    judged = ["lora.rank", "train.epochs", "optimizer.name", "train.accumulation", "schedule.warmup_steps"]
    fixed = flatten(Settings())
    kept = {parameter.name: parameter.choices[:1] or (parameter.low,) for parameter in space.parameters}
    refused, by_rule, number = 0.0, set[int](), 0
    for point in itertools.product(*(by_name[name].choices for name in judged)):
        for drawn_ratio, (rate, share) in itertools.product(ratios, rates):
            values = {name: each[0] for name, each in kept.items()} | dict(zip(judged, point, strict=True))
            values |= {"lora.alpha_ratio": drawn_ratio, "optimizer.learning_rate": rate}
            rules = refused_by(space.propose(Points(values), fixed))
            refused += share * bool(rules)
            by_rule |= rules
            number += 1

    assert refused * len(rates) / number == pytest.approx(0.38, abs=0.005)
    assert by_rule == {3, 4, 5, 6, 7}


OWN = """
[[rule]]
why = "SGD-like rates are for another optimizer."
where = { "optimizer.learning_rate" = { at_least = 1e-2, below = 1 }, "schedule.name" = ["cosine"] }
unless = { "optimizer.name" = ["prodigy"] }
"""


def test_rules_of_ones_own_have_the_same_form() -> None:
    (rule,) = parse_rules(OWN, "own.toml")

    assert describe((rule,)) == "1. SGD-like rates are for another optimizer"
    fast = {"optimizer__learning_rate": 1e-2, "schedule__name": "cosine"}
    assert rule.refuses(proposal(**fast))
    assert not rule.refuses(proposal(**fast, optimizer__name="prodigy"))
    assert not rule.refuses(proposal(**(fast | {"schedule__name": "constant"})))
    assert not rule.refuses(proposal(**(fast | {"optimizer__learning_rate": 9.99e-3})))
    assert parse_rules("", "empty.toml") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[rule]]\nwhere = { 'lora.rank' = [8] }", "does not say why"),
        ("[[rule]]\nwhy = 'x'", "no conditions"),
        ("[[rule]]\nwhy = 'x'\nwhere = { 'lora.ranc' = [8] }", "did you mean lora.rank?"),
        ("[[rule]]\nwhy = 'x'\nwhere = { 'lora.rank' = { abov = 8 } }", "did you mean above?"),
        ("[[rule]]\nwhy = 'x'\nwhere = { 'lora.rank' = { above = 'a' } }", "expected a number"),
        ("[[rule]]\nwhy = 'x'\nwhere = { 'lora.rank' = 8 }", "expected a comparison"),
        ("[[rule]]\nwhy = 'x'\nwhere = { 'lora.alpha' = { nearer_than = 1 } }", "go together"),
        ("[[rule]]\nwhy = 'x'\nwhen = {}\nwhere = { 'lora.rank' = [8] }", "has no when"),
        ("[rule]\nwhy = 'x'", "not a list"),
        ("rules = 1", "has no rules"),
        ("why = ", "is not TOML"),
    ],
)
def test_a_wrong_rule_is_named(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rules(text, "own.toml")
    assert told in str(caught.value)
    assert "own.toml" in str(caught.value)


def test_rules_judge_proposals_only_and_never_settings() -> None:
    """What the seventh rule would refuse is a run that anybody may ask for."""
    asked = resolve(overrides=["lora.rank=256", "lora.alpha=256", "train.epochs=2", "optimizer.learning_rate=2e-4"])

    assert asked.settings.lora.rank == 256
    assert isinstance(RULES[0], Rule)
    assert scaled(128, 0.85) == 108  # and the rule looks at the ratio that was drawn, 0.85, not at 108 / 128


def test_rules_that_would_refuse_every_trial_are_told_before_anything_trains() -> None:
    """A small model's rates, and a warm-up of the recipe's own that rule 4 finds too short for them."""
    small = parse_space("[optimizer.learning_rate]\nlow = 1e-3\nhigh = 5e-3\nlog = true", "small")
    fixed = flatten(resolve(overrides=["schedule.warmup_steps=20"]).settings)

    with pytest.raises(
        UserError, match=r"refuse all of 200 blind draws of the space, 200 of them by rule 4"
    ) as caught:
        refuse_rules_that_refuse_all(small, RULES, fixed)
    assert "--rules FILE" in str(caught.value.fix)
    assert refuse_rules_that_refuse_all(small, (), fixed) == 0
    share = refuse_rules_that_refuse_all(default_space(), RULES, flatten(Settings()))
    assert share == pytest.approx(0.38, abs=0.1)  # 38 % of the whole grid; of 200 draws a deviation is 3.4 %
