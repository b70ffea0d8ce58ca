"""`brushwork cache build`: the cache is filled as a run would fill it, before there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from brushwork.amounts import number_of
from brushwork.cache.store import Store, cache_folder
from brushwork.config.load import resolve
from brushwork.distributed import current, joined, voice
from brushwork.training.caching import CachingInterruptedError, fill_latents, fill_text
from brushwork.training.interruption import listening
from brushwork.training.prepare import VAE_DTYPE, prepare_aloud


@dataclass(frozen=True)
class CacheBuilt:
    """What the cache holds for a data set."""

    folder: Path
    num_pictures: int
    num_captions: int
    finished: bool
    """False if it was interrupted; what is done is kept."""

    def __str__(self) -> str:
        if not self.finished:
            return f"{self.folder}: stopped; the same command goes on"
        text = (
            f"and {number_of(self.num_captions, 'caption')}"
            if self.num_captions
            else "(captions are encoded in each step)"
        )
        return f"{self.folder}: {number_of(self.num_pictures, 'picture')} {text} are ready"

    def record(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "folder": str(self.folder),
            "pictures": self.num_pictures,
            "captions": self.num_captions,
            "finished": self.finished,
        }


@joined()
def build_cache(
    data: str | Path,
    *,
    recipe: str | None = None,
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> CacheBuilt:
    """Encode pictures and, where the settings cache text, captions; `train` with the same settings finds them.

    Args:
        data: pictures with captions beside them, as for `train`.
        recipe: name or `.toml` file of a recipe.
        files: settings files, the later ones winning.
        overrides: single settings as `key=value`.
        console: where the progress is shown; by default the error stream.
    """
    console = voice(current(), console)
    settings = resolve(recipe=recipe, files=files, overrides=overrides).settings
    store = Store(cache_folder(settings.cache.folder))
    with listening() as interruption:
        preparation = prepare_aloud(Path(data), settings, console)
        num_pictures = len(preparation.pictures) + len(preparation.held_out)
        num_captions = len(preparation.captions) if preparation.caches_text else 0
        try:
            vae = preparation.base.load_vae(dtype=VAE_DTYPE, device="cpu")
            fill_latents(preparation, store, vae, console=console, interruption=interruption)
            del vae
            if num_captions:
                text = preparation.base.load_text(
                    dtype=preparation.dtype,
                    device=preparation.device,
                    clip_skip=settings.model.clip_skip,
                    max_tokens=settings.model.max_tokens,
                )
                fill_text(preparation, store, text, console=console, interruption=interruption)
        except CachingInterruptedError:
            return CacheBuilt(store.folder, num_pictures, num_captions, finished=False)
    return CacheBuilt(store.folder, num_pictures, num_captions, finished=True)
