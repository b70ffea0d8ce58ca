"""The section `[loss]` before a run: what cannot be together is refused, what is on is told."""

from pathlib import Path
from typing import Any

import pytest

from brushwork.config.load import resolve
from brushwork.config.schema import LossConfig
from brushwork.errors import UserError
from brushwork.training.loss_settings import loss_in_words, refuse_contradictory_loss
from brushwork.training.prepare import prepare


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_snr_gamma": 5.0, "debiased": True}, "loss.min_snr_gamma and loss.debiased"),
        ({"min_snr_gamma": 5.0, "scale_v_like_noise": True}, "loss.min_snr_gamma and loss.scale_v_like_noise"),
        ({"debiased": True, "scale_v_like_noise": True}, "loss.debiased and loss.scale_v_like_noise"),
        ({"min_timestep": 500, "max_timestep": 500}, "no noise level below loss.max_timestep = 500"),
        ({"noise_offset_random": True}, "loss.noise_offset, which is 0"),
        ({"adaptive_noise_scale": 0.1}, "loss.noise_offset, which is 0"),
        ({"input_perturbation_random": True}, "loss.input_perturbation, which is 0"),
    ],
)
def test_settings_that_exclude_one_another_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        refuse_contradictory_loss(LossConfig(**settings))
    assert "--set loss." in str(caught.value.fix)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kind": "huber", "min_snr_gamma": 5.0},
        {"kind": "l1", "debiased": True},
        {"noise_offset": 0.1, "noise_offset_random": True, "adaptive_noise_scale": 0.1, "multires_iterations": 6},
    ],
)
def test_settings_that_go_together_pass(settings: dict[str, Any]) -> None:
    refuse_contradictory_loss(LossConfig(**settings))


def test_a_run_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    both = resolve(overrides=["loss.min_snr_gamma=5", "loss.debiased=true"]).settings
    with pytest.raises(UserError, match="each is a whole weighting"):
        prepare(tmp_path / "no such folder", both)
    for_v = resolve(overrides=["loss.scale_v_like_noise=true"]).settings
    with pytest.raises(UserError, match="bases that predict v; this one predicts epsilon"):
        prepare(tmp_path / "no such folder", for_v)


def test_the_plan_tells_all_that_is_on() -> None:
    assert loss_in_words(LossConfig()) == "mean squared error"
    everything = LossConfig(
        kind="huber",
        min_snr_gamma=5.0,
        noise_offset=0.05,
        noise_offset_random=True,
        adaptive_noise_scale=0.01,
        multires_iterations=6,
        input_perturbation=0.1,
        timesteps="logit_normal",
        max_timestep=800,
    )
    assert loss_in_words(everything) == (
        "huber loss with c = 0.1 (snr), min-SNR 5, noise offset up to 0.05 + 0.01 x mean, multires noise, 6 levels, "
        "discount 0.3, input off by 0.1, logit-normal timesteps, mean 0, deviation 1, timesteps 0 to 799"
    )
