"""What the words of a command ask for: settings with every file by its whole path, the pictures, the run folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brushwork.config.load import Resolved, resolve
from brushwork.config.schema import FolderConfig, Settings
from brushwork.data.mask_files import ALPHA, BESIDE
from brushwork.data.place import is_hub_place, is_there, whole_place
from brushwork.errors import UserError
from brushwork.models.weights import BUNDLED
from brushwork.training.run_folder import RunFolder


@dataclass(frozen=True)
class Asked:
    """What a command asks for, settled as far as words go: nothing has been read but settings."""

    pictures: Path
    folder: RunFolder
    resolved: Resolved

    def refuse_missing_pictures(self) -> None:
        """Stop where there is nothing to train on, for those who begin the run somewhere else or later."""
        if not is_there(self.pictures):
            raise UserError(
                f"{self.pictures}: there is no such folder.", fix="name the folder that holds the pictures"
            )


def settle(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
) -> Asked:
    """Settings, pictures and run folder of `train`, whose arguments these are.

    Raises:
        UserError: settings that do not exist or do not fit, or a folder that is not there.
    """
    named = None if data is None else Path(data)
    resolved = resolve(recipe=recipe, files=files, overrides=overrides, data=named)
    resolved = replace(resolved, settings=_with_whole_paths(resolved.settings))
    name = resolved.settings.name
    pictures = named or _named_pictures(resolved.settings)
    return Asked(pictures, RunFolder(Path(out or resolved.out or Path("runs") / name), name), resolved)


def _named_pictures(settings: Settings) -> Path:
    """The folder that a file of settings names, ours or one of kohya's trainer."""
    if settings.data.path is None:
        raise UserError(
            "no folder of pictures is named.", fix="brushwork train FOLDER ..., or data.path in a file of settings"
        )
    return Path(settings.data.path).expanduser()


def _with_whole_paths(settings: Settings) -> Settings:
    """The settings with every file by its whole path: `resume` may be typed in another folder, where the same words
    name nothing, or something else."""
    model, cache = settings.model, settings.cache
    given = {"base": model.base, "vae": model.vae}
    names = {key: name if name == BUNDLED else _whole(name) for key, name in given.items()}
    folder = None if cache.folder is None else str(Path(cache.folder).expanduser().absolute())
    changes = {
        "model": model.model_copy(update=names),
        "cache": cache.model_copy(update={"folder": folder}),
        "data": settings.data.model_copy(
            update={
                "path": None if settings.data.path is None else str(whole_place(Path(settings.data.path))),
                "folders": tuple(map(_whole_folder, settings.data.folders)),
                "masks": _whole_masks(settings.data.masks),
            }
        ),
        "lora": settings.lora.model_copy(update={"begin_with": _whole(settings.lora.begin_with)}),
        "sample": settings.sample.model_copy(update={"prompts": _whole(settings.sample.prompts)}),
        "evaluation": settings.evaluation.model_copy(
            update={
                name: _whole(getattr(settings.evaluation, name))
                for name in ("references", "prompts", "encoder", "text_encoder", "face_detector")
            }
        ),
        "validation": settings.validation.model_copy(update={"data": _whole(settings.validation.data)}),
    }
    return settings.model_copy(update=changes)


def _whole_folder(folder: FolderConfig) -> FolderConfig:
    return folder.model_copy(update={"path": _whole(folder.path), "masks": _whole_masks(folder.masks)})


def _whole_masks(masks: str | None) -> str | None:
    return masks if masks in (ALPHA, BESIDE) else _whole(masks)


def _whole(place: str | None) -> str | None:
    """The whole path of what is there; anything else (a hub id, a share of the data) as it is."""
    if place is None or re.fullmatch(r"[\d.]+", place) or is_hub_place(Path(place)):
        return place
    if not is_there(Path(place)):
        return place
    return str(Path(place).expanduser().absolute())
