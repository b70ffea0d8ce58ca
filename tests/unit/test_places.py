"""Where the cache and the files of the package are."""

from pathlib import Path

import pytest

from brushwork import places
from brushwork.errors import UserError
from brushwork.places import packaged, user_cache_folder


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


def test_an_installation_that_lacks_a_file_says_which_and_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "files", lambda package: tmp_path)

    with pytest.raises(UserError, match=r"not whole: .*scorer.safetensors is missing.\n  fix: .*pip install"):
        packaged("scorer.safetensors")
