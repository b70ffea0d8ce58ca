"""Data sets that are named by their hub id: a hub of this test's own is asked, over HTTP."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import local_hub
from brushwork.config.schema import DataConfig
from brushwork.data.folder import Dataset, read_dataset
from brushwork.data.huggingface import HubDataset, choose_files, fetch, parse_place
from brushwork.errors import UserError
from data_sets import png

REPO = "lambdalabs/naruto-blip-captions"
TRAIN = "data/train-00000-of-00001.parquet"
MAIN, CONVERTED = "main", "refs/convert/parquet"


def table(*texts: str) -> bytes:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(), "path": None} for _ in texts], struct)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": images, "text": pa.array(texts)}), file)
    return file.getvalue()


@dataclass
class Hub:
    """What each branch of the data set holds, and what was asked for."""

    branches: dict[str, dict[str, bytes]]
    gated: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """A request's path -> status, headers, body"""
        self.asked.append(path)
        if f"datasets/{REPO}/" not in f"{path}/":
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        rest = path.split(f"datasets/{REPO}", 1)[1].strip("/")
        place = rest.partition("/")[2]
        branch = next(
            (name for name in self.branches if f"{place}/".startswith((f"{name}/", f"{self._commit(name)}/"))), ""
        )
        if not rest:
            branch = MAIN
        if not branch:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files, commit = self.branches[branch], self._commit(branch)
        if rest.startswith("tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(entries).encode()
        if path.startswith("/api/"):
            about = {"id": REPO, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
        name = place.removeprefix(f"{commit}/").removeprefix(f"{branch}/")
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        etag = hashlib.sha1(files[name]).hexdigest()
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}, files[name]

    def fetched(self) -> set[str]:
        return {path.rpartition("/resolve/")[2].partition("/")[2] for path in self.asked if "/resolve/" in path}

    def _commit(self, branch: str) -> str:
        return hashlib.sha1(repr((branch, self.branches[branch])).encode()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({MAIN: {TRAIN: table("a", "b"), "README.md": b"about"}})
    with local_hub.served(hub.answer) as address:
        local_hub.use(address, tmp_path, monkeypatch)
        yield hub


def read(place: str, *, offline: bool = False) -> Dataset:
    return read_dataset(Path(place), data=DataConfig(), offline=offline)


def texts(place: str, *, offline: bool = False) -> list[str]:
    return [sample.caption for sample in read(place, offline=offline).samples]


def refusal(place: str, *, offline: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        read(place, offline=offline)
    return str(caught.value)


def test_a_data_set_is_fetched_once_and_then_read_without_the_network(hub: Hub) -> None:
    assert texts(f"hf:{REPO}") == ["a", "b"]
    assert hub.fetched() == {TRAIN}
    hub.asked.clear()

    dataset = read(f"hf:{REPO}")
    assert [sample.name for sample in dataset.samples] == [f"{TRAIN}/0", f"{TRAIN}/1"]
    assert texts(f"hf:{REPO}", offline=True) == ["a", "b"]
    assert hub.asked == []

    hub.branches[MAIN] = {TRAIN: table("c")}
    assert texts(f"hf:{REPO}") == ["a", "b"], "a run goes on with what it began with"


def test_downloading_brings_a_data_set_up_to_date(hub: Hub) -> None:
    assert texts(f"hf:{REPO}") == ["a", "b"]
    hub.branches[MAIN] = {
        "data/train-00000-of-00002.parquet": table("c"),
        "data/train-00001-of-00002.parquet": table("d"),
    }

    fetch(f"hf:{REPO}")

    assert texts(f"hf:{REPO}", offline=True) == ["c", "d"]


def test_the_training_part_is_read_unless_another_is_named(hub: Hub) -> None:
    hub.branches[MAIN] |= {
        "data/test-00000-of-00001.parquet": table("t"),
        "data/validation-00000.parquet": table("v"),
    }

    assert texts(f"hf:{REPO}") == ["a", "b"]
    assert texts(f"hf:{REPO}:test") == ["t"]
    assert texts(f"hf:{REPO}:validation") == ["v"]
    message = refusal(f"hf:{REPO}:tests")
    assert "has no part 'tests'; it has: test, train, validation" in message
    assert f"hf:{REPO}:test" in message


def test_what_the_hub_converted_is_read_where_the_owner_wrote_another_form(hub: Hub) -> None:
    hub.branches = {MAIN: {"naruto.py": b"code"}, CONVERTED: {"default/train/0000.parquet": table("a")}}

    assert texts(f"hf:{REPO}") == ["a"]

    hub.branches = {MAIN: {"naruto.py": b"code"}}
    with pytest.raises(UserError, match=r"neither parquet files, nor \.tar shards, nor pictures"):
        fetch(f"hf:{REPO}")


def test_a_data_set_may_be_a_folder_of_pictures(hub: Hub) -> None:
    rows = '{"file_name": "a.png", "text": "from metadata"}\n'
    hub.branches[MAIN] = {
        "train/a.png": png(),
        "train/metadata.jsonl": rows.encode(),
        "train/b.png": png("blue"),
        "train/b.txt": b"beside it",
        "test/c.png": png(),
        "weights.bin": b"large",
    }

    assert texts(f"hf:{REPO}") == ["from metadata", "beside it"]
    assert "weights.bin" not in hub.fetched()
    assert "test/c.png" not in hub.fetched()


def test_several_data_sets_in_one_repository_are_told_apart_by_the_user(hub: Hub) -> None:
    hub.branches[MAIN] = {"en/train-0.parquet": table("en"), "fr/train/0.parquet": table("fr")}

    message = refusal(f"hf:{REPO}")
    assert "holds several data sets: en, fr" in message
    assert f"hf:{REPO}/en" in message
    assert texts(f"hf:{REPO}/fr") == ["fr"]


def test_offline_a_set_that_is_not_here_or_not_whole_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(f"hf:{REPO}", offline=True)
    assert "it is not there" in message
    assert f"brushwork download hf:{REPO}" in message
    assert hub.asked == []

    snapshot = tmp_path / "hub" / f"datasets--{REPO.replace('/', '--')}" / "snapshots" / "abc" / "data"
    snapshot.mkdir(parents=True)
    (snapshot.parents[2] / "refs").mkdir()
    (snapshot.parents[2] / "refs" / "main").write_text("abc")
    (snapshot / "train-00000-of-00002.parquet").write_bytes(table("a"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "of it, 1 of 2 files are here" in refusal(f"hf:{REPO}")

    (snapshot / "train-00001-of-00002.parquet").write_bytes(table("b"))
    assert texts(f"hf:{REPO}") == ["a", "b"]
    assert hub.asked == []


def test_what_the_hub_refuses_is_told_in_words(hub: Hub) -> None:
    message = refusal("hf:somebody/else")
    assert "the hub has no data set somebody/else, or it is private" in message
    assert "https://huggingface.co/datasets/somebody/else" in message
    assert "has no revision 'old'" in refusal(f"hf:{REPO}@old")
    hub.gated = True
    assert "is gated" in refusal(f"hf:{REPO}")


def test_a_fetch_that_was_cut_short_is_not_taken_for_the_whole(hub: Hub) -> None:
    hub.branches[MAIN] = {"data/a.parquet": table("a"), "data/b.parquet": table("b")}
    folder, _ = fetch(f"hf:{REPO}")
    (folder / "data" / "b.parquet").unlink()

    assert texts(f"hf:{REPO}") == ["a", "b"]


@pytest.mark.parametrize("place", ["hf:", "hf:one", "hf:a/b@", "hf:a/b:c d", "hf:a b/c"])
def test_a_place_that_names_no_data_set_is_refused(place: str) -> None:
    with pytest.raises(UserError, match="names no data set of the hub"):
        parse_place(place)


def test_the_parts_of_a_place_are_told_apart() -> None:
    assert parse_place("hf:a/b") == HubDataset("a/b")
    assert parse_place("hf:a/b/c/d@v1:test") == HubDataset("a/b", "c/d", "v1", "test")


def test_tables_go_before_shards_and_shards_before_pictures() -> None:
    everything = ["a.png", "b.tar", "c.parquet", ".gitattributes"]

    assert choose_files(everything, HubDataset("a/b")) == ["c.parquet"]
    assert choose_files(everything[:2], HubDataset("a/b")) == ["b.tar"]
    assert choose_files(everything[:1], HubDataset("a/b")) == ["a.png"]
    assert choose_files(["x.csv"], HubDataset("a/b")) == []
