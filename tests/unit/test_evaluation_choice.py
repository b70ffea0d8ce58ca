"""Which file is named, what is a tie, who cannot win, and what is said of the run."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brushwork.errors import UserError
from brushwork.evaluation.best import name_best, pick, read_pick
from brushwork.evaluation.candidates import Candidate, Folder, candidates, content_digest, ordered
from brushwork.evaluation.choice import Result, choose, judge, pareto
from brushwork.tensor_file import write_tensors

NOISE = torch.randn(401, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
"""What all files have in common: the same prompts and seeds were drawn for all."""


def around(value: float, noise: float = 0.05, own: int | None = None) -> Tensor:
    spread = NOISE.clone() if own is None else torch.randn(401, generator=torch.Generator().manual_seed(own)).double()
    spread[0] = 0
    return value + noise * spread


def result(step: int, score: float, *, copies: float = 0.0, leaning: float = 0.5, own: int | None = None) -> Result:
    return Result(
        candidate=Candidate(f"luca-step{step:08d}", Path(f"luca-step{step:08d}.safetensors"), step=step),
        drawn=around(score, own=own),
        parts={"identity": around(score), "variety": around(1 - score)},
        copies=around(copies, 0.01),
        chance=0.1,
        confidence=0.95,
        leaning=around(leaning, 0.01),
        leaning_of_base=around(0.5, 0.01),
    )


def test_the_highest_score_is_named() -> None:
    found = [result(100, 0.4), result(200, 0.8), result(300, 0.6)]
    choice = choose(found, None)
    assert choice.best is found[1]
    assert choice.ties == ()
    assert choice.reason.startswith("luca-step00000200 has 0.80")


def test_how_far_somebody_copies_beyond_what_may_be() -> None:
    """The lower ends, one-sided: of 95 % of normal draws all but 1.645 deviations (0.01 each)."""
    assert result(100, 0.5).copying_beyond == 0
    assert result(100, 0.5, copies=0.3).copying_beyond == pytest.approx(0.2 - 0.01645, abs=2e-3)
    assert result(100, 0.5, leaning=0.7).copying_beyond == pytest.approx(0.15 - 0.01645, abs=2e-3)
    assert result(100, 0.5, copies=0.3, leaning=0.9).copying_beyond == pytest.approx(0.35 - 0.01645, abs=2e-3)
    assert [result(100, 0.5, copies=share).copies_too_much for share in (0.11, 0.13)] == [False, True]


def test_a_difference_within_the_noise_is_a_tie_and_the_earlier_file_is_taken() -> None:
    found = [result(100, 0.4), result(200, 0.79, own=2), result(300, 0.8, own=3)]
    choice = choose(found, None)
    assert choice.best is found[1]
    assert choice.ties == (found[2],)
    assert "within the noise" in choice.reason
    assert "is earlier" in choice.reason


def test_the_same_small_difference_counts_where_it_is_there_under_every_prompt() -> None:
    """Paired: both swing by 0.05 from draw to draw, together."""
    found = [result(200, 0.79), result(300, 0.8)]
    assert choose(found, None).best is found[1]


def test_who_copies_cannot_win_and_is_named_in_the_reason() -> None:
    found = [result(100, 0.6), result(200, 0.9, copies=0.5), result(300, 0.95, leaning=0.8)]
    choice = choose(found, None)
    assert choice.best is found[0]
    assert "luca-step00000200, luca-step00000300 scored higher and cannot win, for they copy" in choice.reason


def test_where_all_copy_the_best_is_named_with_a_warning() -> None:
    found = [result(100, 0.6, copies=0.5), result(200, 0.9, copies=0.5)]
    choice = choose(found, None)
    assert choice.best is found[1]
    assert "every file copies training pictures" in choice.reason


def test_to_lean_as_the_base_does_is_no_copying() -> None:
    """References of another kind than the training pictures: the base lies nearer to these, too."""
    leans = result(100, 0.6, leaning=0.8)
    assert leans.copies_too_much
    base = around(0.8, 0.01)
    as_base = Result(**{**vars(leans), "leaning_of_base": base})
    assert not as_base.copies_too_much


def test_a_file_that_is_no_better_than_the_base_is_named_with_that_word() -> None:
    base = Result(**{**vars(result(0, 0.6, own=4)), "candidate": Candidate("base")})
    assert "no better than the base" in choose([result(100, 0.6, own=5)], base).reason
    assert "no better" not in choose([result(100, 0.9)], base).reason


def test_the_pareto_view_keeps_who_is_beaten_by_nobody() -> None:
    found = [result(100, 0.4), result(200, 0.8), result(300, 0.8, leaning=0.9)]
    assert pareto(found) == [found[0], found[1]], "the third is as good as the second and leans more"


def test_a_run_whose_last_files_are_worse_is_overtrained_since_the_first_of_them() -> None:
    found = [result(100, 0.4), result(200, 0.8), result(300, 0.81, own=2), result(400, 0.5), result(500, 0.4)]
    verdict = judge(found, choose(found, None).best)
    assert (verdict.kind, verdict.since) == ("overtrained", 400)
    assert verdict.text == "overtrained since step 400: from there on it draws worse; take step 200"


def test_a_run_that_begins_to_copy_is_overtrained_although_its_score_rises() -> None:
    found = [result(100, 0.4), result(200, 0.8), result(300, 0.9, leaning=0.8)]
    verdict = judge(found, choose(found, None).best)
    assert (verdict.kind, verdict.since) == ("overtrained", 300)
    assert "copies training pictures" in verdict.text


def test_a_run_whose_last_file_is_better_by_more_than_the_noise_should_go_on() -> None:
    found = [result(100, 0.4), result(200, 0.6), result(300, 0.8)]
    assert judge(found, choose(found, None).best).kind == "train on"


def test_a_run_that_gets_no_better_can_stop() -> None:
    found = [result(100, 0.4), result(200, 0.8, own=2), result(300, 0.81, own=3)]
    verdict = judge(found, choose(found, None).best)
    assert verdict.kind == "stop"
    assert verdict.text.endswith("take step 200")


def test_one_file_says_nothing_about_where_to_stop() -> None:
    found = [result(100, 0.4)]
    assert judge(found, found[0]).kind == "none"


def lora(path: Path, value: float, **told: str) -> Path:
    write_tensors(path, {"lora_unet.lora_down.weight": torch.full((2, 3), value)}, told)
    return path


def test_the_files_of_a_run_are_found_in_order_of_their_steps(tmp_path: Path) -> None:
    lora(tmp_path / "luca.safetensors", 3, ss_steps="300", ss_epoch="3")
    lora(tmp_path / "luca-000002.safetensors", 2, ss_steps="200", ss_epoch="2")
    lora(tmp_path / "luca-000002-ema.safetensors", 2.5, ss_steps="200", ss_epoch="2")
    lora(tmp_path / "luca-step00000100.safetensors", 1)
    lora(tmp_path / "best.safetensors", 9)
    found = candidates(Folder(tmp_path, None, {}), strengths=(1.0, 0.8), ema=False)
    assert [(each.name, each.step) for each in found] == [
        ("luca-step00000100:0.8", 100),
        ("luca-step00000100", 100),
        ("luca-000002:0.8", 200),
        ("luca-000002", 200),
        ("luca:0.8", 300),
        ("luca", 300),
    ]
    with_means = candidates(Folder(tmp_path, None, {}), strengths=(1.0,), ema=True)
    assert [each.name for each in with_means if each.ema] == ["luca-000002-ema"]


def test_the_same_weights_under_two_names_are_one_candidate(tmp_path: Path) -> None:
    one = lora(tmp_path / "luca-000002.safetensors", 2, ss_steps="200", ss_training_finished_at="1")
    two = lora(tmp_path / "luca-lowest-loss.safetensors", 2, ss_steps="200", ss_training_finished_at="2")
    assert one.read_bytes() != two.read_bytes()
    assert content_digest(one) == content_digest(two)
    found = candidates(Folder(tmp_path, None, {}), strengths=(1.0,), ema=False)
    assert [(each.name, each.also) for each in found] == [("luca-000002", ("luca-lowest-loss",))]
    assert ordered(found) == found


def test_a_folder_without_a_lora_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no LoRA in"):
        candidates(Folder(tmp_path, None, {}), strengths=(1.0,), ema=False)


def test_a_persons_pick_goes_before_and_is_kept(tmp_path: Path) -> None:
    early, late = lora(tmp_path / "luca-000002.safetensors", 2), lora(tmp_path / "luca.safetensors", 3)
    chosen = Candidate("luca", late)
    best = name_best(tmp_path, chosen, "the highest score")
    assert best is not None
    assert best.read_bytes() == late.read_bytes()
    assert json.loads((tmp_path / "best.json").read_text())["chosen_by"] == "evaluation"

    pick(tmp_path, "luca-000002:0.8")
    assert best.read_bytes() == early.read_bytes()
    again = name_best(tmp_path, chosen, "the highest score")
    assert again is not None
    assert again.read_bytes() == early.read_bytes(), "an evaluation does not replace what a person chose"
    told = json.loads((tmp_path / "best.json").read_text())
    assert (told["name"], told["strength"], told["chosen_by"]) == ("luca-000002:0.8", 0.8, "person")
    kept = read_pick(tmp_path)
    assert kept is not None
    assert kept.name == "luca-000002:0.8"


def test_a_pick_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    lora(tmp_path / "luca-000002.safetensors", 2)
    with pytest.raises(UserError, match=r"holds no luca-00002\.safetensors") as error:
        pick(tmp_path, "luca-00002")
    assert error.value.fix == "did you mean luca-000002?"
    with pytest.raises(UserError, match="'strong' is no strength"):
        pick(tmp_path, "luca-000002:strong")
    assert read_pick(tmp_path) is None
