"""How like the references a frame is, and how like the counter-examples, in numbers from vectors.

Shapes in this file:  N frames   R references   O counter-examples   D width of a vector
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brushwork.errors import UserError

FEWEST = 3
"""References that tell a spread."""
ALIKE = 0.995
"""Where even the least similar reference is so near to the others, they are one picture many times."""
LOWEST_SHARE = 0.05
"""Of the references, so many may be less like the rest than the proposed threshold."""
FOLDS = 8
RIDGE = 3e-5
"""Weight of the squared coefficients. On two drawn films, with four sets of 32 references and 64 counter-examples
each, 1e-4, 3e-5 and 1e-5 tell the lead at a mean precision of 88.3, 89.3 and 89.1 % at a recall of 90 %."""


@dataclass(frozen=True)
class Threshold:
    """From which similarity on a frame counts as like the references, and where that comes from."""

    value: float
    how: str


def similarity(vectors: Tensor, references: Tensor, *, best_of: int) -> tuple[Tensor, Tensor]:
    """Mean cosine with the most similar references, and which is nearest: (N, D), (R, D) -> (N,), (N,)"""
    if not len(vectors):
        return torch.empty(0), torch.empty(0, dtype=torch.long)
    best = (vectors @ references.T).topk(min(best_of, len(references)), dim=1)
    return best.values.mean(dim=1), best.indices[:, 0]


def leave_one_out(references: Tensor, *, best_of: int) -> Tensor:
    """How like the others each reference is: (R, D) -> (R,)"""
    alike = references @ references.T
    alike.fill_diagonal_(-torch.inf)
    return alike.topk(min(best_of, len(references) - 1), dim=1).values.mean(dim=1)


def propose(references: Tensor, *, best_of: int, with_others: bool) -> Threshold:
    """A threshold from the references' own spread: each is compared with all the others, as a frame is.

    Without counter-examples it is what 5 % of the references stay below. With them, it is the least similar
    reference: the counter-examples decide, and the threshold only keeps out what is like neither.

    Raises:
        UserError: there are too few references, or they are all alike.
    """
    by_hand = "or name a threshold: --set curation.min_similarity=0.75"
    if len(references) < FEWEST:
        raise UserError(
            f"{len(references)} reference tells no spread, from which a threshold could be proposed."
            if len(references) == 1
            else f"{len(references)} references tell no spread, from which a threshold could be proposed.",
            fix=f"give {FEWEST} or more that differ (30 are good), {by_hand}",
        )
    own = leave_one_out(references, best_of=best_of)
    if own.min() > ALIKE:
        raise UserError(
            f"the {len(references)} references are all alike (the least similar one has {own.min():.3f} with the "
            "others): their spread tells nothing of how the subject may look.",
            fix=f"give references in several poses, places and light, {by_hand}",
        )
    if with_others:
        return Threshold(float(own.min()), "the least similar of the references, compared with the others")
    value = float(own.quantile(LOWEST_SHARE))
    return Threshold(value, f"{1 - LOWEST_SHARE:.0%} of the references are at least so like the others")


@dataclass(frozen=True)
class Judge:
    """Tells the subject from the counter-examples: logistic regression on what the encoder saw of them.

    Both sides weigh the same, however many there are. A direction in which the two differ counts, and one in which
    all pictures differ, such as the light, does not: that is what similarity alone cannot know.
    """

    weights: Tensor  # (D,)
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """How likely it is the subject, from 0 to 1: (N, D) -> (N,)"""
        return (vectors.double() @ self.weights + self.bias).sigmoid().float()


def fit(references: Tensor, others: Tensor) -> Judge:
    """(R, D), (O, D) -> what tells them apart; the same bits for the same vectors"""
    x = torch.cat([references, others]).double()
    subject = torch.cat([torch.ones(len(references)), torch.zeros(len(others))]).double()
    share = torch.where(subject > 0, 0.5 / len(references), 0.5 / len(others)).double()
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(x @ weights + bias, subject, reduction="none")
        total = (each * share).sum() + RIDGE * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Judge(weights.detach(), bias.detach())


def held_out(references: Tensor, others: Tensor, *, mirrored: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What a judge says of examples that it was not fitted on; each of eight leaves out some: -> (R,), (O,)

    Args:
        mirrored: the same examples in a mirror, (R, D) and (O, D): an example's is left out with it.
    """
    sides = (references, others)
    found = torch.empty(len(references)), torch.empty(len(others))
    for fold in range(FOLDS):
        keep = [torch.arange(len(each)) % FOLDS != fold for each in sides]
        if all(rows.any() for rows in keep):
            both = (
                torch.cat([some[rows], twins[rows]]) for some, twins, rows in zip(sides, mirrored, keep, strict=True)
            )
            judge = fit(*both)
            for result, vectors, rows in zip(found, sides, keep, strict=True):
                result[~rows] = judge(vectors[~rows])
    return found


def nearest_words(vectors: Tensor, words: Tensor) -> Tensor:
    """Which of some texts each frame is nearest to: (N, D), (W, D) -> (N,)

    Texts that are near to every picture would win everywhere: each text's mean over the set is taken off.
    """
    alike = vectors @ words.T
    return (alike - alike.mean(dim=0)).argmax(dim=1)
