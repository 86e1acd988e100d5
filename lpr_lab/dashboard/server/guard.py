"""Checks Host, Origin, token and body size; blocks unused endpoints.

A local server is reachable from every web page that a browser has open. Gradio checks neither the `Host` header (so a
page elsewhere can rebind its own name to 127.0.0.1) nor the origin of uploads (so any page can fill the disk), bounds
neither bodies nor how much is asked at once, and sends no protective headers.
"""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from lpr_lab.dashboard.server.request_limits import Limits, RequestLimiter, TooManyError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 1_000_000
BODY_SECONDS = 20.0
"""How long a body may take to arrive."""

# Gradio runs inline scripts and compiles templates, hence 'unsafe-inline' and 'unsafe-eval'; nothing may come from or
# go to anywhere else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_API = "/gradio_api/"
_UNUSED = (
    *("upload", "proxy=", "file=http", "component_server", "vibe-", "deep_link", "run-history", "custom_component"),
    *("login", "logout", "monitoring"),
)
_STREAMS = ("heartbeat/", "queue/data", "stream/", "mcp", "call/")
_ACTIONS = ("run/", "api/", "queue/join", "call/", "mcp")
_DIRECT = ("run/", "api/")
_STARTUP = f"{_API}startup-events"
"""What gradio asks itself when it starts; it does nothing a second time."""


class Guard:
    """ASGI middleware that checks every request before the app sees it, and limits how many are answered at once.

    Args:
        app: the ASGI application behind it.
        hosts: accepted host names; with a token any name, since a cookie is bound to its name.
        token: required where others than this machine can connect.
        limits: on concurrent requests.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...], token: str | None = None, limits: Limits | None = None):
        self.app = app
        self.hosts = hosts
        self.token = token
        self.limiter = RequestLimiter(limits or Limits())
        self.cookie = "" if token is None else f"lpr_lab_{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal in one sentence."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the pages use no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, query = scope["path"], scope.get("query_string", b"").decode("latin-1")
        refusal = self.refusal(scope["method"], path, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        if self.token is not None and self._brings_token(query):
            await _answer(send, 303, "", self._welcome(path, query))
            return
        if self.token is not None and path != _STARTUP and not self._is_known(headers):
            await _answer(send, 401, "Open the address with ?token=… that was printed when this dashboard was started.")
            return
        sent = False

        async def send_with_headers(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                sent = True
                theirs = [pair for pair in message.get("headers", []) if pair[0].lower() not in _HEADERS]
                message["headers"] = [*theirs, *_HEADERS.items()]
            await send(message)

        try:
            async with self._place(scope, path):
                body = await _whole_body(receive)
                if isinstance(body, tuple):
                    await _answer(send, *body)
                    return
                await self.app(scope, _replay(body, receive), _in_words(path, send_with_headers))
        except TooManyError as error:
            if sent:
                raise
            await _answer(send, 503, f"{error} Try again in a moment.", {b"retry-after": b"2"})

    def _place(self, scope: Scope, path: str) -> AbstractAsyncContextManager[None]:
        address = (scope.get("client") or ("",))[0]
        endpoint = path.removeprefix(_API) if path.startswith(_API) else None
        if endpoint is not None and endpoint.startswith(_STREAMS) and scope["method"] == "GET":
            return self.limiter.stream(address)
        is_action = endpoint is not None and endpoint.startswith(_ACTIONS) and scope["method"] == "POST"
        return self.limiter.request(address, is_action=is_action)

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the sentence to refuse with, or None."""
        name = _host_name(f"//{headers.get('host', '')}")  # a Host header has no scheme
        if name is None or (self.token is None and name not in self.hosts):
            return 421, "This dashboard answers only as 127.0.0.1 or localhost."
        hosts = self.hosts if self.token is None else (name,)
        if headers.get("origin", "null") != "null" and _host_name(headers["origin"]) not in hosts:
            return 403, "Requests from other sites are refused."
        fetched_by = headers.get("sec-fetch-site", "none")
        navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if fetched_by in ("cross-site", "same-site") and not navigates:
            return 403, "Requests from other sites are refused."
        if ".." in re.split(r"[/\\=]", unquote(path)) or "\x00" in unquote(path):
            return 404, "There is no such page."
        if path.startswith(_API) and path.removeprefix(_API).startswith(_UNUSED):
            return 404, "There is no such endpoint here."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
            return 413, f"At most {MAX_BODY_BYTES:,} bytes are taken."
        return None

    # The token, where others than this machine can connect

    def _brings_token(self, query: str) -> bool:
        return any(key == "token" and self._is_token(value) for key, value in parse_qsl(query))

    def _is_token(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _is_known(self, headers: dict[str, str]) -> bool:
        """Say whether a request carries the token: in the cookie of a first visit, or as a program does."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in cookies and self._is_token(cookies[self.cookie].value)

    def _welcome(self, path: str, query: str) -> dict[bytes, bytes]:
        """Leave the token in a cookie and lead to the same page without it, so that no copied link contains it."""
        rest = urlencode([(key, value) for key, value in parse_qsl(query) if key != "token"])
        place = "/" + quote(path.lstrip("/\\"), safe="/") + (f"?{rest}" if rest else "")
        # Lax, so that links in messages lead in; what acts is refused from other sites above.
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        return {b"location": place.encode("latin-1"), b"set-cookie": cookie.encode(), b"cache-control": b"no-store"}


def _in_words(path: str, send: Send) -> Send:
    """Return a `send` that answers a call with bad values by what is wrong with them, as the caller's mistake.

    gradio answers a direct call that fails with status 500, and where it failed before the function was reached, with
    no word at all.
    """
    if not path.startswith(_API) or not path.removeprefix(_API).startswith(_DIRECT):
        return send
    held: list[Message] = []

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 500:
            held.append(message)
        elif not held or message["type"] != "http.response.body":
            await send(message)
        else:
            held.append(message)
            if not message.get("more_body"):
                body = _with_a_word(b"".join(part.get("body", b"") for part in held[1:]))
                headers = [(name, value) for name, value in held[0]["headers"] if name.lower() != b"content-length"]
                headers.append((b"content-length", str(len(body)).encode()))
                await send({**held[0], "status": 422, "headers": headers})
                await send({"type": "http.response.body", "body": body})

    return answer


def _with_a_word(body: bytes) -> bytes:
    """Return the body of an error with a sentence in it, if it had none."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    found = found if isinstance(found, dict) else {}
    if not found.get("error"):
        found["error"] = (
            f"These values do not fit this endpoint. {_API}info lists what it takes; the log of the dashboard says "
            "where it failed."
        )
    return json.dumps(found, ensure_ascii=False).encode()


async def _answer(send: Send, status: int, sentence: str, more: dict[bytes, bytes] | None = None) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS.items(), *(more or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": sentence.encode()})


async def _whole_body(receive: Receive) -> bytes | tuple[int, str]:
    """Read a body, whether or not its length was announced; return the refusal when it is too long or too slow."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return b""  # the visitor went away; the app will see the same
                part = message.get("body", b"")
                size += len(part)
                if size > MAX_BODY_BYTES:
                    return 413, f"At most {MAX_BODY_BYTES:,} bytes are taken."
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        return 408, "The request did not arrive in time."


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read already, then what comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _host_name(origin: str) -> str | None:
    """Return the host of an origin or of a `Host` header, without port and brackets; None when there is none."""
    try:
        return urlsplit(origin if "//" in origin else f"//{origin}").hostname
    except ValueError:
        return None
