"""Data sets on the Hugging Face hub: `hf:OWNER/NAME`, and how their files get here.

What was fetched whole once is used as it lies in the hub's cache, and the network is left alone: `brushwork download`
brings it up to date. Parquet files, tar shards or a folder of pictures are read, whichever the data set has.
"""

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi

from brushwork.atomic import write_text
from brushwork.data.layout import METADATA
from brushwork.data.picture import READABLE
from brushwork.data.place import HUB_PREFIX
from brushwork.errors import UserError, listed, nearest
from brushwork.hub import Repository, asked, is_offline
from brushwork.places import user_cache_folder

CONVERTED = "refs/convert/parquet"
"""The branch in which the hub itself keeps a data set as parquet, whatever its owner wrote."""

_PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
_NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")


@dataclass(frozen=True)
class HubDataset:
    """`hf:OWNER/NAME` or `hf:OWNER/NAME/FOLDER`, and behind it `@REVISION` and `:PART` where not the usual."""

    repo: str
    folder: str = ""
    revision: str | None = None
    part: str | None = None

    @property
    def repository(self) -> Repository:
        """What the hub is asked for."""
        return Repository(self.repo, "dataset", self.revision)


def parse_place(place: Path | str) -> HubDataset:
    """The parts of a hub place."""
    text = place.as_posix() if isinstance(place, Path) else place
    word = r"[A-Za-z0-9][\w.-]*"
    found = re.fullmatch(rf"{HUB_PREFIX}({word}/{word})(?:/([\w./-]+?))?(?:@([\w./-]+))?(?::({word}))?", text)
    if found is None:
        raise UserError(
            f"{text!r} names no data set of the hub.", fix="write it as hf:OWNER/NAME, as on the data set's page"
        )
    return HubDataset(found[1], found[2] or "", found[3], found[4])


def fetched(place: Path, *, offline: bool = False) -> tuple[Path, list[Path]]:
    """The folder of a data set here, and the shards or tables in it that are meant (none: pictures lie in it)."""
    dataset = parse_place(place)
    known = _recall(dataset)
    if known is not None:
        return known
    if offline or is_offline():
        return _found_in_cache(place, dataset)
    return fetch(place)


def fetch(place: Path | str) -> tuple[Path, list[Path]]:
    """Bring a data set here, or bring it up to date; gives what `fetched` gives."""
    dataset = parse_place(place)
    api = HfApi()
    repository, chosen = dataset.repository, list[str]()
    for branch in dict.fromkeys([dataset.revision, dataset.revision or CONVERTED]):
        repository = Repository(dataset.repo, "dataset", branch)
        names = _listed_on_hub(api, repository, optional=branch == CONVERTED)
        chosen = choose_files(names, dataset)
        if chosen:
            break
    if not chosen:
        raise UserError(
            f"{dataset.repo} has neither parquet files, nor .tar shards, nor pictures"
            + (f" in {dataset.folder}" if dataset.folder else "")
            + ".",
            fix=f"see {repository.page}/tree/main",
        )
    patterns = [glob.escape(name) for name in chosen]
    folder = Path(
        asked(
            repository,
            lambda: api.snapshot_download(
                repository.id, repo_type="dataset", revision=repository.revision, allow_patterns=patterns
            ),
        )
    )
    if missing := [name for name in chosen if not (folder / name).is_file()]:
        raise UserError(
            f"{dataset.repo}: the hub gave {len(chosen) - len(missing)} of {len(chosen)} files; missing: "
            f"{listed(missing)}.",
            fix="try again: what was fetched so far is kept",
        )
    _remember(dataset, folder, chosen)
    return folder, _containers(folder, chosen)


def _listed_on_hub(api: HfApi, repository: Repository, *, optional: bool) -> list[str]:
    """The files of a data set; none where a branch that not every data set has is not there."""
    try:
        return asked(
            repository,
            lambda: api.list_repo_files(repository.id, repo_type="dataset", revision=repository.revision),
        )
    except UserError as error:
        if optional and "has no revision" in error.problem:
            return []
        raise


def choose_files(names: Iterable[str], dataset: HubDataset) -> list[str]:
    """Which files of a repository are read: tables, else shards, else pictures and what is said about them."""
    inside = [name for name in sorted(names) if name.startswith(dataset.folder + "/" if dataset.folder else "")]
    inside = [name for name in inside if not any(part.startswith(".") for part in name.split("/"))]
    for ending in (".parquet", ".tar"):
        files = [name for name in inside if name.lower().endswith(ending)]
        if files:
            chosen = _of_part(files, dataset)
            _refuse_mixture(chosen, dataset)
            return chosen
    endings = tuple(READABLE)
    if not any(name.lower().endswith(endings) for name in inside):
        return []
    wanted = [name for name in inside if name.lower().endswith((*endings, ".txt")) or name.endswith(METADATA)]
    return _of_part(wanted, dataset)


def part_of(name: str) -> str | None:
    """`train`, `validation` or `test`, where a file's name or folder says so."""
    words = re.split(r"[/._-]", name.lower())
    return next((part for word in words for part, same in _PARTS.items() if word in same), None)


def training_files(names: Sequence[str]) -> list[str]:
    """Those that are not set aside by their name for validation or testing; all, where all are."""
    return [name for name in names if part_of(name) in (None, "train")] or list(names)


def _of_part(names: Sequence[str], dataset: HubDataset) -> list[str]:
    if dataset.part is None:
        return training_files(names)
    wanted = dataset.part.lower()
    chosen = [name for name in names if part_of(name) == wanted or wanted in re.split(r"[/._-]", name.lower())]
    if chosen:
        return chosen
    parts = sorted({part_of(name) or PurePosixPath(name).name.partition("-")[0] for name in names})
    near = nearest(wanted, parts) or parts[0]
    raise UserError(
        f"{dataset.repo} has no part {dataset.part!r}; it has: {listed(parts)}.",
        fix=f"{HUB_PREFIX}{dataset.repo}:{near}",
    )


def _refuse_mixture(names: Sequence[str], dataset: HubDataset) -> None:
    """A repository may hold several data sets, each in its folder; to train on all of them is hardly meant."""
    folders = {
        PurePosixPath(name).parts[: -1 if part_of(PurePosixPath(name).parent.name) is None else -2] for name in names
    }
    if len(folders) > 1:
        choices = sorted("/".join(parts) or "." for parts in folders)
        raise UserError(
            f"{dataset.repo} holds several data sets: {listed(choices)}.",
            fix=f"name one: {HUB_PREFIX}{dataset.repo}/{next(name for name in choices if name != '.')}",
        )


def _containers(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if name.lower().endswith((".parquet", ".tar"))]


def _record_file(dataset: HubDataset) -> Path:
    name = hashlib.sha256(repr(dataset).encode()).hexdigest()[:32]
    return user_cache_folder() / "datasets" / f"hub-{name}.json"


def _remember(dataset: HubDataset, folder: Path, names: Sequence[str]) -> None:
    """That all of these files are here: the hub's cache does not tell a fetch that was cut short from a whole one."""
    write_text(_record_file(dataset), json.dumps({"folder": str(folder), "files": list(names)}, indent=1))


def _recall(dataset: HubDataset) -> tuple[Path, list[Path]] | None:
    """What was fetched whole before, if it is still there."""
    try:
        record = json.loads(_record_file(dataset).read_text(encoding="utf-8"))
        folder, names = Path(record["folder"]), list(record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (folder, _containers(folder, names)) if all((folder / name).is_file() for name in names) else None


def _found_in_cache(place: Path, dataset: HubDataset) -> tuple[Path, list[Path]]:
    """What another program brought here, where the hub may not be asked; numbered files have to be all there."""
    folder = dataset.repository.cached()
    names = (
        []
        if folder is None
        else [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    )
    chosen = choose_files(names, dataset)
    if folder is None or not chosen or (gap := _gap(chosen)):
        what = f"of it, {gap} are here" if chosen and gap else "it is not there"
        raise UserError(
            f"{place} is not whole in the hub's cache ({what}); the hub is not asked, because of --offline or "
            "HF_HUB_OFFLINE.",
            fix=f"brushwork download {place}, where there is a network",
        )
    return folder, _containers(folder, chosen)


def _gap(names: Sequence[str]) -> str | None:
    """`3 of 5 files`, where `-00000-of-00005` tells that some are missing."""
    found: dict[tuple[str, str, str], int] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            key = (match[1], match[3], match[4])
            found[key] = found.get(key, 0) + 1
    return next((f"{count} of {int(key[1])} files" for key, count in found.items() if count < int(key[1])), None)
