"""`brushwork review` in a real browser: keys, undo, a kill, two windows, fingers, 20,000 pictures.

Needs Chromium or Chrome (the program named by CHROMIUM, else on the path), which Playwright drives without a window.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from brushwork.data.reviews import read_reviews
from brushwork.film.frames import draw_folder

pytestmark = pytest.mark.full

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT = 60_000
"""Milliseconds: the machine may be busy with other things."""

Start = Callable[..., tuple[str, subprocess.Popen[str]]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail("no Chromium: install it (apt install chromium), or name it: CHROMIUM=/path/to/chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty frames with what curation might say of them, and three references."""
    folder = tmp_path_factory.mktemp("set")
    draw_folder(folder / "film", 30, 96)
    draw_folder(folder / "approved", 3, 96, seed=900)
    rows = []
    for number in range(30):
        similarity = round(0.5 + number / 60, 3)
        rows.append({"file": f"{number:05}.png", "similarity": similarity, "scores": {"sharpness": 100 - number}})
        decision, reason = ("keep", None) if similarity >= 0.75 else ("refuse", "unlike_references")
        rows[-1] |= {"decision": decision, "reason": reason, "why": "", "nearest_reference": "00001.png"}
        rows[-1] |= {"group": 1 if number in (20, 21) else None}
    (folder / "film" / "curation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def photos(film: Path, tmp_path: Path) -> Path:
    shutil.copytree(film, tmp_path / "set")
    return tmp_path / "set" / "film"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(folder: Path, *words: str) -> tuple[str, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "brushwork", "review", str(folder), "--no-open", *words]
        environment = {**os.environ, "BRUSHWORK_CACHE": str(tmp_path / "cache")}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        running.append(server)
        guard = threading.Timer(300, server.kill)
        guard.start()
        assert server.stdout is not None
        address = next(line.split()[-1] for line in server.stdout if "?token=" in line)
        guard.cancel()
        return address, server

    yield begin
    for server in running:
        server.kill()
        server.wait()


def opened(browser: Browser, address: str, **options: Any) -> Page:
    page = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 800}), **options).new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.wait_for_selector(".grid .cell.current")
    page.wait_for_selector("body.ready", state="attached")
    page.wait_for_function("window.did_handshake")
    return page


def current(page: Page, number: int) -> None:
    page.wait_for_selector(f'.grid .cell.current[data-n="{number}"]', state="attached")


def state(page: Page, number: int, decision: str) -> None:
    page.wait_for_selector(f'.grid .cell[data-n="{number}"][data-state="{decision}"]', state="attached")


def decisions(folder: Path) -> dict[str, str]:
    return {name: review.decision for name, review in read_reviews(folder).items()}


def test_a_set_is_reviewed_by_keys_alone(browser: Browser, photos: Path, start: Start) -> None:
    address, _ = start(photos, "--references", str(photos.parent / "approved"))
    page = opened(browser, address)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    page.keyboard.press("k")
    current(page, 1)
    page.keyboard.press("3")
    current(page, 2)
    assert read_reviews(photos)["00001.png"].reason == "hidden"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".is-one .stage .sheet img")
    page.keyboard.press("r")
    columns = int(
        page.evaluate("getComputedStyle(document.querySelector('.window')).gridTemplateColumns.split(' ').length")
    )
    current(page, 3 + columns)
    assert decisions(photos) == {"00000.png": "keep", "00001.png": "refuse", f"{2 + columns:05}.png": "refuse"}

    for back in (2 + columns, 1, 0):
        page.keyboard.press("z")
        current(page, back)
    page.wait_for_function("document.querySelector('.progress b').textContent == '0'")
    assert set(decisions(photos).values()) == {"undecided"}

    page.keyboard.press("c")
    page.wait_for_selector(".stage .reference img[alt='00001.png']")
    page.keyboard.press("]")
    page.wait_for_selector(".stage .reference img[alt='00002.png']")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector(".review:not(.is-one)")

    page.keyboard.press("u")  # the nearest to the threshold, which lies between 14 and 15
    page.wait_for_selector(".panel .state span:text-matches('^1[56] / 30')")
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    current(page, 0)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(".cell.selected[data-n='2']")
    page.keyboard.press("k")
    state(page, 2, "keep")
    current(page, 3)
    assert [name for name, word in decisions(photos).items() if word == "keep"] == [f"0000{n}.png" for n in range(3)]
    page.keyboard.press("f")
    page.wait_for_selector(".tab.on[data-value=undecided]")
    page.wait_for_selector('.grid .cell[data-n="0"]', state="detached")
    page.keyboard.press("?")
    page.wait_for_selector(".card.help")
    assert problems == []


def test_captions_crops_and_duplicates(browser: Browser, photos: Path, start: Start) -> None:
    address, _ = start(photos)
    page = opened(browser, address)

    page.keyboard.press("e")
    page.wait_for_selector(".card.caption textarea:focus")
    page.keyboard.press("Control+a")
    page.keyboard.type("a fox, k and r are letters here")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".card.caption", state="detached")
    assert (photos / "00000.txt").read_text() == "a fox, k and r are letters here\n"
    assert decisions(photos) == {"00000.png": "undecided"}

    page.keyboard.press("x")
    page.wait_for_selector(".crop")
    page.keyboard.press("a")
    page.keyboard.press("a")
    box = page.locator(".crop").bounding_box()
    corner = page.locator(".crop [data-part=se]").bounding_box()
    assert box is not None
    assert corner is not None
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.keyboard.press("Enter")
    page.wait_for_selector(".kept-part")
    crop = read_reviews(photos)["00000.png"].crop
    assert crop is not None
    assert crop[:2] == (0, 0)
    assert crop[2:] == pytest.approx((48, 48), abs=2)
    page.keyboard.press("z")
    page.wait_for_selector(".kept-part", state="detached")
    assert read_reviews(photos)["00000.png"].crop is None

    page.keyboard.press("m")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    current(page, 2)
    assert read_reviews(photos)["00001.png"].duplicate_of == "00000.png"


def test_a_killed_server_has_lost_nothing_and_the_page_says_what_to_do(
    browser: Browser, photos: Path, start: Start
) -> None:
    address, server = start(photos)
    page = opened(browser, address)
    for number in range(8):
        page.keyboard.press("k" if number % 2 else "r")
        state(page, number, "keep" if number % 2 else "refuse")
    server.send_signal(signal.SIGKILL)
    server.wait()
    page.wait_for_selector("#popup[aria-hidden=false]")
    words = "getComputedStyle(document.querySelector('#popup'), '::after').content"
    assert "give the command again" in page.evaluate(words)

    address, _ = start(photos)
    page = opened(browser, address)

    for number in range(8):
        state(page, number, "keep" if number % 2 else "refuse")
    page.keyboard.press("z")
    state(page, 7, "undecided")
    assert decisions(photos)["00007.png"] == "undecided"


def test_two_windows_show_the_same(browser: Browser, photos: Path, start: Start) -> None:
    address, _ = start(photos)
    one, two = opened(browser, address), opened(browser, address)

    one.keyboard.press("k")
    state(two, 0, "keep")
    two.keyboard.press("2")
    state(one, 0, "refuse")
    two.wait_for_function("document.querySelector('.progress b').textContent == '1'")
    with (photos / "review.jsonl").open("a") as file:
        file.write('{"file": "00005.png", "decision": "keep"}\n')
    for page in (one, two):
        state(page, 5, "keep")
    one.close()
    two.keyboard.press("k")
    current(two, 2)
    assert decisions(photos)["00001.png"] == "keep"


def test_it_works_by_fingers_on_a_small_screen(browser: Browser, photos: Path, start: Start) -> None:
    address, _ = start(photos)
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)

    page.tap('.cell[data-n="4"]')
    page.wait_for_selector(".is-one .fingers")
    inside = """[...document.querySelectorAll('.fingers button')].every((button) => {
        const box = button.getBoundingClientRect();
        return box.width >= 40 && box.height >= 44 && box.left >= 0 && box.right <= innerWidth
            && box.bottom <= innerHeight;
    })"""
    assert page.evaluate(inside)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.tap(".fingers [data-do=keep]")
    page.wait_for_selector(".panel .state span:text('6 / 30')")
    page.tap(".fingers [data-do=menu]")
    page.tap(".card [data-value='2']")
    page.wait_for_selector(".panel .state span:text('7 / 30')")
    assert decisions(photos) == {"00004.png": "keep", "00005.png": "refuse"}
    page.tap(".fingers [data-do=undo]")
    page.wait_for_selector(".panel .state span:text('6 / 30')")
    page.tap(".fingers [data-do=menu]")
    page.tap(".card [data-do=close-one]")
    page.wait_for_selector(".review:not(.is-one)")


def test_names_are_shown_as_they_are_and_nothing_is_fetched_from_elsewhere(
    browser: Browser, photos: Path, start: Start
) -> None:
    evil = photos / "0<img src=x onerror=document.title='evil'>.png"
    shutil.copy(photos / "00000.png", evil)
    evil.with_suffix(".txt").write_text("</button><script>document.title='evil'</script>")
    address, _ = start(photos)
    asked: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, timeout=WAIT)
    page.wait_for_selector(".grid .cell.current", timeout=WAIT)
    page.wait_for_function("window.did_handshake")
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    page.wait_for_selector(".panel .name:text('onerror')", timeout=WAIT)

    assert "evil" not in page.title()
    assert {re.match(r"\w+://[^/]+", url).group() for url in asked if not url.startswith("data:")} == {  # type: ignore[union-attr]
        address.split("/?")[0]
    }


def test_twenty_thousand_pictures_stay_fluid(browser: Browser, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(200):
        pixels = Image.fromarray(draw.integers(30, 220, (6, 8, 3), dtype=np.uint8))
        pixels.resize((256, 192)).save(folder / f"{number:05}.jpg")
    for number in range(200, 20_000):
        (folder / f"{number:05}.jpg").hardlink_to(folder / f"{number % 200:05}.jpg")
    address, server = start(folder)

    begun = time.monotonic()
    page = opened(browser, address)
    page.wait_for_function(SEEN)
    first = time.monotonic() - begun
    jumps = []
    for top in (50_000, 250_000, 120_000):
        begun = time.monotonic()
        page.evaluate(f"document.querySelector('.grid').scrollTop = {top}")
        page.wait_for_timeout(100)
        page.wait_for_function(SEEN)
        jumps.append(time.monotonic() - begun)
    page.keyboard.press("Home")
    current(page, 0)
    times = []
    for number in range(20):
        begun = time.monotonic()
        page.keyboard.press("k")
        state(page, number, "keep")
        times.append(time.monotonic() - begun)
    page.keyboard.press("End")
    current(page, 19_999)

    elements = page.evaluate("document.querySelectorAll('*').length")
    memory = psutil.Process(server.pid).memory_info().rss / 2**20
    print(
        f"first pictures {first:.1f} s; jumps {[round(jump, 1) for jump in jumps]} s; a key "
        f"{1000 * np.median(times):.0f} ms; server {memory:.0f} MiB; {elements} elements in the page"
    )
    assert first < 30
    assert max(jumps) < 20
    assert np.median(times) < 1.0
    assert memory < 500
    assert page.evaluate("document.querySelectorAll('.cell').length") < 400
    assert len(decisions(folder)) == 20


SEEN = """(() => {
    const cells = [...document.querySelectorAll('.grid .cell')].filter((cell) => {
        const box = cell.getBoundingClientRect();
        return box.top < innerHeight && box.bottom > 0;
    });
    return cells.length > 20 && cells.every((cell) => cell.querySelector('img').naturalWidth > 0);
})()"""
"""Whether every picture that is in view is there."""
