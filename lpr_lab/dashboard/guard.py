"""What stands before the app: only this machine, only this page, and nothing that the pages do not use.

A local server is reachable from every web page that a browser has open. Gradio checks neither the `Host` header (so a
page elsewhere can rebind its own name to 127.0.0.1) nor the origin of uploads (so any page can fill the disk).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 1_000_000

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
}
_UNUSED = ("upload", "proxy=", "file=http", "component_server", "vibe-", "deep_link")


class Guard:
    """ASGI middleware: refuses other hosts, other origins, unused doors and large bodies; adds protective headers."""

    def __init__(self, app: Any, hosts: tuple[str, ...]):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal in one sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self.refusal(scope["method"], scope["path"], headers)
        if refusal is not None:
            status, sentence = refusal
            head = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS.items()]
            await send({"type": "http.response.start", "status": status, "headers": head})
            await send({"type": "http.response.body", "body": sentence.encode()})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the sentence to refuse with, or None."""
        host = headers.get("host", "")
        if _host_name(host) not in self.hosts:
            return 421, "This dashboard answers only as 127.0.0.1 or localhost."
        if headers.get("origin", "null") != "null" and _host_name(headers["origin"]) not in self.hosts:
            return 403, "Requests from other sites are refused."
        fetched_by = headers.get("sec-fetch-site", "none")
        navigates = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if fetched_by in ("cross-site", "same-site") and not navigates:
            return 403, "Requests from other sites are refused."
        if path.startswith("/gradio_api/") and path.removeprefix("/gradio_api/").startswith(_UNUSED):
            return 404, "There is no such door here."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"At most {MAX_BODY_BYTES:,} bytes are taken."
        return None


def _host_name(origin: str) -> str | None:
    """Return the host of an origin or of a `Host` header, without port and brackets; None when there is none."""
    try:
        return urlsplit(origin if "//" in origin else f"//{origin}").hostname
    except ValueError:
        return None
