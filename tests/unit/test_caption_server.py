"""Asking a server that is slow, fails, lies and cuts off: a caption is what it said, or there is none."""

import base64
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from typing import Any

import pytest
from PIL import Image

from benchmarks.caption_server import CaptionServer, Says
from brushwork.captioning import server as server_module
from brushwork.captioning.captioner import Asked, NoAnswerError, Reply
from brushwork.captioning.server import Servers, normal_url
from brushwork.config.schema import CaptioningConfig
from brushwork.errors import UserError

CONFIG = CaptioningConfig(wait=0.01, timeout=2.0, retries=2)
SOLID = Image.new("RGB", (300, 200), "red")


def ask(servers: Servers, prompt: str = "What is it?", **changed: Any) -> Reply:
    given = {"name": "a.png", "part": "description", "picture": servers.prepare(SOLID), "prompt": prompt}
    return servers.ask([Asked(**{**given, "max_tokens": 20, "temperature": 0.0, "seed": 7, **changed})])[0]


def in_turn(*says: Says) -> Any:
    """The first request gets the first answer, and so on; the last one is repeated."""
    return lambda number, body: says[min(number, len(says) - 1)]


def test_a_request_holds_the_picture_the_question_and_the_models_name() -> None:
    with CaptionServer(Says("A fox")) as fake:
        reply = ask(Servers([fake.url], None, CaptioningConfig(side=100, wait=0.01)))

    assert reply == Reply("A fox")
    sent = fake.requests[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["seed"]) == ("a-model", 20, 0.0, 7)
    picture, text = sent["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    head, data = picture["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.size == (100, 67)
    assert all(abs(found - wanted) < 8 for found, wanted in zip(shown.getpixel((50, 30)), (255, 0, 0), strict=True))


@pytest.mark.parametrize(
    "bad",
    [
        Says(status=500),
        Says(status=503),
        Says(status=429, headers={"Retry-After": "0"}),
        Says(body=b"<html>gateway</html>"),
        Says(body=b'{"choices": []}'),
        Says(body=b'{"choices": [{"message": {"content": 5}}]}'),
        Says(body=b"[1, 2"),
        Says(body=b""),
        Says(break_after=20),
        Says(break_after=0),
    ],
    ids=["500", "503", "429", "html", "no-choices", "number", "half-json", "nothing", "broken-off", "closed"],
)
def test_a_slip_of_the_server_is_asked_again_and_the_answer_after_it_counts(bad: Says) -> None:
    with CaptionServer(in_turn(bad, bad, Says("A fox"))) as fake:
        assert ask(Servers([fake.url], None, CONFIG)).text == "A fox"

    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Says("the model crashed", status=500), "500 Internal Server Error: the model crashed"),
        (Says(body=b"<html>gateway</html>"), "not JSON.*gateway"),
        (Says(body=b'{"error": {"message": "no vision"}}'), r"without choices \(no vision\)"),
        (Says(break_after=20), "closed after 20 of"),
    ],
)
def test_what_never_gets_better_is_told_with_what_the_server_said(bad: Says, told: str) -> None:
    with CaptionServer(bad) as fake:
        with pytest.raises(NoAnswerError, match=told) as error:
            ask(Servers([fake.url], None, CONFIG))
        assert error.value.of_server
    assert len(fake.requests) == 3


def test_a_picture_that_the_server_will_not_take_is_not_sent_again() -> None:
    with (
        CaptionServer(Says("image too large", status=400)) as fake,
        pytest.raises(NoAnswerError, match="400 Bad Request: image too large"),
    ):
        ask(Servers([fake.url], None, CONFIG))
    assert len(fake.requests) == 1


def test_waits_grow_and_a_server_that_names_its_own_is_left_alone_so_long() -> None:
    with CaptionServer(in_turn(Says(status=500), Says(status=500), Says("A fox"))) as fake:
        began = time.monotonic()
        ask(Servers([fake.url], None, CaptioningConfig(wait=0.1, retries=2)))
        assert 0.3 <= time.monotonic() - began < 1  # 0.1 + 0.2
    with CaptionServer(in_turn(Says(status=429, headers={"Retry-After": "0.4"}), Says("A fox"))) as fake:
        began = time.monotonic()
        ask(Servers([fake.url], None, CaptioningConfig(wait=0.01, retries=1)))
        assert 0.4 <= time.monotonic() - began < 1


def test_a_retry_after_may_be_a_date() -> None:
    headers = Message()
    headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert server_module._retry_after(headers) == pytest.approx(30, abs=2)
    headers.replace_header("Retry-After", "soon")
    assert server_module._retry_after(headers) is None


@pytest.mark.parametrize("slow", [Says(delay=1.0), Says(drip=0.05)], ids=["silent", "dripping"])
def test_a_server_that_takes_too_long_is_given_up(slow: Says) -> None:
    with CaptionServer(slow) as fake:
        servers = Servers([fake.url], None, CaptioningConfig(wait=0.01, timeout=0.3, retries=1))
        began = time.monotonic()
        with pytest.raises(NoAnswerError, match=r"time limit \(captioning\.timeout\) \(2 times\)"):
            ask(servers)
        assert time.monotonic() - began < 2


def test_a_cut_answer_and_a_refusal_are_marked_as_such() -> None:
    with CaptionServer(in_turn(Says("A fox on a", finish="length"), Says(None, refusal="I won't."))) as fake:
        servers = Servers([fake.url], None, CONFIG)
        assert ask(servers) == Reply("A fox on a", cut=True)
        assert ask(servers) == Reply("I won't.", refused=True)
    with CaptionServer(in_turn(Says("x", finish="content_filter"), Says(None))) as fake:
        servers = Servers([fake.url], None, CONFIG)
        assert ask(servers).refused
        assert ask(servers) == Reply("")
    parts = b'{"choices": [{"message": {"content": [{"type": "text", "text": "A "}, {"text": "fox"}]}}]}'
    with CaptionServer(Says(body=parts)) as fake:
        assert ask(Servers([fake.url], None, CONFIG)).text == "A fox"


def test_where_one_of_two_servers_dies_the_other_does_its_work() -> None:
    with CaptionServer(Says("from the first")) as first, CaptionServer(Says("from the second")) as second:
        servers = Servers([first.url, second.url], None, CONFIG)
        first.close()
        assert [ask(servers).text for _ in range(4)] == ["from the second"] * 4
    assert servers.num_workers == 16


def test_many_threads_are_served_at_once_and_shared_between_the_servers() -> None:
    with CaptionServer(Says(delay=0.2)) as first, CaptionServer(Says(delay=0.2)) as second:
        servers = Servers([first.url, second.url], None, CONFIG)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: ask(servers), range(8)))
        assert time.monotonic() - began < 1.0  # one after the other: 1.6
    assert len(first.requests) == len(second.requests) == 4


def test_the_key_comes_from_the_environment_and_stands_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CaptioningConfig(wait=0.01, retries=0, key_variable="A_KEY")
    with CaptionServer(Says("A fox"), key="secret-1") as fake:
        monkeypatch.delenv("A_KEY", raising=False)
        with pytest.raises(UserError, match=r"refused no key .*\n.*export A_KEY="):
            Servers([fake.url], None, config)
        monkeypatch.setenv("A_KEY", "secret-2")
        with pytest.raises(UserError, match="refused the key in A_KEY") as error:
            Servers([fake.url], None, config)
        assert "secret" not in str(error.value)
        monkeypatch.setenv("A_KEY", "secret-1")
        assert ask(Servers([fake.url], None, config)).text == "A fox"
        assert fake.headers[-1]["Authorization"] == "Bearer secret-1"


@pytest.mark.parametrize("status", [302, 303, 307])
def test_a_key_is_not_carried_to_where_a_server_sends_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with CaptionServer(Says("never")) as other:
        on = Says(status=status, headers={"Location": other.url + "/chat/completions"})
        with CaptionServer(on) as fake, pytest.raises(UserError, match="sends on to http"):
            ask(Servers([fake.url], None, CONFIG))
    assert other.headers == []  # nobody came


def test_before_the_long_part_it_is_told_that_nobody_is_there_or_serves_that_model() -> None:
    with pytest.raises(UserError, match=r"nothing that can be used answers at http://127\.0\.0\.1:9/v1.*refused"):
        Servers(["127.0.0.1:9"], "m", CONFIG)
    with CaptionServer(models=["qwen2-vl", "llava"]) as fake:
        with pytest.raises(UserError, match=r"serves qwen2-vl, llava.\n.*--model qwen2-vl"):
            Servers([fake.url], None, CONFIG)
        with pytest.raises(UserError, match=r"does not serve 'qwen2vl'.*\n.*--model qwen2-vl"):
            Servers([fake.url], "qwen2vl", CONFIG)
    with CaptionServer() as fake:
        fake.models = None
        with pytest.raises(UserError, match="no model that it names"):
            Servers([fake.url], None, CONFIG)
        assert ask(Servers([fake.url], "any", CONFIG)).text


def test_an_address_may_be_written_as_people_do() -> None:
    assert normal_url("127.0.0.1:8000") == "http://127.0.0.1:8000/v1"
    assert normal_url("http://localhost:11434/v1/") == "http://localhost:11434/v1"
    assert normal_url("https://host/api/v1/chat/completions") == "https://host/api/v1"
    for wrong in ("ftp://host", "http://", "", "http://me:secret@host/v1"):
        with pytest.raises(UserError, match="--endpoint") as error:
            normal_url(wrong)
        assert "secret" not in str(error.value)


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with CaptionServer(Says("A fox")) as fake:
        assert ask(Servers([fake.url], None, CONFIG)).text == "A fox"
    assert "http_proxy" in os.environ
