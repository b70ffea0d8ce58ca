"""A run in several processes: what has to be the same in all of them before they begin."""

from collections.abc import Mapping

from brushwork.amounts import number_of
from brushwork.config.load import flatten
from brushwork.config.schema import TrainConfig
from brushwork.distributed import Group
from brushwork.errors import UserError
from brushwork.training.prepare import Preparation


def refuse_idle_processes(train: TrainConfig, group: Group) -> None:
    """A step's batches are dealt out to the processes, so there have to be enough of them.

    How many pictures a step sees is a setting, and never follows from the number of processes: the run that is begun
    with four and goes on with one is the same run.
    """
    if group.size <= train.accumulation:
        return
    pictures = train.batch_size * train.accumulation
    batch_size = max(1, pictures // group.size)
    changed = f"--set train.accumulation={group.size}"
    if batch_size != train.batch_size:
        changed = f"--set train.batch_size={batch_size} {changed}"
    raise UserError(
        f"{group.size} processes share the batches of a step, and there are only {train.accumulation} "
        "(train.accumulation): some would have nothing to do.",
        fix=f"{changed} (a step now sees {number_of(pictures, 'picture')}, then {batch_size * group.size})",
    )


def refuse_differences(preparation: Preparation, group: Group) -> None:
    """Processes that see other pictures, settings or weights would learn a mixture. All wait here for one another."""
    everywhere = group.gathered(_facts(preparation))
    for rank, facts in enumerate(everywhere):
        different = [name for name, value in facts.items() if value != everywhere[0][name]]
        if different:
            raise UserError(
                f"process {rank} sees other {different[0]} than process 0.",
                fix="give every process the same command, and every machine the same files: a shared folder is best",
            )


def refuse_other_states(step: int, group: Group) -> None:
    """Processes that go on from different steps would learn a mixture: each has to see the same run folder."""
    steps = group.gathered(step)
    if len(set(steps)) > 1:
        raise UserError(
            f"the processes find the run at different steps: {', '.join(map(str, steps))}.",
            fix="put the run on a disk that all machines share, with --out",
        )


def _facts(preparation: Preparation) -> Mapping[str, object]:
    base = preparation.base
    return {
        "settings": str(flatten(preparation.settings)),
        "pictures or captions": preparation.data_digest,
        "weights of the base": [base.fingerprint(part) for part in ("unet", "vae", "text")],
        "kind of device": preparation.device.type,
    }
