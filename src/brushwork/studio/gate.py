"""Who may talk to the page's server: the person who has the address that was printed, in a browser on this machine.

Anything else on the machine may reach the port, and any page of the web may make the browser send something to it. So
each request has to carry the token: in the address the first time, in a cookie from then on. The name of the host and
the origin are looked at too, because a page of the web can have a name that leads to this machine.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

REFUSED = "This page opens with the whole address that the command printed, on the machine where it runs.\n"

_NOTHING_FROM_OUTSIDE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'; connect-src 'self'"
)
"""NiceGUI makes its components from texts in the page, which needs `unsafe-eval`."""


def new_token() -> str:
    """Nothing that anybody could guess."""
    return secrets.token_urlsafe(24)


class Gate:
    """Lets through who has the token; everybody else learns nothing, not even what is served here.

    Args:
        app: what is behind it.
        token: what the address carries.
        port: on this machine.
    """

    def __init__(self, app: App, *, token: str, port: int) -> None:
        self.app = app
        self.token = token
        self.cookie = f"brushwork-{port}"  # browsers do not keep the cookies of ports apart
        self.hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        policy = " ".join([_NOTHING_FROM_OUTSIDE, *(f"ws://{host}" for host in self.hosts)])
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        by_address = self._is_token(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0])
        if not self._is_from_here(headers) or not (by_address or self._is_token(self._in_cookie(headers))):
            await _refuse(scope, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
                if by_address:
                    cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                    message["headers"].append((b"set-cookie", cookie.encode()))
            await send(message)

        await self.app(scope, receive, with_headers)

    def _is_from_here(self, headers: dict[str, str]) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        return host in self.hosts and origin in (None, f"http://{host}")

    def _in_cookie(self, headers: dict[str, str]) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


async def _refuse(scope: Message, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403})
        return
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 403, "headers": plain})
    await send({"type": "http.response.body", "body": REFUSED.encode()})
