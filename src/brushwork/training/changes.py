"""What a run was begun with, and what may be different when it goes on: nothing, unless the changes are accepted."""

from typing import Any

from brushwork import __version__
from brushwork.config.load import Resolved, differences, read_toml
from brushwork.data.place import whole_place
from brushwork.errors import UserError
from brushwork.runtime import precision_name
from brushwork.training.checkpoint import State
from brushwork.training.prepare import Preparation
from brushwork.training.run_folder import RunFolder
from brushwork.training.what_learns import learning_shapes


def describe(preparation: Preparation) -> dict[str, Any]:
    """What a run was begun with, for `run.json`."""
    base = preparation.base
    return {
        "brushwork": __version__,
        "data": whole_place(preparation.data).as_posix(),
        "data_digest": preparation.data_digest,
        "num_pictures": len(preparation.pictures),
        "num_held_out": len(preparation.held_out),
        "base": base.source,
        "family": base.spec.family,
        "prediction": base.prediction,
        "zero_terminal_snr": base.zero_terminal_snr,
        "unet": base.fingerprint("unet"),
        "vae": base.fingerprint("vae"),
        "text": base.fingerprint("text"),
        "resolution": preparation.resolution,
        "total_steps": preparation.budget.total_steps,
        "device": str(preparation.device),
        "precision": precision_name(preparation.dtype),
    }


def changes(folder: RunFolder, resolved: Resolved) -> list[tuple[str, Any, Any]]:
    """What the settings are now that they were not when the run began."""
    return differences(read_toml(folder.settings_file), resolved.settings)


def _lines(changed: list[tuple[str, Any, Any]]) -> str:
    return "".join(f"\n    {key}: {old} -> {new}" for key, old, new in changed)


def refuse_changed_settings(folder: RunFolder, resolved: Resolved) -> None:
    """A run goes on with the settings that it began with, unless changes are accepted."""
    changed = changes(folder, resolved)
    if changed:
        raise UserError(
            f"{folder.path} holds a run that began with other settings:{_lines(changed)}",
            fix="--accept-changes goes on with the new ones; `brushwork resume` keeps the old ones; another --out "
            "begins anew",
        )


def refuse_changed_inputs(folder: RunFolder, preparation: Preparation) -> None:
    """A run goes on with the pictures, captions and weights that it began with, unless changes are accepted."""
    before, now = folder.read_description(), describe(preparation)
    for key, what in (
        ("data_digest", f"the pictures or captions in {preparation.data}"),
        ("unet", f"the UNet of {preparation.base.source}"),
        ("vae", "the VAE"),
        ("text", "the text encoders"),
        ("prediction", "the base's prediction type"),
        ("zero_terminal_snr", "the end of the base's noise schedule"),
    ):
        if before.get(key) != now[key]:
            raise UserError(
                f"{what} changed since {folder.path} was begun.",
                fix="--accept-changes goes on with the new; another --out begins anew",
            )


def refuse_another_shape(folder: RunFolder, preparation: Preparation, state: State) -> None:
    """Changes that are accepted may ask for another adapter than the one that has learned: there is no way across."""
    rule, asked_rule = state.numbers.rule, preparation.settings.optimizer.name
    if rule is not None and rule != asked_rule:
        raise UserError(
            f"{folder.path} has learned with optimizer.name = {rule}; {asked_rule} cannot go on from that.",
            fix=f"--set optimizer.name={rule}; or begin anew with another --out and --set "
            f"lora.begin_with={folder.path}",
        )
    learned = {name: tuple(parameter.shape) for name, parameter in state.parameters.items()}
    asked = learning_shapes(preparation)
    different = [name for name in {**learned, **asked} if learned.get(name) != asked.get(name)]
    if different:
        name = different[0]
        raise UserError(
            f"what {folder.path} has learned does not fit these settings: {name} is "
            f"{_shape(learned.get(name))} there, and {_shape(asked.get(name))} now ({len(different)} differ).",
            fix="keep lora.rank, lora.targets, lora.text_encoder and the base as they were, or begin anew with --out",
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else " x ".join(map(str, shape))


def refuse_changes_in_vain(folder: RunFolder, resolved: Resolved) -> None:
    """Changed settings of a finished run would be written down, and would be true of none of its files."""
    changed = changes(folder, resolved)
    if changed:
        raise UserError(
            f"{folder.path} is finished, so there is nothing left that these changes could act on:{_lines(changed)}",
            fix="ask for more steps (train.epochs, train.max_steps), or begin anew with another --out",
        )
