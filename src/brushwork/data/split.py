"""Setting pictures aside, on which the run is measured and never trained."""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import replace

from brushwork.data.folder import Dataset
from brushwork.errors import UserError
from brushwork.runtime import derive_seed


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set into what is trained on and what is held out.

    A picture's side depends on its bytes and the seed, not on its name or its neighbours: a picture that is added
    moves few others, and byte-identical files are never on both sides.
    """
    if not 0 < share < 1:
        raise UserError(
            f"validation.data: a share lies between 0 and 1, found {share}.", fix="--validation 0.1, or a folder"
        )
    digests = {sample.digest for sample in dataset.samples}
    if len(digests) < 2:
        raise UserError(
            f"{dataset.root}: nothing can be held out of {len(digests)} picture(s).", fix="--set validation.data=off"
        )
    count = min(max(round(share * len(digests)), 1), len(digests) - 1)
    aside = set(sorted(digests, key=lambda digest: derive_seed(seed, f"hold out {digest}"))[:count])
    kept = tuple(sample for sample in dataset.samples if sample.digest not in aside)
    held_out = tuple(sample for sample in dataset.samples if sample.digest in aside)
    return replace(dataset, samples=kept), replace(dataset, samples=held_out)


def hold_out_scenes(
    dataset: Dataset, share: float, seed: int, scenes: Mapping[str, Hashable]
) -> tuple[Dataset, Dataset]:
    """Split a data set with the pictures of a scene on one side: a twin of what is trained would be known by heart.

    Whole scenes are taken, in an order that depends on their pictures and the seed, as long as the share is not
    exceeded; where each is larger than the share, the smallest one.

    Args:
        scenes: to which scene each picture belongs, by its name.
    """
    members: dict[Hashable, list[str]] = defaultdict(list)
    digests = {sample.name: sample.content for sample in dataset.samples}
    for name in digests:
        members[scenes[name]].append(name)
    if len(members) < 2:
        raise UserError(
            f"{dataset.root}: its {len(digests)} pictures are one scene, so nothing can be held out of them.",
            fix="leave --heldout out, or add pictures of another scene",
        )
    order: list[list[str]] = sorted(
        members.values(), key=lambda names: derive_seed(seed, f"hold out {min(digests[name] for name in names)}")
    )
    most, aside = max(1, round(share * len(digests))), set[str]()
    for names in order:
        if len(aside) + len(names) <= most:
            aside.update(names)
    if not aside:
        smallest: list[str] = min(order, key=len)
        aside.update(smallest)
    kept = tuple(sample for sample in dataset.samples if sample.name not in aside)
    held_out = tuple(sample for sample in dataset.samples if sample.name in aside)
    return replace(dataset, samples=kept), replace(dataset, samples=held_out)


def check_share(share: float) -> None:
    """Refuse a share that leaves nothing on one side, before pictures are read."""
    if not 0 < share < 1:
        raise UserError(f"--heldout {share:g}: a share between 0 and 1 was expected.", fix="--heldout 0.1")
