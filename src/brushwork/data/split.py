"""Setting pictures aside, on which the run is measured and never trained."""

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
