"""`optuna-dashboard` opens a study: its answers for programs, and its page in headless Chromium.

Needs Chromium or Chrome (the program named by CHROMIUM, else on the path).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect, sync_playwright
from rich.console import Console

from brushwork.config.load import flatten
from brushwork.config.schema import Settings
from brushwork.hpo.safety import parse_rules
from brushwork.hpo.space import parse_space
from brushwork.hpo.study import Attempt, Outcome, Plan, search

pytestmark = pytest.mark.full

SPACE = """
[optimizer.learning_rate]
low = 1e-5
high = 1e-2
log = true
[lora.rank]
choices = [4, 8]
"""
RULES = """
[[rule]]
why = "too fast"
where = { "optimizer.learning_rate" = { above = 2e-3 } }
"""
WAIT = 120
"""Seconds: the machine may be busy with other things."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "corgi"

    def objective(attempt: Attempt) -> Outcome:
        attempt.report(1, 2.0)
        return Outcome(attempt.values.get("optimizer.learning_rate", 1e-3))

    space, rules, fixed = parse_space(SPACE, "space"), parse_rules(RULES, "rules"), flatten(Settings())
    search(Plan(folder, space, rules, fixed, 10, repeats=1), objective, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def dashboard(study: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    words = [str(program), f"sqlite:///{study}/search.db", "--host", "127.0.0.1", "--port", str(port)]
    served = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + WAIT
        while True:
            assert served.poll() is None
            assert time.monotonic() < until
            try:
                urlopen(address).close()
            except URLError:
                time.sleep(0.2)
                continue
            break
        yield address
    finally:
        served.terminate()
        served.wait()


def test_the_study_is_listed_with_its_trials(study: Path, dashboard: str) -> None:
    with urlopen(f"{dashboard}/api/studies") as answer:
        found = {each["study_name"]: each["study_id"] for each in json.load(answer)["study_summaries"]}
    results = json.loads((study / "trial_results.json").read_text())
    assert set(found) == {"corgi search", "corgi base", f"corgi winner-{results['best']:04d}"}
    with urlopen(f"{dashboard}/api/studies/{found['corgi search']}") as answer:
        trials = json.load(answer)["trials"]
    assert len(trials) == 10
    states = {"Complete": "complete", "Pruned": "refused"}
    assert [states[trial["state"]] for trial in trials] == [row["state"] for row in results["trials"]]


def test_the_page_shows_it_in_a_browser(dashboard: str) -> None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.fail("no Chromium: install it (apt install chromium), or name it: CHROMIUM=/path/to/chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{dashboard}/dashboard", timeout=WAIT * 1000)
        page.get_by_text("corgi search").first.click(timeout=WAIT * 1000)
        for shown in ("History", "Hyperparameter Importance", "Best Trial"):
            expect(page.get_by_role("heading", name=shown).first).to_be_visible(timeout=WAIT * 1000)
        browser.close()
