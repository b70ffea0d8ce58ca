"""Where the cache is."""

from pathlib import Path

import pytest

from brushwork.places import user_cache_folder


def test_the_cache_folder_follows_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", "named")
    monkeypatch.setenv("XDG_CACHE_HOME", "shared")
    named = user_cache_folder()
    monkeypatch.delenv("BRUSHWORK_CACHE")
    shared = user_cache_folder()

    assert (named, shared) == (Path("named"), Path("shared") / "brushwork")


def test_asking_for_the_cache_folder_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path / "cache"))

    assert not user_cache_folder().exists()
