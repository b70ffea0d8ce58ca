"""Where a model lies that was named by a path or by its id on the Hugging Face hub, and how it gets there.

What is in the hub's cache is used as it lies there, and the network is left alone; `brushwork download` fetches what
is missing or newer. Only the files that Brushwork reads are fetched: one precision of each part, no pickles
beside safetensors.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import HfApi, constants

from brushwork.errors import UserError, nearest
from brushwork.hub import Repository, asked
from brushwork.models.folder import PARTS, choose_weights, read_json

What = Literal["base", "vae", "transformers"]
"""`transformers`: a model in the layout of that library, such as an image encoder or one that writes captions."""
T = TypeVar("T")

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".bin")
_NAME = r"[A-Za-z0-9][\w.-]*"
_CONFIG = re.compile(r"(model_index|(unet|vae|text_encoder(_2)?|scheduler)/(config|scheduler_config)|config)\.json")
_IN_ROOT = re.compile(r"[\w.-]+\.(json|txt|jinja|model)")
"""What stands beside the weights of a model of transformers: configurations, templates, vocabularies."""
TAGGER = frozenset({"model.onnx", "selected_tags.csv"})
"""A repository that holds both is a tagger, which is read from these alone."""
_FLAGS = {"base": "", "vae": " --vae", "transformers": " --transformers"}
_TOKENIZER = re.compile(
    r"tokenizer(_2)?/(vocab|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|tokenizer(_2)?/merges\.txt"
)


@dataclass(frozen=True)
class HubName:
    """`owner/name`, `owner/name@revision` or `owner/name/FILE.safetensors`."""

    repo: str
    file: str | None
    revision: str | None

    def __str__(self) -> str:
        return self.repo + (f"/{self.file}" if self.file else "") + (f"@{self.revision}" if self.revision else "")


def parse_hub_name(name: str) -> HubName | None:
    """The parts of a hub id or of a page's address on the hub; None for what can only be a path."""
    name = re.sub(r"^https://(huggingface\.co|hf\.co)/", "", name)
    name = re.sub(r"/(blob|resolve|tree)/main(?=/|$)", "", name)
    found = re.fullmatch(rf"({_NAME}/{_NAME}?)(?:/([^@]+))?(?:@([\w./-]+))?", name)
    if found is None or (found[2] is None and name.endswith(_WEIGHTS)):
        return None
    if found[2] is not None and not found[2].endswith(_WEIGHTS):
        return None
    return HubName(found[1], found[2], found[3])


def locate(name: str, what: What, *, variant: str | None = None, offline: bool = False) -> Path:
    """The folder or file that a path or a hub id means; from the hub it is fetched, unless `offline`.

    Args:
        what: which files are wanted: a hub repository may hold a base and a VAE.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    hub_name = parse_hub_name(name)
    if hub_name is None:
        raise _not_there(name)
    try:
        return _in_cache(hub_name, what, variant=variant)
    except UserError as error:
        if offline or constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{name} is neither a file or folder here nor whole in the hub's cache ({error.problem}); the hub is "
                "not asked, because of --offline or HF_HUB_OFFLINE.",
                fix=f"brushwork download {name}{_FLAGS[what]}, where there is a network",
            ) from error
    return download(name, what, variant=variant)


def download(name: str, what: What = "base", *, variant: str | None = None) -> Path:
    """Fetch a model from the hub into the hub's cache, or bring it up to date there.

    -> the folder or the file in the cache
    """
    hub_name = parse_hub_name(name)
    if hub_name is None:
        raise UserError(f"{name!r} is no hub id.", fix="write it as owner/name, as on the model's page")
    api = HfApi()
    if hub_name.file is not None:
        return _fetch_file(api, hub_name, hub_name.file)
    repo, revision = hub_name.repo, hub_name.revision
    files = _asked(hub_name, lambda: api.list_repo_files(repo, revision=revision))
    index = _fetch_file(api, hub_name, "model_index.json") if "model_index.json" in files else None
    wanted = choose_files(files, _named_parts(index), what, variant=variant, where=str(hub_name))
    if len(wanted) == 1:
        return _fetch_file(api, hub_name, wanted[0])
    folder = _asked(hub_name, lambda: api.snapshot_download(repo, revision=revision, allow_patterns=wanted))
    return Path(folder)


def choose_files(
    files: Iterable[str], parts: set[str] | None, what: What, *, variant: str | None, where: str
) -> list[str]:
    """Which files of a repository are read; one that lacks something that is needed is refused.

    Args:
        parts: what `model_index.json` names, None where there is no such file.
    """
    files = set(files)
    if what == "transformers" and files >= TAGGER:
        return sorted(TAGGER)
    if what == "transformers":
        if "config.json" not in files:
            raise UserError(f"{where} has no config.json: it is no model of transformers.", fix="check the name")
        beside = {file for file in files if _IN_ROOT.fullmatch(file) and not file.endswith(".index.json")}
        # The names of the weights are those of a text encoder in the layout of diffusers, which is transformers' own.
        return sorted(beside | set(_weights(files, "", "text_encoder", variant, where)))
    if what == "vae" and "config.json" in files:
        return ["config.json", *_weights(files, "", "vae", variant, where)]
    if parts is None:
        single = sorted(file for file in files if file.endswith(".safetensors") and "/" not in file)
        if len(single) == 1:
            return single
        listed = ", ".join(single[:4]) or "none"
        raise UserError(
            f"{where} is not a base in the diffusers layout; single files there: {listed}.",
            fix=f"name one of the files: {where}/FILE.safetensors",
        )
    wanted = [
        file for file in files if _TOKENIZER.fullmatch(file) or (_CONFIG.fullmatch(file) and file != "config.json")
    ]
    for part in sorted({"vae"} if what == "vae" else parts | {"unet", "vae", "text_encoder"}):
        if f"{part}/config.json" not in files:
            raise UserError(f"{where} has no {part}/config.json.", fix="name a base of SD 1.5 or SDXL")
        wanted += _weights(files, f"{part}/", part, variant, where)
    return sorted(wanted)


def _weights(files: set[str], prefix: str, part: str, variant: str | None, where: str) -> list[str]:
    """The file of a part's weights, or the index with all its shards."""
    inside = [file[len(prefix) :] for file in files if file.startswith(prefix)]
    chosen = choose_weights(inside, part, variant=variant, where=f"{where}/{prefix}".rstrip("/"))
    if not chosen.endswith(".json"):
        return [prefix + chosen]
    stem, ending, named = re.fullmatch(r"(\w+)\.(\w+)\.index(\.\w+)?\.json", chosen).groups("")  # type: ignore[union-attr]
    shard = re.compile(rf"{stem}{re.escape(named)}-\d+-of-(\d+)\.{ending}")
    shards = sorted(file for file in inside if shard.fullmatch(file))
    if not shards or len(shards) != int(shard.fullmatch(shards[0])[1]):  # type: ignore[index]
        raise UserError(
            f"{where}/{prefix}{chosen}: {len(shards)} shards are there, not all.", fix="download it again"
        )
    return [prefix + chosen, *(prefix + file for file in shards)]


def _in_cache(name: HubName, what: What, *, variant: str | None) -> Path:
    """The model in the hub's cache; raises where it is not there as a whole."""
    folder = Repository(name.repo, "model", name.revision).cached()
    if folder is None:
        raise UserError("it is not there")
    if name.file is None:
        return _whole(name, folder, what, variant=variant)
    if not (folder / name.file).is_file():
        raise UserError("it is not there")
    return folder / name.file


def _whole(name: HubName, folder: Path, what: What, *, variant: str | None) -> Path:
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    index = folder / "model_index.json"
    wanted = choose_files(
        files, _named_parts(index if index.is_file() else None), what, variant=variant, where=str(name)
    )
    return folder / wanted[0] if len(wanted) == 1 else folder


def _named_parts(index: Path | None) -> set[str] | None:
    if index is None:
        return None
    content = read_json(index)
    return {part for part in PARTS if isinstance(content.get(part), list) and content[part][0] is not None}


def _fetch_file(api: HfApi, name: HubName, file: str) -> Path:
    return Path(_asked(name, lambda: api.hf_hub_download(name.repo, file, revision=name.revision)))


def _asked(name: HubName, ask: Callable[[], T]) -> T:
    return asked(Repository(name.repo, "model", name.revision), ask, file=name.file)


def _not_there(name: str) -> UserError:
    path = Path(name).expanduser()
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings + (["bundled"] if "/" not in name else []))
    fix = "give a folder, a .safetensors file, a hub id like owner/name, or `bundled`"
    if near is not None:
        fix = f"did you mean {near if near == 'bundled' else path.parent / near}?"
    return UserError(f"there is no file or folder {name}.", fix=fix)
