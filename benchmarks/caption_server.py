"""A server that speaks OpenAI's language and sees nothing: it answers what it is told to.

    with CaptionServer(answer) as server:
        caption(folder, endpoints=[server.url])

What a real one does wrong can be had from it: it is slow, fails, lies, and closes the connection in the middle.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MODEL = "a-model"


@dataclass(frozen=True)
class Says:
    """What the server does with one request."""

    text: str | None = "A drawn fox on a meadow"
    status: int = 200
    delay: float = 0.0
    """Seconds before anything is sent."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Instead of an answer as it should be."""
    finish: str = "stop"
    refusal: str | None = None
    break_after: int | None = None
    """Close the connection after so many bytes of the body."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""

    def content(self) -> bytes:
        """The body of the answer."""
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": self.text or "an error"}}).encode()
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return json.dumps({"object": "chat.completion", "model": MODEL, "choices": [choice]}).encode()


Answer = Callable[[int, dict[str, Any]], Says]
"""Told the number of the request, from 0, and its body."""


class CaptionServer:
    """Listens on this machine for as long as it is entered.

    Args:
        key: what it wants to be told, if anything.
        models: what it says that it serves; None: it has no such page.
        port: 0 is a free one.
    """

    def __init__(
        self,
        answer: Answer | Says | None = None,
        *,
        key: str | None = None,
        models: list[str] | None = None,
        port: int = 0,
    ) -> None:
        given = Says() if answer is None else answer
        self.answer: Answer = (lambda number, body: given) if isinstance(given, Says) else given
        self.key = key
        self.models: list[str] | None = [MODEL] if models is None else models
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def do_GET(self) -> None:
                outer.headers.append(dict(self.headers))
                if outer.models is None or not self.path.endswith("/models"):
                    self._send(Says("no such page", status=404))
                elif outer.key is not None and self.headers.get("Authorization") != f"Bearer {outer.key}":
                    self._send(Says("Incorrect API key provided", status=401))
                else:
                    data = {"object": "list", "data": [{"id": name, "object": "model"} for name in outer.models]}
                    self._send(Says(body=json.dumps(data).encode()))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.headers.append(dict(self.headers))
                    outer._at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer._at_once)
                try:
                    if outer.key is not None and self.headers.get("Authorization") != f"Bearer {outer.key}":
                        says = Says("Incorrect API key provided", status=401)
                    else:
                        says = outer.answer(number, body)
                    time.sleep(says.delay)
                finally:  # before the answer goes out: who has it may ask the next thing at once
                    with outer._lock:
                        outer._at_once -= 1
                self._send(says)

            def _send(self, says: Says) -> None:
                content = says.content()
                try:
                    self.send_response(says.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in says.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if says.break_after is not None:
                        self.wfile.write(content[: says.break_after])
                        self.close_connection = True
                        return
                    for start in range(0, len(content), 1 if says.drip else len(content)):
                        self.wfile.write(content[start : start + (1 if says.drip else len(content))])
                        self.wfile.flush()
                        time.sleep(says.drip)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the other side gave up waiting

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody is told."""

        return Handler
