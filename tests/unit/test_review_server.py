"""The page's server: who is let in, which files are given out, what a person is told when it cannot start."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from brushwork.cli.app import app
from brushwork.config.schema import DataConfig
from brushwork.data.reviews import read_reviews
from brushwork.errors import UserError
from brushwork.studio import fragments
from brushwork.studio.decisions import Decisions
from brushwork.studio.frames import ReviewSet, read_review_set
from brushwork.studio.gate import Gate
from brushwork.studio.keys import ACTIONS, KEYS, PARTS, REASONS
from brushwork.studio.renderings import Renderings, picture_size
from brushwork.studio.serving import picture_server

TOKEN, PORT = "the-token", 8720
SCREENS = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}
HOME = f"http://127.0.0.1:{PORT}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures, a broken one, and things beside the set that are nobody's business."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("ab"):
        Image.new("RGB", (640, 480), (90 * number, 90, 90)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a fox")
    (folder / "c.png").write_text("no picture")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "private.png")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def served(reviewed: ReviewSet) -> TestClient:
    server = picture_server(reviewed, Renderings(max_pixels=10_000_000))
    return TestClient(Gate(server, token=TOKEN, port=PORT), base_url=HOME)  # type: ignore[arg-type]


@pytest.fixture
def client(photos: Path) -> Iterator[TestClient]:
    with served(read_review_set(photos, data=DataConfig())) as client:
        yield client


def test_without_the_token_nothing_is_told(client: TestClient) -> None:
    for token in ("", "?token=", "?token=other", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}", "?token=%ff%fe"):
        answer = client.get(f"/picture/0/thumb{token}")
        assert answer.status_code == 403
        assert "address that the command printed" in answer.text
    assert client.get("/no/such/thing").status_code == 403  # not even what is here
    client.cookies.set(f"brushwork-{PORT}", "other")
    assert client.get("/picture/0/thumb").status_code == 403


def test_the_token_of_the_address_becomes_a_cookie_that_no_script_reads_and_no_other_site_sends(
    client: TestClient,
) -> None:
    answer = client.get(f"/picture/0/thumb?token={TOKEN}")

    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert client.get("/picture/0/thumb").status_code == 200  # by the cookie
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?://", policy)
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_name_that_leads_to_this_machine_is_not_this_machine(client: TestClient) -> None:
    for host in ("evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""):
        assert client.get(f"/picture/0/thumb?token={TOKEN}", headers={"host": host}).status_code == 403
    for origin in ("http://evil.example", f"https://127.0.0.1:{PORT}", "null"):
        assert client.get(f"/picture/0/thumb?token={TOKEN}", headers={"origin": origin}).status_code == 403
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert client.get(f"/picture/0/thumb?token={TOKEN}", headers=headers).status_code == 200


PATHS = [
    "/picture/0/../../secret.txt",
    "/picture/..%2f..%2fsecret.txt/thumb",
    "/picture/0/%2e%2e",
    "/picture/3/thumb",
    "/picture/-1/thumb",
    "/picture/0/original",
    "/picture/a.png/thumb",
    "/picture/0",
    "/reference/0/thumb",
    "//etc/passwd",
    "/static/../secret.txt",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    answer = client.get(f"{path}?token={TOKEN}")

    assert answer.status_code in (404, 422)
    assert "secret" not in answer.text


def test_pictures_are_given_in_three_sizes_and_kept_outside_the_set(client: TestClient, photos: Path) -> None:
    before = sorted(photos.iterdir())
    sizes = {}
    for kind in ("thumb", "screen", "full"):
        answer = client.get(f"/picture/1/{kind}?token={TOKEN}")
        assert answer.headers["content-type"] == "image/jpeg"
        sizes[kind] = Image.open(io.BytesIO(answer.content)).size

    assert sizes == {"thumb": (320, 240), "screen": (640, 480), "full": (640, 480)}
    assert sorted(photos.iterdir()) == before
    kept = list((Path(os.environ["BRUSHWORK_CACHE"]) / "thumbnails").rglob("*.jpg"))
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(file.read_bytes()[:-9])  # a power cut
    assert Image.open(io.BytesIO(client.get("/picture/1/thumb").content)).size == (320, 240)


def test_a_picture_that_was_replaced_is_shown_as_it_is_now(client: TestClient, photos: Path) -> None:
    def colour() -> tuple[int, ...]:
        image = Image.open(io.BytesIO(client.get(f"/picture/0/thumb?token={TOKEN}").content))
        return tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)).round())

    assert colour()[2] == pytest.approx(90, abs=2)
    Image.new("RGB", (320, 240), (0, 0, 255)).save(photos / "a.png")
    assert colour()[2] == pytest.approx(255, abs=2)


def test_what_cannot_be_read_says_why_on_its_place(client: TestClient, photos: Path) -> None:
    answer = client.get(f"/picture/2/thumb?token={TOKEN}")
    (photos / "b.png").unlink()

    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert "not a picture" in re.sub(r"<[^>]*>", " ", answer.text)
    assert "No such file" in client.get("/picture/1/thumb").text


def test_a_link_to_a_file_outside_the_set_is_not_followed_without_being_asked(photos: Path, tmp_path: Path) -> None:
    (photos / "link.png").symlink_to(tmp_path / "private.png")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "more" / "d.png")
    (photos / "folder").symlink_to(tmp_path / "more")
    (photos / "inside.png").symlink_to(photos / "a.png")
    (tmp_path / "door").symlink_to(photos)

    for folder in (photos, tmp_path / "door"):  # the set itself may be a link
        reviewed = read_review_set(folder, data=DataConfig())
        numbers = {frame.name: frame.number for frame in reviewed.frames}
        assert any("links to files outside the set" in note and ": 2 (" in note for note in reviewed.notes)
        with served(reviewed) as client:
            for name in ("link.png", "folder/d.png"):
                answer = client.get(f"/picture/{numbers[name]}/full?token={TOKEN}")
                assert "outside" in re.sub(r"<[^>]*>", " ", answer.text)
            assert client.get(f"/picture/{numbers['inside.png']}/full").headers["content-type"] == "image/jpeg"
    with served(read_review_set(photos, data=DataConfig(), links=True)) as client:
        answer = client.get(f"/picture/{numbers['link.png']}/full?token={TOKEN}")
        assert answer.headers["content-type"] == "image/jpeg"


def test_a_file_that_becomes_a_link_while_it_is_reviewed_is_not_followed(
    client: TestClient, photos: Path, tmp_path: Path
) -> None:
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(tmp_path / "private.png")

    assert "outside" in client.get(f"/picture/0/thumb?token={TOKEN}").text


def test_references_are_those_of_the_folder_that_was_named_and_no_other_file(photos: Path, tmp_path: Path) -> None:
    approved = tmp_path / "approved"
    (approved / "more").mkdir(parents=True)
    for name in ("x.png", "more/y.png"):
        Image.new("RGB", (8, 8)).save(approved / name)
    (approved / "z.png").symlink_to(tmp_path / "private.png")
    rows = [("a.png", "/elsewhere/more/y.png"), ("b.png", str(tmp_path / "private.png")), ("c.png", 7)]
    lines = [json.dumps({"file": file, "nearest_reference": nearest}) + "\n" for file, nearest in rows]
    (photos / "curation.jsonl").write_text("".join(lines))

    reviewed = read_review_set(photos, data=DataConfig(), references=approved)

    assert [file.name for file in reviewed.references] == ["y.png", "x.png", "z.png"]
    assert [frame.nearest for frame in reviewed.frames] == [0, None, None]
    with served(reviewed) as client:
        assert client.get(f"/reference/0/screen?token={TOKEN}").headers["content-type"] == "image/jpeg"
        assert "outside" in client.get("/reference/2/screen").text
        assert client.get("/reference/3/screen").status_code == 404
    with pytest.raises(UserError, match="no such folder of references"):
        read_review_set(photos, data=DataConfig(), references=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 pictures"):
        read_review_set(photos, data=DataConfig(), references=tmp_path / "empty")


def test_the_size_is_that_after_exif_and_none_where_there_is_no_picture(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(photos / "turned.jpg", exif=exif)

    assert picture_size(photos / "turned.jpg") == (10, 30)
    assert picture_size(photos / "c.png") is None
    assert picture_size(photos / "gone.png") is None


def test_names_and_captions_are_shown_and_never_run(photos: Path) -> None:
    evil = "<img src=x onerror=alert(1)>'\".png"
    Image.new("RGB", (8, 8)).save(photos / evil)
    (photos / evil).with_suffix(".txt").write_text("</button><script>alert(2)</script>")
    row = {"file": evil, "decision": '"><script>', "why": "<script>3", "reason": "<b>", "scores": {"<i>": 1.0}}
    (photos / "curation.jsonl").write_text(json.dumps(row | {"similarity": 0.5, "group": 1}) + "\n")
    decisions = Decisions(read_review_set(photos, data=DataConfig()))
    frame = next(frame for frame in decisions.set.frames if frame.name == evil)
    decisions.decide([frame.number], "refuse", reason="<u>", duplicate_of="<s>")

    page = (
        fragments.panel(decisions, frame, "run", place="1 / 4", size=(8, 8))
        + fragments.cell(frame, decisions.of(frame.number), "run", current=True)
        + fragments.stage(
            frame,
            decisions.of(frame.number),
            "run",
            size=(8, 8),
            kind="screen",
            reference=fragments.reference(0, 1, evil, "r", nearest=True),
        )
        + fragments.tools(decisions, fragments.Choice(words='"><script>'))
    )

    assert not re.search(r"<(script|img src=x|s>|u>|b><|i>)", page)
    assert re.findall(r"onerror=\w", page.replace("&#x27;", "'")) == ["onerror=a"] * page.count("onerror=")
    assert "<img src=x" not in page


def test_every_key_does_one_thing_and_the_help_shows_it() -> None:
    given = [key for entry in KEYS for key in entry.keys]
    assert len(set(given)) == len(given)
    assert {entry.part for entry in KEYS} == set(PARTS)
    assert [ACTIONS[str(number)] for number in range(1, len(REASONS) + 1)] == ["reason"] * len(REASONS)
    shown = fragments.help_page()
    assert all(entry.says in shown for entry in KEYS)


# The command.


def test_a_port_that_is_taken_is_told(photos: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        done = CliRunner().invoke(app, ["review", str(photos), "--port", str(port), "--no-open"])

    assert isinstance(done.exception, UserError)
    assert done.exception.problem == f"--port {port} is taken by another program, maybe by another review."


def test_without_nicegui_the_line_that_installs_it_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nicegui", None)

    done = CliRunner().invoke(app, ["review", str(photos), "--no-open"])

    assert isinstance(done.exception, UserError)
    assert done.exception.fix == "pip install 'brushwork[studio]'"


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["review", str(tmp_path), "--no-open"])

    assert isinstance(done.exception, UserError)
    assert "no picture in this folder" in done.exception.problem


@pytest.fixture
def command(photos: Path) -> Iterator[subprocess.Popen[str]]:
    """`brushwork review`, begun where there is no browser."""
    environment = {key: value for key, value in os.environ.items() if key not in SCREENS}
    words = [sys.executable, "-m", "brushwork", "review", str(photos)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=photos.parent
    ) as running:
        guard = threading.Timer(120, running.kill)
        guard.start()
        yield running
        guard.cancel()
        running.kill()


def test_the_command_serves_this_machine_alone_and_ends_with_a_line_of_what_was_decided(
    photos: Path, command: subprocess.Popen[str]
) -> None:
    (photos / "review.jsonl").write_text('{"file": "a.png", "decision": "refuse"}\n')
    assert command.stdout is not None
    lines: list[str] = []
    while not any("ssh -L" in line for line in lines):
        lines.append(command.stdout.readline())
        assert lines[-1], lines
    address = next(line.split()[-1] for line in lines if "?token=" in line)
    port = int(re.findall(r":(\d+)/", address)[0])
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    assert "window.bw = " in page
    assert not re.findall(r"(?:src|href)=.https?://", page)  # nothing is fetched from elsewhere
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/")
    with socket.socket() as outside, pytest.raises(OSError, match=r".*"):
        outside.connect((_address_of_this_machine(), port))

    command.send_signal(signal.SIGINT)
    output, errors = command.communicate()

    assert (command.returncode, errors) == (0, "")
    last = f"{photos}: 0 kept, 1 refused, 2 left of 3; written to {photos / 'review.jsonl'}"
    assert output.splitlines()[-1] == last
    assert any("no browser could be opened" in line for line in lines)
    assert read_reviews(photos).keys() == {"a.png"}
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos", "private.png", "secret.txt"]


def _address_of_this_machine() -> str:
    """Under which others see it; where it has no other, one that nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.2"
