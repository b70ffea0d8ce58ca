"""What every test has: a cache of its own, so that the tests neither see nor fill the user's."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    # Under xdist every worker has a folder in a common one: what one of them has cached, none has to cache again.
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    before = os.environ.get("BRUSHWORK_CACHE")
    os.environ["BRUSHWORK_CACHE"] = str(common / "brushwork-cache")
    yield
    if before is None:
        del os.environ["BRUSHWORK_CACHE"]
    else:
        os.environ["BRUSHWORK_CACHE"] = before
