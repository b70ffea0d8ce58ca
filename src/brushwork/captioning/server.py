"""Asking servers that speak OpenAI's language: vLLM, Ollama, llama.cpp, LM Studio, and OpenAI's own.

    POST URL/chat/completions       one picture, one question
    GET  URL/models                 what is served there

A server may be slow, busy, restarted or lie; a request is sent again with growing waits, to another server where
there are several. Only the standard library is needed.
"""

import base64
import io
import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from PIL import Image

from brushwork.captioning.captioner import Asked, NoAnswerError, Reply, reduced
from brushwork.config.schema import CaptioningConfig
from brushwork.errors import UserError, listed, nearest

MOST_BYTES = 16 * 2**20
"""Of an answer: a server that sends more has gone wrong."""

LONGEST_WAIT = 300.0
"""Seconds. A server that asks for a longer pause is asked again after this one."""

QUALITY = 92
"""Of the JPEG that is sent: nothing that a caption tells is lost, at a tenth of a PNG's size."""

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Status codes after which asking again helps."""


class _BusyError(Exception):
    """Asking again may help.

    Args:
        wait: seconds that the server asks for.
        for_all: whether no other request should be sent there meanwhile; else it may be this picture that is
            at fault.
    """

    def __init__(self, reason: str, *, wait: float | None = None, for_all: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.for_all = for_all


class _NoRedirect(HTTPRedirectHandler):
    """A key that is meant for one server must not be carried to another."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass
class _Server:
    """One of the servers: how busy it is, and until when it is left alone."""

    url: str
    opener: OpenerDirector
    in_flight: int = 0
    rests_until: float = 0.0


@final
class Servers:
    """Everything that is needed to have pictures described by servers; many threads may ask at once.

    Args:
        urls: as typed: with or without `/v1` and what follows it.
        model: its name there; may be left out where every server has a single one.
    """

    takes_questions = True

    def __init__(self, urls: Sequence[str], model: str | None, config: CaptioningConfig) -> None:
        self.config = config
        self.num_workers = config.requests * len(urls)
        self.batch_size = 1
        self._key = os.environ.get(config.key_variable, "")
        self._servers = [_Server(url, _opener(url)) for url in dict.fromkeys(map(normal_url, urls))]
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.model = self._checked_model(model)
        self.name = f"{self.model} at {listed([server.url for server in self._servers])}"

    def prepare(self, picture: Image.Image) -> str:
        """A picture as the address of itself, which is sent with each question."""
        data = io.BytesIO()
        reduced(picture, self.config.side).convert("RGB").save(data, format="JPEG", quality=QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """One request for each question, one after the other; more at once come from more threads."""
        return [self._reply(each) for each in asked]

    def stop(self) -> None:
        """End all waiting: nobody wants the answers any more."""
        self._stopped.set()

    def _reply(self, asked: Asked) -> Reply:
        picture = {"type": "image_url", "image_url": {"url": asked.picture}}
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": [picture, {"type": "text", "text": asked.prompt}]}],
            "max_tokens": asked.max_tokens,
            "temperature": asked.temperature,
            "seed": asked.seed % 2**31,
        }
        reason, last = "", None
        for attempt in range(self.config.retries + 1):
            server = self._free_server(last)
            try:
                return _read_reply(self._sent(server, "/chat/completions", body))
            except _BusyError as busy:
                reason, last = f"{server.url}: {busy}", server
                pause = min(self.config.wait * 2**attempt if busy.wait is None else busy.wait, LONGEST_WAIT)
                if busy.for_all:
                    self._let_rest(server, pause)
                elif attempt < self.config.retries:
                    self._stopped.wait(pause)
            finally:
                with self._lock:
                    server.in_flight -= 1
            if self._stopped.is_set():
                break
        raise NoAnswerError(f"{reason} ({self.config.retries + 1} times)", of_server=True)

    def _free_server(self, last: _Server | None) -> _Server:
        """The least busy of those that do not rest, rather another than the last; waits for one where all do."""
        while True:
            with self._lock:
                now = time.monotonic()
                server = min(
                    self._servers, key=lambda each: (max(each.rests_until - now, 0), each is last, each.in_flight)
                )
                pause = server.rests_until - now
                if pause <= 0 or self._stopped.is_set():
                    server.in_flight += 1
                    return server
            self._stopped.wait(pause)

    def _let_rest(self, server: _Server, pause: float) -> None:
        with self._lock:
            server.rests_until = max(server.rests_until, time.monotonic() + pause)

    def _sent(self, server: _Server, path: str, body: Mapping[str, Any] | None) -> Any:
        """What a server answers, as JSON.

        Raises:
            _BusyError: asking again may help.
            NoAnswerError: not for this picture.
            UserError: not for any.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            text = self._read(server, Request(server.url + path, data, headers))
        except HTTPError as error:
            raise self._meaning(server, error) from None  # the error holds the request, and that the key
        except URLError as error:
            raise _BusyError(_reason(error.reason), for_all=True) from error
        except (OSError, HTTPException) as error:
            raise _BusyError(_reason(error)) from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise _BusyError(f"an answer that is not JSON ({_short(text)})") from error

    def _read(self, server: _Server, request: Request) -> bytes:
        """The whole answer, within the time limit: one that drips in is no answer."""
        ends = time.monotonic() + self.config.timeout
        text = b""
        with server.opener.open(request, timeout=self.config.timeout) as response:
            while piece := response.read1(65536):
                text += piece
                if time.monotonic() > ends:
                    raise TimeoutError
                if len(text) > MOST_BYTES:
                    raise _BusyError(f"an answer of more than {MOST_BYTES >> 20} MiB")
            length = response.headers.get("Content-Length")
        if length is not None and length.isdigit() and len(text) < int(length):
            raise _BusyError(f"the connection was closed after {len(text)} of {length} bytes")
        return text

    def _meaning(self, server: _Server, error: HTTPError) -> Exception:
        """What a status code calls for: asking again, leaving this picture, or stopping."""
        with error:
            told = _told(error.read(65536))
        said = f"{error.code} {error.reason}" + (f": {told}" if told else "")
        if error.code in BUSY:
            wait = _retry_after(error.headers)
            return _BusyError(said, wait=wait, for_all=wait is not None or error.code in (429, 503))
        if error.code in (401, 403):
            given = f"the key in {self.config.key_variable}" if self._key else "no key"
            return UserError(
                f"{server.url} refused {given} ({said}).", fix=f"export {self.config.key_variable}=THE-SERVERS-KEY"
            )
        if error.code in (301, 302, 303, 307, 308):
            return UserError(
                f"{server.url} sends on to {error.headers.get('Location')}; a key is not carried on to there.",
                fix="name that address as --endpoint",
            )
        if error.code in (404, 405):
            return UserError(
                f"{server.url} has no such page or model ({said}).",
                fix="an endpoint ends in /v1, e.g. http://127.0.0.1:8000/v1; its models are at /v1/models",
            )
        return NoAnswerError(f"{server.url}: {said}", of_server=True)

    def _checked_model(self, model: str | None) -> str:
        """The model to ask for; every server is seen to be there before the long part begins."""
        for server in self._servers:
            served = self._served(server)
            if model is None:
                if len(served) != 1:
                    raise UserError(
                        f"{server.url} serves {listed(served) or 'no model that it names'}.",
                        fix=f"--model {served[0] if served else 'NAME'}",
                    )
                model = served[0]
            elif served and model not in served and f"{model}:latest" not in served:
                near = nearest(model, served)
                raise UserError(
                    f"{server.url} does not serve {model!r}; it serves {listed(served)}.",
                    fix=f"--model {near or served[0]}",
                )
        assert model is not None  # there is at least one server
        return model

    def _served(self, server: _Server) -> list[str]:
        """The names of a server's models; none where it does not tell them."""
        try:
            found = self._sent(server, "/models", None)
        except _BusyError as error:
            raise UserError(
                f"nothing that can be used answers at {server.url}: {error}.",
                fix="start the server, e.g. `vllm serve Qwen/Qwen2.5-VL-7B-Instruct`, or `ollama serve` "
                "(http://127.0.0.1:11434/v1)",
            ) from error
        except NoAnswerError:
            return []
        except UserError as error:
            if "no such page" in error.problem:
                return []
            raise
        rows = found.get("data") if isinstance(found, dict) else None
        names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [name for name in names if isinstance(name, str)]


def normal_url(url: str) -> str:
    """`127.0.0.1:8000` -> `http://127.0.0.1:8000/v1`; one that has a path keeps it."""
    url = url.strip().rstrip("/")
    if not re.match(r"https?://", url):
        if "://" in url or not re.match(r"([\w.-]+|\[[\w:]+\])(:\d+)?(/|$)", url):
            raise UserError(f"--endpoint {url!r}: not an address.", fix="--endpoint http://127.0.0.1:8000/v1")
        url = "http://" + url
    url = url.removesuffix("/chat/completions")
    parts = urlsplit(url)
    if parts.hostname is None or parts.username is not None:
        raise UserError(
            f"--endpoint {parts.scheme}://{parts.hostname or ''}: the address of a server was expected, without a "
            "name or password in it.",
            fix="--endpoint http://127.0.0.1:8000/v1; a key is read from the environment (captioning.key_variable)",
        )
    return url if parts.path else url + "/v1"


def _opener(url: str) -> OpenerDirector:
    """Proxies of the environment lead out of a network: a server on this machine is asked directly."""
    here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")
    return build_opener(_NoRedirect(), ProxyHandler({} if here else None))


def _read_reply(found: Any) -> Reply:
    """The text of an answer, and whether it was cut; what has none is taken for a slip of the server."""
    try:
        choice = found["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        told = _told(json.dumps(found).encode()) or _short(json.dumps(found).encode())
        raise _BusyError(f"an answer without choices ({told})") from error
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise _BusyError(f"an answer whose content is no text but {type(content).__name__}")
    ended = choice.get("finish_reason")
    refused = bool(refusal) or ended == "content_filter"
    return Reply((content or refusal or ""), cut=ended == "length", refused=refused)


def _retry_after(headers: Message) -> float | None:
    """Seconds that a server asks to be left alone: a number, or a date."""
    value = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _told(body: bytes) -> str:
    """The sentence in a server's error, wherever it puts it."""
    try:
        found = json.loads(body)
    except ValueError:
        return _short(body)
    for _ in range(3):
        if not isinstance(found, dict):
            break
        found = next((found[key] for key in ("error", "message", "detail") if found.get(key)), None)
    return " ".join(found.split())[:300] if isinstance(found, str) else ""


def _short(body: bytes) -> str:
    return " ".join(body[:80].decode("utf-8", "replace").split()) or "nothing"


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer within the time limit (captioning.timeout)"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
