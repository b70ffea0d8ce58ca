"""Similarity to references, the threshold that they propose, and what counter-examples add."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brushwork.curation.likeness import fit, held_out, leave_one_out, nearest_words, propose, similarity
from brushwork.errors import UserError
from brushwork.runtime import generator


def draws(count: int, *, around: Tensor | None = None, spread: float = 0.3, purpose: str = "x") -> Tensor:
    noise = torch.randn(count, 16, generator=generator(0, purpose))
    return F.normalize(noise if around is None else around + spread * noise, dim=1)


SUBJECT, OTHER = (
    F.normalize(torch.eye(16)[0] + torch.eye(16)[2], dim=0),
    F.normalize(torch.eye(16)[1] + torch.eye(16)[2], dim=0),
)


def test_similarity_is_the_mean_of_the_best_and_names_the_nearest() -> None:
    frames, references = draws(5), draws(4, purpose="references")
    cosines = frames @ references.T

    best, nearest = similarity(frames, references, best_of=1)
    mean_of_2, _ = similarity(frames, references, best_of=2)
    mean_of_all, _ = similarity(frames, references, best_of=99)

    torch.testing.assert_close(best, cosines.max(dim=1).values)
    assert nearest.tolist() == cosines.argmax(dim=1).tolist()
    torch.testing.assert_close(mean_of_2, cosines.sort(dim=1).values[:, -2:].mean(dim=1))
    torch.testing.assert_close(mean_of_all, cosines.mean(dim=1))


def test_a_reference_is_compared_with_the_others_and_not_with_itself() -> None:
    references = draws(6)
    expected = [
        similarity(references[[row]], torch.cat([references[:row], references[row + 1 :]]), best_of=3)[0][0]
        for row in range(6)
    ]
    torch.testing.assert_close(leave_one_out(references, best_of=3), torch.stack(expected))


def test_the_proposed_threshold_lets_19_of_20_references_pass_and_all_where_there_are_counter_examples() -> None:
    references = draws(200, around=SUBJECT)
    own = leave_one_out(references, best_of=10)

    alone = propose(references, best_of=10, with_others=False).value
    beside = propose(references, best_of=10, with_others=True).value

    assert (own >= alone).float().mean() == pytest.approx(0.95, abs=0.006)
    assert beside == pytest.approx(float(own.min()))


def test_the_proposed_threshold_follows_the_references_and_passes_frames_like_them() -> None:
    tight, loose = draws(30, around=SUBJECT, spread=0.05), draws(30, around=SUBJECT, spread=0.2)
    limits = [propose(each, best_of=5, with_others=False).value for each in (tight, loose)]
    assert limits[0] > limits[1]

    for references, spread, limit in ((tight, 0.05, limits[0]), (loose, 0.2, limits[1])):
        like = similarity(draws(200, around=SUBJECT, spread=spread, purpose="frames"), references, best_of=5)[0]
        unlike = similarity(draws(200, purpose="frames"), references, best_of=5)[0]
        assert (like >= limit).float().mean() > 0.8
        assert (unlike >= limit).float().mean() < 0.1


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_references_tell_no_spread(count: int) -> None:
    with pytest.raises(UserError, match="no spread") as caught:
        propose(draws(count), best_of=5, with_others=False)
    assert "curation.min_similarity=0.75" in str(caught.value)


def test_references_that_are_all_alike_tell_no_spread() -> None:
    with pytest.raises(UserError, match="8 references are all alike"):
        propose(draws(8, around=SUBJECT, spread=1e-3), best_of=5, with_others=False)


def test_a_judge_tells_the_subject_where_both_are_as_similar_in_everything_else() -> None:
    """Half of a vector says who it is, half of it what light it is in; in rare light similarity misleads."""
    light = torch.eye(16)[3]

    def dark(count: int, around: Tensor, purpose: str) -> Tensor:
        return F.normalize(draws(count, around=around, spread=0.1, purpose=purpose) + light, dim=1)

    references = torch.cat([draws(30, around=SUBJECT, spread=0.1), dark(2, SUBJECT, "references")])
    others = torch.cat([draws(30, around=OTHER, spread=0.1), dark(30, OTHER, "others")])
    subject, other = dark(100, SUBJECT, "frames"), dark(100, OTHER, "more frames")

    judge = fit(references, others)

    def rightly(scores: tuple[Tensor, Tensor], limit: float) -> float:
        return float((scores[0] > limit).sum() + (scores[1] <= limit).sum()) / 200

    by_judge = rightly((judge(subject), judge(other)), 0.5)
    limit = propose(references, best_of=10, with_others=False).value
    by_similarity = rightly(tuple(similarity(each, references, best_of=10)[0] for each in (subject, other)), limit)
    assert by_judge > 0.95 > by_similarity


def test_a_judge_is_not_moved_by_how_many_there_are_of_each_side_and_gives_the_same_bits() -> None:
    references, others, frames = draws(8, around=SUBJECT), draws(8, around=OTHER, purpose="o"), draws(50, purpose="f")

    once, many = fit(references, others)(frames), fit(references, others.repeat(9, 1))(frames)

    torch.testing.assert_close(once, many, rtol=1e-3, atol=1e-4)
    assert torch.equal(once, fit(references, others)(frames))


def test_examples_are_judged_by_what_has_not_seen_them() -> None:
    """Vectors without any meaning are told apart by heart when they are seen, and by chance when they are not."""
    references, others = draws(12), draws(12, purpose="others")
    seen = fit(references, others)
    told = held_out(references, others, mirrored=(references, others))
    by_heart = ((seen(references) > 0.5).sum() + (seen(others) < 0.5).sum()) / 24
    unseen = ((told[0] > 0.5).sum() + (told[1] < 0.5).sum()) / 24
    assert by_heart > 0.9
    assert unseen < 0.7
    few = held_out(references[:1], others[:3], mirrored=(references[:1], others[:3]))
    assert all(each.isfinite().all() for each in few)


def test_words_that_are_near_to_every_picture_do_not_win_everywhere() -> None:
    words = F.normalize(torch.stack([SUBJECT, OTHER, SUBJECT + OTHER]), dim=1)
    frames = torch.cat([draws(20, around=SUBJECT, spread=0.05), draws(20, around=OTHER, spread=0.05)])
    found = nearest_words(frames, words)
    assert (found[:20] == 0).all()
    assert (found[20:] == 1).all()
