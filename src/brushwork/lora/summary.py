"""What an adapter file is and what it tells of its making: `brushwork inspect LORA`."""

from collections import Counter
from pathlib import Path
from typing import Any

from brushwork.lora.files import FILE_NAME, AdapterFile, read_adapter
from brushwork.lora.state import component_of
from brushwork.runtime import precision_name

TOLD = {
    "ss_output_name": "name",
    "modelspec.title": "title",
    "modelspec.trigger_phrase": "trigger",
    "ss_sd_model_name": "base",
    "ss_steps": "steps",
    "ss_epoch": "epoch",
    "ss_num_train_images": "pictures",
    "ss_resolution": "resolution",
    "ss_learning_rate": "learning_rate",
    "modelspec.date": "date",
}
"""What is shown of the metadata: key in the file -> our name."""


def summarise(path: Path) -> dict[str, Any]:
    """Read an adapter whole and describe it in plain values."""
    adapter = read_adapter(path)
    file = path / FILE_NAME if path.is_dir() else path
    return {
        "kind": "lora",
        "file": str(file),
        "bytes": file.stat().st_size,
        "family": adapter.family,
        "layout": adapter.layout,
        "precision": precision_name(adapter.dtype),
        "modules": dict(Counter(component_of(name) for name in adapter.state)),
        "parameters": sum(each.down.numel() + each.up.numel() for each in adapter.state.values()),
        "modules_by_rank_and_alpha": _shapes(adapter),
        "untrained": sorted(_untrained(adapter)),
        "told": {name: adapter.metadata[key] for key, name in TOLD.items() if adapter.metadata.get(key)},
        "metadata_entries": len(adapter.metadata),
    }


def _untrained(adapter: AdapterFile) -> list[str]:
    """Modules whose update is zero: they do nothing."""
    return [name for name, each in adapter.state.items() if not each.up.any() or not each.down.any()]


def _shapes(adapter: AdapterFile) -> dict[str, int]:
    """How many modules have each rank and alpha, the most frequent first."""
    shapes = Counter(f"rank {each.rank}, alpha {each.alpha:g}" for each in adapter.state.values())
    return dict(shapes.most_common())
