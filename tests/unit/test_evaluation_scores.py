"""What the parts of an evaluation measure, against closed forms and pictures that were made to be known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from brushwork.config.schema import EvaluationConfig
from brushwork.evaluation import copying, likeness, style, variety
from brushwork.evaluation.parts import PARTS, Learned, Scale, Seen, measure, weights
from brushwork.evaluation.resampling import Figure, draws, figure, is_tie, mean
from brushwork.film.frames import draw_frame


def unit(*rows: list[float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def frame(seed: int, **fixed: object) -> Image.Image:
    return draw_frame(seed, 64, **fixed)[0]


def test_likeness_is_the_mean_cosine_to_the_references() -> None:
    pictures, references = unit([1, 0], [1, 1]), unit([1, 0], [0, 1])
    torch.testing.assert_close(likeness.likeness(pictures, references), torch.tensor([0.5, math.sqrt(0.5)]))


def test_the_ceiling_leaves_each_reference_out_of_its_own_mean() -> None:
    references = unit([1, 0, 0], [0, 1, 0], [1, 1, 0])
    pairs = [0.0, math.sqrt(0.5), math.sqrt(0.5)]
    assert likeness.ceiling(references) == pytest.approx(sum(pairs) / 3, rel=1e-6)
    with pytest.raises(ValueError, match="needs two"):
        likeness.ceiling(references[:1])


def test_the_way_is_none_for_the_base_whole_for_the_references_and_half_between() -> None:
    base, references = unit([1, 0, 0.2], [1, 0, -0.2]), unit([0, 1, 0.1], [0, 1, -0.1])
    middle = (base.mean(dim=0) + references.mean(dim=0)) / 2
    sideways = base.mean(dim=0) + torch.tensor([0.0, 0.0, 5.0])
    pictures = torch.stack([base.mean(dim=0), references.mean(dim=0), middle, sideways])
    found = likeness.way(pictures, references, start=base)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.5, 0.0]), rtol=1e-5, atol=1e-6)
    # Of (0, c, s) and (0, c, -s), from (a, 0, 0): each goes this share of the way to the other.
    a2, c2, s2 = 1 / 1.04, 1 / 1.01, 0.01 / 1.01
    among = likeness.way_among_references(references, start=base)
    assert among == pytest.approx((a2 + c2 - s2) / (a2 + c2 + s2), rel=1e-5)


def test_scaling_goes_from_the_floor_to_the_ceiling_and_not_beyond() -> None:
    values = torch.tensor([0.1, 0.2, 0.3, 0.5])
    torch.testing.assert_close(
        likeness.scaled(values, floor=0.2, ceiling=0.4), torch.tensor([0.0, 0.0, 0.5, 1.0]), rtol=1e-5, atol=1e-6
    )
    assert likeness.scaled(values, floor=0.4, ceiling=0.4).tolist() == [0.0] * 4


def test_adherence_takes_away_what_a_picture_has_with_every_prompt() -> None:
    texts = unit([1, 0, 1], [0, 1, 1])
    pictures = unit([1, 0, 0], [0, 0, 1])
    found = likeness.adherence(pictures, texts, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([math.sqrt(0.5), 0.0]), rtol=1e-5, atol=1e-6)


def test_the_vendi_score_counts_different_pictures() -> None:
    """Equal ones count as one, orthogonal ones each; two pairs of twins as two (arXiv:2210.02410, sec. 3)."""
    same, apart = unit([1, 0, 0, 0]).repeat(4, 1), torch.eye(4)
    assert variety.vendi(same) == pytest.approx(1.0, abs=1e-6)
    assert variety.vendi(apart) == pytest.approx(4.0, rel=1e-6)
    assert variety.vendi(torch.eye(4)[[0, 0, 2, 2]]) == pytest.approx(2.0, rel=1e-6)


def test_a_mean_distance_counts_no_picture_with_itself() -> None:
    between = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 4.0, 0.0]])
    counts = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    found = variety.mean_distance(between, counts)
    assert found[0].item() == pytest.approx(7 / 3)
    assert found[1].item() == pytest.approx(1.0), "a picture drawn twice is no pair of its own"
    assert found[2].isnan()


def test_the_layout_sees_where_edges_are_and_no_colours() -> None:
    def box(left: int, colour: str, ground: str) -> Image.Image:
        picture = Image.new("RGB", (64, 64), ground)
        ImageDraw.Draw(picture).rectangle((left, 20, left + 20, 44), fill=colour)
        return picture

    here, brighter, there = box(4, "#404040", "#202020"), box(4, "#806060", "#402020"), box(40, "#404040", "#202020")
    found = variety.layouts([here, brighter, there, Image.new("RGB", (64, 64), "red")])
    between = variety.distances(found)
    assert between[0, 1] < 0.02
    assert between[0, 2] > 0.9
    assert found[3].norm() == 0


def test_style_tells_one_way_of_drawing_from_another() -> None:
    def drawn(style_name: str, first: int) -> Tensor:
        return style.all_statistics([frame(first + number, style=style_name, time="noon") for number in range(6)])

    references = drawn("flat", 0)
    usual = style.among_references(references)
    same, other = (style.distance(drawn(name, 50), references).mean().item() for name in ("flat", "pastel"))
    assert same < 1.3 * usual < 1.5 * same < other
    assert len(style.NAMES) == references.shape[1]


def test_style_is_a_distance_in_deviations() -> None:
    """With many references whose statistics are independent and normal, a shift of d deviations in each adds d^2."""
    noise = torch.Generator().manual_seed(1)
    references = torch.randn(4000, 15, generator=noise, dtype=torch.float64)
    new = torch.randn(4000, 15, generator=noise, dtype=torch.float64)
    assert style.distance(new, references).square().mean().item() == pytest.approx(1.0, rel=0.03)
    assert style.distance(new + 2.0, references).square().mean().item() == pytest.approx(5.0, rel=0.03)


def test_pixels_find_a_picture_that_was_shifted_mirrored_or_made_brighter() -> None:
    learned = [frame(seed) for seed in range(5)]
    training = copying.all_small(learned)
    pixels = np.asarray(learned[3])
    shifted = Image.fromarray(np.roll(pixels, (4, -2), axis=(0, 1)))
    mirrored = learned[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    dimmed = Image.eval(learned[2], lambda value: value // 2 + 40)
    found = copying.nearest(copying.by_pixels(copying.all_small([shifted, mirrored, dimmed, frame(77)]), training))
    assert found.which[:3].tolist() == [3, 1, 2]
    assert (found.similarity[:3] > 0.97).all()
    assert found.similarity[3] < 0.9


def test_a_picture_without_anything_in_it_is_like_no_other() -> None:
    grey = copying.all_small([Image.new("RGB", (64, 64), "grey")])
    assert copying.nearest(copying.by_pixels(grey, copying.all_small([frame(1)]))).similarity.abs().item() < 1e-3


def test_leaning_is_a_half_for_what_was_learned_from_neither_and_one_for_copies() -> None:
    training, references = torch.tensor([[0.9, 0.1], [0.5, 0.3]]), torch.tensor([[0.2, 0.1], [0.5, 0.3]])
    torch.testing.assert_close(copying.leaning(training, references), torch.tensor([1.0, 0.5], dtype=torch.float64))


def test_leaning_counts_as_many_training_pictures_as_references() -> None:
    """One of three training pictures at random against the one reference: two of them are nearer."""
    training, references = torch.tensor([[0.9, 0.6, 0.1]]), torch.tensor([[0.5]])
    assert copying.leaning(training, references).item() == pytest.approx(2 / 3)
    # Two of three: {.9 .6}, {.9 .1}, {.6 .1}, all with one above the better of the references.
    assert copying.leaning(training, torch.tensor([[0.5, 0.2]])).item() == pytest.approx(1.0)
    # Of 400 and 30 from the same source, a half in the mean.
    noise = torch.Generator().manual_seed(2)
    many, few = torch.rand(300, 400, generator=noise), torch.rand(300, 30, generator=noise)
    assert copying.leaning(many, few).mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_limit_of_copying_is_what_the_held_out_references_reach() -> None:
    assert copying.limit(torch.arange(101) / 100, quantile=0.95) == pytest.approx(0.95)
    assert copying.limit(torch.tensor([0.2, 0.9, 0.4]), quantile=0.95) == pytest.approx(0.9), "of few, the largest"


def test_intervals_are_those_of_the_mean_where_the_mean_is_measured() -> None:
    """Of 400 independent cells with deviation 1, the mean lies within 1.96 / 20 of its value in 95 % of the draws."""
    values = torch.randn(400, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    counts = draws(range(400), resamples=1000, seed=5)
    found = figure(mean(values, counts), confidence=0.95)
    half = 1.96 * values.std().item() / 20
    assert found.value == pytest.approx(values.mean().item())
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_seeds_of_one_prompt_that_are_all_alike_count_as_one_picture() -> None:
    values = torch.randn(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    once = figure(mean(values, draws(range(20), resamples=500, seed=5)), confidence=0.95)
    prompts = [number for number in range(20) for _ in range(8)]
    often = figure(mean(values.repeat_interleave(8), draws(prompts, resamples=500, seed=5)), confidence=0.95)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.2)


def test_the_same_seed_draws_the_same_cells_for_every_candidate() -> None:
    assert torch.equal(draws([0, 0, 1, 1], resamples=9, seed=2), draws([0, 0, 1, 1], resamples=9, seed=2))
    assert (draws([0, 0, 1, 1], resamples=9, seed=2).sum(dim=1) == 4).all()


def test_cells_without_a_value_do_not_count() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    counts = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    found = mean(values, counts)
    assert found[:2].tolist() == [2.0, 3.0]
    assert found[2].isnan()


def test_a_difference_whose_interval_holds_nothing_is_a_tie() -> None:
    assert is_tie(Figure(0.02, -0.01, 0.05))
    assert not is_tie(Figure(0.02, 0.01, 0.05))


def test_what_is_left_out_leaves_its_weight_to_the_others() -> None:
    assert weights(EvaluationConfig(), PARTS) == {
        "identity": 0.4,
        "variety": 0.2,
        "style": 0.2,
        "adherence": 0.1,
        "quality": 0.1,
    }
    assert weights(EvaluationConfig(), ("identity", "style"))["identity"] == pytest.approx(2 / 3)
    assert weights(EvaluationConfig(identity_weight=0, style_weight=0), ("identity", "style")) == {
        "identity": 0.5,
        "style": 0.5,
    }


def seen(pictures: list[Image.Image], content: Tensor, quality: float = 0.8) -> Seen:
    return Seen(
        content=content,
        subject=content,
        read=content,
        layout=variety.layouts(pictures),
        style=style.all_statistics(pictures),
        small=copying.all_small(pictures),
        quality=torch.full((len(pictures),), quality, dtype=torch.float64),
    )


def test_the_parts_tell_a_good_file_from_the_base_and_from_one_that_repeats_what_it_learned() -> None:
    noise = torch.Generator().manual_seed(4)

    def around(centre: list[float], count: int, spread: float) -> Tensor:
        rows = torch.tensor(centre) + spread * torch.randn(count, 4, generator=noise)
        return torch.nn.functional.normalize(rows, dim=1)

    base_pictures = [frame(200 + number, characters=("bear", "cat")) for number in range(6)]
    good_pictures = [frame(300 + number) for number in range(6)]
    learned = [frame(number) for number in range(4)]
    references = [frame(100 + number) for number in range(6)]
    known = around([0, 1, 0, 0], 4, 0.2)
    scale = Scale(
        references=seen(references, around([0, 1, 0, 0], 6, 0.2)),
        training=Learned(known, copying.all_small(learned)),
        prompts=torch.tensor([0, 0, 1, 1, 2, 2]),
        texts=None,
    )
    base = seen(base_pictures, around([1, 0, 0, 0], 6, 0.2))
    good = seen(good_pictures, around([0, 1, 0, 0], 6, 0.2))
    parrot = seen([learned[0]] * 6, known[:1].repeat(6, 1))
    counts = draws(scale.prompts.tolist(), resamples=100, seed=1)
    settings = EvaluationConfig()
    found = {
        name: measure(each, [base], scale, counts, settings)
        for name, each in {"base": base, "good": good, "parrot": parrot}.items()
    }

    assert found["base"].drawn["identity"][0] == 0
    assert found["good"].drawn["identity"][0] > 0.8
    assert found["parrot"].drawn["variety"][0] < 0.05 < 0.7 < found["good"].drawn["variety"][0]
    assert found["good"].copies is not None
    assert found["parrot"].copies is not None
    assert found["parrot"].copies[0] == 1
    assert found["good"].copies[0] < 0.4
    assert found["good"].leaning is not None
    assert found["parrot"].leaning is not None
    assert found["good"].leaning[0] < 0.75 < found["parrot"].leaning[0]
    assert "adherence" not in found["good"].drawn, "nothing reads the prompts"
    assert found["good"].drawn["quality"][0] == 1
