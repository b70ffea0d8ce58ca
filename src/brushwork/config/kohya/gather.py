"""Kohya's settings file and its file for data sets, put together before they are translated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brushwork.config.kohya.datasets import first_and_further, read_subsets
from brushwork.config.kohya.read import is_dataset_file, read_values
from brushwork.config.kohya.translate import Translation, translate

IGNORED_BESIDE_A_DATASET_FILE = ("train_data_dir", "reg_data_dir", "in_json")


@dataclass
class Gathered:
    """What kohya's files say, by kohya's keys, and which file says it."""

    said: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    subsets: list[dict[str, Any]] = field(default_factory=list)
    others: tuple[dict[str, Any], ...] = ()
    """The folders beside the first."""

    def add(self, origin: str, tables: Mapping[str, Any]) -> None:
        """Take in one file; a later settings file wins over an earlier."""
        if is_dataset_file(tables):
            self._add_subsets(origin, tables)
            return
        values = read_values(tables, origin)
        self.said |= {name: value for name, value in values.items() if name not in self._fixed}
        self.sources |= dict.fromkeys(values.keys() - self._fixed, origin)

    @property
    def further(self) -> Path | None:
        """The file for data sets that the settings file leads to, if it was not given with it."""
        name = self.said.get("dataset_config")
        return None if name is None or self.subsets else Path(name).expanduser()

    def translate(self, data: Path | None) -> Translation:
        """What it all comes to."""
        return translate(self.said, self.sources, further=self.others, data=data)

    @property
    def _fixed(self) -> set[str]:
        """What the file for data sets decided, whichever file came first."""
        return {name for subset in self.subsets for name in subset}

    def _add_subsets(self, origin: str, tables: Mapping[str, Any]) -> None:
        self.subsets = read_subsets(tables, origin)
        first, self.others = first_and_further(self.subsets, origin)
        for name in IGNORED_BESIDE_A_DATASET_FILE:
            self.said.pop(name, None)
        self.said |= first
        self.sources |= dict.fromkeys(first, origin)
        self.said.setdefault("dataset_config", origin)
        self.sources.setdefault("dataset_config", origin)
