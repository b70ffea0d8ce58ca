"""Models that are named by their hub id: a hub of this test's own is asked, over HTTP."""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

import local_hub
from brushwork.errors import UserError
from brushwork.models.bundled import bundled_folder
from brushwork.models.hub import HubName, choose_files, download, locate, parse_hub_name
from brushwork.models.weights import open_base
from brushwork.vision.encoder import bundled_encoder, load_encoder

REPO = "someone/tiny"


@dataclass
class Hub:
    """What the hub holds, and what it was asked for."""

    files: dict[str, bytes]
    gated: bool = False
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """A request's path -> status, headers, body"""
        self.asked.append(path)
        if f"{REPO}/" not in f"{path}/":
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [self._entry(name) for name in self.files]
            return 200, {"Content-Type": "application/json"}, json.dumps(entries).encode()
        if path.startswith("/api/models/"):
            about = {"id": REPO, "sha": self.commit, "siblings": [{"rfilename": name} for name in self.files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
        name = path.split("/", 5)[-1]
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if name not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit}, b""
        headers = {
            "X-Repo-Commit": self.commit,
            "ETag": f'"{self._hash(name)}"',
            "Content-Type": "application/octet-stream",
        }
        return 200, headers, self.files[name]

    def fetched(self) -> set[str]:
        return {path.split("/", 5)[-1] for path in self.asked if "/resolve/" in path}

    def _entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": self._hash(name)}

    def _hash(self, name: str) -> str:
        return hashlib.sha1(self.files[name]).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    tiny = bundled_folder()
    paths = [path for path in tiny.rglob("*") if path.is_file()]
    hub = Hub({path.relative_to(tiny).as_posix(): path.read_bytes() for path in paths})
    with local_hub.served(hub.answer) as address:
        local_hub.use(address, tmp_path, monkeypatch)
        yield hub


def refusal(name: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        locate(name, "base", **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_base_is_fetched_once_and_then_used_without_the_network(hub: Hub) -> None:
    first = open_base(REPO)
    asked = len(hub.asked)
    again = open_base(REPO, offline=True)

    assert len(hub.asked) == asked > 0
    assert first.describe() == again.describe()
    unets = [base.load_unet(dtype=torch.float16, device="cpu") for base in (again, open_base("bundled"))]
    ours, theirs = (unet.state_dict() for unet in unets)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_only_what_is_read_is_fetched(hub: Hub) -> None:
    needed = set(hub.files)
    for part in ("unet", "vae"):
        hub.files[f"{part}/diffusion_pytorch_model.bin"] = b"pickle"
        hub.files[f"{part}/diffusion_pytorch_model.fp16.safetensors"] = b"half"
    hub.files |= {"tiny.safetensors": b"single", "README.md": b"read me", "safety_checker/model.safetensors": b"no"}

    open_base(REPO)

    assert hub.fetched() == needed


def test_a_variant_is_fetched_where_it_is_asked_for(hub: Hub) -> None:
    weights = {name for name in hub.files if name.endswith(".safetensors")}
    hub.files |= {name.replace(".safetensors", ".fp16.safetensors"): hub.files[name] for name in weights}

    base = open_base(REPO, variant="fp16")

    assert base.parts["unet"].file.paths[0].name == "diffusion_pytorch_model.fp16.safetensors"
    assert not hub.fetched() & weights


def test_a_single_file_of_a_repository_is_fetched_by_its_name(hub: Hub) -> None:
    content = hub.files["vae/diffusion_pytorch_model.safetensors"]
    hub.files = {"big.safetensors": content}

    named = locate(f"{REPO}/big.safetensors", "base")
    alone = locate(REPO, "base")

    assert named.read_bytes() == alone.read_bytes() == content
    assert locate(f"{REPO}/big.safetensors", "base", offline=True) == named
    assert locate(REPO, "base", offline=True) == alone


def test_a_vae_of_its_own_is_fetched(hub: Hub) -> None:
    hub.files = {name.removeprefix("vae/"): content for name, content in hub.files.items() if name.startswith("vae/")}
    hub.files |= {"sdxl.vae.safetensors": b"the same in other names"}

    base = open_base("bundled", vae=REPO)

    assert base.vae_source == REPO
    assert hub.fetched() == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_an_encoder_is_fetched_without_what_other_programs_read(hub: Hub) -> None:
    folder = bundled_encoder()
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    needed = set(hub.files)
    hub.files |= {"pytorch_model.bin": b"pickle", "tf_model.h5": b"other", "README.md": b"read me"}

    encoder = load_encoder(REPO, device=torch.device("cpu"), dtype=torch.float32)
    again = load_encoder(REPO, device=torch.device("cpu"), dtype=torch.float32, offline=True)

    assert hub.fetched() == needed
    assert encoder.fingerprint == again.fingerprint


def test_an_encoder_that_cannot_be_asked_for_is_told_with_what_fetches_it(hub: Hub) -> None:
    with pytest.raises(UserError, match=f"brushwork download {REPO} --transformers"):
        load_encoder(REPO, device=torch.device("cpu"), dtype=torch.float32, offline=True)
    with pytest.raises(UserError, match=r"has no config\.json: it is no model of transformers"):
        load_encoder(REPO, device=torch.device("cpu"), dtype=torch.float32)


def test_offline_and_not_in_the_cache_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option = refusal(REPO, offline=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    by_environment = refusal(REPO)

    assert by_option == by_environment
    assert f"{REPO} is neither a file or folder here nor whole in the hub's cache" in by_option
    assert f"fix: brushwork download {REPO}" in by_option
    assert hub.asked == []


def test_half_a_download_is_not_taken_for_the_whole(hub: Hub, tmp_path: Path) -> None:
    open_base(REPO)
    snapshot = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / hub.commit
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    said = refusal(REPO, offline=True)
    base = open_base(REPO)

    assert "vae has no weights" in said
    assert base.parts["vae"].file.paths[0].is_file()


def test_download_brings_a_model_up_to_date(hub: Hub) -> None:
    config = "scheduler/scheduler_config.json"
    before = open_base(REPO).prediction
    hub.files[config] = hub.files[config].replace(b'"epsilon"', b'"v_prediction"')
    used_as_it_lies = open_base(REPO).prediction
    hub.commit = "f" * 40

    download(REPO)

    assert (before, used_as_it_lies, open_base(REPO, offline=True).prediction) == ("epsilon", "epsilon", "v")


def test_a_gated_model_tells_how_to_get_in(hub: Hub) -> None:
    hub.gated = True

    said = refusal(REPO)

    assert f"{REPO} is gated" in said
    assert "hf auth login" in said


def test_a_model_that_is_not_on_the_hub_is_told(hub: Hub) -> None:
    assert "the hub has no model someone/else, or it is private" in refusal("someone/else")


def test_a_file_that_is_not_in_the_repository_is_told(hub: Hub) -> None:
    assert f"{REPO} has no file other.safetensors" in refusal(f"{REPO}/other.safetensors")


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        local_hub.use(f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path, monkeypatch)
        monkeypatch.setattr(time, "sleep", lambda _: None)  # the hub's library waits 23 seconds between its trials

        said = refusal(REPO)

    assert f"{REPO} is not whole in the hub's cache, and fetching it failed" in said
    assert "refused" in said


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("stabilityai/sdxl", HubName("stabilityai/sdxl", None, None)),
        ("stabilityai/sdxl@refs/pr/3", HubName("stabilityai/sdxl", None, "refs/pr/3")),
        ("owner/name/dir/x.safetensors", HubName("owner/name", "dir/x.safetensors", None)),
        ("https://huggingface.co/owner/name", HubName("owner/name", None, None)),
        ("https://huggingface.co/owner/name/blob/main/x.ckpt", HubName("owner/name", "x.ckpt", None)),
        ("https://huggingface.co/owner/name/tree/main", HubName("owner/name", None, None)),
        ("models/x.safetensors", None),
        ("./owner/name", None),
        ("/owner/name", None),
        ("name", None),
        ("a/b/c", None),
    ],
)
def test_an_id_is_told_from_a_path(written: str, meant: HubName | None) -> None:
    assert parse_hub_name(written) == meant


def test_shards_are_chosen_all_or_none() -> None:
    stem = "diffusion_pytorch_model"
    files = {f"{part}/config.json" for part in ("unet", "vae", "text_encoder")}
    files |= {"model_index.json", f"vae/{stem}.safetensors", "text_encoder/model.safetensors"}
    shards = {f"unet/{stem}-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)}
    index = f"unet/{stem}.safetensors.index.json"
    parts = {"unet", "vae", "text_encoder"}

    wanted = choose_files(files | shards | {index}, parts, "base", variant=None, where="o/n")

    assert shards | {index} <= set(wanted)
    with pytest.raises(UserError, match="2 shards are there, not all"):
        choose_files(files | {index} | set(sorted(shards)[:2]), parts, "base", variant=None, where="o/n")
