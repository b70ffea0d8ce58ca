"""The space of a search: what it draws, in which order, and what it refuses to read."""

from typing import Any

import pytest

from brushwork.config.load import flatten, resolve
from brushwork.config.schema import Settings
from brushwork.errors import UserError
from brushwork.hpo.space import Parameter, default_space, parse_space, refuse_unfit_recipe, scaled

FIXED = flatten(Settings())


class Ends:
    """Draws the first choice or the low end; the last or the high one where asked."""

    def __init__(self, *, last: bool = False) -> None:
        self.last = last
        self.asked: list[str] = []

    def draw(self, parameter: Parameter) -> Any:
        self.asked.append(parameter.name)
        if parameter.choices:
            return parameter.choices[-1 if self.last else 0]
        return parameter.high if self.last else parameter.low


def test_the_default_space_draws_the_ratio_and_gives_the_alpha() -> None:
    low = default_space().propose(Ends(), FIXED)
    high = default_space().propose(Ends(last=True), FIXED)

    assert (low.values["lora.rank"], low.values["lora.alpha"]) == (64, 16)
    assert (high.values["lora.rank"], high.values["lora.alpha"]) == (256, 230)
    assert high.everything["lora.alpha_ratio"] == 0.9
    assert low.values["loss.min_snr_gamma"] == "off"
    assert "lora.alpha_ratio" not in low.values  # it is no setting


def test_the_default_space_is_the_guides() -> None:
    space = {parameter.name: parameter for parameter in default_space().parameters}
    choices = {name: parameter.choices for name, parameter in space.items() if parameter.choices}
    numbers = {
        name: (parameter.low, parameter.high, parameter.step, parameter.log)
        for name, parameter in space.items()
        if not parameter.choices
    }

    assert choices == {
        "lora.rank": (64, 128, 256),
        "lora.dropout": (0.0, 0.05, 0.1),
        "schedule.name": ("cosine_with_restarts", "cosine", "constant"),
        "train.epochs": (12, 16, 20, 24),
        "loss.min_snr_gamma": ("off", 5.0, 10.0),  # the guide's 0
        "optimizer.name": ("adamw", "adamw8bit"),
        "train.accumulation": (1, 2, 4),
        "schedule.warmup_steps": (50, 100, 150, 200),
    }
    assert numbers == {
        "lora.alpha_ratio": (0.25, 0.9, 0.05, False),
        "optimizer.learning_rate": (6e-5, 1.2e-4, None, True),
        "optimizer.text_encoder_learning_rate": (3e-5, 8e-5, None, True),
    }


def test_every_end_of_the_default_space_is_a_settings_file() -> None:
    for last in (False, True):
        values = default_space().propose(Ends(last=last), FIXED).values
        resolved = resolve(overrides=[f"{key}={value}" for key, value in values.items()]).settings
        assert resolved.train.epochs == values["train.epochs"]


def test_a_text_encoders_rate_is_drawn_only_where_one_learns() -> None:
    key = "optimizer.text_encoder_learning_rate"

    assert key not in default_space().propose(Ends(), FIXED).values
    for learning in (True, "only"):
        assert key in default_space().propose(Ends(), {**FIXED, "lora.text_encoder": learning}).values


def test_an_alpha_is_cut_and_not_rounded_but_binary_fractions_take_nothing_away() -> None:
    assert scaled(64, 0.9) == 57
    assert scaled(100, 0.55) == 55
    assert scaled(100, 0.29) == 29  # 28.999999999999996 in floating point


def test_conditions_may_stand_before_what_they_ask_for() -> None:
    space = parse_space(
        """
        [schedule.cycles]
        low = 1
        high = 3
        when = { "schedule.name" = ["cosine_with_restarts"] }

        [schedule.name]
        choices = ["constant", "cosine_with_restarts"]
        """,
        "s",
    )

    first, last = Ends(), Ends(last=True)
    assert space.propose(first, FIXED).values == {"schedule.name": "constant"}
    assert space.propose(last, FIXED).values == {"schedule.name": "cosine_with_restarts", "schedule.cycles": 3}
    assert last.asked == ["schedule.name", "schedule.cycles"]
    assert space.is_conditional


def test_what_a_person_sets_is_not_drawn_and_a_ratio_follows_it() -> None:
    space = default_space().without(["lora.rank"])

    found = space.propose(Ends(), {**FIXED, "lora.rank": 100})
    assert "lora.rank" not in found.values
    assert found.values["lora.alpha"] == 25
    assert {"lora.alpha_ratio", "lora.alpha"} < found.drawn


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[lora.ranc]\nchoices = [8]", "did you mean lora.rank?"),
        ("[lora.network_dim]\nchoices = [8]", "did you mean lora.rank?"),
        ("[lora.rank]\nchoises = [8]", "did you mean choices?"),
        ("[lora.rank]\nchoices = []", "expected a list"),
        ("[lora.rank]\nchoices = [8]\nlow = 4", "has choices and low"),
        ("[lora.rank]\nlow = 8", "low and high as numbers"),
        ("[lora.rank]\nlow = 8\nhigh = 8", "is not below"),
        ("[lora.rank]\nlow = 8\nhigh = 16\nstep = 0", "step is a number above 0"),
        ("[lora.rank]\nlow = 1\nhigh = 16\nstep = 2\nlog = true", "log goes without step"),
        ("[lora.rank]\nchoices = [8, 0]", "may become 0: expected a whole number from 1 to 1024"),
        ("[optimizer.name]\nchoices = ['adam']", 'may become "adam"'),
        ("[lora.dropout]\nlow = 0.0\nhigh = 1.0", "may become 1.0"),
        ("[lora]\nrank = 8", "expected a table"),
        ("[lora.alpha]\nratio_of = 'lora.ranc'\nlow = 0.1\nhigh = 0.5", "is no setting"),
        ("[lora.rank]\nchoices=[2]\n[lora.alpha]\nratio_of = 'lora.rank'\nlow = 0.1\nhigh = 0.5", "may become 0"),
        ("[lora.rank]\nchoices=[2]\nwhen = { 'lora.rank' = [2] }", "wait for one another"),
        ("[lora.rank]\nchoices=[2]\nwhen = { 'lora.rang' = [2] }", "names lora.rang"),
        ("[train.seed]\nchoices=[1, 2]", "a lucky seed"),
        ("[validation.timesteps]\nchoices=[1, 2]", "cannot be compared"),
        ("", "names no setting"),
        ("[lora.rank", "is not TOML"),
    ],
)
def test_a_wrong_space_is_named(text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_space(text, "own.toml")
    assert told in str(caught.value)
    assert "own.toml" in str(caught.value)


def test_a_ratio_of_what_the_recipe_does_not_set_is_refused_before_any_trial() -> None:
    space = parse_space("[lora.conv_alpha]\nratio_of = 'lora.conv_rank'\nlow = 0.25\nhigh = 0.5", "own.toml")

    with pytest.raises(UserError, match="which is not set"):
        refuse_unfit_recipe(space, FIXED, "own.toml")
    with pytest.raises(UserError, match="would become 0"):
        refuse_unfit_recipe(space, {**FIXED, "lora.conv_rank": 2}, "own.toml")
    refuse_unfit_recipe(space, {**FIXED, "lora.conv_rank": 8}, "own.toml")
